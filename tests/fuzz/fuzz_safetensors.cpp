// Opens any bytes as a safetensors file and reads all tensors, as each type, within a small multiple of the file's
// length.
#include "memory_bound.hpp"
#include "memory_file.hpp"
#include "strata/io/safetensors.hpp"

namespace st = strata;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const fuzz::MemoryBound bound(size);
  try {
    const st::SafetensorsFile file(fuzz::memory_file(bytes, size));
    for (const st::TensorInfo& tensor : file.tensors()) {
      if (!tensor.unreadable.empty()) continue;
      (void)file.read<float>(tensor);
      (void)file.read<double>(tensor);
      if (st::detail::is_integer(tensor.dtype)) (void)file.read<std::int64_t>(tensor);
    }
    if (file.has_checksum()) file.verify_checksum();
  } catch (const st::FileError&) {
  }
  return 0;
}
