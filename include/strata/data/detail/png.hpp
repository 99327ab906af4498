// The container of PNG files (ISO/IEC 15948): reads headers, checks that a file is whole and undamaged (stb_image does
// neither look at the checksums nor at the end), and writes 8 and 16 bit files (stb_image_write writes 8 bit alone).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "strata/data/detail/crc32.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/stb.hpp"

namespace strata::inline STRATA_ABI::detail {

inline constexpr std::array<unsigned char, 8> png_signature{0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

inline ImageInfo png_header(Bytes header) {
  const int bits = header[8], colour = header[9];
  const bool fits = colour == 0   ? bits == 1 || bits == 2 || bits == 4 || bits == 8 || bits == 16
                    : colour == 3 ? bits == 1 || bits == 2 || bits == 4 || bits == 8
                                  : (colour == 2 || colour == 4 || colour == 6) && (bits == 8 || bits == 16);
  if (!fits || header[10] != 0 || header[11] != 0 || header[12] > 1)
    throw BadImage(concat("its PNG header is invalid (", bits, " bits, colour type ", colour, ")"));
  ImageInfo info;
  info.format = ImageFormat::png;
  info.w = big_endian(header.subspan(0, 4));
  info.h = big_endian(header.subspan(4, 4));
  info.bits = bits == 16 ? 16 : 8;
  info.decoding_copies = bits < 8 || colour == 3 || header[12] == 1 ? 4 : 1;  // stb's way is the longer one
  info.channels = colour == 0 ? 1 : colour == 4 ? 2 : colour == 6 ? 4 : 3;
  return info;
}

/// Reads the chunks up to the first of the pixels, or, when `whole`, all of them and their checksums.
inline ImageInfo read_png_structure(Bytes file, bool whole) {
  ImageInfo info;
  bool palette = false;
  std::size_t at = png_signature.size();
  for (bool first = true;; first = false) {
    const std::uint32_t length = big_endian(part(file, at, 4, "a PNG chunk's length"));
    const Bytes type = part(file, at + 4, 4, "a PNG chunk's name");
    const std::string name(type.begin(), type.end());
    if (first != (name == "IHDR") || (first && length != 13)) throw BadImage("its PNG header is missing or misplaced");
    if (!whole && name == "IDAT") return info;
    const Bytes body = part(file, at + 8, length, concat("the PNG chunk ", name).c_str());
    const std::uint32_t crc = big_endian(part(file, at + 8 + length, 4, "a PNG chunk's checksum"));
    if (crc != crc32(file.subspan(at + 4, length + std::size_t{4})))
      throw BadImage(concat("it is damaged: the checksum of the PNG chunk ", name, " does not match"));
    if (first) {
      info = png_header(body);
      palette = body[9] == 3;
    } else if (name == "PLTE" && palette) {
      bool grey = length >= 3;
      for (std::size_t i = 0; i + 2 < length; i += 3) grey = grey && body[i] == body[i + 1] && body[i] == body[i + 2];
      info.channels = grey ? 1 : 3;
    } else if (name == "tRNS" && !info.has_alpha()) {
      info.channels = palette ? 4 : info.channels + 1;
      info.decoding_copies = 4;
    } else if (name == "IEND") {
      return info;
    }
    at += std::size_t{12} + length;
  }
}

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

/// A PNG file in three parts, so that what is compressed need not be copied.
struct PngFile {
  std::vector<unsigned char> head, tail;
  std::unique_ptr<unsigned char, FreeMemory> compressed;
  std::size_t compressed_size = 0;

  std::array<Bytes, 3> parts() const { return {head, {compressed.get(), compressed_size}, tail}; }
};

/// A PNG file of h rows of w pixels; 16-bit samples are given most significant byte first. It filters in the samples' own
/// memory, and takes no more of it where `samples` has capacity for h bytes more.
inline PngFile encode_png(std::vector<unsigned char> samples, std::int64_t w, std::int64_t h, int channels, int bits) {
  const std::size_t step = std::size_t(channels * bits / 8);
  const std::size_t row_bytes = std::size_t(w) * step;
  if (samples.size() + std::size_t(h) > std::size_t(std::numeric_limits<int>::max()) / 2)
    throw BadImage(concat(w, "x", h, " pixels are too many for one PNG file (1 GiB of samples at most)"));
  samples.resize((row_bytes + 1) * std::size_t(h));
  std::vector<unsigned char> trial(row_bytes), best(row_bytes);
  // From the last row to the first: each moves down by as many bytes as there are rows above it.
  for (std::int64_t y = h - 1; y >= 0; --y) {
    const unsigned char* row = samples.data() + std::size_t(y) * row_bytes;
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
    unsigned char* to = samples.data() + std::size_t(y) * (row_bytes + 1);
    *to = static_cast<unsigned char>(best_type);
    std::copy(best.begin(), best.end(), to + 1);
  }
  PngFile file;
  int size = 0;
  file.compressed.reset(stb::stbi_zlib_compress(samples.data(), int(samples.size()), &size, 8));
  if (!file.compressed) throw BadImage("there is not enough memory to compress it");
  file.compressed_size = std::size_t(size);

  constexpr std::array<unsigned char, 5> colour_types{0, 0, 4, 2, 6};
  std::vector<unsigned char>& head = file.head;
  head.assign(png_signature.begin(), png_signature.end());
  const auto begin_chunk = [&](const char* name, std::uint32_t length) {
    append_big_endian(head, length);
    for (int i = 0; i < 4; ++i) head.push_back(static_cast<unsigned char>(name[i]));
  };
  begin_chunk("IHDR", 13);
  append_big_endian(head, std::uint32_t(w));
  append_big_endian(head, std::uint32_t(h));
  for (const int byte : {bits, int(colour_types[std::size_t(channels)]), 0, 0, 0})
    head.push_back(static_cast<unsigned char>(byte));
  append_big_endian(head, crc32(Bytes(head).last(13 + 4)));
  begin_chunk("IDAT", std::uint32_t(size));
  append_big_endian(file.tail, crc32(file.parts()[1], crc32(Bytes(head).last(4))));
  for (const char byte : {'\0', '\0', '\0', '\0', 'I', 'E', 'N', 'D'}) file.tail.push_back(static_cast<unsigned char>(byte));
  append_big_endian(file.tail, crc32(Bytes(file.tail).last(4)));
  return file;
}

}  // namespace strata::inline STRATA_ABI::detail
