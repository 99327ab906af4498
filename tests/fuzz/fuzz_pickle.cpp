// Unpickles any bytes: what is behind the archive in a file of torch.save, without the archive in the way. Whatever
// they name, memory stays within a small multiple of their length.
#include "memory_bound.hpp"
#include "memory_file.hpp"
#include "strata/io/detail/pickle.hpp"
#include "strata/io/detail/pytorch_dicts.hpp"

namespace st = strata;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const std::string path = "input";
  const fuzz::MemoryBound bound(size);
  try {
    st::detail::Unpickler pickle(std::as_bytes(std::span(bytes, size)), path);
    while (pickle.position() < size) {
      const st::detail::PickleId top = pickle.load();
      st::detail::DictSearch search(pickle, top);
      (void)search.usual();
      (void)search.under("model.state_dict");
      if (search.listing().size() > 30'000) std::abort();
    }
  } catch (const st::FileError&) {
  }
  return 0;
}
