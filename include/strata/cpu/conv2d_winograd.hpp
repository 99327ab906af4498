// 3 x 3 convolution with stride 1 by Winograd's F(4x4, 3x3), forward and gradient for the input (winograd.hpp has the
// formulas). A block of tiles goes through all three steps before the next one is taken,
//
//     transform the tiles  ->  36 matrix products (tiles x in) * (in x out)  ->  transform back, bias, ReLU, write
//
// on a workspace that stays in the second-level cache of the core that works on it. Nothing but x, the weights and y
// passes through memory. Padding is handled where tiles are read, the ends of the image where they are written.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/cpu/winograd_tiles.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace winograd {

/// Bytes that the tiles of one block may take: under half of the second-level cache, which has 512 KiB or more where
/// there is AVX2 and 1 MiB or more where there is AVX-512. The other half is for the weights.
inline constexpr std::int64_t workspace_bytes = simd::register_bytes * (7 << 10);

/// Output channels whose products are held before they are transformed back: whole panels.
inline constexpr std::int64_t group_columns = 64;

/// The distance of planes of `size` floats, an odd number of cache lines. At a distance of a power of two all 36 planes
/// would compete for the same few places in the cache.
constexpr std::int64_t plane_distance(std::int64_t size) { return ((size + 15) / 16 | 1) * 16; }

/// Floats of transformed weights.
constexpr std::int64_t weights_size(std::int64_t depth, std::int64_t columns) {
  return planes * plane_distance(packed_size<simd::Vector<float>>(depth, columns));
}

/// u[plane] = (G g G^T)[plane] for every pair of channels, each plane a depth x columns matrix in panels.
inline void transform_weights(const WeightLayout<float>& weight, std::int64_t depth, std::int64_t columns, float* u) {
  using V = simd::Vector<float>;
  constexpr std::int64_t lanes = simd::lanes<V>, panel_columns = panel_vectors * lanes, chunk = 16;
  const std::int64_t plane = plane_distance(packed_size<V>(depth, columns)), chunks = (depth + chunk - 1) / chunk;
  parallel_for(simd::padded<V>(columns) / lanes * chunks, [&](std::int64_t task) {
    const std::int64_t column = task / chunks * lanes, first = task % chunks * chunk;
    const std::int64_t count = std::min(lanes, columns - column);
    const std::int64_t panel = column / panel_columns * panel_columns;
    const std::int64_t width = std::min(panel_columns, simd::padded<V>(columns) - panel);
    for (std::int64_t k = first; k < std::min(depth, first + chunk); ++k) {
      V g[9]{}, half[tile * 3];
      for (std::int64_t lane = 0; lane < count; ++lane)
        for (std::int64_t t = 0; t < 9; ++t)
          g[t][lane] = weight.first[k * weight.k + (column + lane) * weight.column + t * weight.tap];
      simd::unroll<3>([&](auto j) STRATA_INLINED { weight_1d<3, 3>(g + j, half + j); });
      float* to = u + depth * panel + k * width + (column - panel);
      simd::unroll<tile>([&](auto i) STRATA_INLINED {
        V values[tile];
        weight_1d<1, 1>(half + i * 3, values);
        simd::unroll<tile>([&](auto j) STRATA_INLINED { simd::store(to + (i * tile + j) * plane, values[j]); });
      });
    }
  });
}

/// Tiles in a block: as many as the workspace holds, but enough to be worth reading all weights for, and fewer if that
/// leaves fewer than 16 blocks; a multiple of block_rows.
inline std::int64_t block_tiles(std::int64_t tiles, std::int64_t depth, std::int64_t columns) {
  const std::int64_t tile_bytes = planes * (depth + std::min(columns, group_columns)) * std::int64_t(sizeof(float));
  const std::int64_t wanted = std::min(std::clamp<std::int64_t>(workspace_bytes / tile_bytes, 18, 48), tiles / 16);
  return std::max<std::int64_t>(wanted / block_rows, 2) * block_rows;
}

/// m[plane] = v[plane] * u[plane] for `columns` columns from `first` on and `tiles` rows, a multiple of block_rows.
inline void multiply_planes(std::int64_t tiles, std::int64_t depth, std::int64_t first, std::int64_t columns,
                            const float* v, std::int64_t v_plane, const float* u, std::int64_t u_plane, float* m,
                            std::int64_t m_plane) {
  using V = simd::Vector<float>;
  const std::int64_t v_stride = simd::padded<V>(depth), m_stride = simd::padded<V>(columns);
  for (int p = 0; p < planes; ++p, v += v_plane, u += u_plane, m += m_plane)
    for_each_panel<V>(columns, [&](std::int64_t column, auto vectors) {
      for (std::int64_t t = 0; t < tiles; t += block_rows)
        multiply<V, block_rows, vectors>(
            1, depth, [&](std::int64_t, int r) STRATA_INLINED { return v + (t + r) * v_stride; },
            u + depth * (first + column),
            [&](int r, int j, V sum)
                STRATA_INLINED { simd::store(m + (t + r) * m_stride + column + j * simd::lanes<V>, sum); });
    });
}

/// Transforms the products of one tile back and writes what lies inside the image: channels [first, first + columns).
inline void write_tile(const float* m, std::int64_t plane, const Images<float>& y, const Tiles::Place& place,
                       std::int64_t first, std::int64_t columns, const VectorEpilogue<float>& epilogue,
                       float* outside) {
  using V = simd::Vector<float>;
  const Window<step, float> window(y, place, first, columns, outside);
  if (epilogue.accumulate())
    window.for_each_vector([&](const auto& pixel, std::int64_t c) {
      transform_output(m + c, plane, pixel,
                       [](V sum, float* to) STRATA_INLINED { simd::store(to, simd::load<V>(to) + sum); });
    });
  else
    window.for_each_vector([&](const auto& pixel, std::int64_t c) {
      transform_output(m + c, plane, pixel,
                       [bias = epilogue.bias(first + c), floor = epilogue.floor()](V sum, float* to)
                           STRATA_INLINED { simd::store(to, simd::max(floor, sum + bias)); });
    });
}

/// y = epilogue(convolution of x with the transformed weights u).
inline void convolution(const Images<const float>& x, std::int64_t padding, const float* u, const Images<float>& y,
                        const Epilogue<float>& scalar_epilogue) {
  using V = simd::Vector<float>;
  const VectorEpilogue<float> epilogue(scalar_epilogue, y.c);
  const Tiles tiles(y.n, y.h, y.w);
  const std::int64_t block = block_tiles(tiles.count, x.c, y.c);
  const std::int64_t v_stride = simd::padded<V>(x.c), m_stride = simd::padded<V>(std::min(y.c, group_columns));
  const std::int64_t v_plane = plane_distance(block * v_stride), m_plane = plane_distance(block * m_stride);
  const std::int64_t u_plane = plane_distance(packed_size<V>(x.c, y.c));
  const std::int64_t worker_size = planes * (v_plane + m_plane) + m_stride;
  WorkerScratch<float> workspace(worker_size);
  Scratch<float> zeros(std::size_t(x.c));
  std::fill_n(zeros.data(), x.c, 0.0f);

  parallel_for((tiles.count + block - 1) / block, [&](std::int64_t task, int worker) {
    float* const v = workspace[worker];
    float* const m = v + planes * v_plane;
    float* const outside = m + planes * m_plane;
    std::fill_n(outside, m_stride, 0.0f);
    const std::int64_t first = task * block, count = std::min(block, tiles.count - first);
    const std::int64_t rows = (count + block_rows - 1) / block_rows * block_rows;
    for (std::int64_t t = 0; t < count; ++t) {
      Tiles::Place corner = tiles[first + t];
      corner.h -= padding;
      corner.w -= padding;
      Window<tile, const float>(x, corner, 0, x.c, zeros.data())
          .for_each_vector(
              [&](const auto& pixel, std::int64_t c) { transform_input(pixel, v + t * v_stride + c, v_plane); });
    }
    for (int p = 0; p < planes; ++p) std::fill_n(v + p * v_plane + count * v_stride, (rows - count) * v_stride, 0.0f);

    for (std::int64_t group = 0; group < y.c; group += group_columns) {
      const std::int64_t columns = std::min(group_columns, y.c - group);
      multiply_planes(rows, x.c, group, columns, v, v_plane, u, u_plane, m, m_plane);
      for (std::int64_t t = 0; t < count; ++t)
        write_tile(m + t * simd::padded<V>(columns), m_plane, y, tiles[first + t], group, columns, epilogue, outside);
    }
  });
}

}  // namespace winograd

/// Whether a problem has the form that Winograd's algorithm computes: 3 x 3, stride 1, dilation 1. (It could crop more
/// padding than 2 too, but results that see nothing but padding would have its rounding errors where 0 is exact.)
constexpr bool has_winograd_form(const Conv2dProblem& p) {
  return p.kernel == 3 && p.stride == 1 && p.dilation == 1 && p.padding <= 2;
}

/// y = epilogue(x * weight), for problems of Winograd's form.
inline void winograd_forward(const Conv2dProblem& p, const float* x, const float* weight, float* y,
                             const Epilogue<float>& epilogue) {
  Scratch<float> u(std::size_t(winograd::weights_size(p.in, p.out)));
  winograd::transform_weights({weight, p.in, 1, 9 * p.in}, p.in, p.out, u.data());
  winograd::convolution({x, p.n, p.h, p.w, p.in}, p.padding, u.data(), {y, p.n, p.out_h(), p.out_w(), p.out}, epilogue);
}

/// dx = or += the gradient for the input: the convolution of dy with the filters turned by 180 degrees, padding
/// 2 - padding (cropped where that is negative).
inline void winograd_backward_input(const Conv2dProblem& p, const float* dy, const float* weight, float* dx,
                                    bool accumulate) {
  Scratch<float> u(std::size_t(winograd::weights_size(p.out, p.in)));
  winograd::transform_weights({weight + 8 * p.in, -p.in, 9 * p.in, 1}, p.out, p.in, u.data());
  winograd::convolution({dy, p.n, p.out_h(), p.out_w(), p.out}, 2 - p.padding, u.data(), {dx, p.n, p.h, p.w, p.in},
                        {.accumulate = accumulate});
}

}  // namespace strata::inline STRATA_ABI::cpu
