// The direct kernels for the ends of an image network, where an image of one to four channels becomes many or many
// become one to four. Such channels do not fill a vector, and the arithmetic is little: memory sets the pace.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// The addresses in y of the pixels [first, first + count) of a grid.
template <class T>
void find_results(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, std::int64_t first,
                  std::int64_t count, T** results) {
  SourceWalk<T> walk(x, grid, first);
  for (std::int64_t p = 0; p < count; ++p, walk.advance()) {
    const std::int64_t h = grid.first_h + walk.i() * grid.every, w = grid.first_w + walk.j() * grid.every;
    results[p] = y.data + ((walk.n() * y.h + h) * y.w + w) * y.c;
  }
}

/// y[pixel] = epilogue(sum over taps t of x[source of t] * weight of t) for thin channels of x, on copied patches: 6
/// pixels by one panel at a time. The grid must be all of y.
template <class T>
void gather_thin(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
                 const VectorEpilogue<T>& epilogue) {
  using V = simd::Vector<T>;
  const std::int64_t pixels = y.pixels(), taps = grid.tap_count, depth = taps * x.c, run = grid.run();
  const std::int64_t block = std::clamp<std::int64_t>(pixels / 16 / block_rows, 1, 32) * block_rows;
  Scratch<T> packed(std::size_t(packed_size<V>(depth, y.c)));
  pack_panels<V>(
      taps, x.c, y.c,
      [&](std::int64_t t, std::int64_t k, std::int64_t column) { return weight(grid.taps[t], k, column); },
      packed.data());
  WorkerScratch<T> all_patches(depth * block_rows);

  parallel_for((pixels + block - 1) / block, [&](std::int64_t task, int worker) {
    T* const patches = all_patches[worker];  // [tap, channel][pixel]
    const std::int64_t end = std::min(pixels, (task + 1) * block);
    SourceWalk<T> walk(x, grid, task * block);
    for (std::int64_t first = task * block; first < end; first += block_rows) {
      const std::int64_t count = std::min<std::int64_t>(block_rows, end - first);
      if (count < block_rows) std::fill_n(patches, depth * block_rows, T(0));
      copy_patches(grid, run, x.c, count, walk, patches, 1, block_rows);
      T* results[block_rows];
      for (std::int64_t r = 0; r < block_rows; ++r) results[r] = y.data + (first + std::min(r, count - 1)) * y.c;
      for_each_panel<V>(y.c, [&](std::int64_t column, auto vectors) {
        write_panel<vectors, T>(results, count, column, y.c - column, epilogue, [&](auto&& write) STRATA_INLINED {
          multiply_side_by_side<V, block_rows, vectors>(depth, patches, packed.data() + depth * column, write);
        });
      });
    }
  });
}

/// The same for `Out` channels of y and many of x, by dot products: vectors along the channels of x, whose elements are
/// summed at the end.
template <class T, int Out>
void gather_dots(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
                 const VectorEpilogue<T>& epilogue) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>;
  constexpr int rows = Out == 1 ? 8 : Out == 4 ? 3 : 4;  // sums in registers: 8, 8, 12 or 12
  const std::int64_t pixels = y.n * grid.rows * grid.columns, taps = grid.tap_count;
  const std::int64_t run = grid.run(), segments = taps / run, depth = run * x.c, whole = depth / lanes * lanes;
  const std::int64_t block = std::clamp<std::int64_t>(pixels / 16 / rows, 1, 16) * rows;

  Scratch<T> weights(std::size_t(Out * taps * x.c));  // [segment][out][tap of the segment, channel]
  for (std::int64_t s = 0; s < segments; ++s)
    for (std::int64_t o = 0; o < Out; ++o)
      for (std::int64_t k = 0; k < depth; ++k)
        weights.data()[(s * Out + o) * depth + k] = weight(grid.taps[s * run + k / x.c], k % x.c, o);
  WorkerScratch<const T*> all_sources(segments * block);
  WorkerScratch<T*> all_results(block);
  WorkerScratch<T> all_patches(block * taps * x.c);

  parallel_for((pixels + block - 1) / block, [&](std::int64_t task, int worker) {
    const T** sources = all_sources[worker];
    T** results = all_results[worker];
    const std::int64_t first = task * block, count = std::min(block, pixels - first);
    find_sources(x, grid, run, first, count, rows, all_patches[worker], sources);
    find_results(x, y, grid, first, count, results);
    for (std::int64_t p = 0; p < count; p += rows) {
      V sum[rows][Out] = {};
      T rest[rows][Out] = {};
      const T* w = weights.data();
      for (std::int64_t s = 0; s < segments; ++s, w += Out * depth) {
        const T* a[rows];
        simd::unroll<rows>([&](auto r) STRATA_INLINED { a[r] = sources[p * segments + s * rows + r]; });
        for (std::int64_t k = 0; k < whole; k += lanes) {
          V b[Out];
          simd::unroll<Out>([&](auto o) STRATA_INLINED { b[o] = simd::load<V>(w + o * depth + k); });
          simd::unroll<rows>([&](auto r) STRATA_INLINED {
            const V value = simd::load<V>(a[r] + k);
            simd::unroll<Out>([&](auto o) STRATA_INLINED { sum[r][o] += value * b[o]; });
          });
        }
        for (std::int64_t k = whole; k < depth; ++k)
          for (int r = 0; r < rows; ++r)
            for (int o = 0; o < Out; ++o) rest[r][o] += a[r][k] * w[o * depth + k];
      }
      simd::unroll<rows>([&](auto r) STRATA_INLINED {
        if (p + r >= count) return;
        simd::unroll<Out>([&](auto o) STRATA_INLINED {
          T& to = results[p + r][o];
          const T value = epilogue.finish_one(simd::sum(sum[r][o]) + rest[r][o], o);
          to = epilogue.accumulate() ? to + value : value;
        });
      });
    }
  });
}

}  // namespace detail

}  // namespace strata::inline STRATA_ABI::cpu
