// 3 x 3 convolutions with stride 1 by Winograd's minimal filtering F(4x4, 3x3): sixteen results from 36 products
// instead of 144 (Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015). For 6 x 6 tiles d of the
// source,
//
//     y = A^T [ sum over c of (G g G^T) * (B^T d B) ] A         dg = G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G
//
// with the points 0, +-sqrt(1/2), +-sqrt(2), infinity, whose rounding errors are half of the usual points' (the
// matrices: cpu/winograd.hpp). Three launches: tiles to 36 planes, 36 matrix products, planes to results. In the
// transforms a thread has one channel of one tile; channels lie side by side, so lanes read and write side by side.
//
//     v  36 x tiles x c          u  36 x c (to 16) x k (to 64)          m  36 x tiles x k
//
// Tiles are taken in chunks so small that v and m stay in the device's level-2 cache between the launches.
#pragma once

#include <cstdint>

#include "strata/cuda/conv2d_gather.cuh"
#include "strata/cuda/conv2d_weight.cuh"
#include "strata/cuda/winograd_plan.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int winograd_block = 128;
inline constexpr float root2 = 1.41421356237309504880f, half_root2 = 0.70710678118654752440f;

/// v = B^T d, six from six, where elements lie From and To apart.
template <int From, int To>
STRATA_DEVICE void input_transform(const float* d, float* v) {
  const float d0 = d[0], d1 = d[From], d2 = d[2 * From], d3 = d[3 * From], d4 = d[4 * From], d5 = d[5 * From];
  const float even_a = d4 - 2.0f * d2, odd_a = d3 - 2.0f * d1, even_b = d4 - 0.5f * d2, odd_b = d3 - 0.5f * d1;
  v[0] = d0 - 2.5f * d2 + d4;
  v[To] = even_a + half_root2 * odd_a;
  v[2 * To] = even_a - half_root2 * odd_a;
  v[3 * To] = even_b + root2 * odd_b;
  v[4 * To] = even_b - root2 * odd_b;
  v[5 * To] = d1 - 2.5f * d3 + d5;
}
/// u = G g, six from three.
template <int From, int To>
STRATA_DEVICE void weight_transform(const float* g, float* u) {
  const float g0 = g[0], g1 = g[From], g2 = g[2 * From];
  const float even_a = (g0 + 0.5f * g2) * (-half_root2 / 1.5f), even_b = (g0 + 2.0f * g2) * (root2 / 6.0f);
  const float third = g1 * (1.0f / 3.0f);
  u[0] = g0;
  u[To] = even_a - third;
  u[2 * To] = even_a + third;
  u[3 * To] = even_b + third;
  u[4 * To] = even_b - third;
  u[5 * To] = g2;
}
/// y = A^T m, four from six.
template <int From, int To>
STRATA_DEVICE void output_transform(const float* m, float* y) {
  const float sum_a = m[From] + m[2 * From], difference_a = m[From] - m[2 * From];
  const float sum_b = m[3 * From] + m[4 * From], difference_b = m[3 * From] - m[4 * From];
  y[0] = m[0] + root2 * sum_a + half_root2 * sum_b;
  y[To] = difference_a + difference_b;
  y[2 * To] = half_root2 * sum_a + root2 * sum_b;
  y[3 * To] = m[5 * From] + 0.5f * difference_a + 2.0f * difference_b;
}
/// q = A dy, six from four.
template <int From, int To>
STRATA_DEVICE void gradient_transform(const float* dy, float* q) {
  const float y0 = dy[0], y1 = dy[From], y2 = dy[2 * From], y3 = dy[3 * From];
  const float even_a = root2 * y0 + half_root2 * y2, odd_a = y1 + 0.5f * y3;
  const float even_b = half_root2 * y0 + root2 * y2, odd_b = y1 + 2.0f * y3;
  q[0] = y0;
  q[To] = even_a + odd_a;
  q[2 * To] = even_a - odd_a;
  q[3 * To] = even_b + odd_b;
  q[4 * To] = even_b - odd_b;
  q[5 * To] = y3;
}
/// dg = G^T du, three from six.
template <int From, int To>
STRATA_DEVICE void weight_gradient_transform(const float* du, float* dg) {
  const float sum_a = (du[From] + du[2 * From]) * (-half_root2 / 1.5f),
              sum_b = (du[3 * From] + du[4 * From]) * (root2 / 6.0f);
  dg[0] = du[0] + sum_a + sum_b;
  dg[To] = (du[2 * From] - du[From] + du[3 * From] - du[4 * From]) * (1.0f / 3.0f);
  dg[2 * To] = 0.5f * sum_a + 2.0f * sum_b + du[5 * From];
}

/// Images of n x h x w x c covered by tiles of 4 x 4 results; the part of them from `first` on.
struct Tiling {
  int h, w, c;            ///< of the image that the kernel reads or writes
  int offset;             ///< from a tile's first result to its first pixel: minus the padding, or 0
  int first, count;       ///< tiles of this chunk
  Divisor by_channels, by_columns, by_rows;

  Tiling(int rows, int columns, int height, int width, int channels, int shift, std::int64_t begin, std::int64_t tiles)
      : h(height), w(width), c(channels), offset(shift), first(int(begin)), count(int(tiles)), by_channels(channels),
        by_columns(columns), by_rows(rows) {}

  struct Place {
    int n, i, j;  ///< the tile's first pixel
  };
  STRATA_DEVICE_MEMBER Place place(int tile) const {
    const std::uint32_t row = by_columns.quotient(std::uint32_t(first + tile)), n = by_rows.quotient(row);
    return {int(n), 4 * int(row - n * by_rows.divisor) + offset,
            4 * (first + tile - int(row * by_columns.divisor)) + offset};
  }
};

/// v[plane][tile][c] = B^T d B (Pixels 6), or A dy A^T (Pixels 4). Grid: ceil(tiles * c / 128).
template <int Pixels>
STRATA_GLOBAL void __launch_bounds__(winograd_block, 4)
    winograd_input_kernel(const __grid_constant__ Tiling tiling, const float* __restrict__ x, float* __restrict__ v) {
  const std::uint32_t index = blockIdx.x * winograd_block + threadIdx.x, tile = tiling.by_channels.quotient(index);
  if (int(tile) >= tiling.count) return;
  const int c = int(index - tile * tiling.by_channels.divisor);
  const Tiling::Place p = tiling.place(int(tile));
  float half[6 * Pixels];
#pragma unroll
  for (int j = 0; j < Pixels; ++j) {
    float column[Pixels];
#pragma unroll
    for (int i = 0; i < Pixels; ++i) {
      const int row = p.i + i, at = p.j + j;
      const bool inside = unsigned(row) < unsigned(tiling.h) && unsigned(at) < unsigned(tiling.w);
      column[i] = inside ? x[std::int64_t((p.n * tiling.h + row) * tiling.w + at) * tiling.c + c] : 0.0f;
    }
    if constexpr (Pixels == 6)
      input_transform<1, Pixels>(column, half + j);
    else
      gradient_transform<1, Pixels>(column, half + j);
  }
  float* to = v + index;
  const std::int64_t plane = std::int64_t(tiling.count) * tiling.c;
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    float values[6];
    if constexpr (Pixels == 6)
      input_transform<1, 1>(half + i * Pixels, values);
    else
      gradient_transform<1, 1>(half + i * Pixels, values);
#pragma unroll
    for (int j = 0; j < 6; ++j) to[(6 * i + j) * plane] = values[j];
  }
}

/// u[plane][c][k] = G g G^T, c padded to 16 and k to 64 with zeros; the filter turned by 180 degrees where `turned`.
/// Distances of the weights' channels and taps as in Gather. Grid: c * k / 128, which is whole.
STRATA_GLOBAL void __launch_bounds__(winograd_block, 4)
    winograd_weight_kernel(Divisor by_result, int padded_source_c, int source_c, int result_c, int source_stride,
                           int result_stride, int tap_stride, bool turned, const float* __restrict__ weight,
                           float* __restrict__ u) {
  const std::uint32_t index = blockIdx.x * winograd_block + threadIdx.x, source = by_result.quotient(index);
  const int c = int(source), k = int(index - source * by_result.divisor);
  const bool there = c < source_c && k < result_c;
  const float* from =
      weight + std::int64_t(there ? c : 0) * source_stride + std::int64_t(there ? k : 0) * result_stride;
  float half[6 * 3];
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    float g[3];
#pragma unroll
    for (int i = 0; i < 3; ++i) g[i] = there ? from[(turned ? 8 - (3 * i + j) : 3 * i + j) * tap_stride] : 0.0f;
    weight_transform<1, 3>(g, half + j);
  }
  const std::int64_t plane = std::int64_t(padded_source_c) * by_result.divisor;
#pragma unroll
  for (int i = 0; i < 6; ++i) {
    float values[6];
    weight_transform<1, 1>(half + 3 * i, values);
#pragma unroll
    for (int j = 0; j < 6; ++j) u[(6 * i + j) * plane + index] = values[j];
  }
}

/// y = end(A^T m A) for the pixels of each tile that exist. Grid: ceil(tiles * c / 128).
STRATA_GLOBAL void __launch_bounds__(winograd_block, 4)
    winograd_output_kernel(const __grid_constant__ Tiling tiling, const float* __restrict__ m,
                           const __grid_constant__ ConvolutionEnd end, float* __restrict__ y) {
  const std::uint32_t index = blockIdx.x * winograd_block + threadIdx.x, tile = tiling.by_channels.quotient(index);
  if (int(tile) >= tiling.count) return;
  const int c = int(index - tile * tiling.by_channels.divisor);
  const Tiling::Place p = tiling.place(int(tile));
  const std::int64_t plane = std::int64_t(tiling.count) * tiling.c;
  const float* from = m + index;
  float half[4 * 6];
#pragma unroll
  for (int j = 0; j < 6; ++j) {
    float column[6];
#pragma unroll
    for (int i = 0; i < 6; ++i) column[i] = from[(6 * i + j) * plane];
    output_transform<1, 6>(column, half + j);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float values[4];
    output_transform<1, 1>(half + 6 * i, values);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (p.i + i < tiling.h && p.j + j < tiling.w)
        end.write(y + std::int64_t((p.n * tiling.h + p.i + i) * tiling.w + p.j + j) * tiling.c, c, tiling.c, false,
                  Numbers<1>{{values[j]}});
  }
}

/// dweight[o, tap, c] (+)= G^T (sum over ranges of partial[range][o][plane][c]) G. Grid: ceil(out * in / 128).
STRATA_GLOBAL void __launch_bounds__(winograd_block, 4)
    winograd_weight_gradient_kernel(Divisor by_in, int out, int ranges, const float* __restrict__ partial,
                                    float* __restrict__ dweight, bool accumulate) {
  const std::uint32_t index = blockIdx.x * winograd_block + threadIdx.x, o = by_in.quotient(index);
  if (int(o) >= out) return;
  const int in = int(by_in.divisor), c = int(index - o * by_in.divisor);
  const float* from = partial + std::int64_t(o) * winograd_planes * in + c;
  const std::int64_t range = std::int64_t(out) * winograd_planes * in;
  float half[3 * 6];
#pragma unroll
  for (int j = 0; j < 6; ++j) {
    float column[6] = {};
    for (int r = 0; r < ranges; ++r)
#pragma unroll
      for (int i = 0; i < 6; ++i) column[i] += from[r * range + (6 * i + j) * in];
    weight_gradient_transform<1, 6>(column, half + j);
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    float values[3];
    weight_gradient_transform<1, 1>(half + 6 * i, values);
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      float* to = dweight + (std::int64_t(o) * 9 + 3 * i + j) * in + c;
      *to = accumulate ? *to + values[j] : values[j];
    }
  }
}

// ---- plans

/// Floats of workspace of winograd_gather: the packed weights, and a chunk's v and m.
inline std::int64_t winograd_workspace(const WinogradPlan& plan, int source_c, int result_c) {
  return winograd_planes * (std::int64_t(padded_source(source_c)) * padded_result(result_c) +
                            plan.chunk * (ceil_div(source_c, 4) * 4 + ceil_div(result_c, 4) * 4));
}

/// A stride-1 gather of 3 x 3 taps by Winograd's algorithm. `turned`: the gradient for the input.
inline cudaError_t winograd_gather(cudaStream_t stream, const Gather& g, bool turned, const float* source,
                                   const float* weight, float* workspace, const ConvolutionEnd& end, float* result) {
  const WinogradPlan plan(g.n, g.result_h, g.result_w, g.source_c, g.result_c);
  const int source_c = padded_source(g.source_c), result_c = padded_result(g.result_c);
  float* const u = workspace;
  float* const v = u + std::int64_t(winograd_planes) * source_c * result_c;
  float* const m = v + winograd_planes * plan.chunk * (ceil_div(g.source_c, 4) * 4);
  const int offset = turned ? g.row.offset - 2 : g.row.offset;  // a turned filter begins at the last tap
  const dim3 block(winograd_block);
  static_assert(product_depth * 32 % winograd_block == 0);  // the least padded counts of channels
  cudaError_t status = launch<&winograd_weight_kernel>(
      dim3(unsigned(source_c * result_c / winograd_block)), block, 0, stream, Divisor(result_c), source_c,
      g.source_c, g.result_c, g.source_stride, g.result_stride, g.tap_stride, turned, weight, u);
  for (std::int64_t first = 0; first < plan.tiles && status == cudaSuccess; first += plan.chunk) {
    const std::int64_t count = plan.tiles - first < plan.chunk ? plan.tiles - first : plan.chunk;
    const Tiling in(plan.rows, plan.columns, g.source_h, g.source_w, g.source_c, offset, first, count);
    const Tiling out(plan.rows, plan.columns, g.result_h, g.result_w, g.result_c, 0, first, count);
    status = launch<&winograd_input_kernel<6>>(dim3(unsigned(ceil_div(count * g.source_c, winograd_block))), block, 0,
                                               stream, in, source, v);
    if (status != cudaSuccess) break;
    const Gather product = Gather::forward(
        {.n = 1, .h = 1, .w = count, .in = g.source_c, .out = g.result_c, .kernel = 1, .padding = 0});
    status = gather(stream, product, Precision::fp32, v, u, ConvolutionEnd{}, m,
                    {count * g.source_c, std::int64_t(source_c) * result_c, count * g.result_c}, winograd_planes);
    if (status != cudaSuccess) break;
    status = launch<&winograd_output_kernel>(dim3(unsigned(ceil_div(count * g.result_c, winograd_block))), block, 0,
                                             stream, out, m, end, result);
  }
  return status;
}

/// The gradient for the weights. Each chunk of tiles adds ranges to the partial sums.
struct WinogradWeightPlan {
  WinogradPlan tiles;
  int ranges = 0;  ///< of all chunks
  explicit WinogradWeightPlan(const Conv2dProblem& p) : tiles(p.n, p.out_h(), p.out_w(), p.in, p.out) {
    for (std::int64_t first = 0; first < tiles.tiles; first += tiles.chunk) ranges += ranges_of(p, count(first));
  }
  std::int64_t count(std::int64_t first) const {
    return tiles.tiles - first < tiles.chunk ? tiles.tiles - first : tiles.chunk;
  }
  static int ranges_of(const Conv2dProblem& p, std::int64_t tile_count) {
    return WeightPlan(WeightShape::planes(tile_count, p.out, p.in), winograd_planes).ranges;
  }
  /// Floats: both factors of a chunk, and the partial sums.
  std::int64_t workspace(const Conv2dProblem& p) const {
    return winograd_planes * (tiles.chunk * (ceil_div(p.in, 4) * 4 + ceil_div(p.out, 4) * 4) +
                              std::int64_t(ranges) * p.in * p.out);
  }
};
inline cudaError_t winograd_backward_weight(cudaStream_t stream, const Conv2dProblem& p, const float* x,
                                            const float* dy, float* workspace, float* dweight, bool accumulate) {
  const WinogradWeightPlan plan(p);
  const WinogradPlan& tiles = plan.tiles;
  float* const v = workspace;
  float* const q = v + winograd_planes * tiles.chunk * (ceil_div(p.in, 4) * 4);
  float* const partial = q + winograd_planes * tiles.chunk * (ceil_div(p.out, 4) * 4);
  float* next = partial;
  const dim3 block(winograd_block);
  for (std::int64_t first = 0; first < tiles.tiles; first += tiles.chunk) {
    const std::int64_t count = plan.count(first);
    const Tiling in(tiles.rows, tiles.columns, int(p.h), int(p.w), p.in, -p.padding, first, count);
    const Tiling out(tiles.rows, tiles.columns, int(p.out_h()), int(p.out_w()), p.out, 0, first, count);
    cudaError_t status = launch<&winograd_input_kernel<6>>(dim3(unsigned(ceil_div(count * p.in, winograd_block))),
                                                           block, 0, stream, in, x, v);
    if (status != cudaSuccess) return status;
    status = launch<&winograd_input_kernel<4>>(dim3(unsigned(ceil_div(count * p.out, winograd_block))), block, 0,
                                               stream, out, dy, q);
    if (status != cudaSuccess) return status;
    status =
        weight_products(stream, WeightShape::planes(count, p.out, p.in), winograd_planes, Precision::fp32, q, v, next);
    if (status != cudaSuccess) return status;
    next += std::int64_t(WinogradWeightPlan::ranges_of(p, count)) * winograd_planes * p.in * p.out;
  }
  return launch<&winograd_weight_gradient_kernel>(dim3(unsigned(ceil_div(p.in * p.out, winograd_block))), block, 0,
                                                  stream, Divisor(p.in), p.out, plan.ranges, partial, dweight,
                                                  accumulate);
}

}}}  // namespace strata::STRATA_ABI::cuda
