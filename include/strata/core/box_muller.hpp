// The transform of Box and Muller, from pairs of random words to pairs of normal numbers, with arithmetic of its own
// instead of the C library's: several pairs at once, and the same bits on every processor and with every library.
//
//     auto [x, y] = st::detail::box_muller(first_word, second_word);          // doubles that hold words, 0 to 2^32 - 1
//
// x = sqrt(-2 log u) cos(2 pi t), y likewise with sin; u = (first + 1) / 2^32 and t = second / 2^32. Relative error
// about 1e-13, so that rounded to float nearly all results are the ones of exact arithmetic.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/core/config.hpp"
#include "strata/core/rounded.hpp"
#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

template <class V>
struct Int64s {
  using type = simd::Vector<std::int64_t>;
};
template <>
struct Int64s<double> {
  using type = std::int64_t;
};

/// c0 + c1 x + c2 x^2 + ... of the coefficients, each step rounded twice.
template <class V, int Count>
[[gnu::always_inline]] inline V polynomial(V x, const double (&c)[Count]) {
  V sum = V{} + c[Count - 1];
  simd::unroll<Count - 1>([&](auto i) STRATA_INLINED { sum = rounded(sum * x) + c[Count - 2 - i]; });
  return sum;
}

/// V: double, or a vector of doubles. The words are whole numbers from 0 to 2^32 - 1.
template <class V>
[[gnu::always_inline]] inline std::pair<V, V> box_muller(V first, V second) {
  using I = typename Int64s<V>::type;

  // log u = e log 2 + log m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1).
  const I bits = std::bit_cast<I>(rounded((first + 1.0) * 0x1p-32));
  V m = std::bit_cast<V>((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000);
  V e = std::bit_cast<V>((bits >> 52) | 0x4330000000000000) - (0x1p52 + 1023);
  const auto large = m > 1.4142135623730951;
  e = large ? e + 1.0 : e;
  m = large ? m * 0.5 : m;
  const V s = (m - 1.0) / (m + 1.0), s2 = rounded(s * s);
  const V series =
      polynomial(s2, {2.0, 2.0 / 3, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11, 2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19});
  const V squared = (rounded(e * 0.6931471805599453) + rounded(s * series)) * -2.0;
  V radius;
  if constexpr (std::is_same_v<V, double>)
    radius = std::sqrt(squared);
  else
    for (int i = 0; i < simd::lanes<V>; ++i) radius[i] = std::sqrt(squared[i]);

  // The angle is quarter * pi/2 + a with a in [-pi/4, pi/4]; the nearest quarter by adding 2^52, which rounds.
  const V rounder = V{} + 0x1p52, quarter = rounded(rounded(second * 0x1p-30) + rounder);
  const V a = rounded((second - (quarter - rounder) * 0x1p30) * 0x1p-32) * 6.283185307179586, a2 = rounded(a * a);
  const I q = std::bit_cast<I>(quarter);  // its lowest bits count quarters
  const V sine = a * polynomial(a2, {1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800,
                                     1.0 / 6227020800, -1.0 / 1307674368000});
  const V cosine = polynomial(a2, {1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
                                   -1.0 / 87178291200});
  const auto odd = (q & 1) != 0;
  const V x = odd ? sine : cosine, y = odd ? cosine : sine;
  return {((q + 1) & 2) != 0 ? -rounded(radius * x) : radius * x, (q & 2) != 0 ? -rounded(radius * y) : radius * y};
}

/// x0 y0 x1 y1 ... as floats.
[[gnu::always_inline]] inline simd::Vector<float> interleaved(
    const std::pair<simd::Vector<double>, simd::Vector<double>>& xy) {
  using V = simd::Vector<double>;
  typedef float Half __attribute__((vector_size(sizeof(V) / 2)));
  const Half x = __builtin_convertvector(xy.first, Half), y = __builtin_convertvector(xy.second, Half);
  return [&]<int... I>(std::integer_sequence<int, I...>)
      STRATA_INLINED { return __builtin_shufflevector(x, y, (I / 2 + (I % 2) * simd::lanes<V>)...); }(
          std::make_integer_sequence<int, 2 * simd::lanes<V>>{});
}

}}}  // namespace strata::STRATA_ABI::detail
