// Opens any bytes as a file of torch.save and reads all tensors.
#include "memory_file.hpp"
#include "strata/io/pytorch_file.hpp"

namespace st = strata;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  try {
    const st::PytorchFile file(fuzz::memory_file(bytes, size));
    for (const st::TensorInfo& tensor : file.tensors()) {
      if (tensor.shape.size() > 1'000'000) continue;  // one that repeats its elements: correct, and slow
      (void)file.read<float>(tensor);
      if (st::detail::is_integer(tensor.dtype)) (void)file.read<std::int64_t>(tensor);
    }
    file.verify_checksums();
  } catch (const st::FileError&) {
  }
  return 0;
}
