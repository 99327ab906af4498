// Convolution by its definition, for every kernel size, stride, padding, dilation and number of channels.
//
// Forward and the gradient for the input are both "gathers": a pixel of the result is a sum over taps of (source pixel)
// times (matrix of the tap). Two kernels do it, on pointers to the sources:
//
//     any -> many       panels: 6 pixels x 2 vectors of channels at a time
//     many -> 1 to 4    dot products: vectors along the channels of the source, summed at the end
//
// With stride s a pixel of the input feeds only the results whose tap p fulfils (i + padding - p * dilation) mod s = 0.
// The gradient for the input therefore runs once for each of the s * s classes of pixels, each with its own taps.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/conv2d_thin.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// y[pixel] = epilogue(sum over taps t of x[source of t] * weight of t), for the pixels of a grid, by panels.
template <class T>
void gather_panels(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
                   const VectorEpilogue<T>& epilogue) {
  using V = simd::Vector<T>;
  const std::int64_t pixels = y.n * grid.rows * grid.columns, taps = grid.tap_count, depth = taps * x.c;
  const std::int64_t run = grid.run(), segments = taps / run;
  const std::int64_t block = std::clamp<std::int64_t>(pixels / 16 / block_rows, 1, 8) * block_rows;

  Scratch<T> packed(std::size_t(packed_size<V>(depth, y.c)));
  pack_panels<V>(
      taps, x.c, y.c,
      [&](std::int64_t t, std::int64_t k, std::int64_t column) { return weight(grid.taps[t], k, column); },
      packed.data());
  // Few weights are read again for every 6 pixels, so that y is written from end to end; many once for the block.
  const std::int64_t strip = packed_size<V>(depth, y.c) * std::int64_t(sizeof(T)) <= 16 << 10 ? block_rows : block;
  WorkerScratch<const T*> all_sources(segments * block);
  WorkerScratch<T*> all_results(block);
  WorkerScratch<T> all_patches(block * depth);

  parallel_for((pixels + block - 1) / block, [&](std::int64_t task, int worker) {
    const T** sources = all_sources[worker];
    T** results = all_results[worker];
    const std::int64_t first = task * block, count = std::min(block, pixels - first);
    find_sources(x, grid, run, first, count, block_rows, all_patches[worker], sources);
    find_results(x, y, grid, first, count, results);
    for (std::int64_t begin = 0; begin < count; begin += strip)
      for_each_panel<V>(y.c, [&](std::int64_t column, auto vectors) {
        for (std::int64_t p = begin; p < std::min(count, begin + strip); p += block_rows)
          write_panel<vectors, T>(results + p, std::min<std::int64_t>(block_rows, count - p), column, y.c - column,
                                  epilogue, [&](auto&& write) STRATA_INLINED {
                                    multiply<V, block_rows, vectors>(
                                        segments, run * x.c,
                                        [&](std::int64_t s, int r)
                                            STRATA_INLINED { return sources[p * segments + s * block_rows + r]; },
                                        packed.data() + depth * column, write);
                                  });
      });
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
  if (x.c <= thin_channels && grid.every == 1) return gather_thin(x, y, grid, weight, epilogue);
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
      for (std::int64_t t = taps - 1; t >= 0; --t) {  // in the order of their sources in memory
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
