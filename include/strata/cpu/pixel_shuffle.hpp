// Pixel shuffle (Shi et al., 2016): an image of channels * r * r channels and h x w pixels becomes one of `channels`
// and (h * r) x (w * r). Output (c, i*r + p, j*r + q) is input (c*r*r + p*r + q, i, j).
//
// In memory (N,H,W,C) a pixel of the small image holds r * r pixels of the large one, interleaved. For r = 2 vectors
// are taken apart and put together by shuffles; other factors and counts of channels move single numbers.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

/// Of the elements of a, then b: those with even (Odd = 0) or odd places, in order.
template <int Odd, class V>
[[gnu::always_inline]] inline V every_second(V a, V b) {
  return [&]<int... I>(std::integer_sequence<int, I...>)
             STRATA_INLINED { return __builtin_shufflevector(a, b, (2 * I + Odd)...); }(
                 std::make_integer_sequence<int, simd::lanes<V>>{});
}
/// a0 b0 a1 b1 ...: the first half of that (Half = 0) or the second.
template <int Half, class V>
[[gnu::always_inline]] inline V interleaved(V a, V b) {
  constexpr int lanes = simd::lanes<V>;
  return [&]<int... I>(std::integer_sequence<int, I...>) STRATA_INLINED {
    return __builtin_shufflevector(a, b, (Half * lanes / 2 + I / 2 + I % 2 * lanes)...);
  }(std::make_integer_sequence<int, lanes>{});
}
/// Of the pairs of elements of a, then b: every second, from the first (Odd = 0) or the second on.
template <int Odd, class V>
[[gnu::always_inline]] inline V every_second_pair(V a, V b) {
  return [&]<int... I>(std::integer_sequence<int, I...>)
             STRATA_INLINED { return __builtin_shufflevector(a, b, (I / 2 * 4 + Odd * 2 + I % 2)...); }(
                 std::make_integer_sequence<int, simd::lanes<V>>{});
}
/// Pairs of a and b in turn: the first half of that (Half = 0) or the second.
template <int Half, class V>
[[gnu::always_inline]] inline V interleaved_pairs(V a, V b) {
  constexpr int lanes = simd::lanes<V>;
  return [&]<int... I>(std::integer_sequence<int, I...>) STRATA_INLINED {
    return __builtin_shufflevector(a, b, (Half * lanes / 2 + I / 4 * 2 + I % 2 + I / 2 % 2 * lanes)...);
  }(std::make_integer_sequence<int, lanes>{});
}

template <class V>
[[gnu::always_inline]] inline void put(simd::Lane<V>* to, V value, bool accumulate) {
  simd::store<V>(to, accumulate ? simd::load<V>(to) + value : value);
}

/// One row of the small image, r = 2, a multiple of the lanes of channels. rows: the two rows of the large image.
template <class T, bool Inverse, class Small, class Large>
void shuffle_row_of_2(std::int64_t w, int channels, Small* little, Large* const* rows, bool accumulate) {
  using V = simd::Vector<T>;
  constexpr int lanes = simd::lanes<V>;
  for (std::int64_t j = 0; j < w; ++j)
    for (int c = 0; c < channels; c += lanes) {
      Small* const s = little + (j * channels + c) * 4;
      Large* const large[4] = {rows[0] + 2 * j * channels + c, rows[0] + (2 * j + 1) * channels + c,
                               rows[1] + 2 * j * channels + c, rows[1] + (2 * j + 1) * channels + c};
      if constexpr (Inverse) {
        const V a = simd::load<V>(large[0]), b = simd::load<V>(large[1]), d = simd::load<V>(large[2]),
                e = simd::load<V>(large[3]);
        const V even0 = interleaved<0>(a, d), even1 = interleaved<1>(a, d), odd0 = interleaved<0>(b, e),
                odd1 = interleaved<1>(b, e);
        put(s, interleaved<0>(even0, odd0), accumulate);
        put(s + lanes, interleaved<1>(even0, odd0), accumulate);
        put(s + 2 * lanes, interleaved<0>(even1, odd1), accumulate);
        put(s + 3 * lanes, interleaved<1>(even1, odd1), accumulate);
      } else {
        const V a = simd::load<V>(s), b = simd::load<V>(s + lanes), d = simd::load<V>(s + 2 * lanes),
                e = simd::load<V>(s + 3 * lanes);
        const V even0 = every_second<0>(a, b), even1 = every_second<0>(d, e), odd0 = every_second<1>(a, b),
                odd1 = every_second<1>(d, e);
        put(large[0], every_second<0>(even0, even1), accumulate);
        put(large[1], every_second<0>(odd0, odd1), accumulate);
        put(large[2], every_second<1>(even0, even1), accumulate);
        put(large[3], every_second<1>(odd0, odd1), accumulate);
      }
    }
}

/// The same for one channel, as many whole vectors as fit; returns the pixels of the small image that are done.
template <class T, bool Inverse, class Small, class Large>
std::int64_t shuffle_thin_row_of_2(std::int64_t w, Small* little, Large* const* rows, bool accumulate) {
  using V = simd::Vector<T>;
  constexpr int lanes = simd::lanes<V>;
  std::int64_t j = 0;
  for (; j + lanes / 2 <= w; j += lanes / 2) {
    Small* const s = little + j * 4;
    if constexpr (Inverse) {
      const V a = simd::load<V>(rows[0] + 2 * j), b = simd::load<V>(rows[1] + 2 * j);
      put(s, interleaved_pairs<0>(a, b), accumulate);
      put(s + lanes, interleaved_pairs<1>(a, b), accumulate);
    } else {
      const V a = simd::load<V>(s), b = simd::load<V>(s + lanes);
      put(rows[0] + 2 * j, every_second_pair<0>(a, b), accumulate);
      put(rows[1] + 2 * j, every_second_pair<1>(a, b), accumulate);
    }
  }
  return j;
}

/// Single numbers. R and C are the factor and the channels where they are known, else 0.
template <int R, int C, bool Inverse, class Small, class Large>
void shuffle_row(std::int64_t first, std::int64_t w, int some_channels, int factor, Small* little, Large* row, int p,
                 bool accumulate) {
  const int r = R > 0 ? R : factor, channels = C > 0 ? C : some_channels;
  for (std::int64_t j = first; j < w; ++j) {
    Small* const s = little + (j * channels * r + p) * r;
    Large* const l = row + j * r * channels;
    for (int q = 0; q < r; ++q)
      for (int c = 0; c < channels; ++c) {
        Small& a = s[c * r * r + q];
        Large& b = l[q * channels + c];
        if constexpr (Inverse)
          a = accumulate ? a + b : b;
        else
          b = accumulate ? b + a : a;
      }
  }
}

template <bool Inverse, class T, class Small, class Large>
void shuffle_image(std::int64_t n, std::int64_t h, std::int64_t w, int channels, int r, Small* little, Large* large,
                   bool accumulate) {
  parallel_for(n * h, [&](std::int64_t line) {
    Small* const s = little + line * w * channels * r * r;
    Large* const l = large + line * r * w * r * channels;
    const std::int64_t width = w * r * channels;
    std::int64_t done = 0;
    if (r == 2) {
      Large* const rows[2] = {l, l + width};
      if (channels % simd::lanes<simd::Vector<T>> == 0) {
        shuffle_row_of_2<T, Inverse>(w, channels, s, rows, accumulate);
        done = w;
      } else if (channels == 1 && simd::lanes<simd::Vector<T>> >= 4) {
        done = shuffle_thin_row_of_2<T, Inverse>(w, s, rows, accumulate);
      }
    }
    for (int p = 0; p < r; ++p) {
      Large* const row = l + p * width;
      const auto shuffle = channels == 1 && r == 2   ? shuffle_row<2, 1, Inverse, Small, Large>
                           : channels == 3 && r == 2 ? shuffle_row<2, 3, Inverse, Small, Large>
                           : channels == 1 && r == 3 ? shuffle_row<3, 1, Inverse, Small, Large>
                           : channels == 3 && r == 3 ? shuffle_row<3, 3, Inverse, Small, Large>
                           : channels == 1 && r == 4 ? shuffle_row<4, 1, Inverse, Small, Large>
                           : channels == 3 && r == 4 ? shuffle_row<4, 3, Inverse, Small, Large>
                                                     : shuffle_row<0, 0, Inverse, Small, Large>;
      shuffle(done, w, channels, r, s, row, p, accumulate);
    }
  });
}

}  // namespace detail

/// The small image n x h x w x (channels * r * r) to the large one, n x (h * r) x (w * r) x channels, or, with
/// `inverse`, back. to (+)= from.
template <class T>
void pixel_shuffle(std::int64_t n, std::int64_t h, std::int64_t w, int channels, int r, const T* from, T* to,
                   bool inverse, bool accumulate) {
  if (inverse)
    detail::shuffle_image<true, T>(n, h, w, channels, r, to, from, accumulate);
  else
    detail::shuffle_image<false, T>(n, h, w, channels, r, from, to, accumulate);
}

}}}  // namespace strata::STRATA_ABI::cpu
