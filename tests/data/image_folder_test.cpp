#include "strata/data/image_folder.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <string>
#include <type_traits>

#include "temporary_folder.hpp"

namespace st = strata;

namespace {

template <int C = 1>
void save(const std::filesystem::path& path, std::int64_t h, std::int64_t w, int level) {
  st::save_image(path, st::Image<C>::full(1, h, w, float(level) / 255));
}

template <class Action>
std::string reason(Action action) {
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

struct Made {
  static constexpr int channels = 1;
  std::size_t size() const { return 40; }
  st::Image<1> image(std::size_t index) const {
    if (index == 30 || index == 35) throw st::ValueError(st::concat("no image ", index));
    return st::Image<1>::full(1, 1, 2, float(index));
  }
};

}  // namespace

static_assert(st::Dataset<st::ImageFolder<1>> && st::ImageSource<st::ImageFolder<1>>);
static_assert(st::Dataset<st::PairedFolder<3>>);

TEST_CASE("ImageFolder holds every image, in order of names") {
  const strata_test::TemporaryFolder folder;
  for (int i = 0; i < 9; ++i) save(folder / ("p" + std::to_string(8 - i) + ".png"), 2 + i, 3, i);
  for (const bool in_memory : {true, false}) {
    const st::ImageFolder<1> images(folder.path(), {.in_memory = in_memory});
    REQUIRE(images.size() == 9);
    for (std::size_t i = 0; i < 9; ++i) {
      CHECK(images.name(i) == (folder / ("p" + std::to_string(i) + ".png")).string());
      CHECK(images.image(i).h() == 10 - std::int64_t(i));
      CHECK(images.image(i)(0, 0, 0, 0) == float(8 - i) / 255);
    }
    st::Rng rng;
    CHECK(images.get(3, rng).target(0, 0, 1, 1) == 5.0f / 255);
    CHECK_THROWS_AS(images.image(9), st::ValueError);
  }
  std::filesystem::remove(folder / "p0.png");
  const st::ImageFolder<3> colour(folder.path());
  CHECK(colour.size() == 8);
}

TEST_CASE("ImageFolder refuses a folder with one bad image, by name") {
  const strata_test::TemporaryFolder folder;
  for (int i = 0; i < 5; ++i) save(folder / (std::to_string(i) + ".png"), 2, 3, i);
  std::ofstream(folder / "3.png") << "no image";
  std::ofstream(folder / "4.png") << "no image either";
  for (const bool in_memory : {true, false})
    CHECK(has(reason([&] { st::ImageFolder<1>(folder.path(), {.in_memory = in_memory}); }), "3.png: cannot read"));
  CHECK_THROWS_AS(st::ImageFolder<1>(folder / "missing"), st::FileError);
}

TEST_CASE("ImageFolder hands its options on") {
  const strata_test::TemporaryFolder folder;
  save<3>(folder / "rgb.png", 2, 3, 100);
  CHECK(has(reason([&] { st::ImageFolder<1>(folder.path()); }), "pass {.convert = true}"));
  CHECK(st::ImageFolder<1>(folder.path(), {.convert = true}).image(0)(0, 0, 0, 0) == doctest::Approx(100.0 / 255));
  CHECK(has(reason([&] { st::ImageFolder<3>(folder.path(), {.max_pixels = 5}); }), "the limit is 5"));
}

TEST_CASE("MemoryImages and AnyImages") {
  CHECK(has(reason([] { st::MemoryImages<1>(Made{}); }), "no image 30"));  // the first one, whatever the threads do
  const st::MemoryImages<1> given({st::Image<1>::full(1, 1, 1, 3), st::Image<1>::full(1, 1, 1, 4)});
  const st::MemoryImages<1> kept{st::AnyImages<1>(given)};
  CHECK(kept.size() == 2);
  CHECK(kept.image(1)(0, 0, 0, 0) == 4);
  CHECK(kept.name(1) == "image 1");
  static_assert(!std::is_constructible_v<st::AnyImages<3>, Made>);
}

TEST_CASE("PairedFolder pairs by name, whatever the format") {
  const strata_test::TemporaryFolder folder;
  std::filesystem::create_directory(folder / "noisy");
  std::filesystem::create_directory(folder / "clean");
  for (int i = 0; i < 3; ++i) {
    save(folder / "noisy" / (std::to_string(i) + ".bmp"), 4, 3 + i, 10 + i);
    save(folder / "clean" / (std::to_string(i) + ".png"), 4, 3 + i, 20 + i);
  }
  st::Rng rng;
  for (const bool in_memory : {true, false}) {
    const st::PairedFolder<1> pairs(folder / "noisy", folder / "clean", {.in_memory = in_memory});
    REQUIRE(pairs.size() == 3);
    const auto sample = pairs.get(1, rng);
    CHECK(sample.input(0, 0, 0, 0) == 11.0f / 255);
    CHECK(sample.target(0, 0, 3, 3) == 21.0f / 255);
  }
  const auto pair_up = [&] { st::PairedFolder<1>(folder / "noisy", folder / "clean"); };

  save(folder / "clean/3.png", 4, 4, 0);
  const std::string text = reason(pair_up);
  CHECK(has(text, "1 images have no partner"));
  CHECK(has(text, "3.png"));

  save(folder / "noisy/3.png", 4, 5, 0);
  CHECK(has(reason(pair_up), "3.png has 5x4 pixels and"));

  save(folder / "noisy/3.bmp", 4, 4, 0);
  CHECK(has(reason(pair_up), "two images of one name"));
}

TEST_CASE("PairedFolder for super-resolution") {
  const strata_test::TemporaryFolder folder;
  std::filesystem::create_directory(folder / "small");
  std::filesystem::create_directory(folder / "large");
  save(folder / "small/a.png", 4, 5, 1);
  save(folder / "large/a.png", 8, 10, 1);
  CHECK_NOTHROW(st::PairedFolder<1>(folder / "small", folder / "large", {.scale = 2}));
  CHECK_THROWS_AS(st::PairedFolder<1>(folder / "small", folder / "large"), st::FileError);
  CHECK_THROWS_AS(st::PairedFolder<1>(folder / "small", folder / "large", {.scale = 0}), st::ValueError);
}
