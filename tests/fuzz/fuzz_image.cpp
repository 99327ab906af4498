// Loads any bytes as a picture, in grey and in colour.
#include "memory_file.hpp"
#include "strata/data/image_file.hpp"

namespace st = strata;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto path = fuzz::memory_file(bytes, size);
  const st::LoadOptions options{.max_pixels = 1 << 16};
  try {
    (void)st::read_image_info(path);
    (void)st::load_image<1>(path, options);
  } catch (const st::FileError&) {
  }
  try {
    (void)st::load_image<3>(path, options);
  } catch (const st::FileError&) {
  }
  return 0;
}
