#include "strata/core/numpy_random.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cstdint>

namespace st = strata;

namespace {

// Made by tests/golden/numpy_random.py with NumPy 2.4.6.
struct Golden {
  std::uint32_t seed;
  double uniform[3], normal[5], scaled;
  std::uint64_t noise_bits;  // all bits of 100000 numbers, exclusive or
};
const Golden golden[] = {
    {0u,
     {0x1.18fe1565f12a8p-1, 0x1.6e2d4cf608733p-1, 0x1.349d66b6e894bp-1},
     {-0x1.2258941855050p+1, 0x1.55633ae9cc424p+0, -0x1.af7986f57fa88p-1, 0x1.f84cf7f7312a7p+0, 0x1.4420580e99483p+0},
     0x1.9a6d8c91302e1p-3,
     0x80509bb8163b4c72u},
    {1u,
     {0x1.ab07d0ffa3c06p-2, 0x1.70ce5f3baf051p-1, 0x1.dfb906661c000p-14},
     {-0x1.9ab665f778871p-1, -0x1.cba69fc03e5b1p-2, -0x1.1b1e8fa6f47a2p+0, -0x1.a78e531ed0179p+0,
      -0x1.2e8623a553924p+1},
     0x1.71fad217b9687p-2,
     0x807d33f7a64fae39u},
    {12345u,
     {0x1.dbf6a3f8f84b7p-1, 0x1.43f7f410bb044p-2, 0x1.78aa6d0a2dad8p-3},
     {0x1.43bf7300c5a97p-2, -0x1.61131ec9b72a5p+0, 0x1.cd5e2363ccc76p-2, 0x1.7b96fc9cc7cfep-4, 0x1.3f85a23ff8a71p+0},
     0x1.4d1c7d4cbd9c8p-2,
     0x80487fe66c4c06eeu},
    {4294967295u,
     {0x1.8fe69a3924820p-4, 0x1.d323d824032b1p-1, 0x1.93fc6f61af3f9p-1},
     {0x1.4d051339bc741p-4, 0x1.a3847f39c09c9p-2, 0x1.438a83ff956b5p-2, 0x1.1f0a745bc025bp-5, -0x1.bdce69d4cae60p+0},
     0x1.557153700743ap-3,
     0x00f088c18b244869u},
};

}  // namespace

TEST_CASE("NumpyRandom gives NumPy's legacy numbers, bit for bit") {
  for (const Golden& wanted : golden) {
    CAPTURE(wanted.seed);
    st::NumpyRandom random(wanted.seed);
    for (const double value : wanted.uniform) CHECK(random.uniform() == value);
    for (const double value : wanted.normal) CHECK(random.normal() == value);
    CHECK(random.normal(0.25, 25.0 / 255) == wanted.scaled);

    st::NumpyRandom noise(wanted.seed);
    std::uint64_t bits = 0;
    for (int i = 0; i < 100000; ++i) bits ^= std::bit_cast<std::uint64_t>(noise.normal(0, 25.0 / 255));
    CHECK(bits == wanted.noise_bits);
  }
}
