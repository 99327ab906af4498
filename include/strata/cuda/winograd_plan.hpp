// When a convolution is computed by Winograd's algorithm, and in how many pieces (winograd.cuh). Plain C++, so that
// tests and programs without a CUDA compiler can ask.
//
//     if (st::cuda::use_winograd(problem, problem.out_h(), problem.out_w())) ...
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/math/conv2d_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int winograd_planes = 36, winograd_tile = 4;
inline constexpr std::int64_t winograd_chunk_bytes = std::int64_t{24} << 20;

/// The tiles of a result of n x h x w, in chunks so small that v and m of one stay in the device's level-2 cache.
struct WinogradPlan {
  int rows, columns;
  std::int64_t tiles, chunk;

  WinogradPlan(std::int64_t n, std::int64_t h, std::int64_t w, int source_c, int result_c)
      : rows(int((h + winograd_tile - 1) / winograd_tile)), columns(int((w + winograd_tile - 1) / winograd_tile)),
        tiles(n * rows * columns) {
    const std::int64_t bytes = std::int64_t(sizeof(float)) * winograd_planes * (source_c + result_c);
    chunk = std::min((winograd_chunk_bytes / bytes + 128) / 128 * 128, tiles);
  }
};

/// Whether a problem has Winograd's form, and few enough pixels of its h x w results lie outside the tiles that fewer
/// products are left.
inline bool use_winograd(const Conv2dProblem& p, std::int64_t h, std::int64_t w) {
  if (p.kernel != 3 || p.stride != 1 || p.dilation != 1 || p.in < 16 || p.out < 16) return false;
  const std::int64_t tiles = ((h + winograd_tile - 1) / winograd_tile) * ((w + winograd_tile - 1) / winograd_tile);
  return 2 * tiles * winograd_planes < 9 * h * w;
}

}}}  // namespace strata::STRATA_ABI::cuda
