#include "largest.hpp"
#include "strata/core/crc32.hpp"
#include "strata/data/image_file.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "picture_bytes.hpp"
#include "strata/core/random.hpp"
#include "strata/data/detail/png.hpp"
#include "temporary_folder.hpp"
#include "test_data.hpp"

namespace st = strata;

namespace {

using Bytes = strata_test::Buffer;
using strata_test::chunk;
using strata_test::read_file;
using strata_test::write_file;

std::filesystem::path golden(const char* name) { return strata_test::golden(std::string("golden/images/") + name); }

// The formulas of tests/golden/images.py.
int grey_at(std::int64_t x, std::int64_t y) { return int((11 * x + 7 * y) % 256); }
int rgb_at(int c, std::int64_t x, std::int64_t y) { return int(c == 0 ? 15 * x : c == 1 ? 19 * y : x * y % 256); }

template <int C, class Formula>
double worst(const st::Image<C>& image, Formula formula) {
  REQUIRE(image.shape() == st::Shape{1, C, 13, 17});
  double worst = 0;
  for (std::int64_t y = 0; y < 13; ++y)
    for (std::int64_t x = 0; x < 17; ++x)
      for (int c = 0; c < C; ++c)
        strata_test::keep_largest(worst, std::abs(double(image(0, c, y, x)) - formula(c, x, y)));
  return worst;
}

float grey_value(int, std::int64_t x, std::int64_t y) { return float(grey_at(x, y)) / 255.0f; }
float rgb_value(int c, std::int64_t x, std::int64_t y) { return float(rgb_at(c, x, y)) / 255.0f; }

std::string reason(const std::function<void()>& action) {
  try {
    action();
  } catch (const st::Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool has(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE("'" << text << "' lacks '" << part << "'");
  return found;
}

template <int C>
st::Image<C> random_levels(std::int64_t h, std::int64_t w, std::uint32_t levels, std::uint64_t seed) {
  st::Rng rng(seed);
  st::Image<C> image(1, h, w);
  for (float& value : image.span()) value = float(rng.below(levels + 1)) / float(levels);
  return image;
}

template <int C>
bool same(const st::Image<C>& a, const st::Image<C>& b) {
  return a.shape() == b.shape() && std::equal(a.span().begin(), a.span().end(), b.span().begin());
}

}  // namespace

TEST_CASE("files of another program are read exactly") {
  CHECK(worst(st::load_image<1>(golden("grey.png")), grey_value) == 0);
  CHECK(worst(st::load_image<1>(golden("grey.bmp")), grey_value) == 0);
  CHECK(worst(st::load_image<1>(golden("grey_palette.png")), grey_value) == 0);
  CHECK(worst(st::load_image<3>(golden("rgb.png")), rgb_value) == 0);
  CHECK(worst(st::load_image<3>(golden("rgb.bmp")), rgb_value) == 0);
  CHECK(worst(st::load_image<3>(golden("rgb_32.bmp")), rgb_value) == 0);
  CHECK(worst(st::load_image<2>(golden("grey_alpha.png")), grey_value) == 0);
  CHECK(worst(st::load_image<4>(golden("rgb_alpha.png")), [](int c, std::int64_t x, std::int64_t y) {
          return c == 3 ? grey_value(0, x, y) : rgb_value(c, x, y);
        }) == 0);
  CHECK(worst(st::load_image<1>(golden("grey_16.png")),
              [](int, std::int64_t x, std::int64_t y) { return float(4000 * x + y) / 65535.0f; }) == 0);
  const auto black_white = [](int, std::int64_t x, std::int64_t y) { return grey_at(x, y) > 100 ? 1.0f : 0.0f; };
  CHECK(worst(st::load_image<1>(golden("black_white.png")), black_white) == 0);
  CHECK(worst(st::load_image<1>(golden("black_white.bmp")), black_white) == 0);
}

TEST_CASE("JPEG files of another program are read within JPEG's own error") {
  CHECK(worst(st::load_image<1>(golden("grey.jpg")), grey_value) < 2.5 / 255);
  CHECK(worst(st::load_image<3>(golden("rgb.jpg")), rgb_value) < 4.5 / 255);
  CHECK(worst(st::load_image<3>(golden("progressive.jpg")), rgb_value) < 4.5 / 255);
}

TEST_CASE("read_image_info") {
  const st::ImageInfo deep = st::read_image_info(golden("grey_16.png"));
  CHECK((deep.w == 17 && deep.h == 13 && deep.channels == 1 && deep.bits == 16));
  const st::ImageInfo alpha = st::read_image_info(golden("rgb_alpha.png"));
  CHECK((alpha.channels == 4 && alpha.bits == 8 && alpha.has_alpha() && alpha.format == st::ImageFormat::png));
  const st::ImageInfo photo = st::read_image_info(golden("progressive.jpg"));
  CHECK((photo.w == 17 && photo.h == 13 && photo.channels == 3 && photo.format == st::ImageFormat::jpeg));
  CHECK(st::read_image_info(golden("grey_palette.png")).channels == 1);
  CHECK(st::read_image_info(golden("grey.bmp")).channels == 1);
  CHECK(st::read_image_info(golden("rgb_32.bmp")).channels == 3);
}

TEST_CASE("channels change only as documented") {
  const auto copied = st::load_image<3>(golden("grey.png"));
  CHECK(worst(copied, grey_value) == 0);

  CHECK(has(reason([] { st::load_image<1>(golden("rgb.png")); }), "pass {.convert = true}"));
  CHECK(worst(st::load_image<1>(golden("rgb.png"), {.convert = true}), [](int, std::int64_t x, std::int64_t y) {
          return (0.299 * rgb_at(0, x, y) + 0.587 * rgb_at(1, x, y) + 0.114 * rgb_at(2, x, y)) / 255;
        }) < 1e-7);

  CHECK(has(reason([] { st::load_image<3>(golden("rgb_alpha.png")); }), "pass {.drop_alpha = true}"));
  CHECK(has(reason([] { st::load_image<1>(golden("grey_alpha.png")); }), "pass {.drop_alpha = true}"));
  CHECK(worst(st::load_image<3>(golden("rgb_alpha.png"), {.drop_alpha = true}), rgb_value) == 0);
  CHECK(worst(st::load_image<1>(golden("grey_alpha.png"), {.drop_alpha = true}), grey_value) == 0);
  CHECK(has(reason([] { st::load_image<4>(golden("rgb.png")); }), "use load_image<3>"));
}

TEST_CASE("every kind of PNG pixel: 1 to 16 bits, palettes, transparent colours, interlaced or not") {
  const strata_test::TemporaryFolder folder;
  const auto load = [&]<int C>(const strata_test::Png& png) {
    write_file(folder / "a.png", strata_test::file_of(png));
    return st::load_image<C>(folder / "a.png");
  };
  // 5 x 2 pixels of two bits, 0 1 2 3 0 / 3 2 1 0 3: as they are, by a palette, with a transparent colour.
  const Bytes rows{0, 0x1B, 0x00, 0, 0xE4, 0xC0};
  const int values[10] = {0, 1, 2, 3, 0, 3, 2, 1, 0, 3};
  const auto grey = load.operator()<1>({.w = 5, .h = 2, .depth = 2, .rows = rows});
  const auto keyed = load.operator()<2>({.w = 5, .h = 2, .depth = 2, .rows = rows, .before = chunk("tRNS", {0, 2})});
  const Bytes colours{10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120};
  const auto palette =
      load.operator()<3>({.w = 5, .h = 2, .depth = 2, .colour = 3, .rows = rows, .before = chunk("PLTE", colours)});
  Bytes half_transparent = chunk("PLTE", colours);
  strata_test::append(half_transparent, chunk("tRNS", {7, 8}));
  const auto alpha =
      load.operator()<4>({.w = 5, .h = 2, .depth = 2, .colour = 3, .rows = rows, .before = half_transparent});
  for (int i = 0; i < 10; ++i) {
    CHECK(grey.data()[i] == float(85 * values[i]) / 255);
    CHECK(keyed.data()[2 * i] == grey.data()[i]);
    CHECK(keyed.data()[2 * i + 1] == (values[i] == 2 ? 0.0f : 1.0f));
    for (int c = 0; c < 3; ++c) {
      CHECK(palette.data()[3 * i + c] == float(30 * values[i] + 10 * (c + 1)) / 255);
      CHECK(alpha.data()[4 * i + c] == palette.data()[3 * i + c]);
    }
    CHECK(alpha.data()[4 * i + 3] == (values[i] == 0 ? 7.0f : values[i] == 1 ? 8.0f : 255.0f) / 255);
  }
  // 16 bits with a transparent colour, of which one of three samples alone is not it.
  const Bytes deep{0, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 7};
  const auto key =
      load.operator()<4>({.w = 2, .depth = 16, .colour = 2, .rows = deep, .before = chunk("tRNS", {1, 2, 3, 4, 5, 6})});
  CHECK(key(0, 3, 0, 0) == 0);
  CHECK(key(0, 3, 0, 1) == 1);
  CHECK(key(0, 2, 0, 1) == float(0x0507) / 65535);
  // Interlaced: pixel (y, x) holds 16 y + x. Widths of one to nine, where some passes have no pixel.
  const int pass_x[7] = {0, 4, 0, 2, 0, 1, 0}, pass_y[7] = {0, 0, 4, 0, 2, 0, 1};
  const int step_x[7] = {8, 8, 4, 4, 2, 2, 1}, step_y[7] = {8, 8, 8, 4, 4, 2, 2};
  for (const auto& [h, w] : {std::pair{1, 1}, {1, 9}, {9, 1}, {3, 2}, {9, 7}}) {
    strata_test::Png png{.w = std::uint32_t(w), .h = std::uint32_t(h), .interlaced = true};
    for (int pass = 0; pass < 7; ++pass)
      for (int y = pass_y[pass]; y < h && pass_x[pass] < w; y += step_y[pass]) {
        png.rows.push_back(0);
        for (int x = pass_x[pass]; x < w; x += step_x[pass]) png.rows.push_back(static_cast<unsigned char>(16 * y + x));
      }
    const auto image = load.operator()<1>(png);
    REQUIRE(image.shape() == st::Shape{1, 1, h, w});
    for (int y = 0; y < h; ++y)
      for (int x = 0; x < w; ++x) CHECK(image(0, 0, y, x) == float(16 * y + x) / 255);
  }
}

TEST_CASE("rows so long that few of them are a picture") {
  const strata_test::TemporaryFolder folder;
  for (const auto& [h, w] : {std::pair{1, 200000}, {3, 150000}, {200000, 1}}) {
    st::Image<3> image(1, h, w);
    for (std::int64_t i = 0; i < image.size(); ++i) image.data()[i] = float((i * 7 + i / 1000) % 256) / 255;
    st::save_image(folder / "long.png", image);
    CHECK(same(st::load_image<3>(folder / "long.png"), image));
  }
}

TEST_CASE("JPEG's channels: grey, YCbCr, RGB, CMYK with and without Adobe's marker") {
  const strata_test::TemporaryFolder folder;
  using strata_test::FlatJpeg;
  const Bytes jfif = strata_test::segment(0xE0, {'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0});
  const auto adobe = [](unsigned char transform) {
    return strata_test::segment(0xEE, {'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, transform});
  };
  const auto load = [&](const FlatJpeg& jpeg) {
    write_file(folder / "a.jpg", strata_test::file_of(jpeg));
    const auto image = st::load_image<3>(folder / "a.jpg");
    return std::vector<long>{std::lround(image(0, 0, 0, 0) * 255), std::lround(image(0, 1, 0, 0) * 255),
                             std::lround(image(0, 2, 0, 0) * 255)};
  };
  CHECK(load({.levels = {77}}) == std::vector<long>{77, 77, 77});
  CHECK(load({.levels = {77, 128, 128}}) == std::vector<long>{77, 77, 77});
  CHECK(load({.levels = {10, 200, 30}, .ids = {'R', 'G', 'B'}}) == std::vector<long>{10, 200, 30});
  CHECK(load({.levels = {10, 200, 30}, .before = adobe(0)}) == std::vector<long>{10, 200, 30});
  // Inverted, as every program writes it: ink times black.
  const std::vector<long> inks{std::lround(200 * 100 / 255.0), std::lround(50 * 100 / 255.0),
                               std::lround(255 * 100 / 255.0)};
  CHECK(load({.levels = {200, 50, 255, 100}}) == inks);
  CHECK(load({.levels = {200, 50, 255, 100}, .before = adobe(0)}) == inks);
  CHECK(load({.levels = {200, 50, 255, 100}, .before = jfif}) == inks);
  const auto refused = [&](const FlatJpeg& jpeg) { return reason([&] { load(jpeg); }); };
  CHECK(has(refused({.levels = {200, 50, 255, 100}, .before = adobe(1)}), "four channels"));
  CHECK(has(refused({.levels = {1, 2, 3}, .ids = {'R', 'G', 'B'}, .before = jfif}), "called R, G and B"));
  CHECK(has(refused({.levels = {1, 2}}), "2 channels"));
  CHECK(has(refused({.frame = 0xC9}), "arithmetic"));
  CHECK(has(refused({.levels = {1, 2, 3}, .ids = {1, 1, 2}}), "one number"));
}

TEST_CASE("what is saved is what is loaded") {
  const strata_test::TemporaryFolder folder;
  for (const auto& [h, w] : {std::pair{1, 1}, {1, 7}, {5, 1}, {13, 17}, {64, 33}}) {
    CAPTURE(h);
    CAPTURE(w);
    const auto round_trip = [&]<int C>(std::integral_constant<int, C>, const char* name, int bits) {
      const auto image = random_levels<C>(h, w, bits == 16 ? 65535 : 255, std::uint64_t(h * 100 + w));
      st::save_image(folder / name, image, {.bits = bits});
      CHECK(same(st::load_image<C>(folder / name), image));
      CHECK(st::read_image_info(folder / name).bits == bits);
    };
    for (const int bits : {8, 16}) {
      round_trip(std::integral_constant<int, 1>{}, "a.png", bits);
      round_trip(std::integral_constant<int, 2>{}, "b.png", bits);
      round_trip(std::integral_constant<int, 3>{}, "c.PNG", bits);
      round_trip(std::integral_constant<int, 4>{}, "d.png", bits);
    }
    round_trip(std::integral_constant<int, 1>{}, "a.bmp", 8);
    round_trip(std::integral_constant<int, 3>{}, "c.bmp", 8);
  }
  st::Image<3> smooth(1, 24, 31);
  for (std::int64_t y = 0; y < 24; ++y)
    for (std::int64_t x = 0; x < 31; ++x)
      for (int c = 0; c < 3; ++c) smooth(0, c, y, x) = float(x + 2 * y + 10 * c) / 110.0f;
  st::save_image(folder / "smooth.jpeg", smooth, {.quality = 100});
  const auto back = st::load_image<3>(folder / "smooth.jpeg");
  double error = 0;
  for (std::int64_t i = 0; i < back.size(); ++i)
    strata_test::keep_largest(error, std::abs(double(back.data()[i]) - double(smooth.data()[i])));
  CHECK(error < 6.0 / 255);

  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    CHECK_FALSE(entry.path().extension().string().starts_with(".partial"));
}

TEST_CASE("values are clamped and rounded to the nearest level") {
  const strata_test::TemporaryFolder folder;
  st::Image<1> image(1, 1, 5);
  const float values[] = {-0.5f, 1.5f, 100.4f / 255, 100.6f / 255, std::numeric_limits<float>::infinity()};
  std::copy(std::begin(values), std::end(values), image.data());
  st::save_image(folder / "a.png", image);
  const auto back = st::load_image<1>(folder / "a.png");
  const int wanted[] = {0, 255, 100, 101, 255};
  for (int i = 0; i < 5; ++i) CHECK(back.data()[i] == float(wanted[i]) / 255);
}

TEST_CASE("what cannot be saved is refused and leaves no file") {
  const strata_test::TemporaryFolder folder;
  const auto grey = st::Image<1>::full(1, 4, 4, 0.5f);
  CHECK_THROWS_AS(st::save_image(folder / "a.tif", grey), st::FileError);
  CHECK_THROWS_AS(st::save_image(folder / "a", grey), st::FileError);
  CHECK_THROWS_AS(st::save_image(folder / "missing/a.png", grey), st::FileError);
  CHECK_THROWS_AS(st::save_image(folder / "a.png", st::Image<1>::full(2, 4, 4, 0.5f)), st::ShapeError);
  CHECK_THROWS_AS(st::save_image(folder / "a.png", st::Image<1>()), st::ShapeError);
  CHECK_THROWS_AS(st::save_image(folder / "a.png", grey, {.bits = 12}), st::ValueError);
  CHECK_THROWS_AS(st::save_image(folder / "a.jpg", grey, {.bits = 16}), st::ValueError);
  CHECK_THROWS_AS(st::save_image(folder / "a.jpg", grey, {.quality = 0}), st::ValueError);
  CHECK_THROWS_AS(st::save_image(folder / "a.bmp", st::Image<4>::full(1, 4, 4, 0.5f)), st::ValueError);
  CHECK_THROWS_AS(st::save_image(folder / "a.png", st::Image<1>::full(1, 4, 4, std::nanf(""))), st::NumericError);
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("what is no readable file is refused with its path") {
  const strata_test::TemporaryFolder folder;
  const auto check = [&](const char* name, const char* why) {
    CAPTURE(name);
    const std::string load = reason([&] { st::load_image<1>(folder / name); });
    CHECK(has(load, (folder / name).string()));
    CHECK(has(load, why));
    CHECK(has(reason([&] { st::read_image_info(folder / name); }), why));
  };
  check("missing.png", "there is no such file");
  std::filesystem::create_directory(folder / "folder.png");
  check("folder.png", "it is not a file");
  write_file(folder / "empty.png", {});
  check("empty.png", "it is empty");
  write_file(folder / "text.png", {'h', 'e', 'l', 'l', 'o'});
  check("text.png", "it is not a PNG, JPEG or BMP image");
}

TEST_CASE("a file cut short at any length is refused") {
  const strata_test::TemporaryFolder folder;
  for (const char* name : {"grey.png", "rgb.png", "grey_16.png", "grey_palette.png", "grey.bmp", "rgb_32.bmp",
                           "black_white.bmp", "grey.jpg", "rgb.jpg", "progressive.jpg"}) {
    CAPTURE(name);
    const Bytes whole = read_file(golden(name));
    REQUIRE(whole.size() > 50);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      CAPTURE(size);
      write_file(folder / "cut", Bytes(whole.begin(), whole.begin() + std::ptrdiff_t(size)));
      CHECK_THROWS_AS(st::load_image<3>(folder / "cut"), st::FileError);
    }
  }
}

TEST_CASE("JPEG image data that ends early or goes on too long is refused, wherever the end marker is") {
  const strata_test::TemporaryFolder folder;
  const auto refused = [&](const Bytes& bytes) {
    write_file(folder / "a.jpg", bytes);
    try {
      st::load_image<3>(folder / "a.jpg");
      return false;
    } catch (const st::FileError&) {
      return true;
    }
  };
  for (const char* name : {"grey.jpg", "rgb.jpg", "progressive.jpg"}) {
    CAPTURE(name);
    const Bytes whole = read_file(golden(name));
    CHECK_FALSE(refused(whole));
    for (std::size_t size = 2; size + 2 < whole.size(); ++size) {
      CAPTURE(size);
      Bytes cut(whole.begin(), whole.begin() + std::ptrdiff_t(size));
      strata_test::append(cut, {0xFF, 0xD9});
      CHECK(refused(cut));
    }
    Bytes longer(whole.begin(), whole.end() - 2);
    strata_test::append(longer, {0, 0, 0xFF, 0xD9});  // zeros in front of the end: some cameras write them
    CHECK_FALSE(refused(longer));
    longer[longer.size() - 4] = 0x12;
    CHECK(refused(longer));
  }
  using strata_test::FlatJpeg;
  const FlatJpeg restarts{.w = 40, .h = 24, .levels = {90, 128, 128}, .factors = 0x22, .restart_interval = 2};
  CHECK_FALSE(refused(strata_test::file_of(restarts)));
  Bytes swapped = strata_test::file_of(restarts);
  for (std::size_t i = 0; i + 1 < swapped.size(); ++i)
    if (swapped[i] == 0xFF && swapped[i + 1] == 0xD1) swapped[i + 1] = 0xD3;
  CHECK(refused(swapped));
  for (const std::int64_t units : {0, 1, 8, 10}) {
    FlatJpeg other = restarts;
    other.units = units;
    CHECK(refused(strata_test::file_of(other)));
  }
  FlatJpeg huge{.w = 8000, .h = 8000, .units = 1000};  // 64 megapixels, and data for few of them
  CHECK(refused(strata_test::file_of(huge)));
  huge.frame = 0xC2;
  CHECK(refused(strata_test::file_of(huge)));
  const Bytes one = strata_test::file_of(FlatJpeg{});
  const Bytes frame = strata_test::segment(0xC0, {8, 0, 8, 0, 8, 1, 1, 0x11, 0});
  CHECK(refused(strata_test::with_segment(one, frame)));  // two frames
  CHECK_FALSE(refused(one));
}

TEST_CASE("PNG files that are not understood, or contradict themselves, are refused by name") {
  const strata_test::TemporaryFolder folder;
  const auto why = [&](const strata_test::Png& png) {
    write_file(folder / "a.png", strata_test::file_of(png));
    return reason([&] { st::load_image<1>(folder / "a.png", {.convert = true, .drop_alpha = true}); });
  };
  const Bytes rows{0, 5};
  CHECK(why({.rows = rows}) == "nothing was thrown");
  CHECK(why({.rows = rows, .before = chunk("abCd", {1, 2})}) == "nothing was thrown");
  CHECK(has(why({.rows = rows, .before = chunk("ABCD", {1, 2})}), "'ABCD'"));
  CHECK(has(why({.rows = rows, .behind = chunk("ABCD", {1, 2})}), "'ABCD'"));
  CHECK(has(why({.colour = 3, .rows = rows}), "palette is missing"));
  CHECK(has(why({.colour = 3, .rows = rows, .before = chunk("PLTE", {1, 2, 3})}), "outside the palette"));
  CHECK(has(why({.colour = 3, .rows = rows, .before = chunk("PLTE", {1, 2})}), "palette is impossible"));
  CHECK(has(why({.rows = rows, .before = chunk("tRNS", {1})}), "transparency is impossible"));
  CHECK(has(why({.rows = rows, .behind = chunk("tRNS", {0, 1})}), "behind the pixels"));
  Bytes parted = chunk("tEXt", {'a'});
  strata_test::append(parted, chunk("IDAT", {1}));
  CHECK(has(why({.rows = rows, .behind = parted}), "in two places"));
  // An animation's further pictures are passed over.
  CHECK(why({.rows = rows, .before = chunk("acTL", Bytes(8)), .behind = chunk("fdAT", Bytes(12))}) ==
        "nothing was thrown");
  Bytes apple(st::detail::png_signature.begin(), st::detail::png_signature.end());
  const Bytes usual = strata_test::file_of(strata_test::Png{.rows = rows});
  strata_test::append(apple, chunk("CgBI", {0x50, 0, 0x20, 2}));
  apple.insert(apple.end(), usual.begin() + 8, usual.end());
  write_file(folder / "apple.png", apple);
  CHECK(has(reason([&] { st::load_image<1>(folder / "apple.png"); }), "CgBI"));
}

TEST_CASE("a damaged PNG is always noticed") {
  const strata_test::TemporaryFolder folder;
  const Bytes whole = read_file(golden("rgb.png"));
  st::Rng rng(1);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    CAPTURE(at);
    Bytes damaged = whole;
    damaged[at] = static_cast<unsigned char>(damaged[at] ^ (1u << rng.below(8)));
    write_file(folder / "damaged.png", damaged);
    CHECK_THROWS_AS(st::load_image<3>(folder / "damaged.png"), st::FileError);
  }
}

TEST_CASE("damaged files and noise never do worse than FileError") {
  const strata_test::TemporaryFolder folder;
  int refused = 0, loaded = 0;
  const auto attempt = [&](const Bytes& bytes) {
    write_file(folder / "hostile", bytes);
    try {
      const auto image = st::load_image<3>(folder / "hostile", {.drop_alpha = true, .max_pixels = 1 << 16});
      ++loaded;
      CHECK(image.h() * image.w() <= 1 << 16);
      const auto values = image.span();
      CHECK(std::all_of(values.begin(), values.end(), [](float value) { return value >= 0 && value <= 1; }));
    } catch (const st::FileError&) {
      ++refused;
    }
  };
  for (const char* name : {"grey.bmp", "rgb_32.bmp", "black_white.bmp", "grey.jpg", "rgb.jpg", "progressive.jpg"}) {
    CAPTURE(name);
    const Bytes whole = read_file(golden(name));
    st::Rng rng(2);
    for (int round = 0; round < 400; ++round) {
      Bytes damaged = whole;
      const std::uint32_t hits = 1 + rng.below(8);
      const auto reach = round % 2 ? std::uint32_t(whole.size()) : std::min(std::uint32_t(whole.size()), 200u);
      for (std::uint32_t hit = 0; hit < hits; ++hit)
        damaged[rng.below(reach)] = static_cast<unsigned char>(rng.below(256));
      attempt(damaged);
    }
  }
  st::Rng rng(3);
  for (int round = 0; round < 300; ++round) {
    Bytes noise(rng.below(400));
    for (unsigned char& byte : noise) byte = static_cast<unsigned char>(rng.below(256));
    const char* start = round % 4 == 0   ? "BM"
                        : round % 4 == 1 ? "\xFF\xD8\xFF"
                        : round % 4 == 2 ? "\x89PNG\r\n\x1A\n"
                                         : "";
    for (std::size_t i = 0; start[i] != 0 && i < noise.size(); ++i) noise[i] = static_cast<unsigned char>(start[i]);
    attempt(noise);
  }
  CHECK(refused > 300);
  CHECK(loaded > 0);
}

TEST_CASE("PNG with right checksums and wrong contents is refused") {
  // The fields of the header and the compressed pixels are changed and the checksums made to fit.
  const strata_test::TemporaryFolder folder;
  const Bytes whole = read_file(golden("grey.png"));
  const auto refit = [](Bytes file) {
    for (std::size_t at = 8; at + 12 <= file.size();) {
      const std::size_t length = st::detail::big_endian(st::detail::Bytes(file).subspan(at, 4));
      if (length > file.size() - at - 12) break;
      const std::uint32_t crc = st::crc32(st::detail::Bytes(file).subspan(at + 4, length + 4));
      for (std::size_t i = 0; i < 4; ++i) file[at + 8 + length + i] = static_cast<unsigned char>(crc >> (24 - 8 * i));
      at += 12 + length;
    }
    return file;
  };
  CHECK(refit(whole) == whole);
  const std::size_t header = 16;  // width, height, bits, colour type, compression, filter, interlace
  const std::pair<std::size_t, unsigned char> changes[] = {
      {header + 3, 0}, {header + 7, 0},  {header + 0, 0x7F}, {header + 4, 0xFF}, {header + 8, 3},   {header + 9, 5},
      {header + 9, 2}, {header + 10, 1}, {header + 11, 1},   {header + 12, 2},   {header + 3, 200}, {header + 7, 200}};
  for (const auto& [at, value] : changes) {
    CAPTURE(at);
    Bytes changed = whole;
    changed[at] = value;
    write_file(folder / "changed.png", refit(changed));
    CHECK_THROWS_AS(st::load_image<1>(folder / "changed.png"), st::FileError);
  }
  st::Rng rng(4);
  for (int round = 0; round < 300; ++round) {
    Bytes changed = whole;
    changed[41 + rng.below(std::uint32_t(whole.size() - 41 - 16))] = static_cast<unsigned char>(rng.below(256));
    write_file(folder / "changed.png", refit(changed));
    try {
      const auto image = st::load_image<1>(folder / "changed.png");
      CHECK(image.shape() == st::Shape{1, 1, 13, 17});
    } catch (const st::FileError&) {
    }
  }
}

TEST_CASE("images larger than the limit are refused before they take memory") {
  CHECK(has(reason([] { st::load_image<1>(golden("grey.png"), {.max_pixels = 13 * 17 - 1}); }), "raise LoadOptions"));
  CHECK_NOTHROW(st::load_image<1>(golden("grey.png"), {.max_pixels = 13 * 17}));

  // A PNG of 4x4 pixels whose compressed data is a gigabyte of zeros would be a few hundred kilobytes large; 64 MiB do.
  const strata_test::TemporaryFolder folder;
  write_file(folder / "bomb.png",
             strata_test::file_of(strata_test::Png{.w = 4, .h = 4, .rows = Bytes(std::size_t{1} << 26)}));
  CHECK(has(reason([&] { st::load_image<1>(folder / "bomb.png"); }), "it is damaged"));
}

TEST_CASE("list_images") {
  const strata_test::TemporaryFolder folder;
  CHECK_THROWS_AS(st::list_images(folder / "missing"), st::FileError);
  CHECK(has(reason([&] { st::list_images(folder.path()); }), "there is no image"));
  const auto grey = st::Image<1>::full(1, 2, 2, 0.5f);
  for (const char* name : {"b.png", "a.JPG", "c.bmp"}) st::save_image(folder / name, grey);
  write_file(folder / "notes.txt", {'x'});
  write_file(folder / ".hidden.png", {'x'});
  std::filesystem::create_directory(folder / "folder.png");
  const auto images = st::list_images(folder.path());
  CHECK(images == std::vector{folder / "a.JPG", folder / "b.png", folder / "c.bmp"});
  write_file(folder / "z.TIFF", {'x'});
  CHECK(has(reason([&] { st::list_images(folder.path()); }), "z.TIFF: cannot read .tiff images"));
}
