#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cmath>
#include <numbers>
#include <set>
#include <vector>

#include "strata/core/random.hpp"

namespace st = strata;
using Words = std::array<std::uint32_t, 4>;

TEST_CASE("philox4x32 gives the known answers of Random123") {  // its file kat_vectors, philox4x32 with 10 rounds
  CHECK(st::philox4x32({0, 0, 0, 0}, {0, 0}) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(st::philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(st::philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});  // digits of pi
  static_assert(st::philox4x32({0, 0, 0, 0}, {0, 0})[0] == 0x6627e8d5);
}

TEST_CASE("an Rng is the philox stream of its names") {
  st::Rng rng(0x0123456789abcdefu, 7, 9);
  for (std::uint32_t block = 0; block < 3; ++block)
    for (const std::uint32_t word : st::philox4x32({block, 0, 7, 9}, {0x89abcdef, 0x01234567}))
      CHECK(rng.bits() == word);

  std::set<std::uint32_t> first;  // other names, other streams
  for (const auto& other : {st::Rng(1), st::Rng(2), st::Rng(1, 1), st::Rng(1, 0, 1), st::Rng(std::uint64_t{1} << 32)}) {
    st::Rng copy = other;
    first.insert(copy.bits());
  }
  CHECK(first.size() == 5);
}

TEST_CASE("an Rng goes on in a copy and can be set to a place") {
  st::Rng rng(5);
  rng.bits();
  rng.normal();
  st::Rng copy = rng;
  for (int i = 0; i < 9; ++i) CHECK(rng.normal() == copy.normal());

  st::Rng a(5), b(5);
  for (int i = 0; i < 12; ++i) a.bits();
  b.normal();  // seek forgets the second number of the pair
  b.seek(3);
  for (int i = 0; i < 5; ++i) CHECK(a.normal() == b.normal());
}

TEST_CASE("uniform numbers") {
  st::Rng rng(1);
  double sum = 0, squares = 0;
  float least = 1, most = 0;
  constexpr int count = 100000;
  for (int i = 0; i < count; ++i) {
    const float x = rng.uniform();
    least = std::min(least, x), most = std::max(most, x);
    sum += double(x), squares += double(x) * double(x);
  }
  CHECK(least >= 0.0f);
  CHECK(most < 1.0f);
  const double mean = sum / count;
  CHECK(std::abs(mean - 0.5) < 5 * std::sqrt(1.0 / 12 / count));
  CHECK(squares / count - mean * mean == doctest::Approx(1.0 / 12).epsilon(0.02));
  for (int i = 0; i < 100; ++i) {
    const float x = rng.uniform(-3.0f, -2.0f);
    CHECK((x >= -3.0f && x < -2.0f));
  }
}

TEST_CASE("below is uniform, also where n divides nothing") {
  st::Rng rng(2);
  std::array<int, 7> counts{};
  for (int i = 0; i < 70000; ++i) ++counts[rng.below(7)];
  for (const int count : counts) CHECK(std::abs(count - 10000) < 5 * std::sqrt(10000.0 * 6 / 7));
  for (int i = 0; i < 10; ++i) CHECK(rng.below(1) == 0);
  // Three quarters of 2^32: a remainder would give the lower third twice as often as the others.
  int lower = 0;
  for (int i = 0; i < 30000; ++i) lower += rng.below(3u << 30) < (1u << 30);
  CHECK(std::abs(lower - 10000) < 5 * std::sqrt(30000.0 * 2 / 9));
}

TEST_CASE("normal numbers") {
  st::Rng rng(3);
  double sum = 0, squares = 0, fourth = 0, neighbours = 0, before = 0;
  constexpr int count = 100000;
  for (int i = 0; i < count; ++i) {
    const double x = double(rng.normal());
    sum += x, squares += x * x, fourth += x * x * x * x, neighbours += x * before;
    before = x;
  }
  CHECK(std::abs(sum / count) < 5 / std::sqrt(double(count)));
  CHECK(squares / count == doctest::Approx(1.0).epsilon(0.02));
  CHECK(fourth / count == doctest::Approx(3.0).epsilon(0.05));
  CHECK(std::abs(neighbours / count) < 5 / std::sqrt(double(count)));

  std::vector<float> values(1001);
  rng.fill_normal(values, 10.0f, 0.5f);
  double mean = 0;
  for (const float x : values) mean += double(x) / 1001;
  CHECK(mean == doctest::Approx(10.0).epsilon(0.01));
}

TEST_CASE("fill_normal gives the numbers of normal, from any place in the stream") {
  for (int before = 0; before < 6; ++before)
    for (const std::size_t count : {0u, 1u, 2u, 31u, 32u, 33u, 100u}) {
      st::Rng a(11, 2, 3), b(11, 2, 3);
      for (int i = 0; i < before; ++i) CHECK(a.bits() == b.bits());
      if (before == 5) CHECK(a.normal() == b.normal());  // leaves the second of a pair
      std::vector<float> values(count);
      a.fill_normal(values, 0, 1);
      for (const float x : values) CHECK(x == b.normal());
      CHECK(a.normal() == b.normal());
      CHECK(a.bits() == b.bits());
    }
}

TEST_CASE("normal numbers are those of exact arithmetic, with the same bits on every processor") {
  st::Rng rng(7, 1, 2), words(7, 1, 2);
  std::vector<float> values(100000);
  rng.fill_normal(values, 0, 1);
  int different = 0;
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a of the bits
  for (std::size_t i = 0; i < values.size(); i += 2) {
    const double u = (double(words.bits()) + 1) * 0x1p-32,
                 angle = 2 * std::numbers::pi * double(words.bits()) * 0x1p-32;
    const double radius = std::sqrt(-2 * std::log(u));
    different += values[i] != float(radius * std::cos(angle));
    different += values[i + 1] != float(radius * std::sin(angle));
  }
  for (const float x : values) hash = (hash ^ std::bit_cast<std::uint32_t>(x)) * 0x100000001b3;
  CHECK(different < 3);  // of the last bit, where the C library rounds the other way
  CHECK(hash == 0xa6daaef48a98dec2);
}
