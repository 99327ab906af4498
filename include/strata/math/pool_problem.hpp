// The extents of a pooling, as every backend takes them.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// A window of kernel x kernel pixels, moved by stride; no padding, as PyTorch's defaults. Memory is N,H,W,C.
struct PoolProblem {
  std::int64_t n = 1, h = 1, w = 1;
  int channels = 1, kernel = 2, stride = 2;

  constexpr std::int64_t out_h() const { return (h - kernel) / stride + 1; }
  constexpr std::int64_t out_w() const { return (w - kernel) / stride + 1; }
};

}  // namespace strata::inline STRATA_ABI
