// Picture files byte by byte, for tests of what others may write.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "strata/data/detail/encode.hpp"
#include "strata/data/image_file.hpp"

namespace strata_test {

using Buffer = std::vector<unsigned char>;

inline Buffer read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void write_file(const std::filesystem::path& path, const Buffer& bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
}

inline void append(Buffer& to, const Buffer& bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }
inline Buffer letters(std::string_view text) { return Buffer(text.begin(), text.end()); }
/// The lowest `bytes` bytes of a number, the highest first.
inline Buffer big_endian(std::uint64_t value, int bytes) {
  Buffer out;
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<unsigned char>(value >> (8 * i)));
  return out;
}

inline Buffer zlib(Buffer data) {
  strata::detail::stb::Memory memory(std::numeric_limits<std::size_t>::max());
  const auto bytes = strata::detail::compress(memory, data);
  return Buffer(bytes.begin(), bytes.end());
}

struct Png {
  std::uint32_t w = 1, h = 1;
  int depth = 8, colour = 0;
  bool interlaced = false;
  Buffer rows{};      // with the byte of their filter each
  Buffer before{};    // whole chunks
  Buffer behind{};
};

inline Buffer chunk(std::string_view name, const Buffer& body) {
  Buffer out;
  strata::detail::append_png_chunk(out, name, body);
  return out;
}
inline Buffer file_of(const Png& png) {
  Buffer file(strata::detail::png_signature.begin(), strata::detail::png_signature.end()), header = big_endian(png.w, 4);
  append(header, big_endian(png.h, 4));
  append(header, {static_cast<unsigned char>(png.depth), static_cast<unsigned char>(png.colour), 0, 0,
                  static_cast<unsigned char>(png.interlaced)});
  append(file, chunk("IHDR", header));
  append(file, png.before);
  append(file, chunk("IDAT", zlib(png.rows)));
  append(file, png.behind);
  append(file, chunk("IEND", {}));
  return file;
}

inline Buffer segment(int marker, const Buffer& body) {
  Buffer out{0xFF, static_cast<unsigned char>(marker)};
  append(out, big_endian(body.size() + 2, 2));
  append(out, body);
  return out;
}
/// The file with segments behind its first two bytes.
inline Buffer with_segment(const Buffer& jpeg, const Buffer& segments) {
  Buffer file(jpeg.begin(), jpeg.begin() + 2);
  append(file, segments);
  file.insert(file.end(), jpeg.begin() + 2, jpeg.end());
  return file;
}

/// A baseline JPEG file of one colour: `levels`, one for each channel, before any change of colour space.
struct FlatJpeg {
  std::uint32_t w = 8, h = 8;
  std::vector<int> levels{128};
  std::vector<int> ids{1, 2, 3, 4};
  int frame = 0xC0;
  int factors = 0x11;          // of the first channel
  int restart_interval = 0;
  std::int64_t units = -1;     // as many are written; all when negative
  Buffer before{};             // segments
};

inline Buffer file_of(const FlatJpeg& jpeg) {
  const std::size_t channels = jpeg.levels.size();
  Buffer file{0xFF, 0xD8}, table{0}, frame{8}, scan{static_cast<unsigned char>(channels)};
  append(file, jpeg.before);
  table.resize(65, 1);
  append(file, segment(0xDB, table));
  append(frame, big_endian(jpeg.h, 2));
  append(frame, big_endian(jpeg.w, 2));
  frame.push_back(static_cast<unsigned char>(channels));
  for (std::size_t c = 0; c < channels; ++c) {
    append(frame, {static_cast<unsigned char>(jpeg.ids[c]), static_cast<unsigned char>(c == 0 ? jpeg.factors : 0x11), 0});
    append(scan, {static_cast<unsigned char>(jpeg.ids[c]), 0});
  }
  append(file, segment(jpeg.frame, frame));
  Buffer dc{0, 0, 0, 0, 12}, ac{0x10, 1};  // twelve codes of four bits; one of one bit
  dc.resize(17, 0);
  ac.resize(17, 0);
  for (unsigned char i = 0; i < 12; ++i) dc.push_back(i);
  ac.push_back(0);
  append(file, segment(0xC4, dc));
  append(file, segment(0xC4, ac));
  if (jpeg.restart_interval > 0) append(file, segment(0xDD, big_endian(std::uint64_t(jpeg.restart_interval), 2)));
  append(scan, {0, 63, 0});
  append(file, segment(0xDA, scan));

  std::uint32_t bits = 0;
  int count = 0;
  const auto put = [&](std::uint32_t value, int size) {
    for (int i = size - 1; i >= 0; --i) {
      bits = bits << 1 | (value >> i & 1);
      if (++count < 8) continue;
      file.push_back(static_cast<unsigned char>(bits));
      if (file.back() == 0xFF) file.push_back(0);
      count = 0;
    }
  };
  const auto flush = [&] {
    while (count != 0) put(1, 1);
  };
  const std::uint32_t across = 8 * std::uint32_t(jpeg.factors >> 4), down = 8 * std::uint32_t(jpeg.factors & 0xF);
  const bool alone = channels == 1;
  const std::int64_t all = alone ? std::int64_t((jpeg.w + 7) / 8) * ((jpeg.h + 7) / 8)
                                 : std::int64_t((jpeg.w + across - 1) / across) * ((jpeg.h + down - 1) / down);
  const std::int64_t units = jpeg.units < 0 ? all : jpeg.units;
  bool first = true;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    if (jpeg.restart_interval > 0 && unit > 0 && unit % jpeg.restart_interval == 0) {
      flush();
      append(file, {0xFF, static_cast<unsigned char>(0xD0 + (unit / jpeg.restart_interval - 1) % 8)});
      first = true;
    }
    for (std::size_t c = 0; c < channels; ++c)
      for (int block = 0; block < (c == 0 && !alone ? (jpeg.factors >> 4) * (jpeg.factors & 0xF) : 1); ++block) {
        int difference = first && block == 0 ? 8 * (jpeg.levels[c] - 128) : 0, size = 0;
        while (std::abs(difference) >> size != 0) ++size;
        put(std::uint32_t(size), 4);
        put(std::uint32_t(difference > 0 ? difference : difference + (1 << size) - 1), size);
        put(0, 1);
      }
    first = false;
  }
  flush();
  append(file, {0xFF, 0xD9});
  return file;
}

}  // namespace strata_test
