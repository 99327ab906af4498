// The direct kernel for the last layer of an image network, where many channels become one to four. Such channels do
// not fill a vector; the vectors lie along the channels of the source instead.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

/// Element i of the result is the sum of the elements of values[i], for Count (a power of two, at most the lanes)
/// vectors. Each is summed in the same order, lower half plus upper half until one element is left.
template <class V, int Count>
[[gnu::always_inline]] inline V sum_each(const V* values) {
  constexpr int lanes = simd::lanes<V>;
  if constexpr (Count == 1) {
    return values[0];
  } else {
    // Groups of `group` lanes hold what is left of one vector each: two halves of them are added.
    constexpr int group = 2 * lanes / Count;
    const V a = sum_each<V, Count / 2>(values), b = sum_each<V, Count / 2>(values + Count / 2);
    return [&]<int... I>(std::integer_sequence<int, I...>) STRATA_INLINED {
      constexpr int half = group / 2;
      return __builtin_shufflevector(a, b, (I / half * group + I % half)...) +
             __builtin_shufflevector(a, b, (I / half * group + half + I % half)...);
    }(std::make_integer_sequence<int, lanes>{});
  }
}

/// sums[i] = the sum of the elements of values[i].
template <class V, int Count>
[[gnu::always_inline]] inline void sum_all(const V (&values)[Count], simd::Lane<V>* sums) {
  constexpr int lanes = simd::lanes<V>;
  simd::unroll<(Count + lanes - 1) / lanes>([&](auto block) STRATA_INLINED {
    V some[lanes] = {};
    simd::unroll<lanes>([&](auto i) STRATA_INLINED {
      if constexpr (block * lanes + i < Count) some[i] = values[block * lanes + i];
    });
    simd::store(sums + block * lanes, sum_each<V, lanes>(some));
  });
}

/// y[pixel] = epilogue(sum over taps t of x[source of t] * weight of t) for `Out` channels of y and many of x, by dot
/// products: vectors along the channels of x, whose elements are summed at the end.
template <class T, int Out>
void gather_dots(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
                 const VectorEpilogue<T>& epilogue) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>;
  constexpr int rows = Out <= 2 ? 8 / Out : 4;  // pixels at a time
  const GridTiles tiles(x, grid, widest_tile<T>(grid, x.c), TilePixels<T>::most,
                        2 * Out * grid.tap_count * x.c / lanes);
  SourceFinder<T> find_sources(x, grid, tiles);
  const std::int64_t segments = find_sources.segments, depth = find_sources.depth, whole = depth / lanes * lanes;

  Scratch<T> weights(std::size_t(Out * grid.tap_count * x.c));  // [segment][out][tap of the segment, channel]
  for (std::int64_t s = 0; s < segments; ++s)
    for (std::int64_t o = 0; o < Out; ++o)
      for (std::int64_t k = 0; k < depth; ++k)
        weights.data()[(s * Out + o) * depth + k] = weight(grid.taps[(s * depth + k) / x.c], (s * depth + k) % x.c, o);
  WorkerScratch<T> copies(find_sources.workspace());

  tiles.for_each([&](const GridTile& tile, int worker) {
    const TileSources<T> sources = find_sources(tile, copies[worker]);
    TilePixels<T> pixels;
    pixels.find(y, grid, tile, sources);
    for (std::int64_t p = 0; p < tile.pixels(); p += rows) {
      V sum[rows * Out] = {};
      T rest[rows * Out] = {};
      const T* w = weights.data();
      for (std::int64_t s = 0; s < segments; ++s, w += Out * depth) {
        const T* a[rows];
        simd::unroll<rows>([&](auto r) STRATA_INLINED { a[r] = pixels.source[p + r] + sources.offsets[s]; });
        for (std::int64_t k = 0; k < whole; k += lanes) {
          V b[Out];
          simd::unroll<Out>([&](auto o) STRATA_INLINED { b[o] = simd::load<V>(w + o * depth + k); });
          simd::unroll<rows>([&](auto r) STRATA_INLINED {
            const V value = simd::load<V>(a[r] + k);
            simd::unroll<Out>([&](auto o) STRATA_INLINED { sum[r * Out + o] += value * b[o]; });
          });
        }
        for (std::int64_t k = whole; k < depth; ++k)
          for (int r = 0; r < rows; ++r)
            for (int o = 0; o < Out; ++o) rest[r * Out + o] += a[r][k] * w[o * depth + k];
      }
      T sums[simd::padded<V>(rows * Out)];
      sum_all(sum, sums);
      for (std::int64_t r = 0; r < std::min<std::int64_t>(rows, tile.pixels() - p); ++r)
        for (int o = 0; o < Out; ++o) {
          T& to = pixels.result[p + r][o];
          const T value = epilogue.finish_one(sums[r * Out + o] + rest[r * Out + o], o);
          to = epilogue.accumulate() ? to + value : value;
        }
    }
  });
}

}  // namespace detail

}}}  // namespace strata::STRATA_ABI::cpu
