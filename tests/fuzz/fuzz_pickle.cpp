// Unpickles any bytes: what is behind the archive in a file of torch.save, without the archive in the way.
#include "memory_file.hpp"
#include "strata/io/detail/pickle.hpp"

namespace st = strata;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static const std::string path = "input";
  try {
    st::detail::Unpickler pickle(std::as_bytes(std::span(bytes, size)), path);
    while (pickle.position() < size) (void)pickle.at(pickle.load());
  } catch (const st::FileError&) {
  }
  return 0;
}
