// Convolutions with groups, with padding that is not zeros, and with kernels that are not square, on the device: by
// their definition, a thread to each element of a result. Gradients are gathered, so that nothing is added by chance
// order. float32 always; fewer than 2^31 elements on either side.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/cuda/conv2d_weight.cuh"
#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/math/conv2d_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// A Conv2dProblem as kernels take it.
struct GeneralShape {
  int n, h, w, in, out, out_h, out_w, kernel_h, kernel_w, stride, padding_h, padding_w, dilation, group_in, group_out;
  PaddingMode mode;

  explicit GeneralShape(const Conv2dProblem& p)
      : n(int(p.n)),
        h(int(p.h)),
        w(int(p.w)),
        in(p.in),
        out(p.out),
        out_h(int(p.out_h())),
        out_w(int(p.out_w())),
        kernel_h(p.kernel),
        kernel_w(int(p.kernel_columns())),
        stride(p.stride),
        padding_h(p.padding),
        padding_w(int(p.padding_columns())),
        dilation(p.dilation),
        group_in(p.group_in()),
        group_out(p.group_out()),
        mode(p.padding_mode) {}

  /// The row of an image of `size` rows that row `at` of the padded image shows, or -1: see padded_source.
  STRATA_DEVICE_MEMBER int source(int at, int size) const {
    if (at >= 0 && at < size) return at;
    if (mode == PaddingMode::zeros) return -1;
    if (mode == PaddingMode::reflect) return at < 0 ? -at : size - 1 - (at - (size - 1));
    if (mode == PaddingMode::replicate) return at < 0 ? 0 : size - 1;
    return at < 0 ? at + size : at - size;
  }
  /// The places of the padded image that may show row `own`: itself, then those of both margins, `places` of them.
  STRATA_DEVICE_MEMBER int places(int padding) const { return mode == PaddingMode::zeros ? 1 : 1 + 2 * padding; }
  STRATA_DEVICE_MEMBER int place(int k, int own, int size, int padding) const {
    return k == 0 ? own : k <= padding ? -k : size - 1 + k - padding;
  }
  /// The row of the result that meets row `at` of the padded image under tap `tap`, or -1.
  STRATA_DEVICE_MEMBER int result(int at, int tap, int padding, int count) const {
    const int distance = at + padding - tap * dilation;
    const bool behind = distance >= 0;  // not a guard: to the caller every number below 0 is none
    return behind && distance % stride == 0 && distance / stride < count ? distance / stride : -1;
  }
};

/// y = activation(bias + x * weight), or y += x * weight.
struct GeneralForward : SingleElements {
  const float *x, *weight, *bias;
  float* y;
  GeneralShape shape;
  ElementPlace place;
  bool relu, accumulate;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const GeneralShape& s = shape;
    const ElementPlace::Place o = place(element);
    const int first = o.c / s.group_out * s.group_in;
    float sum = bias != nullptr ? bias[o.c] : 0.0f;
    for (int q = 0; q < s.kernel_h; ++q) {
      const int row = s.source(o.i * s.stride + q * s.dilation - s.padding_h, s.h);
      if (row < 0) continue;
      for (int r = 0; r < s.kernel_w; ++r) {
        const int column = s.source(o.j * s.stride + r * s.dilation - s.padding_w, s.w);
        if (column < 0) continue;
        const float* from = x + ((o.n * s.h + row) * s.w + column) * s.in + first;
        const float* factors = weight + ((o.c * s.kernel_h + q) * s.kernel_w + r) * s.group_in;
        for (int k = 0; k < s.group_in; ++k) sum += from[k] * factors[k];
      }
    }
    if (relu && sum < 0.0f) sum = 0.0f;  // NaN stays NaN
    y[element] = accumulate ? y[element] + sum : sum;
  }
};

/// dx (+)= the sum over all places that show the pixel, and over what is made of each.
struct GeneralBackwardInput : SingleElements {
  const float *dy, *weight;
  float* dx;
  GeneralShape shape;
  ElementPlace place;
  bool accumulate;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const GeneralShape& s = shape;
    const ElementPlace::Place x = place(element);
    float sum = 0;
    for (int a = 0; a < s.places(s.padding_h); ++a) {
      const int row = s.place(a, x.i, s.h, s.padding_h);
      if (s.source(row, s.h) != x.i) continue;
      for (int q = 0; q < s.kernel_h; ++q) {
        const int i = s.result(row, q, s.padding_h, s.out_h);
        if (i < 0) continue;
        for (int b = 0; b < s.places(s.padding_w); ++b) {
          const int column = s.place(b, x.j, s.w, s.padding_w);
          if (s.source(column, s.w) != x.j) continue;
          for (int r = 0; r < s.kernel_w; ++r) {
            const int j = s.result(column, r, s.padding_w, s.out_w);
            if (j >= 0) sum += products(x, i, j, q, r);
          }
        }
      }
    }
    dx[element] = accumulate ? dx[element] + sum : sum;
  }

 private:
  STRATA_DEVICE_MEMBER float products(const ElementPlace::Place& x, int i, int j, int q, int r) const {
    const GeneralShape& s = shape;
    const int first = x.c / s.group_in * s.group_out, taps = s.kernel_h * s.kernel_w;
    const float* from = dy + ((x.n * s.out_h + i) * s.out_w + j) * s.out + first;
    const float* factors = weight + (first * taps + q * s.kernel_w + r) * s.group_in + x.c % s.group_in;
    float sum = 0;
    for (int k = 0; k < s.group_out; ++k) sum += from[k] * factors[k * taps * s.group_in];
    return sum;
  }
};

/// partial[range][weight] = the sum over a range of pixels of dy * x. Element: range * size + weight.
struct GeneralBackwardWeight : SingleElements, LongElements {
  const float *x, *dy;
  float* partial;
  GeneralShape shape;
  Divisor by_size, by_group, by_columns, by_rows, by_width, by_height;
  std::int64_t pixels, pixels_of_range;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const GeneralShape& s = shape;
    const std::uint32_t range = by_size.quotient(std::uint32_t(element)),
                        place = std::uint32_t(element) - range * by_size.divisor;
    const std::uint32_t tap = by_group.quotient(place), row_tap = by_columns.quotient(tap),
                        o = by_rows.quotient(row_tap);
    const int r = int(tap - row_tap * by_columns.divisor), q = int(row_tap - o * by_rows.divisor);
    const int c = int(o) / s.group_out * s.group_in + int(place - tap * by_group.divisor);
    const std::int64_t begin = range * pixels_of_range,
                       end = begin + pixels_of_range < pixels ? begin + pixels_of_range : pixels;
    float sum = 0;
    for (std::int64_t p = begin; p < end; ++p) {
      const std::uint32_t line = by_width.quotient(std::uint32_t(p)), n = by_height.quotient(line);
      const int i = int(line - n * by_height.divisor), j = int(std::uint32_t(p) - line * by_width.divisor);
      const int row = s.source(i * s.stride + q * s.dilation - s.padding_h, s.h);
      const int column = s.source(j * s.stride + r * s.dilation - s.padding_w, s.w);
      if (row >= 0 && column >= 0) sum += dy[p * s.out + o] * x[((int(n) * s.h + row) * s.w + column) * s.in + c];
    }
    partial[element] = sum;
  }
};

/// How many ranges the pixels are cut into for the gradient for the weights, so that threads are many.
constexpr int general_ranges(const Conv2dProblem& p) {
  const std::int64_t pixels = p.n * p.out_h() * p.out_w();
  return int(std::max<std::int64_t>(std::min((std::int64_t{1} << 17) / p.weight_size(), ceil_div(pixels, 32)), 1));
}

inline cudaError_t general_forward(cudaStream_t stream, const Conv2dProblem& p, const float* x, const float* weight,
                                   const float* bias, float* y, bool relu, bool accumulate) {
  return elementwise(
      stream, p.output_size(),
      GeneralForward{
          {}, x, weight, bias, y, GeneralShape(p), ElementPlace(p.out, p.out_w(), p.out_h()), relu, accumulate});
}
inline cudaError_t general_backward_input(cudaStream_t stream, const Conv2dProblem& p, const float* dy,
                                          const float* weight, float* dx, bool accumulate) {
  return elementwise(
      stream, p.input_size(),
      GeneralBackwardInput{{}, dy, weight, dx, GeneralShape(p), ElementPlace(p.in, p.w, p.h), accumulate});
}
/// partial: general_ranges(p) * weight_size floats.
inline cudaError_t general_backward_weight(cudaStream_t stream, const Conv2dProblem& p, const float* x, const float* dy,
                                           float* partial, float* dweight, bool accumulate) {
  const int ranges = general_ranges(p);
  const std::int64_t pixels = p.n * p.out_h() * p.out_w(), size = p.weight_size();
  const cudaError_t status = elementwise(stream, ranges * size,
                                         GeneralBackwardWeight{{},
                                                               {},
                                                               x,
                                                               dy,
                                                               partial,
                                                               GeneralShape(p),
                                                               Divisor(size),
                                                               Divisor(p.group_in()),
                                                               Divisor(p.kernel_columns()),
                                                               Divisor(p.kernel),
                                                               Divisor(p.out_w()),
                                                               Divisor(p.out_h()),
                                                               pixels,
                                                               ceil_div(pixels, ranges)});
  if (status != cudaSuccess) return status;
  return elementwise(stream, size, SumRanges{partial, dweight, size, ranges, accumulate});
}

}}}  // namespace strata::STRATA_ABI::cuda
