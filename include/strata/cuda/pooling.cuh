// Windows over N,H,W,C images: maximum, mean, the mean of whole images. One thread to an element of the result;
// gradients are gathered, so that nothing is added by chance order.
#pragma once

#include <cstdint>

#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/cuda/reduce.cuh"
#include "strata/math/pool_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// One side of the image, cut into `parts` windows (0: it is not).
struct PoolSide {
  int size, parts;
  WideDivisor by_size, by_parts;
  PoolSide(std::int64_t pixels, int windows)
      : size(int(pixels)), parts(windows), by_size(pixels), by_parts(windows > 0 ? windows : 1) {}
};

/// A PoolProblem as kernels take it: fewer than 2^31 elements on either side.
struct PoolShape {
  int h, w, channels, kernel, stride, padding, out_h, out_w;
  PoolSide down, across;
  bool count_padding;
  Divisor by_channels, by_width, by_height;  ///< of the image that threads stand for

  /// For threads that stand for elements of the output, or of the input.
  PoolShape(const PoolProblem& p, bool over_output)
      : h(int(p.h)), w(int(p.w)), channels(p.channels), kernel(p.kernel), stride(p.stride), padding(p.padding),
        out_h(int(p.out_h())), out_w(int(p.out_w())), down(p.h, p.parts_h), across(p.w, p.parts_w),
        count_padding(p.count_padding), by_channels(p.channels), by_width(over_output ? p.out_w() : p.w),
        by_height(over_output ? p.out_h() : p.h) {}

  struct Place {
    int n, i, j, c;
  };
  STRATA_DEVICE_MEMBER Place place(std::int64_t element) const {
    const std::uint32_t pixel = by_channels.quotient(std::uint32_t(element)), row = by_width.quotient(pixel);
    const std::uint32_t n = by_height.quotient(row);
    return {int(n), int(row - n * by_height.divisor), int(pixel - row * by_width.divisor),
            int(std::uint32_t(element) - pixel * by_channels.divisor)};
  }
  STRATA_DEVICE_MEMBER int input(int n, int i, int j, int c) const { return ((n * h + i) * w + j) * channels + c; }
  STRATA_DEVICE_MEMBER int output(int n, int i, int j, int c) const {
    return ((n * out_h + i) * out_w + j) * channels + c;
  }

  /// What PoolSpan says, of window `i` along a side.
  struct Span {
    int first;       ///< where the window begins, in the padding perhaps
    int begin, end;  ///< what of it is in the image
    int count;
  };
  STRATA_DEVICE_MEMBER Span span(int i, const PoolSide& side) const {
    if (side.parts > 0) {
      const int begin = int(side.by_parts.quotient(std::int64_t{i} * side.size));
      const int end = int(side.by_parts.quotient(std::int64_t{i + 1} * side.size + side.parts - 1));
      return {begin, begin, end, end - begin};
    }
    const int first = i * stride - padding;
    const int last = first + kernel < side.size + padding ? first + kernel : side.size + padding;
    const int begin = first > 0 ? first : 0, end = last < side.size ? last : side.size;
    return {first, begin, end, count_padding ? last - first : end - begin};
  }
  /// Where window `i` begins along a side, in the padding perhaps.
  STRATA_DEVICE_MEMBER int first(int i, const PoolSide& side) const {
    if (side.parts > 0) return int(side.by_parts.quotient(std::int64_t{i} * side.size));
    return i * stride - padding;
  }
  STRATA_DEVICE_MEMBER Span rows(int i) const { return span(i, down); }
  STRATA_DEVICE_MEMBER Span columns(int j) const { return span(j, across); }
  /// The windows along one axis that contain place `i`: first to last.
  STRATA_DEVICE_MEMBER int first_window(int i, const PoolSide& side) const {
    if (side.parts > 0) return int(side.by_size.quotient(std::int64_t{i} * side.parts));
    return i + padding < kernel ? 0 : (i + padding - kernel) / stride + 1;
  }
  STRATA_DEVICE_MEMBER int last_window(int i, const PoolSide& side, int count) const {
    if (side.parts > 0) return int(side.by_size.quotient(std::int64_t{i + 1} * side.parts + side.size - 1)) - 1;
    const int last = (i + padding) / stride;
    return last < count ? last : count - 1;
  }
  /// kernel * kernel / the pixels of a window: 1 for most.
  STRATA_DEVICE_MEMBER float relative(const Span& rows, const Span& columns) const {
    const int usual = kernel * kernel, count = rows.count * columns.count;
    return count == usual ? 1.0f : float(usual) / float(count);
  }
};

struct MaxPoolForward : SingleElements {
  const float* x;
  float* y;
  std::int32_t* place;
  PoolShape shape;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const PoolShape::Place o = shape.place(element);
    float best = 0;
    int where = -1;
    const PoolShape::Span down = shape.rows(o.i), across = shape.columns(o.j);
    for (int i = down.begin; i < down.end; ++i)
      for (int j = across.begin; j < across.end; ++j) {
        const float v = x[shape.input(o.n, i, j, o.c)];
        if (where < 0 || v > best || v != v) best = v, where = (i - down.first) * shape.kernel + j - across.first;
      }
    y[element] = best;
    if (place != nullptr) place[element] = where;
  }
};

struct MaxPoolBackward : SingleElements, LongElements {
  const std::int32_t* place;
  const float* dy;
  float* dx;
  PoolShape shape;
  bool accumulate;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const PoolShape::Place p = shape.place(element);
    float sum = 0;
    const int last_i = shape.last_window(p.i, shape.down, shape.out_h),
              last_j = shape.last_window(p.j, shape.across, shape.out_w);
    for (int i = shape.first_window(p.i, shape.down); i <= last_i; ++i)
      for (int j = shape.first_window(p.j, shape.across); j <= last_j; ++j) {
        const int o = shape.output(p.n, i, j, p.c);
        const int own = (p.i - shape.first(i, shape.down)) * shape.kernel + p.j - shape.first(j, shape.across);
        if (place[o] == own) sum += dy[o];
      }
    dx[element] = accumulate ? dx[element] + sum : sum;
  }
};

struct AvgPoolForward : SingleElements {
  const float* x;
  float* y;
  PoolShape shape;
  float share;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const PoolShape::Place o = shape.place(element);
    float sum = 0;
    const PoolShape::Span down = shape.rows(o.i), across = shape.columns(o.j);
    for (int i = down.begin; i < down.end; ++i)
      for (int j = across.begin; j < across.end; ++j) sum += x[shape.input(o.n, i, j, o.c)];
    y[element] = sum * share * shape.relative(down, across);
  }
};

struct AvgPoolBackward : SingleElements, LongElements {
  const float* dy;
  float* dx;
  PoolShape shape;
  float share;
  bool accumulate;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const PoolShape::Place p = shape.place(element);
    float sum = 0;
    const int last_i = shape.last_window(p.i, shape.down, shape.out_h);
    const int last_j = shape.last_window(p.j, shape.across, shape.out_w);
    for (int i = shape.first_window(p.i, shape.down); i <= last_i; ++i)
      for (int j = shape.first_window(p.j, shape.across); j <= last_j; ++j)
        sum += dy[shape.output(p.n, i, j, p.c)] * shape.relative(shape.rows(i), shape.columns(j));
    sum *= share;
    dx[element] = accumulate ? dx[element] + sum : sum;
  }
};

/// y[n, c] = share * sum over pixels of x[n, pixel, c]. Block: 32 channels, 8 rows of threads. Grid: (channel groups,
/// n).
STRATA_GLOBAL void __launch_bounds__(finish_channels* finish_slots)
    global_avg_pool_kernel(std::int64_t pixels, int channels, float share, const float* __restrict__ x,
                           float* __restrict__ y) {
  STRATA_SHARED(float, shared, [finish_slots][finish_channels]);
  const int lane = int(threadIdx.x) % finish_channels, slot = int(threadIdx.x) / finish_channels;
  const int c = int(blockIdx.x) * finish_channels + lane;
  const float* image = x + std::int64_t(blockIdx.y) * pixels * channels;
  float sum = 0;
  if (c < channels)
#pragma unroll 4
    for (std::int64_t p = slot; p < pixels; p += finish_slots) sum += image[p * channels + c];
  shared[slot][lane] = sum;
  __syncthreads();
  if (slot == 0 && c < channels) {
#pragma unroll
    for (int k = 1; k < finish_slots; ++k) sum += shared[k][lane];
    y[std::int64_t(blockIdx.y) * channels + c] = sum * share;
  }
}

/// dx[n, pixel, c] (+)= share * dy[n, c].
struct GlobalAvgPoolBackward : SingleElements {
  const float* dy;
  float* dx;
  Divisor by_channels, by_pixels;
  float share;
  bool accumulate;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const std::uint32_t pixel = by_channels.quotient(std::uint32_t(element)), n = by_pixels.quotient(pixel);
    const std::uint32_t c = std::uint32_t(element) - pixel * by_channels.divisor;
    const float g = share * dy[n * by_channels.divisor + c];
    dx[element] = accumulate ? dx[element] + g : g;
  }
};

}}}  // namespace strata::STRATA_ABI::cuda
