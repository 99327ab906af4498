// Convolution by its definition, for every kernel size, stride, padding, dilation and number of channels.
//
// Forward and the gradient for the input are both "gathers": a pixel of the result is a sum over taps of (source pixel)
// times (matrix of the tap). No patch is copied: multiply() takes a pointer per tap and pixel, to a row of zeros where the
// tap falls into the padding (the indirect convolution of Dukhan, "The indirect convolution algorithm", 2019).
//
// With stride s a pixel of the input feeds only the results whose tap p fulfils (i + padding - p * dilation) mod s = 0.
// The gradient therefore runs once for each of the s * s classes of pixels, each with its own taps.
//
// The gradient for the weights is a sum of outer products over pixels, on patches of x copied in small blocks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

struct Tap {
  std::int64_t dh, dw;  // source pixel = step * (position in the grid) + this
  std::int64_t index;   // row * kernel + column of the kernel
};

/// Result pixels (first_h + i * every, first_w + j * every), i < rows, j < columns, and where their sources lie.
struct PixelGrid {
  std::int64_t first_h, first_w, every, rows, columns;
  std::int64_t step;
  const Tap* taps;
  std::int64_t tap_count;
};

template <class T>
struct Pixels {
  T* data;
  std::int64_t n, h, w, c;
};

// y[pixel] = epilogue(sum over taps of x[source pixel] * weights of the tap), for all pixels of a grid. `weights` holds
// (tap, channel of x) x (channel of y) in panels.
template <class T>
void gather(const Pixels<const T>& x, const T* weights, const Pixels<T>& y, const PixelGrid& grid,
            const Epilogue<T>& scalar_epilogue) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>;
  const std::int64_t pixels = x.n * grid.rows * grid.columns, depth = grid.tap_count * x.c;
  const std::int64_t block = std::clamp<std::int64_t>(pixels / 16 / block_rows * block_rows, block_rows, 8 * block_rows);
  const VectorEpilogue<T> epilogue(scalar_epilogue, y.c);

  Scratch<T> zeros(std::size_t(x.c));
  std::fill_n(zeros.data(), x.c, T(0));
  Scratch<const T*> all_sources(std::size_t(num_threads() * grid.tap_count * block + 1));
  Scratch<T*> all_results(std::size_t(num_threads() * block));

  parallel_for((pixels + block - 1) / block, [&](std::int64_t task, int worker) {
    const T** sources = all_sources.data() + worker * grid.tap_count * block;  // [group of 6 pixels][tap][pixel]
    T** results = all_results.data() + worker * block;
    const std::int64_t first = task * block, count = std::min(block, pixels - first);
    const std::int64_t groups = (count + block_rows - 1) / block_rows;
    for (std::int64_t p = 0; p < groups * block_rows; ++p) {
      const T** source = sources + (p / block_rows * grid.tap_count) * block_rows + p % block_rows;
      const std::int64_t j = (first + p) % grid.columns, i = (first + p) / grid.columns % grid.rows;
      const std::int64_t n = (first + p) / grid.columns / grid.rows;
      if (p < count)
        results[p] = y.data + ((n * y.h + grid.first_h + i * grid.every) * y.w + grid.first_w + j * grid.every) * y.c;
      for (std::int64_t t = 0; t < grid.tap_count; ++t) {
        const std::int64_t h = i * grid.step + grid.taps[t].dh, w = j * grid.step + grid.taps[t].dw;
        const bool inside = p < count && h >= 0 && h < x.h && w >= 0 && w < x.w;
        source[t * block_rows] = inside ? x.data + ((n * x.h + h) * x.w + w) * x.c : zeros.data();
      }
    }
    for_each_panel<V>(y.c, [&](std::int64_t column, auto vectors) {
      for (std::int64_t group = 0; group < groups; ++group) {
        const T** source = sources + group * grid.tap_count * block_rows;
        multiply<V, block_rows, vectors>(
            grid.tap_count, x.c, [&](std::int64_t tap, int r) STRATA_INLINED { return source[tap * block_rows + r]; },
            weights + depth * column, [&](int r, int j, V sum) STRATA_INLINED {
              const std::int64_t pixel = group * block_rows + r, channel = column + j * lanes;
              if (pixel >= count) return;
              T* to = results[pixel] + channel;
              sum = epilogue.finish(sum, channel);
              if (channel + lanes <= y.c) {
                simd::store(to, epilogue.accumulate() ? simd::load<V>(to) + sum : sum);
              } else {
                const std::int64_t rest = y.c - channel;
                simd::store_first(to, epilogue.accumulate() ? simd::load_first<V>(to, rest) + sum : sum, rest);
              }
            });
      }
    });
  });
}

}  // namespace detail

/// y = activation(bias + x * weight). Shapes and layouts: Conv2dProblem.
template <class T>
void direct_forward(const Conv2dProblem& problem, const T* x, const T* weight, T* y, const Epilogue<T>& epilogue) {
  using V = simd::Vector<T>;
  const std::int64_t kernel = problem.kernel, in = problem.in, out = problem.out, depth = kernel * kernel * in;
  Scratch<detail::Tap> taps(std::size_t(kernel * kernel));
  for (std::int64_t t = 0; t < kernel * kernel; ++t)
    taps.data()[t] = {t / kernel * problem.dilation - problem.padding, t % kernel * problem.dilation - problem.padding, t};
  Scratch<T> packed(std::size_t(packed_size<V>(depth, out)));
  pack_panels<V>(depth, out, [&](std::int64_t k, std::int64_t o) { return weight[o * depth + k]; }, packed.data());
  const std::int64_t rows = problem.out_h(), columns = problem.out_w();
  detail::gather<T>({x, problem.n, problem.h, problem.w, in}, packed.data(), {y, problem.n, rows, columns, out},
                    {0, 0, 1, rows, columns, problem.stride, taps.data(), kernel * kernel}, epilogue);
}

/// dx = or += the gradient for the input: dx[i] = sum over taps p of dy[(i + padding - p * dilation) / stride] * weight[p].
template <class T>
void direct_backward_input(const Conv2dProblem& problem, const T* dy, const T* weight, T* dx, bool accumulate) {
  using V = simd::Vector<T>;
  const std::int64_t kernel = problem.kernel, stride = problem.stride, in = problem.in, out = problem.out;
  Scratch<detail::Tap> taps(std::size_t(kernel * kernel));
  Scratch<T> packed(std::size_t(packed_size<V>(kernel * kernel * out, in)));
  for (std::int64_t a = 0; a < std::min(stride, problem.h); ++a)
    for (std::int64_t b = 0; b < std::min(stride, problem.w); ++b) {
      std::int64_t count = 0;
      for (std::int64_t t = 0; t < kernel * kernel; ++t) {
        const std::int64_t h = a + problem.padding - t / kernel * problem.dilation;
        const std::int64_t w = b + problem.padding - t % kernel * problem.dilation;
        if (h % stride == 0 && w % stride == 0) taps[std::size_t(count++)] = {h / stride, w / stride, t};
      }
      pack_panels<V>(
          count * out, in,
          [&](std::int64_t k, std::int64_t c) {
            return weight[(k % out * kernel * kernel + taps.data()[k / out].index) * in + c];
          },
          packed.data());
      const std::int64_t rows = (problem.h - a + stride - 1) / stride, columns = (problem.w - b + stride - 1) / stride;
      detail::gather<T>({dy, problem.n, problem.out_h(), problem.out_w(), out}, packed.data(),
                        {dx, problem.n, problem.h, problem.w, in}, {a, b, stride, rows, columns, 1, taps.data(), count},
                        {.accumulate = accumulate});
    }
}

}  // namespace strata::inline STRATA_ABI::cpu
