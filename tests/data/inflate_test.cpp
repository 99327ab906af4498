#include "strata/data/detail/inflate.hpp"

#include <doctest/doctest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "picture_bytes.hpp"
#include "strata/core/random.hpp"
#include "strata/data/detail/read_image.hpp"
#include "strata/data/image_file.hpp"

// The program's own stb, of own_stb_test.cpp.
#if __has_include(<stb/stb_image.h>)
#include <stb/stb_image.h>
#else
#include <stb_image.h>
#endif

namespace st = strata;
namespace detail = st::detail;
using Buffer = std::vector<unsigned char>;

namespace {

Buffer compressed(const Buffer& data) { return strata_test::zlib(data); }

// Buffers of their own size, so that the address sanitizer sees every byte beyond the padding.
Buffer inflated(const Buffer& stream, std::size_t size, bool more = false) {
  Buffer input = stream, output(size + detail::inflate_padding, 0xAA);
  input.resize(stream.size() + detail::inflate_padding);
  detail::inflate_zlib(input.data(), stream.size(), output.data(), size, more);
  output.resize(size);
  return output;
}

Buffer bytes_of(int kind, std::size_t size) {
  st::Rng rng(std::uint64_t(kind), 0, std::uint32_t(size));
  Buffer data(size);
  for (std::size_t i = 0; i < size; ++i) {
    const std::uint32_t first = kind == 1 ? rng.bits() : kind == 2 ? rng.below(4) : 0;
    const std::size_t value = kind == 2 ? first * rng.below(4) : kind == 3 ? i % 300 : first;
    data[i] = static_cast<unsigned char>(value);
  }
  return data;
}

// The compressed pixels of a PNG file: codes of their own, as zlib makes them.
Buffer stream_of(const std::string& name) {
  const auto file = detail::read_bytes(std::string(STRATA_TESTS_FOLDER "/golden/images/") + name, 1 << 24);
  Buffer stream;
  for (std::size_t at = 8; at + 12 <= file.size();) {
    const std::size_t length = detail::big_endian(detail::Bytes(file).subspan(at, 4));
    if (std::string(file.begin() + std::ptrdiff_t(at) + 4, file.begin() + std::ptrdiff_t(at) + 8) == "IDAT")
      stream.insert(stream.end(), file.begin() + std::ptrdiff_t(at) + 8, file.begin() + std::ptrdiff_t(at + 8 + length));
    at += 12 + length;
  }
  return stream;
}

Buffer by_stb(const Buffer& stream, std::size_t size) {
  Buffer output(size);
  const int written = stbi_zlib_decode_buffer(
      reinterpret_cast<char*>(output.data()), int(size), reinterpret_cast<const char*>(stream.data()), int(stream.size()));
  output.resize(written < 0 ? 0 : std::size_t(written));
  return output;
}

}  // namespace

TEST_CASE("inflate gives back what was compressed, all of it or its beginning") {
  for (const int kind : {0, 1, 2, 3})
    for (const std::size_t size : {1u, 2u, 7u, 257u, 258u, 259u, 1000u, 40000u, 70000u}) {
      const Buffer data = bytes_of(kind, size), stream = compressed(data);
      CHECK(inflated(stream, size) == data);
      CHECK_THROWS_AS(inflated(stream, size - 1), detail::BadImage);
      CHECK_THROWS_AS(inflated(stream, size + 1), detail::BadImage);
      for (const std::size_t beginning : {std::size_t{0}, size / 3, size - 1})
        CHECK(inflated(stream, beginning, true) == Buffer(data.begin(), data.begin() + std::ptrdiff_t(beginning)));
    }
}

TEST_CASE("inflate equals stb on codes that zlib made") {
  for (const auto& [name, size] : {std::pair{"photo_grey.png", 71u * 46u}, std::pair{"photo_rgb.png", (50u * 3 + 1) * 37u}}) {
    const Buffer stream = stream_of(name);
    REQUIRE((stream[2] >> 1 & 3) == 2);  // a block with codes of its own
    CHECK(inflated(stream, size) == by_stb(stream, size));
  }
}

TEST_CASE("inflate survives any input") {
  const std::size_t size = 71 * 46;
  st::Rng rng(5);
  int refused = 0, both = 0;
  for (const Buffer& stream : {stream_of("photo_grey.png"), compressed(bytes_of(2, size)), compressed(bytes_of(1, size))}) {
    for (std::size_t length = 0; length < stream.size(); length += 1 + length / 20) {
      Buffer cut(stream.begin(), stream.begin() + std::ptrdiff_t(length));
      if (length + 5 < stream.size()) CHECK_THROWS_AS(inflated(cut, size), detail::BadImage);  // the last four: its checksum
    }
    for (int i = 0; i < 2000; ++i) {
      Buffer damaged = stream;
      const std::uint32_t near = i % 2 ? 80 : std::uint32_t(stream.size());  // half of them in the codes
      for (std::uint32_t changes = 1 + rng.below(3); changes > 0; --changes)
        damaged[2 + rng.below(near - 2)] ^= static_cast<unsigned char>(1u << rng.below(8));
      try {
        const Buffer ours = inflated(damaged, size), theirs = by_stb(damaged, size);
        if (theirs.size() == size) {
          ++both;
          CHECK(ours == theirs);
        }
      } catch (const detail::BadImage&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 1000);
  CHECK(both > 100);
  for (int i = 0; i < 3000; ++i) {  // noise behind a good header
    Buffer noise{0x78, 0x9C};
    for (std::uint32_t left = rng.below(200); left > 0; --left) noise.push_back(static_cast<unsigned char>(rng.bits()));
    try {
      inflated(noise, 500, i % 2 == 1);
    } catch (const detail::BadImage&) {
    }
  }
}

TEST_CASE("PNG files decode as stb decodes them, whole and in parts") {
  for (const char* name : {"photo_grey.png", "photo_rgb.png", "grey.png", "rgb.png", "grey_alpha.png", "rgb_alpha.png"}) {
    const std::string path = std::string(STRATA_TESTS_FOLDER "/golden/images/") + name;
    const auto file = detail::read_bytes(path, 1 << 24);
    const st::ImageInfo info = st::read_image_info(path);
    REQUIRE(detail::read_png_structure(file, true).usual());
    const auto image = detail::decode_usual_png(file, info, info.h, info.w);
    int w = 0, h = 0, channels = 0;
    const std::unique_ptr<unsigned char, void (*)(void*)> wanted(
        stbi_load_from_memory(file.data(), int(file.size()), &w, &h, &channels, 0), stbi_image_free);
    REQUIRE((w == info.w && h == info.h && channels == info.channels));
    CHECK(std::memcmp(image.samples.data(), wanted.get(), std::size_t(w * h * channels)) == 0);
    for (const int rows : {1, h / 2, h - 1, h})
      for (const int columns : {1, w / 2, w - 1, w}) {
        const auto corner = detail::decode_usual_png(file, info, rows, columns);
        REQUIRE(corner.stored_w == columns);
        const auto* got = corner.samples.data();
        const std::size_t bytes = std::size_t(columns * channels);
        for (int y = 0; y < rows; ++y)
          CHECK(std::memcmp(got + std::size_t(y) * bytes, wanted.get() + y * w * channels, bytes) == 0);
      }
  }
  for (const char* name : {"grey_palette.png", "black_white.png"})
    CHECK_FALSE(detail::read_png_structure(detail::read_bytes(std::string(STRATA_TESTS_FOLDER "/golden/images/") + name, 1 << 24), true).usual());
  const std::string path = STRATA_TESTS_FOLDER "/golden/images/photo_rgb.png";
  const auto whole = st::load_image<3>(path);
  const auto part = st::load_image_part<3>(path, 5, 7, 20, 11);
  REQUIRE(part.shape() == st::Shape{1, 3, 20, 11});
  for (int y = 0; y < 20; ++y)
    for (int x = 0; x < 11; ++x)
      for (int c = 0; c < 3; ++c) CHECK(part(0, c, y, x) == whole(0, c, y + 5, x + 7));
  CHECK_THROWS_AS(st::load_image_part<3>(path, 30, 0, 8, 5), st::FileError);
  CHECK_THROWS_AS(st::load_image_part<3>(path, -1, 0, 8, 5), st::FileError);
}

TEST_CASE("PNG files of 16 bits decode as stb decodes them") {
  st::Rng rng(3);
  for (const int channels : {1, 2, 3, 4})
    for (const int size : {1, 5, 40}) {
      Buffer samples(std::size_t(2 * channels * size * (size + 1)));
      for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<unsigned char>(i / 7 + rng.below(5));
      Buffer file;
      detail::encode_image(st::ImageFormat::png,
                           {.samples = samples, .w = size, .h = size + 1, .channels = channels, .bits = 16, .metadata = {}},
                           [&](std::span<const detail::Bytes> parts) {
                             for (const detail::Bytes bytes : parts) file.insert(file.end(), bytes.begin(), bytes.end());
                           });
      const detail::PngStructure png = detail::read_png_structure(file, true);
      const st::ImageInfo info = png.info;
      REQUIRE(png.usual());
      const auto image = detail::decode_usual_png(file, info, info.h, info.w);
      int w = 0, h = 0, stored = 0;
      const std::unique_ptr<std::uint16_t, void (*)(void*)> wanted(
          stbi_load_16_from_memory(file.data(), int(file.size()), &w, &h, &stored, 0), stbi_image_free);
      REQUIRE((w == size && h == size + 1 && stored == channels));
      CHECK(std::memcmp(image.samples.data(), wanted.get(), samples.size()) == 0);
    }
}

TEST_CASE("PNG's filters are undone, any of them in any order of rows") {
  st::Rng rng(9);
  const auto check = [&]<std::size_t Step>(std::size_t h, std::size_t w) {
    const std::size_t row_bytes = w * Step;
    Buffer pixels(h * row_bytes), filtered, row(row_bytes);
    for (unsigned char& byte : pixels) byte = static_cast<unsigned char>(rng.bits());
    for (std::size_t y = 0; y < h; ++y) {
      const unsigned char* from = pixels.data() + y * row_bytes;
      const int type = int(rng.below(5));
      detail::png_filter(type, from, y > 0 ? from - row_bytes : nullptr, row_bytes, Step, row.data());
      filtered.push_back(static_cast<unsigned char>(type));
      filtered.insert(filtered.end(), row.begin(), row.end());
    }
    filtered.resize(filtered.size() + detail::inflate_padding, 0xAA);
    Buffer out(pixels.size()), in_place = filtered;
    detail::png_unfilter(Step, filtered.data(), h, row_bytes, row_bytes, out.data());
    CHECK(out == pixels);
    detail::png_unfilter(Step, in_place.data(), h, row_bytes, row_bytes, in_place.data());
    in_place.resize(pixels.size());
    CHECK(in_place == pixels);
    const std::size_t wanted = (w + 1) / 2 * Step;
    Buffer left(h * wanted);
    detail::png_unfilter(Step, filtered.data(), h, row_bytes, wanted, left.data());
    for (std::size_t y = 0; y < h; ++y)
      CHECK(std::memcmp(left.data() + y * wanted, pixels.data() + y * row_bytes, wanted) == 0);
    filtered[(h - 1) * (row_bytes + 1)] = 5;
    CHECK_THROWS_AS(detail::png_unfilter(Step, filtered.data(), h, row_bytes, row_bytes, out.data()), detail::BadImage);
  };
  for (const std::size_t h : {1u, 2u, 15u, 16u, 17u, 31u, 32u, 33u, 80u})
    for (const std::size_t w : {1u, 2u, 7u, 16u, 33u}) {
      check.template operator()<1>(h, w);
      check.template operator()<2>(h, w);
      check.template operator()<3>(h, w);
      check.template operator()<4>(h, w);
      check.template operator()<6>(h, w);
      check.template operator()<8>(h, w);
    }
}

TEST_CASE("the checksum of PNG is the one that its definition gives") {
  const auto bit_by_bit = [](detail::Bytes bytes) {
    std::uint32_t crc = 0xFFFFFFFFu;
    for (const unsigned char byte : bytes) {
      crc ^= byte;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? 0xEDB88320u : 0u);
    }
    return ~crc;
  };
  const std::string digits = "123456789";
  CHECK(detail::crc32({reinterpret_cast<const unsigned char*>(digits.data()), digits.size()}) == 0xCBF43926u);
  const Buffer data = bytes_of(1, 5000);
  for (std::size_t size = 0; size < 300; ++size) {
    const detail::Bytes part(data.data() + size % 17, size);
    CHECK(detail::crc32(part) == bit_by_bit(part));
    CHECK(~detail::crc32_by_tables(0xFFFFFFFFu, part) == bit_by_bit(part));
  }
  CHECK(detail::crc32(data) == bit_by_bit(data));
}
