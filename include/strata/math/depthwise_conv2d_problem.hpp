// The extents of one depthwise 2-D convolution.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"
#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI {

/// Each channel is convolved with a kernel of its own, as PyTorch's Conv2d with groups = channels:
///   y[n, c, i, j] = bias[c] + sum over p, q of weight[c, p, q] * x[n, c, i*stride + p*dilation - padding, ...]
/// Activations are N,H,W,C in memory; weights C,KH,KW.
struct DepthwiseConv2dProblem {
  std::int64_t n = 1, h = 1, w = 1;  ///< of the input
  int channels = 1;
  int kernel = 3, stride = 1, padding = 1, dilation = 1;

  constexpr std::int64_t out_h() const { return extent(h); }
  constexpr std::int64_t out_w() const { return extent(w); }
  constexpr std::int64_t input_size() const { return n * h * w * channels; }
  constexpr std::int64_t output_size() const { return n * out_h() * out_w() * channels; }
  constexpr std::int64_t weight_size() const { return std::int64_t{channels} * kernel * kernel; }

  constexpr bool operator==(const DepthwiseConv2dProblem&) const = default;

 private:
  constexpr std::int64_t extent(std::int64_t size) const {
    return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  }
};

/// Throws ShapeError for extents that make no convolution.
inline void check_depthwise_conv2d(const DepthwiseConv2dProblem& p) {
  const std::int64_t reach = std::int64_t{p.dilation} * (p.kernel - 1) + 1;
  if (p.n < 1 || p.h < 1 || p.w < 1 || p.channels < 1)
    throw ShapeError(concat("depthwise_conv2d: got an input of ", p.n, "x", p.channels, "x", p.h, "x", p.w,
                            "; each must be at least 1"));
  if (p.kernel < 1 || p.stride < 1 || p.dilation < 1 || p.padding < 0)
    throw ShapeError(concat("depthwise_conv2d: got kernel ", p.kernel, ", stride ", p.stride, ", padding ", p.padding,
                            ", dilation ", p.dilation, "; wanted at least 1, 1, 0 and 1"));
  if (reach > p.h + 2 * p.padding || reach > p.w + 2 * p.padding)
    throw ShapeError(concat("depthwise_conv2d: a kernel that reaches over ", reach, " pixels (kernel ", p.kernel,
                            ", dilation ", p.dilation, ") does not fit an image of ", p.h, "x", p.w, " with padding ",
                            p.padding));
}

}  // namespace strata::inline STRATA_ABI
