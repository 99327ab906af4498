// Pictures to the bytes of PNG, JPEG and BMP files.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/crc32.hpp"
#include "strata/data/detail/bmp.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/metadata.hpp"
#include "strata/data/detail/png.hpp"
#include "strata/data/detail/stb.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// A picture that is to be written. 16-bit samples are given most significant byte first.
struct EncoderInput {
  std::vector<unsigned char> samples;
  std::int64_t w = 0, h = 0;
  int channels = 0, bits = 8;
  int quality = 95;  // JPEG's
  ImageMetadata metadata;
};

/// One row's bytes under PNG's filter `type` (0 none, 1 sub, 2 up, 3 average, 4 Paeth), `step` bytes a pixel.
inline void png_filter(int type, const unsigned char* row, const unsigned char* above, std::size_t size,
                       std::size_t step, unsigned char* out) {
  for (std::size_t i = 0; i < size; ++i) {
    const int a = i >= step ? row[i - step] : 0;
    const int b = above ? above[i] : 0;
    const int c = above && i >= step ? above[i - step] : 0;
    int guess = 0;
    if (type == 1) guess = a;
    if (type == 2) guess = b;
    if (type == 3) guess = (a + b) / 2;
    if (type == 4) {
      const int pa = std::abs(b - c), pb = std::abs(a - c), pc = std::abs(a + b - 2 * c);
      guess = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
    }
    out[i] = static_cast<unsigned char>(row[i] - guess);
  }
}

inline void append_big_endian(std::vector<unsigned char>& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<unsigned char>(value >> shift));
}

inline void append_png_chunk(std::vector<unsigned char>& out, std::string_view name, Bytes body) {
  append_big_endian(out, std::uint32_t(body.size()));
  const std::size_t begin = out.size();
  for (const char letter : name) out.push_back(static_cast<unsigned char>(letter));
  for (const unsigned char byte : body) out.push_back(byte);
  append_big_endian(out, crc32(Bytes(out).subspan(begin)));
}

/// The bytes compressed as zlib does, until `memory` ends.
inline Bytes compress(stb::Memory&, std::vector<unsigned char>& bytes) {
  int size = 0;
  const unsigned char* const compressed = stb::stbi_zlib_compress(bytes.data(), int(bytes.size()), &size, 8);
  if (!compressed) throw BadImage("it cannot be compressed");
  return {compressed, std::size_t(size)};
}

/// The chunks between a PNG file's header and its pixels.
inline std::vector<unsigned char> png_metadata(const ImageMetadata& metadata, int channels) {
  std::vector<unsigned char> out = metadata.png_colour;
  if (icc_fits(metadata.icc, channels)) {
    std::vector<unsigned char> profile = metadata.icc, body;
    stb::Memory memory(std::numeric_limits<std::size_t>::max());
    const Bytes compressed = compress(memory, profile);
    constexpr std::string_view name("ICC Profile\0\0", 13);  // and the method of compression
    body.reserve(name.size() + compressed.size());
    for (const char letter : name) body.push_back(static_cast<unsigned char>(letter));
    for (const unsigned char byte : compressed) body.push_back(byte);
    append_png_chunk(out, "iCCP", body);
  }
  if (metadata.x_density > 0) {
    std::vector<unsigned char> body;
    append_big_endian(body, metadata.x_density);
    append_big_endian(body, metadata.y_density);
    body.push_back(metadata.per_metre ? 1 : 0);
    append_png_chunk(out, "pHYs", body);
  }
  return out;
}

/// Filters the rows in their own memory, and takes no more where `samples` has capacity for h bytes more.
inline void filter_png_rows(EncoderInput& input) {
  const std::size_t step = std::size_t(input.channels * input.bits / 8), row_bytes = std::size_t(input.w) * step;
  if (input.samples.size() + std::size_t(input.h) > std::size_t(std::numeric_limits<int>::max()) / 2)
    throw BadImage(concat(input.w, "x", input.h, " pixels are too many for one PNG file (1 GiB of samples at most)"));
  input.samples.resize((row_bytes + 1) * std::size_t(input.h));
  std::vector<unsigned char> trial(row_bytes), best(row_bytes);
  // From the last row to the first: each moves down by as many bytes as there are rows above it.
  for (std::int64_t y = input.h - 1; y >= 0; --y) {
    const unsigned char* row = input.samples.data() + std::size_t(y) * row_bytes;
    const unsigned char* above = y > 0 ? row - row_bytes : nullptr;
    int best_type = 0;
    std::int64_t best_cost = std::numeric_limits<std::int64_t>::max();
    for (int type = 0; type < 5; ++type) {  // the specification's advice: the least sum of absolute differences
      png_filter(type, row, above, row_bytes, step, trial.data());
      std::int64_t cost = 0;
      for (const unsigned char byte : trial) cost += byte < 128 ? byte : 256 - byte;
      if (cost < best_cost) {
        best_cost = cost;
        best_type = type;
        best.swap(trial);
      }
    }
    unsigned char* to = input.samples.data() + std::size_t(y) * (row_bytes + 1);
    *to = static_cast<unsigned char>(best_type);
    std::copy(best.begin(), best.end(), to + 1);
  }
}

template <class Write>
void encode_png(EncoderInput input, Write& write) {
  filter_png_rows(input);
  std::vector<unsigned char> head(png_signature.begin(), png_signature.end()), header, tail;
  constexpr std::array<unsigned char, 5> colour_types{0, 0, 4, 2, 6};
  append_big_endian(header, std::uint32_t(input.w));
  append_big_endian(header, std::uint32_t(input.h));
  for (const int byte : {input.bits, int(colour_types[std::size_t(input.channels)]), 0, 0, 0})
    header.push_back(static_cast<unsigned char>(byte));
  append_png_chunk(head, "IHDR", header);
  for (const unsigned char byte : png_metadata(input.metadata, input.channels)) head.push_back(byte);

  stb::Memory memory(std::numeric_limits<std::size_t>::max());
  const Bytes pixels = compress(memory, input.samples);
  append_big_endian(head, std::uint32_t(pixels.size()));
  for (const char letter : {'I', 'D', 'A', 'T'}) head.push_back(static_cast<unsigned char>(letter));
  append_big_endian(tail, crc32(pixels, crc32(Bytes(head).last(4))));
  append_png_chunk(tail, "IEND", {});
  const std::array<Bytes, 3> parts{head, pixels, tail};  // so that what is compressed need not be copied
  write(std::span<const Bytes>(parts));
}

template <class Write>
void encode_jpeg(const EncoderInput& input, Write& write) {
  if (input.w > 65535 || input.h > 65535) throw BadImage("JPEG images have at most 65535 rows and columns");
  std::vector<unsigned char> file, head;
  const auto append = [](void* to, void* data, int size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    auto& out = *static_cast<std::vector<unsigned char>*>(to);
    // insert() makes g++ 12 warn of an overflow that is not there
    for (int i = 0; i < size; ++i) out.push_back(bytes[i]);
  };
  {
    stb::Memory memory(std::numeric_limits<std::size_t>::max());
    if (!stb::stbi_write_jpg_to_func(append, &file, int(input.w), int(input.h), input.channels, input.samples.data(),
                                     input.quality))
      throw BadImage("the JPEG encoder failed");
  }
  // stb_image_write begins with the start of the image and an empty JFIF segment, 20 bytes: this one's take their
  // place.
  constexpr std::size_t start = 20;
  if (!begins_with(file, "\xFF\xD8\xFF\xE0\x00\x10JFIF", 11)) throw BadImage("the JPEG encoder failed");
  const ImageMetadata& metadata = input.metadata;
  const double scale = metadata.per_metre ? 0.0254 : 1.0;
  const auto density = [&](std::uint32_t value) { return std::lround(double(value) * scale); };
  const bool dense = metadata.x_density > 0 && density(std::max(metadata.x_density, metadata.y_density)) <= 65535;
  const long x = dense ? density(metadata.x_density) : 1, y = dense ? density(metadata.y_density) : 1;
  for (const long byte : {0xFFl, 0xD8l, 0xFFl, 0xE0l, 0l, 16l, long{'J'}, long{'F'}, long{'I'}, long{'F'}, 0l, 1l, 1l,
                          dense && metadata.per_metre ? 1l : 0l, x >> 8, x & 0xFF, y >> 8, y & 0xFF, 0l, 0l})
    head.push_back(static_cast<unsigned char>(byte));
  constexpr std::size_t most = 65519;  // of a profile in one segment
  const std::size_t count = (metadata.icc.size() + most - 1) / most;
  for (std::size_t i = 0; i < count && count <= 255 && icc_fits(metadata.icc, input.channels); ++i) {
    const Bytes one = Bytes(metadata.icc).subspan(i * most, std::min(most, metadata.icc.size() - i * most));
    const std::size_t length = one.size() + 16;
    for (const std::size_t byte : {std::size_t{0xFF}, std::size_t{0xE2}, length >> 8, length & 0xFF})
      head.push_back(static_cast<unsigned char>(byte));
    for (const char letter : std::string_view("ICC_PROFILE\0", 12)) head.push_back(static_cast<unsigned char>(letter));
    head.push_back(static_cast<unsigned char>(i + 1));
    head.push_back(static_cast<unsigned char>(count));
    for (const unsigned char byte : one) head.push_back(byte);
  }
  const std::array<Bytes, 2> parts{head, Bytes(file).subspan(start)};
  write(std::span<const Bytes>(parts));
}

/// Calls write(parts) with the file's bytes. Throws BadImage, and bad_alloc.
template <class Write>
void encode_image(ImageFormat format, EncoderInput input, Write write) {
  if (format == ImageFormat::png) return encode_png(std::move(input), write);
  if (format == ImageFormat::jpeg) return encode_jpeg(input, write);
  std::vector<unsigned char> file = encode_bmp(input.samples, input.w, input.h, input.channels);
  if (input.metadata.per_metre)
    for (std::size_t i = 0; i < 4; ++i) {
      file[38 + i] = static_cast<unsigned char>(input.metadata.x_density >> (8 * i));
      file[42 + i] = static_cast<unsigned char>(input.metadata.y_density >> (8 * i));
    }
  const Bytes whole = file;
  write(std::span<const Bytes>(&whole, 1));
}

}}}  // namespace strata::STRATA_ABI::detail
