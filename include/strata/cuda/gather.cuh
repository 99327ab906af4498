// Convolution as a gather: forward, and the gradient for the input, are both
//
//     result[n, i, j, k] = sum over taps t and channels c of
//                          source[n, i*step + offset(t), j*step + offset'(t), c] * w[t, c, k]
//
// A stride-s gradient is s * s gathers, one for each class of pixels of the result with the same remainders, each with
// the taps that reach it. Along one axis the taps of a class are evenly spaced, so a few integers describe them.
#pragma once

#include <cstdint>
#include <numeric>

#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/math/conv2d_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// One axis of a gather. Place i of the grid is place first + i*every of the result; its tap k reads place
/// i*step + offset + k*tap_offset of the source, and is tap first_tap + k*tap_step of the weights.
struct GatherAxis {
  int count, first, every, step, offset, taps, tap_offset, first_tap, tap_step;

  static GatherAxis forward(std::int64_t out, int kernel, int stride, int padding, int dilation) {
    return {int(out), 0, 1, stride, -padding, kernel, dilation, 0, 1};
  }
  /// The places a, a + stride, ... below `size` of the input, fed by dy.
  static GatherAxis backward(std::int64_t size, int a, int kernel, int stride, int padding, int dilation) {
    const int period = stride / std::gcd(stride, dilation);
    int tap = 0;
    while (tap < kernel && tap < period && (a + padding - tap * dilation) % stride != 0) ++tap;
    const bool none = tap >= kernel || tap >= period;
    return {int((size - a + stride - 1) / stride), a, stride, 1, none ? 0 : (a + padding - tap * dilation) / stride,
            none ? 0 : (kernel - 1 - tap) / period + 1, -(period * dilation / stride), tap, period};
  }
};

struct Gather {
  GatherAxis row, column;
  int n, source_h, source_w, source_c, result_h, result_w, result_c;
  int kernel;                              ///< of the weights
  int source_stride, result_stride, tap_stride;  ///< distances in the weights of channels and taps

  std::int64_t pixels() const { return std::int64_t(n) * row.count * column.count; }
  int taps() const { return row.taps * column.taps; }

  static Gather forward(const Conv2dProblem& p) {
    return {GatherAxis::forward(p.out_h(), p.kernel, p.stride, p.padding, p.dilation),
            GatherAxis::forward(p.out_w(), p.kernel, p.stride, p.padding, p.dilation),
            int(p.n), int(p.h), int(p.w), p.in, int(p.out_h()), int(p.out_w()), p.out, p.kernel,
            1, p.kernel * p.kernel * p.in, p.in};
  }
  /// The class of input pixels whose row is a and whose column is b, modulo the stride.
  static Gather backward(const Conv2dProblem& p, int a, int b) {
    return {GatherAxis::backward(p.h, a, p.kernel, p.stride, p.padding, p.dilation),
            GatherAxis::backward(p.w, b, p.kernel, p.stride, p.padding, p.dilation),
            int(p.n), int(p.out_h()), int(p.out_w()), p.out, int(p.h), int(p.w), p.in, p.kernel,
            p.kernel * p.kernel * p.in, 1, p.in};
  }
};

/// A Gather with the divisors of its grid, as kernels take it.
struct GatherGrid {
  Gather gather;
  Divisor by_columns, by_rows;

  explicit GatherGrid(const Gather& g) : gather(g), by_columns(g.column.count), by_rows(g.row.count) {}

  struct Place {
    int n, i, j;  ///< of the grid
  };
  STRATA_DEVICE_MEMBER Place place(int pixel) const {
    const std::uint32_t row = by_columns.quotient(std::uint32_t(pixel)), image = by_rows.quotient(row);
    return {int(image), int(row - image * by_rows.divisor), pixel - int(row * by_columns.divisor)};
  }
  /// Where the result of a pixel begins.
  STRATA_DEVICE_MEMBER std::int64_t result(const Place& p) const {
    const int h = gather.row.first + p.i * gather.row.every, w = gather.column.first + p.j * gather.column.every;
    return (std::int64_t(p.n * gather.result_h + h) * gather.result_w + w) * gather.result_c;
  }
};

/// packed[tap][c][k] = the weight of tap, source channel c and result channel k; zeros where c or k are padding.
struct PackWeights : SingleElements {
  const float* weight;
  float* packed;
  Divisor by_result, by_source, by_column_taps;  ///< padded counts of channels; taps of a row
  Gather gather;

  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const std::uint32_t e = std::uint32_t(element), row = by_result.quotient(e), tap = by_source.quotient(row);
    const int k = int(e - row * by_result.divisor), c = int(row - tap * by_source.divisor);
    const int tap_row = int(by_column_taps.quotient(tap)), tap_column = int(tap) - tap_row * gather.column.taps;
    const int place = (gather.row.first_tap + tap_row * gather.row.tap_step) * gather.kernel + gather.column.first_tap +
                      tap_column * gather.column.tap_step;
    const bool there = c < gather.source_c && k < gather.result_c;
    packed[element] = there ? weight[std::int64_t(place) * gather.tap_stride + std::int64_t(c) * gather.source_stride +
                                     std::int64_t(k) * gather.result_stride]
                            : 0.0f;
  }
};

/// What a convolution does with a finished sum: result = max(sum + bias, 0) and so on, or result += sum.
struct ConvolutionEnd {
  const float* bias;  ///< nullptr: zeros
  bool relu, accumulate;

  /// W channels from `channel` on, of which those below `channels` exist. With `vectors` result and bias are aligned.
  template <int W>
  STRATA_DEVICE_MEMBER void write(float* result, int channel, int channels, bool vectors, Numbers<W> sum) const {
    const bool whole = vectors && channel + W <= channels;
    if (bias != nullptr) {
      if (whole) {
        const Numbers<W> own = load<W>(bias + channel);
#pragma unroll
        for (int k = 0; k < W; ++k) sum.v[k] += own.v[k];
      } else {
#pragma unroll
        for (int k = 0; k < W; ++k)
          if (channel + k < channels) sum.v[k] += bias[channel + k];
      }
    }
    if (relu) {
#pragma unroll
      for (int k = 0; k < W; ++k) sum.v[k] = sum.v[k] < 0.0f ? 0.0f : sum.v[k];  // NaN stays NaN
    }
    if (whole) {
      store<W>(result + channel, sum, accumulate);
    } else {
#pragma unroll
      for (int k = 0; k < W; ++k)
        if (channel + k < channels) result[channel + k] = accumulate ? result[channel + k] + sum.v[k] : sum.v[k];
    }
  }
};

}}}  // namespace strata::STRATA_ABI::cuda
