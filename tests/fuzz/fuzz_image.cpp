// Loads any bytes as a picture: its header, as the file holds it, and as an image of one or three channels; what it
// says beside its pixels is written to files and read again. The checksums of a PNG file's chunks are put right first,
// so that the fuzzer sees what is behind them; decompression and the filters get the bytes themselves too. Every
// allocation is in proportion to the input, without any limit on pixels too.
#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "memory_bound.hpp"
#include "memory_file.hpp"
#include "strata/data/raw_image.hpp"

namespace st = strata;

namespace {

void repair_checksums(std::vector<std::uint8_t>& bytes) {
  for (std::size_t at = 8; at + 12 <= bytes.size();) {
    const std::size_t length = st::detail::big_endian(st::detail::Bytes(bytes).subspan(at, 4));
    if (length > bytes.size() - at - 12) return;
    const std::uint32_t crc = st::crc32(st::detail::Bytes(bytes).subspan(at + 4, length + 4));
    for (std::size_t i = 0; i < 4; ++i) bytes[at + 8 + length + i] = std::uint8_t(crc >> (24 - 8 * i));
    at += 12 + length;
  }
}

/// The stream as pixels of Step bytes in rows of seven; all of them, and the beginning.
template <std::size_t Step>
void decode_pixels(const std::uint8_t* bytes, std::size_t size) {
  constexpr std::size_t h = 40, row_bytes = 7 * Step, padding = st::detail::inflate_padding;
  std::vector<unsigned char> input(bytes, bytes + size), filtered(h * (row_bytes + 1) + padding), pixels(h * row_bytes);
  input.resize(size + padding);
  for (const std::size_t rows : {h, h - 3}) try {
      st::detail::inflate_zlib(input.data(), size, filtered.data(), rows * (row_bytes + 1), rows < h);
      for (std::size_t y = 0; y < h; ++y) filtered[y * (row_bytes + 1)] %= 6;
      st::detail::png_unfilter(Step, filtered.data(), rows, row_bytes, rows < h ? 2 * Step : row_bytes, pixels.data());
    } catch (const st::detail::BadImage&) {
    }
}

// Of deflate a byte gives 1032, which are 8256 pixels of one bit, each of four bytes; a block of JPEG, 64 pixels, takes
// a bit.
constexpr std::size_t allowed(std::size_t size) { return (std::size_t{4} << 20) + 33024 * size; }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  decode_pixels<1>(bytes, size);
  decode_pixels<3>(bytes, size);
  constexpr std::int64_t most_pixels = 1 << 12;
  fuzz::LargestAllocation largest;
  std::vector<std::uint8_t> repaired(bytes, bytes + size);
  if (size > 8 && bytes[0] == 0x89) repair_checksums(repaired);
  const auto path = fuzz::memory_file(repaired.data(), repaired.size());
  try {
    const st::ImageInfo info = st::read_image_info(path);
    const st::RawImage image = st::load_raw_image(path, std::int64_t{1} << 62);
    if (largest.bytes() > allowed(size)) __builtin_trap();
    if (image.h != info.h || image.w != info.w || image.channels < info.channels ||
        image.orientation != info.orientation || image.orientation < 1 || image.orientation > 8)
      __builtin_trap();
    if (image.h * image.w > most_pixels) return 0;
    for (const st::ImageFormat format : {st::ImageFormat::png, st::ImageFormat::jpeg}) {
      if (format == st::ImageFormat::jpeg && (image.bits != 8 || image.has_alpha())) continue;
      std::vector<unsigned char> file;
      st::detail::encode_image(format,
                               {.samples = image.samples,
                                .w = image.w,
                                .h = image.h,
                                .channels = image.channels,
                                .bits = image.bits,
                                .metadata = image.metadata},
                               [&](std::span<const st::detail::Bytes> parts) {
                                 for (const auto bytes_of : parts)
                                   file.insert(file.end(), bytes_of.begin(), bytes_of.end());
                               });
      st::ImageMetadata metadata;
      const auto again = st::detail::decode_image(std::move(file), most_pixels, nullptr, &metadata);
      const int channels = format == st::ImageFormat::jpeg ? 3 : image.channels;  // stb writes JPEG with three channels
      if (again.info.w != image.w || again.info.h != image.h || again.info.channels != channels) __builtin_trap();
      if (format == st::ImageFormat::png && metadata.png_colour != image.metadata.png_colour) __builtin_trap();
    }
  } catch (const st::FileError&) {
    if (largest.bytes() > allowed(size)) __builtin_trap();
    return 0;
  }
  const st::LoadOptions options{.convert = true, .drop_alpha = true, .max_pixels = most_pixels};
  if (size % 2 == 0)
    (void)st::load_image<1>(path, options);  // what loads as it is loads in grey and in colour
  else
    (void)st::load_image<3>(path, options);
  return 0;
}
