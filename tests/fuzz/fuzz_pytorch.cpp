// Opens any bytes as a file of torch.save and reads all tensors. Opening stays within a small multiple of the file's
// length.
#include <optional>

#include "memory_bound.hpp"
#include "memory_file.hpp"
#include "strata/io/pytorch_file.hpp"

namespace st = strata;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  try {
    std::optional<st::PytorchFile> file;
    {
      const fuzz::MemoryBound bound(size);
      file.emplace(fuzz::memory_file(bytes, size));
    }
    for (const st::TensorInfo& tensor : file->tensors()) {
      if (file->find(tensor.name) != &tensor) std::abort();
      if (tensor.shape.size() > 1'000'000) continue;  // one that repeats its elements: correct, and slow
      try {
        (void)file->read<float>(tensor);
        if (st::detail::is_integer(tensor.dtype)) (void)file->read<std::int64_t>(tensor);
        if (!tensor.unreadable.empty()) std::abort();
      } catch (const st::FileError&) {
        if (tensor.unreadable.empty()) throw;
      }
    }
    file->verify_checksums();
  } catch (const st::FileError&) {
  }
  return 0;
}
