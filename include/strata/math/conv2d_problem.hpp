// The extents of one 2-D convolution, as every backend takes them.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"
#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI {

/// Cross-correlation with zero padding, the same in both directions, as PyTorch's Conv2d:
///   y[n, o, i, j] = bias[o] + sum over c, p, q of weight[o, c, p, q] * x[n, c, i*stride + p*dilation - padding, ...]
/// Activations are N,H,W,C in memory; weights O,KH,KW,I.
struct Conv2dProblem {
  std::int64_t n = 1, h = 1, w = 1;  ///< of the input
  int in = 1, out = 1;               ///< channels
  int kernel = 3, stride = 1, padding = 1, dilation = 1;

  constexpr std::int64_t out_h() const { return extent(h); }
  constexpr std::int64_t out_w() const { return extent(w); }
  constexpr std::int64_t input_size() const { return n * h * w * in; }
  constexpr std::int64_t output_size() const { return n * out_h() * out_w() * out; }
  constexpr std::int64_t weight_size() const { return std::int64_t{out} * kernel * kernel * in; }
  constexpr std::int64_t multiply_adds() const { return n * out_h() * out_w() * weight_size(); }

  constexpr bool operator==(const Conv2dProblem&) const = default;

 private:
  constexpr std::int64_t extent(std::int64_t size) const {
    return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
  }
};

/// Throws ShapeError for extents that make no convolution.
inline void check_conv2d(const Conv2dProblem& p) {
  const std::int64_t reach = std::int64_t{p.dilation} * (p.kernel - 1) + 1;
  if (p.n < 1 || p.h < 1 || p.w < 1 || p.in < 1 || p.out < 1)
    throw ShapeError(concat("conv2d: got an input of ", p.n, "x", p.in, "x", p.h, "x", p.w, " for ", p.out,
                            " output channels; each must be at least 1"));
  if (p.kernel < 1 || p.stride < 1 || p.dilation < 1 || p.padding < 0)
    throw ShapeError(concat("conv2d: got kernel ", p.kernel, ", stride ", p.stride, ", padding ", p.padding,
                            ", dilation ", p.dilation, "; wanted at least 1, 1, 0 and 1"));
  if (reach > p.h + 2 * p.padding || reach > p.w + 2 * p.padding)
    throw ShapeError(concat("conv2d: a kernel that reaches over ", reach, " pixels (kernel ", p.kernel, ", dilation ",
                            p.dilation, ") does not fit an image of ", p.h, "x", p.w, " with padding ", p.padding));
}

}  // namespace strata::inline STRATA_ABI
