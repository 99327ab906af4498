// Loads any bytes as a picture, in grey and in colour, and a part of it. Few changed bytes get past a PNG file's checksums:
// what comes behind them, decompression and the filters, gets the bytes themselves too.
#include <algorithm>
#include <vector>

#include "memory_file.hpp"
#include "strata/data/image_file.hpp"

namespace st = strata;

namespace {

template <class Load>
void refusing(Load&& load) {
  try {
    load();
  } catch (const st::FileError&) {
  } catch (const st::detail::BadImage&) {
  }
}

/// The stream as pixels of Step bytes in rows of seven; all of them, and the beginning.
template <std::size_t Step>
void decode_pixels(const std::uint8_t* bytes, std::size_t size) {
  constexpr std::size_t h = 40, row_bytes = 7 * Step, padding = st::detail::inflate_padding;
  std::vector<unsigned char> input(bytes, bytes + size), filtered(h * (row_bytes + 1) + padding), pixels(h * row_bytes);
  input.resize(size + padding);
  for (const std::size_t rows : {h, h - 3})
    refusing([&] {
      st::detail::inflate_zlib(input.data(), size, filtered.data(), rows * (row_bytes + 1), rows < h);
      for (std::size_t y = 0; y < h; ++y) filtered[y * (row_bytes + 1)] %= 6;
      st::detail::png_unfilter<Step>(filtered.data(), rows, row_bytes, rows < h ? 2 * Step : row_bytes, pixels.data());
    });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const auto path = fuzz::memory_file(bytes, size);
  const st::LoadOptions options{.max_pixels = 1 << 16};
  refusing([&] {
    (void)st::read_image_info(path);
    (void)st::load_image<1>(path, options);
  });
  refusing([&] { (void)st::load_image_part<1>(path, 1, 2, 3, 5, options); });
  refusing([&] { (void)st::load_image<3>(path, options); });
  decode_pixels<1>(bytes, size);
  decode_pixels<3>(bytes, size);
  return 0;
}
