// Convolution by its definition, for every kernel size, stride, padding, dilation and number of channels.
//
// Forward and the gradient for the input are both "gathers": a pixel of the result is a sum over taps of (source pixel)
// times (matrix of the tap). Three kernels do it, depending on the channels:
//
//     many -> many      panels: 6 pixels x 2 vectors of channels at a time, over a table of pointers to the sources
//     1 to 4 -> any     the same on copied patches, which have few numbers here: kernel * kernel * channels
//     many -> 1 to 4    dot products: vectors along the channels of the source, summed at the end
//
// With stride s a pixel of the input feeds only the results whose tap p fulfils (i + padding - p * dilation) mod s = 0.
// The gradient for the input therefore runs once for each of the s * s classes of pixels, each with its own taps.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// The addresses of pixels [first, first + count) of a grid in y.
template <class T>
void find_results(const Images<T>& y, const TapGrid& grid, std::int64_t first, std::int64_t count, T** results) {
  std::int64_t j = first % grid.columns, i = first / grid.columns % grid.rows, n = first / grid.columns / grid.rows;
  for (std::int64_t p = 0; p < count; ++p) {
    results[p] = y.data + ((n * y.h + grid.first_h + i * grid.every) * y.w + grid.first_w + j * grid.every) * y.c;
    if (++j < grid.columns) continue;
    j = 0;
    if (++i < grid.rows) continue;
    i = 0;
    ++n;
  }
}

/// One panel of gather_panels: y[r][column...] for up to block_rows pixels, of which `count` exist, and `rest`
/// channels.
template <int Vectors, class T>
void panel_of_pixels(const T* const* rows, std::int64_t segments, std::int64_t depth, const T* panel, std::int64_t rest,
                     std::int64_t column, const VectorEpilogue<T>& epilogue, T* const* results, std::int64_t count) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>, width = Vectors * lanes;
  const std::int64_t channels = std::min(rest, width);
  const bool whole = channels == width && count == block_rows, accumulate = epilogue.accumulate();
  T part[block_rows * width];  // takes the place of y where that has fewer pixels or channels
  T* to[block_rows];
  for (std::int64_t r = 0; r < block_rows; ++r) {
    to[r] = whole ? results[r] + column : part + r * width;
    if (!whole && accumulate && r < count) std::copy_n(results[r] + column, channels, to[r]);
  }
  V bias[Vectors];
  simd::unroll<Vectors>([&](auto j) STRATA_INLINED { bias[j] = epilogue.bias(column + j * lanes); });
  const V floor = epilogue.floor();
  multiply<V, block_rows, Vectors>(
      segments, segments == 0 ? 0 : depth / segments,
      [&](std::int64_t s, int r) STRATA_INLINED { return rows[s * block_rows + r]; }, panel,
      [&](int r, int j, V sum) STRATA_INLINED {
        sum = simd::max(floor, sum + bias[j]);
        simd::store(to[r] + j * lanes, accumulate ? simd::load<V>(to[r] + j * lanes) + sum : sum);
      });
  if (!whole)
    for (std::int64_t r = 0; r < count; ++r) std::copy_n(to[r], channels, results[r] + column);
}

/// y[pixel] = epilogue(sum over taps t of x[source of t] * weight of t), for the pixels of a grid, by panels.
template <class T>
void gather_panels(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
                   const VectorEpilogue<T>& epilogue) {
  using V = simd::Vector<T>;
  const std::int64_t pixels = y.n * grid.rows * grid.columns, taps = grid.tap_count, depth = taps * x.c;
  const std::int64_t block = std::clamp<std::int64_t>(pixels / 16 / block_rows, 1, 8) * block_rows;
  const bool thin = x.c <= thin_channels;

  Scratch<T> packed(std::size_t(packed_size<V>(depth, y.c))), zeros(std::size_t(std::max(depth, x.c)));
  pack_panels<V>(
      taps, x.c, y.c,
      [&](std::int64_t t, std::int64_t k, std::int64_t column) { return weight(grid.taps[t], k, column); },
      packed.data());
  std::fill_n(zeros.data(), std::max(depth, x.c), T(0));
  const std::size_t workers = std::size_t(num_threads());
  Scratch<const T*> all_sources(workers * std::size_t((taps + 1) * block));
  Scratch<T*> all_results(workers * std::size_t(block));
  Scratch<T> all_patches(workers * std::size_t(thin ? block * depth : 0));

  parallel_for((pixels + block - 1) / block, [&](std::int64_t task, int worker) {
    const T** sources = all_sources.data() + worker * (taps + 1) * block;  // [group of 6 pixels][segment][pixel]
    T** results = all_results.data() + worker * block;
    const std::int64_t first = task * block, count = std::min(block, pixels - first);
    std::int64_t segments = taps;
    find_results(y, grid, first, count, results);
    if (thin) {  // a single segment: the copied patch
      find_sources(x, grid, first, count, 1, zeros.data(), sources);
      T* const patches = all_patches.data() + worker * block * depth;
      copy_thin_patches(sources, count * taps, x.c, patches);
      segments = 1;
      for (std::int64_t p = 0; p < block; ++p) sources[p] = p < count ? patches + p * depth : zeros.data();
    } else {
      find_sources(x, grid, first, count, block_rows, zeros.data(), sources);
    }
    // A few weights are read again for every 6 pixels, so that y is written from end to end; many once for the block.
    const std::int64_t strip = thin ? block_rows : block;
    for (std::int64_t begin = 0; begin < count; begin += strip)
      for_each_panel<V>(y.c, [&](std::int64_t column, auto vectors) {
        for (std::int64_t p = begin; p < std::min(count, begin + strip); p += block_rows)
          panel_of_pixels<vectors>(sources + p * segments, segments, depth, packed.data() + depth * column,
                                   y.c - column, column, epilogue, results + p,
                                   std::min<std::int64_t>(block_rows, count - p));
      });
  });
}

/// The same for at most thin_channels channels of y, by dot products.
template <class T, int Out>
void gather_dots(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
                 const VectorEpilogue<T>& epilogue) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>;
  constexpr int rows = Out == 1 ? 8 : Out == 4 ? 3 : 4;  // sums in registers: 8, 8, 12 or 12
  const std::int64_t pixels = y.n * grid.rows * grid.columns, taps = grid.tap_count, depth = taps * x.c;
  const std::int64_t block = std::clamp<std::int64_t>(pixels / 16 / rows, 1, 16) * rows, whole = x.c / lanes * lanes;

  Scratch<T> weights(std::size_t(Out * depth)), zeros(std::size_t(x.c));  // weights[tap][out][channel]
  for (std::int64_t t = 0; t < taps; ++t)
    for (std::int64_t o = 0; o < Out; ++o)
      for (std::int64_t k = 0; k < x.c; ++k) weights.data()[(t * Out + o) * x.c + k] = weight(grid.taps[t], k, o);
  std::fill_n(zeros.data(), x.c, T(0));
  const std::size_t workers = std::size_t(num_threads());
  Scratch<const T*> all_sources(workers * std::size_t(taps * block));
  Scratch<T*> all_results(workers * std::size_t(block));

  parallel_for((pixels + block - 1) / block, [&](std::int64_t task, int worker) {
    const T** sources = all_sources.data() + worker * taps * block;
    T** results = all_results.data() + worker * block;
    const std::int64_t first = task * block, count = std::min(block, pixels - first);
    find_sources(x, grid, first, count, rows, zeros.data(), sources);
    find_results(y, grid, first, count, results);
    for (std::int64_t p = 0; p < count; p += rows) {
      V sum[rows][Out] = {};
      T rest[rows][Out] = {};
      const T* w = weights.data();
      for (std::int64_t t = 0; t < taps; ++t, w += Out * x.c) {
        const T* const* source = sources + p * taps + t * rows;
        const T* a[rows];
        simd::unroll<rows>([&](auto r) STRATA_INLINED { a[r] = source[r]; });
        for (std::int64_t k = 0; k < whole; k += lanes) {
          V b[Out];
          simd::unroll<Out>([&](auto o) STRATA_INLINED { b[o] = simd::load<V>(w + o * x.c + k); });
          simd::unroll<rows>([&](auto r) STRATA_INLINED {
            const V value = simd::load<V>(a[r] + k);
            simd::unroll<Out>([&](auto o) STRATA_INLINED { sum[r][o] += value * b[o]; });
          });
        }
        for (std::int64_t k = whole; k < x.c; ++k)
          for (int r = 0; r < rows; ++r)
            for (int o = 0; o < Out; ++o) rest[r][o] += a[r][k] * w[o * x.c + k];
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

template <class T>
void gather(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
            const Epilogue<T>& scalar_epilogue) {
  const VectorEpilogue<T> epilogue(scalar_epilogue, y.c);
  if (x.c > thin_channels && y.c == 1) return gather_dots<T, 1>(x, y, grid, weight, epilogue);
  if (x.c > thin_channels && y.c == 2) return gather_dots<T, 2>(x, y, grid, weight, epilogue);
  if (x.c > thin_channels && y.c == 3) return gather_dots<T, 3>(x, y, grid, weight, epilogue);
  if (x.c > thin_channels && y.c == 4) return gather_dots<T, 4>(x, y, grid, weight, epilogue);
  gather_panels(x, y, grid, weight, epilogue);
}

}  // namespace detail

/// y = epilogue(x * weight). Shapes and layouts: Conv2dProblem.
template <class T>
void direct_forward(const Conv2dProblem& p, const T* x, const T* weight, T* y, const Epilogue<T>& epilogue) {
  const std::int64_t taps = std::int64_t{p.kernel} * p.kernel, in = p.in, rows = p.out_h(), columns = p.out_w();
  Scratch<Tap> all_taps{std::size_t(taps)};
  const Images<const T> input{x, p.n, p.h, p.w, in};
  write_taps(input, p.kernel, p.dilation, p.padding, all_taps.data());
  detail::gather<T>(input, {y, p.n, rows, columns, p.out}, {0, 0, 1, rows, columns, p.stride, all_taps.data(), taps},
                    {weight, in, 1, taps * in}, epilogue);
}

/// dx = or += the gradient for the input: dx[i] = sum over taps p of dy[(i + padding - p * dilation) / stride] *
/// weight[p].
template <class T>
void direct_backward_input(const Conv2dProblem& p, const T* dy, const T* weight, T* dx, bool accumulate) {
  const std::int64_t kernel = p.kernel, taps = kernel * kernel, stride = p.stride, in = p.in;
  const Images<const T> gradient{dy, p.n, p.out_h(), p.out_w(), p.out};
  Scratch<Tap> class_taps{std::size_t(taps)};
  for (std::int64_t a = 0; a < std::min(stride, p.h); ++a)
    for (std::int64_t b = 0; b < std::min(stride, p.w); ++b) {
      std::int64_t count = 0;
      for (std::int64_t t = 0; t < taps; ++t) {
        const std::int64_t h = a + p.padding - t / kernel * p.dilation, w = b + p.padding - t % kernel * p.dilation;
        if (h % stride == 0 && w % stride == 0)
          class_taps.data()[count++] = make_tap(gradient, h / stride, w / stride, t);
      }
      const std::int64_t rows = (p.h - a + stride - 1) / stride, columns = (p.w - b + stride - 1) / stride;
      detail::gather<T>(gradient, {dx, p.n, p.h, p.w, in}, {a, b, stride, rows, columns, 1, class_taps.data(), count},
                        {weight, in, taps * in, 1}, {.accumulate = accumulate});
    }
}

}  // namespace strata::inline STRATA_ABI::cpu
