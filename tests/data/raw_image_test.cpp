// Images as files hold them: bits, channels and orientations, read and written.
#include "strata/data/raw_image.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "picture_bytes.hpp"
#include "strata/core/random.hpp"
#include "strata/data/detail/read_image.hpp"

namespace st = strata;
namespace fs = std::filesystem;
using Buffer = std::vector<unsigned char>;

namespace {

const std::string images = STRATA_TESTS_FOLDER "/golden/images/";

struct Folder {
  fs::path path = fs::temp_directory_path() / st::concat("strata-raw-image-test-", ::getpid());
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  fs::path operator/(const std::string& name) const { return path / name; }
};

st::RawImage random_image(std::int64_t h, std::int64_t w, int channels, int bits) {
  st::RawImage image(h, w, channels, bits);
  st::Rng rng(5, std::uint32_t(h * 100 + w), std::uint32_t(channels * 16 + bits));
  for (unsigned char& byte : image.samples) byte = static_cast<unsigned char>(rng.bits());
  return image;
}

void write(const fs::path& path, const Buffer& bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
}

void put(Buffer& to, bool little, std::uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to.push_back(static_cast<unsigned char>(value >> (8 * (little ? i : bytes - 1 - i))));
}

/// The EXIF segment of a JPEG file with an orientation, behind another entry.
Buffer exif(bool little, std::uint32_t orientation) {
  Buffer tiff{static_cast<unsigned char>(little ? 'I' : 'M'), static_cast<unsigned char>(little ? 'I' : 'M')};
  put(tiff, little, 42, 2);
  put(tiff, little, 8, 4);  // where the directory begins
  put(tiff, little, 2, 2);
  for (const std::uint32_t tag : {256u, 274u}) {  // width, orientation: a short each
    put(tiff, little, tag, 2);
    put(tiff, little, 3, 2);
    put(tiff, little, 1, 4);
    put(tiff, little, tag == 274 ? orientation : 7, 2);
    put(tiff, little, 0, 2);
  }
  put(tiff, little, 0, 4);
  Buffer segment{0xFF, 0xE1};
  put(segment, false, std::uint32_t(tiff.size() + 8), 2);
  for (const char letter : {'E', 'x', 'i', 'f', '\0', '\0'}) segment.push_back(static_cast<unsigned char>(letter));
  segment.insert(segment.end(), tiff.begin(), tiff.end());
  return segment;
}

Buffer with_segment(const Buffer& jpeg, const Buffer& segment) {
  Buffer file(jpeg.begin(), jpeg.begin() + 2);
  file.insert(file.end(), segment.begin(), segment.end());
  file.insert(file.end(), jpeg.begin() + 2, jpeg.end());
  return file;
}

}  // namespace

TEST_CASE("every kind of PNG comes back as it was written") {
  const Folder folder;
  for (const int bits : {8, 16})
    for (const int channels : {1, 2, 3, 4})
      for (const auto& [h, w] : {std::array{1, 1}, {3, 20}, {17, 5}}) {
        const st::RawImage image = random_image(h, w, channels, bits);
        st::save_raw_image(folder / "image.png", image);
        const st::RawImage got = st::load_raw_image(folder / "image.png");
        CHECK((got.h == h && got.w == w && got.channels == channels && got.bits == bits && got.orientation == 1));
        CHECK(got.has_alpha() == (channels % 2 == 0));
        CHECK(got.samples == image.samples);
        st::save_raw_image(folder / "moved.png", st::load_raw_image(folder / "image.png"));
        CHECK(st::load_raw_image(folder / "moved.png").samples == image.samples);
      }
}

TEST_CASE("BMP and JPEG hold 8 bits without alpha, and refuse the others") {
  const Folder folder;
  for (const int channels : {1, 3}) {
    const st::RawImage image = random_image(6, 7, channels, 8);
    st::save_raw_image(folder / "image.bmp", image);
    CHECK(st::load_raw_image(folder / "image.bmp").samples == image.samples);
    st::RawImage flat(16, 16, channels, 8);
    std::fill(flat.samples.begin(), flat.samples.end(), static_cast<unsigned char>(77));
    st::save_raw_image(folder / "image.jpg", flat);
    for (const unsigned char sample : st::load_raw_image(folder / "image.jpg").samples) CHECK(std::abs(sample - 77) <= 1);
  }
  for (const char* name : {"image.jpg", "image.bmp"}) {
    fs::remove(folder / name);
    CHECK_THROWS_AS(st::save_raw_image(folder / name, random_image(4, 4, 1, 16)), st::ValueError);
    CHECK_THROWS_AS(st::save_raw_image(folder / name, random_image(4, 4, 4, 8)), st::ValueError);
    CHECK_FALSE(fs::exists(folder / name));
  }
  CHECK_THROWS_AS(st::save_raw_image(folder / "image.gif", random_image(4, 4, 1, 8)), st::FileError);
  CHECK_THROWS_AS(st::save_raw_image(folder / "none" / "image.png", random_image(4, 4, 1, 8)), st::FileError);
}

TEST_CASE("a raw image has the numbers of load_image") {
  const auto same = [&]<int C>(const std::string& name) {
    CAPTURE(name);
    const st::Image<C> wanted = st::load_image<C>(images + name);
    const st::RawImage raw = st::load_raw_image(images + name);
    REQUIRE((raw.h == wanted.h() && raw.w == wanted.w() && raw.channels == C));
    std::vector<float> row(std::size_t(raw.w * C));
    for (std::int64_t y = 0; y < raw.h; ++y) {
      raw.read_row(y, row.data());
      for (std::int64_t x = 0; x < raw.w; ++x)
        for (int c = 0; c < C; ++c) REQUIRE(row[std::size_t(x * C + c)] == wanted(0, c, y, x));
    }
  };
  for (const char* name : {"grey.png", "grey_16.png", "grey_palette.png", "black_white.png", "grey.bmp", "grey.jpg", "photo_grey.png"})
    same.operator()<1>(name);
  same.operator()<2>("grey_alpha.png");
  for (const char* name : {"rgb.png", "rgb.bmp", "rgb_32.bmp", "rgb.jpg", "progressive.jpg"}) same.operator()<3>(name);
  same.operator()<4>("rgb_alpha.png");
}

TEST_CASE("rows are clamped, rounded to the nearest level, and refused with a NaN") {
  const float values[6] = {-1, 0, 0.5f, 0.25f, 1, 2};
  for (const int bits : {8, 16}) {
    st::RawImage image(2, 6, 1, bits);
    image.write_row(1, values);
    float got[6];
    image.read_row(1, got);
    const float levels = bits == 8 ? 255 : 65535;
    for (int i = 0; i < 6; ++i) CHECK(got[i] == std::floor(std::min(std::max(values[i], 0.0f), 1.0f) * levels + 0.5f) / levels);
    image.read_row(0, got);
    for (const float value : got) CHECK(value == 0);
    const float bad[6] = {0, 0, std::numeric_limits<float>::quiet_NaN(), 0, 0, 0};
    CHECK_THROWS_AS(image.write_row(0, bad), st::NumericError);
  }
}

TEST_CASE("EXIF orientations turn the picture upright") {
  const Folder folder;
  const Buffer jpeg = st::detail::read_bytes(images + "rgb.jpg", 1 << 20);
  const st::RawImage plain = st::load_raw_image(images + "rgb.jpg");
  REQUIRE(plain.h != plain.w);
  // Where the upright picture's row 0 and column 0 are in the stored one (EXIF 2.3, orientation): for each value whether rows
  // and columns are exchanged, and whether the stored rows and columns run backwards.
  const struct { bool exchanged, rows_back, columns_back; } turns[9] = {
      {}, {false, false, false}, {false, false, true}, {false, true, true}, {false, true, false},
      {true, false, false}, {true, true, false}, {true, true, true}, {true, false, true}};
  for (const bool little : {true, false})
    for (std::uint32_t orientation = 1; orientation <= 8; ++orientation) {
      CAPTURE(orientation);
      write(folder / "turned.jpg", with_segment(jpeg, exif(little, orientation)));
      const st::RawImage got = st::load_raw_image(folder / "turned.jpg");
      const auto turn = turns[orientation];
      CHECK(got.orientation == int(orientation));
      REQUIRE((got.h == (turn.exchanged ? plain.w : plain.h) && got.w == (turn.exchanged ? plain.h : plain.w)));
      bool same = true;
      for (std::int64_t y = 0; y < got.h; ++y)
        for (std::int64_t x = 0; x < got.w; ++x) {
          std::int64_t row = turn.exchanged ? x : y, column = turn.exchanged ? y : x;
          if (turn.rows_back) row = plain.h - 1 - row;
          if (turn.columns_back) column = plain.w - 1 - column;
          for (int c = 0; c < 3; ++c)
            same = same && got.samples[std::size_t((y * got.w + x) * 3 + c)] == plain.samples[std::size_t((row * plain.w + column) * 3 + c)];
        }
      CHECK(same);
      // load_image and its parts give the same picture, and the header tells its size.
      const st::ImageInfo info = st::read_image_info(folder / "turned.jpg");
      CHECK((info.h == got.h && info.w == got.w && info.orientation == int(orientation)));
      const st::Image<3> image = st::load_image<3>(folder / "turned.jpg");
      REQUIRE(image.shape() == st::Shape{1, 3, got.h, got.w});
      for (std::size_t i = 0; i < got.samples.size(); ++i) same = same && image.data()[i] == float(got.samples[i]) / 255.0f;
      const st::Image<3> part = st::load_image_part<3>(folder / "turned.jpg", 2, 3, 4, 5);
      for (std::int64_t y = 0; y < 4; ++y)
        for (std::int64_t x = 0; x < 5; ++x)
          for (int c = 0; c < 3; ++c) same = same && part(0, c, y, x) == image(0, c, y + 2, x + 3);
      CHECK(same);
      CHECK_THROWS_AS(st::load_image_part<3>(folder / "turned.jpg", 0, 0, got.h + 1, 1), st::FileError);
      // PNG's eXIf chunk says it too.
      const Buffer segment = exif(little, orientation);
      strata_test::Png png{.w = 3, .h = 2, .rows = {0, 1, 2, 3, 0, 4, 5, 6},
                           .before = strata_test::chunk("eXIf", Buffer(segment.begin() + 10, segment.end()))};
      strata_test::write_file(folder / "turned.png", strata_test::file_of(png));
      const st::RawImage turned = st::load_raw_image(folder / "turned.png");
      REQUIRE((turned.h == (turn.exchanged ? 3 : 2) && turned.orientation == int(orientation)));
      for (std::int64_t y = 0; y < turned.h; ++y)
        for (std::int64_t x = 0; x < turned.w; ++x) {
          std::int64_t row = turn.exchanged ? x : y, column = turn.exchanged ? y : x;
          if (turn.rows_back) row = 1 - row;
          if (turn.columns_back) column = 2 - column;
          CHECK(turned.samples[std::size_t(y * turned.w + x)] == 3 * row + column + 1);
        }
    }
}

TEST_CASE("colour profile, gamma and resolution go from file to file, or are named") {
  const Folder folder;
  const auto profile = [](const char* space, std::size_t size) {
    Buffer icc(size);
    for (std::size_t i = 0; i < size; ++i) icc[i] = static_cast<unsigned char>(i * i / 7);
    const Buffer length = strata_test::big_endian(size, 4);
    std::copy(length.begin(), length.end(), icc.begin());
    std::copy_n(space, 4, icc.begin() + 16);
    return icc;
  };
  for (const std::size_t size : {std::size_t{200}, std::size_t{200000}}) {  // the larger one takes four JPEG segments
    st::RawImage image = random_image(6, 7, 3, 8);
    image.metadata.icc = profile("RGB ", size);
    image.metadata.x_density = 11811, image.metadata.y_density = 5906, image.metadata.per_metre = true;  // 300 and 150 dpi
    for (const char* name : {"a.png", "a.jpg"}) {
      CAPTURE(name);
      st::save_raw_image(folder / name, image);
      const st::RawImage got = st::load_raw_image(folder / name);
      CHECK(got.metadata.icc == image.metadata.icc);
      CHECK((got.metadata.x_density == 11811 && got.metadata.y_density == 5906 && got.metadata.per_metre));
      CHECK(st::left_out(folder / "b.png", got).empty());
      CHECK(st::left_out(folder / "b.jpg", got).empty());
      CHECK(st::left_out(folder / "b.bmp", got) == std::vector<std::string>{"colour profile"});
    }
    st::save_raw_image(folder / "a.bmp", image);
    CHECK(st::load_raw_image(folder / "a.bmp").metadata.x_density == 11811);
  }
  st::RawImage grey = random_image(6, 7, 1, 8);
  grey.metadata.icc = profile("CMYK", 200);  // of the file that it came from
  CHECK(st::left_out(folder / "b.png", grey) == std::vector<std::string>{"colour profile (it is for other channels)"});
  st::save_raw_image(folder / "grey.png", grey);
  CHECK(st::load_raw_image(folder / "grey.png").metadata.icc.empty());

  Buffer chunks = strata_test::chunk("gAMA", {0, 1, 0x86, 0xA0});
  strata_test::append(chunks, strata_test::chunk("cHRM", Buffer(32, 1)));
  Buffer before = chunks;
  strata_test::append(before, strata_test::chunk("iCCP", {'x', 0, 0, 'b', 'a', 'd'}));
  strata_test::write_file(folder / "gamma.png", strata_test::file_of(strata_test::Png{.rows = {0, 9}, .before = before}));
  const st::RawImage gamma = st::load_raw_image(folder / "gamma.png");
  CHECK(gamma.metadata.png_colour == chunks);
  CHECK(st::left_out(folder / "b.png", gamma) == std::vector<std::string>{"colour profile (it is damaged)"});
  CHECK(st::left_out(folder / "b.jpg", gamma) == std::vector<std::string>{"colour profile (it is damaged)", "gamma", "primaries"});
  st::save_raw_image(folder / "again.png", gamma);
  CHECK(st::load_raw_image(folder / "again.png").metadata.png_colour == chunks);
  // A profile of which a segment is missing, and a resolution that only EXIF gives.
  const Buffer jpeg = st::detail::read_bytes(images + "rgb.jpg", 1 << 20);
  Buffer part = strata_test::letters(std::string_view("ICC_PROFILE\0\1\2", 14));
  strata_test::append(part, Buffer(200, 7));
  strata_test::write_file(folder / "part.jpg", strata_test::with_segment(jpeg, strata_test::segment(0xE2, part)));
  CHECK(st::load_raw_image(folder / "part.jpg").metadata.damaged_icc);
}

TEST_CASE("EXIF data that makes no sense is none") {
  const Folder folder;
  const Buffer jpeg = st::detail::read_bytes(images + "rgb.jpg", 1 << 20);
  const st::RawImage plain = st::load_raw_image(images + "rgb.jpg");
  const auto check = [&](const Buffer& segment) {
    write(folder / "odd.jpg", with_segment(jpeg, segment));
    const st::RawImage got = st::load_raw_image(folder / "odd.jpg");
    CHECK(got.orientation == 1);
    CHECK(got.samples == plain.samples);
  };
  for (const std::uint32_t orientation : {0u, 9u, 65535u}) check(exif(true, orientation));
  const Buffer good = exif(true, 6);
  for (std::size_t length = 4; length < good.size() - 6; ++length) {  // cut short, the segment's length with it
    Buffer cut(good.begin(), good.begin() + std::ptrdiff_t(length));
    cut[2] = static_cast<unsigned char>((length - 2) >> 8);
    cut[3] = static_cast<unsigned char>(length - 2);
    write(folder / "cut.jpg", with_segment(jpeg, cut));
    const int got = st::load_raw_image(folder / "cut.jpg").orientation;
    CHECK((got == 1 || got == 6));  // 6 where the cut is behind the entry
  }
  Buffer far = good;  // a directory outside the segment
  far[14] = 0xFF, far[15] = 0xFF;
  check(far);
  Buffer xmp{0xFF, 0xE1, 0, 6, 'h', 't', 't', 'p'};  // APP1 of another kind
  check(xmp);
}

TEST_CASE("files that are no pictures, or too large ones, are refused with their path") {
  const Folder folder;
  write(folder / "empty.png", {});
  write(folder / "text.png", {'t', 'e', 'x', 't'});
  for (const char* name : {"empty.png", "text.png", "missing.png"})
    CHECK_THROWS_WITH_AS(st::load_raw_image(folder / name), doctest::Contains(name), st::FileError);
  CHECK_THROWS_AS(st::load_raw_image(folder.path), st::FileError);
  CHECK_THROWS_WITH_AS(st::load_raw_image(images + "photo_rgb.png", 100), doctest::Contains("100"), st::FileError);
}
