// What the readers and writers of pictures do when memory is short: small files cost little, and each allocation that
// fails is an error like others, which leaves nothing half-written.
#include <doctest/doctest.h>

#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "failing_allocator.hpp"
#include "picture_bytes.hpp"
#include "strata/data/image_folder.hpp"
#include "strata/data/raw_image.hpp"
#include "temporary_folder.hpp"

namespace st = strata;
using strata_test::FlatJpeg;
using strata_test::Png;

namespace {

std::string golden(const char* name) { return std::string(STRATA_TESTS_FOLDER "/golden/images/") + name; }

/// Runs the work with its first, second, ... allocation failing until it asks for no more. Returns how many there were.
long with_each_failing(bool and_all_after, const std::function<void()>& work, const std::function<void(bool)>& check) {
  for (long n = 1;; ++n) {
    bool thrown = false, failed = false;
    {
      const strata_test::FailNthAllocation failing(n, and_all_after);
      try {
        work();
      } catch (const std::exception&) {
        thrown = true;
      }
      failed = failing.failed();
    }
    check(thrown);
    if (!failed) {
      CHECK_FALSE(thrown);
      return n - 1;
    }
  }
}

}  // namespace

TEST_CASE("a small file costs little memory, however large it says its picture is") {
  const strata_test::TemporaryFolder folder;
  constexpr std::int64_t any = std::numeric_limits<std::int64_t>::max();
  const auto check = [&](const char* name, const strata_test::Buffer& file) {
    CAPTURE(name);
    strata_test::write_file(folder / name, file);
    const strata_test::CountBytes counted;
    CHECK_THROWS_AS(st::load_raw_image(folder / name, any), st::FileError);
    CHECK_THROWS_AS(st::load_image<3>(folder / name, {.drop_alpha = true, .max_pixels = any}), st::FileError);
    CHECK_THROWS_AS(st::load_image_part<3>(folder / name, 0, 0, 1, 1, {.drop_alpha = true, .max_pixels = any}),
                    st::FileError);
    CHECK(counted.so_far() < (4 << 20));
  };
  for (const auto& [w, h] :
       {std::pair{0x4000u, 0x4000u}, {0x7FFFFFFFu, 0x7FFFFFFFu}, {1u, 0x7FFFFFFFu}, {0x7FFFFFFFu, 1u}})
    for (const int colour : {0, 2, 3, 4, 6})
      for (const bool interlaced : {false, true}) {
        const strata_test::Buffer palette = colour == 3 ? strata_test::chunk("PLTE", {1, 2, 3}) : strata_test::Buffer();
        check("a.png", strata_test::file_of(Png{.w = w, .h = h, .colour = colour, .interlaced = interlaced,
                                                .rows = strata_test::Buffer(100), .before = palette}));
      }
  for (const int frame : {0xC0, 0xC2})
    for (const std::vector<int>& levels : {std::vector<int>{128}, {128, 128, 128}, {128, 128, 128, 128}}) {
      check("a.jpg",
            strata_test::file_of(FlatJpeg{.w = 65535, .h = 65535, .levels = levels, .frame = frame, .units = 100}));
      check("a.jpg", strata_test::file_of(
                         FlatJpeg{.w = 65535, .h = 1, .levels = levels, .frame = frame, .factors = 0x44, .units = 1}));
    }
  strata_test::Buffer bmp = strata_test::read_file(golden("rgb_32.bmp"));
  for (const std::size_t at : {18u, 22u}) bmp[at + 3] = 0x7F;  // 2^31 pixels in each direction
  check("a.bmp", bmp);
  bmp[25] = 0x80;  // from the top down
  check("a.bmp", bmp);
}

TEST_CASE("the limit on pixels is Pillow's unless another is given") {
  const strata_test::TemporaryFolder folder;
  strata_test::write_file(folder / "a.png",
                          strata_test::file_of(Png{.w = 16384, .h = 16384, .rows = strata_test::Buffer(100)}));
  CHECK_THROWS_WITH_AS(st::load_image<1>(folder / "a.png"), doctest::Contains("limit is 178956970"), st::FileError);
  CHECK_THROWS_WITH_AS(st::load_raw_image(folder / "a.png"), doctest::Contains("limit is 178956970"), st::FileError);
  CHECK(st::ImageFolderOptions().max_pixels == 178956970);
}

TEST_CASE("each reader ends in an error when any allocation fails") {
  const strata_test::TemporaryFolder folder;
  const std::filesystem::path pictures = folder / "pictures";
  std::filesystem::create_directory(pictures);
  std::filesystem::copy_file(golden("grey.png"), pictures / "a.png");
  std::filesystem::copy_file(golden("grey.jpg"), pictures / "b.jpg");
  strata_test::write_file(folder / "interlaced.png",
                          strata_test::file_of(Png{.w = 2, .h = 2, .depth = 1, .colour = 3, .interlaced = true,
                                                   .rows = {0, 0, 0, 0x80, 0, 0xC0},
                                                   .before = strata_test::chunk("PLTE", {1, 2, 3, 4, 5, 6})}));
  strata_test::write_file(folder / "cmyk.jpg", strata_test::file_of(FlatJpeg{.levels = {1, 2, 3, 4}}));
  for (const std::string& file :
       {golden("rgb.png"), golden("grey_16.png"), golden("grey_palette.png"), golden("rgb.jpg"),
        golden("progressive.jpg"), golden("rgb.bmp"), golden("black_white.bmp"), (folder / "interlaced.png").string(),
        (folder / "cmyk.jpg").string()})
    for (const bool and_all_after : {false, true}) {
      CAPTURE(file);
      const auto nothing = [](bool) {};
      CHECK(with_each_failing(and_all_after, [&] { st::load_image<3>(file); }, nothing) > 2);
      CHECK(with_each_failing(and_all_after, [&] { st::load_image_part<3>(file, 0, 0, 1, 1); }, nothing) > 2);
      CHECK(with_each_failing(and_all_after, [&] { st::load_raw_image(file); }, nothing) > 2);
      CHECK(with_each_failing(and_all_after, [&] { st::read_image_info(file); }, nothing) > 0);
    }
  for (const bool in_memory : {true, false})
    CHECK(with_each_failing(
              false, [&] { st::ImageFolder<1>(pictures, {.in_memory = in_memory}).image(1); }, [](bool) {}) > 5);
  CHECK(with_each_failing(false, [&] { st::PairedFolder<1>(pictures, pictures); }, [](bool) {}) > 5);
  // The error is the file's, with its path.
  bool named = true;
  with_each_failing(
      false,
      [&] {
        try {
          st::load_image<3>(golden("rgb.jpg"));
        } catch (const st::FileError& error) {
          named = named && std::string(error.what()).find("rgb.jpg") != std::string::npos;
          throw;
        }
      },
      [](bool) {});
  CHECK(named);
}

TEST_CASE("each writer leaves the old file or the new one when any allocation fails") {
  const strata_test::TemporaryFolder folder;
  const auto grey = st::Image<1>::full(1, 9, 7, 0.25f);
  st::RawImage raw(9, 7, 3, 8);
  raw.metadata.icc.assign(200, 5);
  std::copy_n("RGB ", 4, raw.metadata.icc.begin() + 16);
  raw.metadata.x_density = raw.metadata.y_density = 4000, raw.metadata.per_metre = true;
  for (const char* name : {"a.png", "a.jpg", "a.bmp"}) {
    CAPTURE(name);
    const std::filesystem::path path = folder / name;
    const strata_test::Buffer old = strata_test::letters("the old file");
    for (const auto& work : {std::function<void()>([&] { st::save_image(path, grey); }),
                             std::function<void()>([&] { st::save_raw_image(path, raw); })}) {
      work();
      const strata_test::Buffer wanted = strata_test::read_file(path);
      strata_test::write_file(path, old);
      long files = 0;
      const long allocations = with_each_failing(false, work, [&](bool thrown) {
        const strata_test::Buffer got = strata_test::read_file(path);
        CHECK((got == wanted || (thrown && got == old)));
        files = 0;
        for (const auto& entry : std::filesystem::directory_iterator(folder.path())) files += entry.is_regular_file();
        CHECK(files == 1);
        strata_test::write_file(path, old);
      });
      CHECK(allocations > 2);
    }
    std::filesystem::remove(path);
  }
}
