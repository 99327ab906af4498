// The gradients for the weights and the bias of any convolution, by their definition: sums of outer products over
// pixels,
//
//     dweight[o, tap, c] = sum over pixels of dy[pixel, o] * x[pixel under the tap, c]     dbias[o] = sum of dy[pixel,
//     o]
//
// One of the two images gives patches, kernel * kernel pixels next to each other, the other rows of single pixels:
//
//     sums[tap, channel of the patches][channel of the rows] += patch[tap, channel] * row[channel]
//
// The patches are of x, but of dy where dy has so few channels that they would not fill a vector. Pixels are cut into
// ranges, the sums into chunks; each range and chunk is a task, and ranges are added up in a fixed order.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// Cuts the sums over all pixels into tasks, by the problem alone.
template <class T>
struct OuterSumsPlan {
  using V = simd::Vector<T>;
  static constexpr std::int64_t block = 64, largest_depth = 384, largest_columns = 64;  // a workspace of 0.25 MiB

  OuterSumsPlan(std::int64_t pixel_count, std::int64_t sum_rows, std::int64_t sum_columns)
      : pixels(pixel_count),
        depth(sum_rows),
        columns(sum_columns),
        stride(simd::padded<V>(columns)),
        depth_chunks((depth + largest_depth - 1) / largest_depth),
        column_chunks((columns + largest_columns - 1) / largest_columns),
        ranges(std::clamp<std::int64_t>(16 / (depth_chunks * column_chunks), 1,
                                        std::max<std::int64_t>(1, pixels / (4 * block)))) {}

  std::int64_t pixels, depth, columns;
  std::int64_t stride;  ///< columns, padded to whole vectors
  std::int64_t depth_chunks, column_chunks, ranges;
};

/// Columns [first, end) of one patch: patch[tap * c + channel], zero in the padding. (h, w) is the corner of the patch.
template <class T>
void copy_patch(const Images<const T>& x, std::int64_t kernel, std::int64_t dilation, std::int64_t n, std::int64_t h,
                std::int64_t w, std::int64_t first, std::int64_t end, T* to) {
  for (std::int64_t k = first; k < end;) {
    const std::int64_t tap = k / x.c, c = k % x.c, count = std::min(x.c - c, end - k);
    const std::int64_t row = h + tap / kernel * dilation, column = w + tap % kernel * dilation;
    if (row >= 0 && row < x.h && column >= 0 && column < x.w)
      std::copy_n(x.data + ((n * x.h + row) * x.w + column) * x.c + c, count, to);
    else
      std::fill_n(to, count, T(0));
    to += count;
    k += count;
  }
}

/// sums[range][tap, channel][column] for every range of the plan, where the patches are of `x` and the rows of `y`, the
/// result of a convolution of x with this kernel, stride, dilation and padding (which can be negative). row_sums,
/// unless nullptr: the sums[range][column] of the rows alone.
template <class T>
void outer_sums(const OuterSumsPlan<T>& plan, const Images<const T>& x, const Images<const T>& y, std::int64_t kernel,
                std::int64_t stride, std::int64_t dilation, std::int64_t padding, T* sums, T* row_sums) {
  using V = simd::Vector<T>;
  constexpr std::int64_t block = OuterSumsPlan<T>::block;
  const std::int64_t taps = kernel * kernel, chunks = plan.depth_chunks * plan.column_chunks;
  const bool thin = x.c <= thin_channels && plan.depth_chunks == 1;
  const bool in_place = kernel == 1 && stride == 1 && padding == 0;  // the patches are the pixels of x
  Scratch<Tap> all_taps{std::size_t(taps)};
  write_taps(x, kernel, dilation, padding, all_taps.data());
  const TapGrid grid{0, 0, 1, y.h, y.w, stride, all_taps.data(), taps};

  const T one = 1;
  const std::int64_t patch_size = block * std::min(plan.depth, plan.largest_depth);
  const std::int64_t row_size = block * std::min(plan.stride, plan.largest_columns);
  WorkerScratch<T> workspace(patch_size + row_size);

  parallel_for(plan.ranges * chunks, [&](std::int64_t task, int worker) {
    T* const patch_copies = workspace[worker];
    T* const row_copies = patch_copies + patch_size;
    const std::int64_t range = task / chunks;
    const std::int64_t depth_chunk = task % chunks / plan.column_chunks, column_chunk = task % plan.column_chunks;
    const std::int64_t first_k = plan.depth * depth_chunk / plan.depth_chunks;
    const std::int64_t depth = plan.depth * (depth_chunk + 1) / plan.depth_chunks - first_k;
    const std::int64_t first_column = column_chunk * plan.largest_columns;
    const std::int64_t columns = std::min(plan.columns - first_column, plan.largest_columns);
    const std::int64_t width = simd::padded<V>(columns);
    T* const to = sums + (range * plan.depth + first_k) * plan.stride + first_column;

    const std::int64_t begin = plan.pixels * range / plan.ranges, end = plan.pixels * (range + 1) / plan.ranges;
    for (std::int64_t first = begin; first < end; first += block) {
      const std::int64_t count = std::min(block, end - first);
      const T *patches = patch_copies, *rows = row_copies;
      if (in_place) {
        patches = x.data + first * x.c + first_k;
      } else if (thin) {
        SourceWalk<T> walk(x, grid, first);
        copy_patches(grid, grid.run(), x.c, count, walk, patch_copies, depth, 1);
      } else {
        for (std::int64_t p = 0; p < count; ++p)
          copy_patch(x, kernel, dilation, (first + p) / y.w / y.h, (first + p) / y.w % y.h * stride - padding,
                     (first + p) % y.w * stride - padding, first_k, first_k + depth, patch_copies + p * depth);
      }
      if (width == columns) {
        rows = y.data + first * y.c + first_column;
      } else {
        for (std::int64_t p = 0; p < count; ++p) {
          std::copy_n(y.data + (first + p) * y.c + first_column, columns, row_copies + p * width);
          std::fill(row_copies + p * width + columns, row_copies + (p + 1) * width, T(0));
        }
      }
      add_outer_products<V>(count, depth, width, patches, in_place ? x.c : depth, rows, width == columns ? y.c : width,
                            to, plan.stride, first > begin);
      if (row_sums != nullptr && depth_chunk == 0)  // a row of ones, the same for every pixel
        add_outer_products<V>(count, 1, width, &one, 0, rows, width == columns ? y.c : width,
                              row_sums + range * plan.stride + first_column, 0, first > begin);
    }
  });
}

/// dweight[o, k] = or += sum over ranges of sums[range][k][o].
template <class T>
void add_transposed(const OuterSumsPlan<T>& plan, const T* sums, T* dweight, bool accumulate) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>, chunk = 64;
  const std::int64_t chunks = (plan.depth + chunk - 1) / chunk;
  parallel_for(plan.stride / lanes * chunks, [&](std::int64_t task) {
    const std::int64_t o = task / chunks * lanes, first = task % chunks * chunk,
                       end = std::min(plan.depth, first + chunk);
    std::array<T, chunk * lanes> part;
    for (std::int64_t k = first; k < end; ++k) {
      V sum = simd::load<V>(sums + k * plan.stride + o);
      for (std::int64_t range = 1; range < plan.ranges; ++range)
        sum += simd::load<V>(sums + (range * plan.depth + k) * plan.stride + o);
      simd::store(part.data() + (k - first) * lanes, sum);
    }
    for (std::int64_t i = 0; i < std::min(lanes, plan.columns - o); ++i) {
      T* to = dweight + (o + i) * plan.depth;
      for (std::int64_t k = first; k < end; ++k) {
        const T sum = part[std::size_t((k - first) * lanes + i)];
        to[k] = accumulate ? to[k] + sum : sum;
      }
    }
  });
}

/// result[i] = or += sum over ranges of partial[range * stride + i], i < count.
template <class T>
void sum_ranges(const T* partial, std::int64_t ranges, std::int64_t stride, std::int64_t count, T* result,
                bool accumulate) {
  for (std::int64_t i = 0; i < count; ++i) {
    T sum = partial[i];
    for (std::int64_t range = 1; range < ranges; ++range) sum += partial[range * stride + i];
    result[i] = accumulate ? result[i] + sum : sum;
  }
}

/// dweight[o, tap, c] = or += sum over ranges of sums[range][last tap - tap, o][c].
template <class T>
void add_turned(const OuterSumsPlan<T>& plan, const T* sums, std::int64_t taps, std::int64_t out, T* dweight,
                bool accumulate) {
  for (std::int64_t o = 0; o < out; ++o)
    for (std::int64_t t = 0; t < taps; ++t) {
      T* to = dweight + (o * taps + t) * plan.columns;
      for (std::int64_t c = 0; c < plan.columns; ++c) {
        T sum = 0;
        for (std::int64_t range = 0; range < plan.ranges; ++range)
          sum += sums[(range * plan.depth + (taps - 1 - t) * out + o) * plan.stride + c];
        to[c] = accumulate ? to[c] + sum : sum;
      }
    }
}

/// dbias[o] = or += the sum of dy[pixel, o] over all pixels, for at most thin_channels channels.
template <class T>
void sum_thin_pixels(const Images<const T>& dy, T* dbias, bool accumulate) {
  constexpr std::int64_t range = 1024;
  const std::int64_t pixels = dy.pixels(), ranges = (pixels + range - 1) / range;
  Scratch<T> partial(std::size_t(ranges * dy.c));
  parallel_ranges(pixels, range, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t o = 0; o < dy.c; ++o) {
      T sum = 0;
      for (std::int64_t p = first; p < end; ++p) sum += dy.data[p * dy.c + o];
      partial.data()[first / range * dy.c + o] = sum;
    }
  });
  sum_ranges(partial.data(), ranges, dy.c, dy.c, dbias, accumulate);
}

}  // namespace detail

/// dweight = or += the gradient for the weights, dbias (unless nullptr) = or += that for the bias.
template <class T>
void direct_backward_weight(const Conv2dProblem& p, const T* x, const T* dy, T* dweight, T* dbias, bool accumulate) {
  const Images<const T> input{x, p.n, p.h, p.w, p.in}, result{dy, p.n, p.out_h(), p.out_w(), p.out};
  const std::int64_t taps = std::int64_t{p.kernel} * p.kernel;
  const bool patches_of_dy = p.out <= thin_channels && p.in > thin_channels && p.stride == 1;
  const detail::OuterSumsPlan<T> plan = patches_of_dy ? detail::OuterSumsPlan<T>(input.pixels(), taps * p.out, p.in)
                                                      : detail::OuterSumsPlan<T>(result.pixels(), taps * p.in, p.out);
  Scratch<T> sums(std::size_t(plan.ranges * plan.depth * plan.stride)),
      bias_sums(std::size_t(plan.ranges * plan.stride));
  if (patches_of_dy) {
    // Pixel q of x meets dy at q + padding - tap * dilation: a convolution with the kernel turned by 180 degrees.
    const std::int64_t reach = std::int64_t{p.dilation} * (p.kernel - 1);
    detail::outer_sums<T>(plan, result, input, p.kernel, 1, p.dilation, reach - p.padding, sums.data(), nullptr);
    detail::add_turned(plan, sums.data(), taps, p.out, dweight, accumulate);
    if (dbias) detail::sum_thin_pixels(result, dbias, accumulate);
  } else {
    detail::outer_sums<T>(plan, input, result, p.kernel, p.stride, p.dilation, p.padding, sums.data(),
                          dbias ? bias_sums.data() : nullptr);
    detail::add_transposed(plan, sums.data(), dweight, accumulate);
    if (dbias) detail::sum_ranges(bias_sums.data(), plan.ranges, plan.stride, p.out, dbias, accumulate);
  }
}

}  // namespace strata::inline STRATA_ABI::cpu
