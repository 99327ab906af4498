// The extents of one 2-D convolution, as every backend takes them.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"

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

}  // namespace strata::inline STRATA_ABI
