// The gradients for the weights and the bias of any convolution, by their definition: sums of outer products over pixels,
//
//     dweight[o, tap, c] = sum over pixels of dy[pixel, o] * x[pixel under the tap, c]     dbias[o] = sum of dy[pixel, o]
//
// on patches of x that are copied next to each other a few pixels at a time. The pixels are cut into ranges, the matrix
// (tap, c) x o into chunks; each range and chunk is a task with sums of its own, added up at the end in a fixed order.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "strata/core/parallel.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// dweight[o, k] = or += sum over ranges of partial[range][k][o], where rows of partial are padded to whole vectors.
template <class T>
void sum_weight_partials(const T* partial, std::int64_t ranges, std::int64_t depth, std::int64_t out, T* dweight,
                         bool accumulate) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>, chunk = 64;
  const std::int64_t stride = simd::padded<V>(out), chunks = (depth + chunk - 1) / chunk;
  parallel_for(stride / lanes * chunks, [&](std::int64_t task) {
    const std::int64_t o = task / chunks * lanes, first = task % chunks * chunk, end = std::min(depth, first + chunk);
    std::array<T, chunk * lanes> sums;
    for (std::int64_t k = first; k < end; ++k) {
      V sum = simd::load<V>(partial + k * stride + o);
      for (std::int64_t range = 1; range < ranges; ++range)
        sum += simd::load<V>(partial + (range * depth + k) * stride + o);
      simd::store(sums.data() + (k - first) * lanes, sum);
    }
    for (std::int64_t i = 0; i < std::min(lanes, out - o); ++i) {
      T* to = dweight + (o + i) * depth;
      for (std::int64_t k = first; k < end; ++k) {
        const T sum = sums[std::size_t((k - first) * lanes + i)];
        to[k] = accumulate ? to[k] + sum : sum;
      }
    }
  });
}

/// result[i] = or += sum over ranges of partial[range * stride + i], i < count.
template <class T>
void sum_partials(const T* partial, std::int64_t ranges, std::int64_t stride, std::int64_t count, T* result,
                  bool accumulate) {
  for (std::int64_t i = 0; i < count; ++i) {
    T sum = partial[i];
    for (std::int64_t range = 1; range < ranges; ++range) sum += partial[range * stride + i];
    result[i] = accumulate ? result[i] + sum : sum;
  }
}

/// sum[j] += column sums of the rows of b; columns is a number of whole vectors.
template <class V>
void add_column_sums(std::int64_t rows, std::int64_t columns, const simd::Lane<V>* b, std::int64_t stride,
                     simd::Lane<V>* sum) {
  for (std::int64_t j = 0; j < columns; j += simd::lanes<V>) {
    V total{};
    for (std::int64_t row = 0; row < rows; ++row) total += simd::load<V>(b + row * stride + j);
    simd::store(sum + j, simd::load<V>(sum + j) + total);
  }
}

/// Columns [first, end) of the patch of one result pixel: patch[tap * in + c] = x[n, h + tap row, w + tap column, c],
/// zero in the padding. (h, w) is the corner of the patch.
template <class T>
void copy_patch(const Conv2dProblem& problem, const T* x, std::int64_t n, std::int64_t h, std::int64_t w,
                std::int64_t first, std::int64_t end, T* to) {
  for (std::int64_t k = first; k < end;) {
    const std::int64_t tap = k / problem.in, c = k % problem.in, count = std::min(problem.in - c, end - k);
    const std::int64_t row = h + tap / problem.kernel * problem.dilation;
    const std::int64_t column = w + tap % problem.kernel * problem.dilation;
    if (row >= 0 && row < problem.h && column >= 0 && column < problem.w)
      std::copy_n(x + ((n * problem.h + row) * problem.w + column) * problem.in + c, count, to);
    else
      std::fill_n(to, count, T(0));
    to += count;
    k += count;
  }
}

}  // namespace detail

/// dweight = or += the gradient for the weights, dbias (unless nullptr) = or += that for the bias.
template <class T>
void direct_backward_weight(const Conv2dProblem& problem, const T* x, const T* dy, T* dweight, T* dbias,
                            bool accumulate) {
  using V = simd::Vector<T>;
  constexpr std::int64_t block = 64, largest_depth = 384, largest_columns = 64;  // the workspace of a task: 0.25 MiB
  const std::int64_t rows = problem.out_h(), columns = problem.out_w(), pixels = problem.n * rows * columns;
  const std::int64_t depth = std::int64_t{problem.kernel} * problem.kernel * problem.in, out = problem.out;
  const std::int64_t stride = simd::padded<V>(out);
  const std::int64_t depth_chunks = (depth + largest_depth - 1) / largest_depth;
  const std::int64_t out_chunks = (stride + largest_columns - 1) / largest_columns, chunks = depth_chunks * out_chunks;
  const std::int64_t ranges = std::clamp<std::int64_t>(16 / chunks, 1, std::max<std::int64_t>(1, pixels / (2 * block)));

  Scratch<T> partial(std::size_t(ranges * depth * stride)), bias_partial(std::size_t(ranges * stride));
  const std::int64_t patch_size = block * std::min(depth, largest_depth);
  const std::int64_t rows_size = block * std::min(stride, largest_columns);
  Scratch<T> workspace(std::size_t(num_threads() * (patch_size + rows_size)));

  parallel_for(ranges * chunks, [&](std::int64_t task, int worker) {
    T* const patches = workspace.data() + worker * (patch_size + rows_size);
    T* const dy_rows = patches + patch_size;
    const std::int64_t range = task / chunks, depth_chunk = task % chunks / out_chunks, out_chunk = task % out_chunks;
    const std::int64_t k_first = depth * depth_chunk / depth_chunks, k_end = depth * (depth_chunk + 1) / depth_chunks;
    const std::int64_t o_first = out_chunk * largest_columns, o_end = std::min(out, o_first + largest_columns);
    const std::int64_t width = simd::padded<V>(o_end - o_first);
    T* const sums = partial.data() + (range * depth + k_first) * stride + o_first;
    T* const bias_sums = bias_partial.data() + range * stride + o_first;
    if (depth_chunk == 0) std::fill_n(bias_sums, width, T(0));

    const std::int64_t range_first = pixels * range / ranges, range_end = pixels * (range + 1) / ranges;
    for (std::int64_t first = range_first; first < range_end; first += block) {
      const std::int64_t count = std::min(block, range_end - first);
      for (std::int64_t p = 0; p < count; ++p) {
        const std::int64_t j = (first + p) % columns, i = (first + p) / columns % rows, n = (first + p) / columns / rows;
        detail::copy_patch(problem, x, n, i * problem.stride - problem.padding, j * problem.stride - problem.padding,
                           k_first, k_end, patches + p * (k_end - k_first));
        std::copy(dy + (first + p) * out + o_first, dy + (first + p) * out + o_end, dy_rows + p * width);
        std::fill(dy_rows + p * width + (o_end - o_first), dy_rows + (p + 1) * width, T(0));
      }
      add_outer_products<V>(count, k_end - k_first, width, patches, k_end - k_first, dy_rows, width, sums, stride,
                            first > range_first);
      if (depth_chunk == 0) detail::add_column_sums<V>(count, width, dy_rows, width, bias_sums);
    }
  });
  detail::sum_weight_partials(partial.data(), ranges, depth, out, dweight, accumulate);
  if (dbias) detail::sum_partials(bias_partial.data(), ranges, stride, out, dbias, accumulate);
}

}  // namespace strata::inline STRATA_ABI::cpu
