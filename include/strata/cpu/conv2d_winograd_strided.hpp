// Convolutions of 4 x 4 with stride 2, and the gradient for their input (a transposed convolution), by Winograd's
// F(2x2, 2x2). By the parity of rows and columns such a convolution is a sum of four convolutions of 2 x 2 with stride 1,
// of every second pixel; the pixels of the gradient for its input are four such convolutions, one for each parity. In one
// direction two results of a filter of two taps take three products instead of four:
//
//     y0 = d0 g0 + d1 g1 = (d0 - d1) g0 + d1 (g0 + g1)
//     y1 = d1 g0 + d2 g1 =                d1 (g0 + g1) + (d2 - d1) g1
//
// so four pixels take 9 products instead of 16, and none depends on pixels that it has no tap on.
//
//     forward:   v[9 planes][tile][parity, channel] * u[9 planes][parity, channel][out]  ->  one 2 x 2 tile
//     backward:  v[parity, plane][tile][out]        * u[parity, plane][out][channel]     ->  four, every second pixel each
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_gather.hpp"
#include "strata/cpu/conv2d_winograd.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

/// Whether a problem has the form: whole vectors of channels on both sides, whatever the processor's.
constexpr bool has_strided_form(const Conv2dProblem& p) {
  return p.square() && p.kernel == 4 && p.stride == 2 && p.dilation == 1 && p.in % 16 == 0 && p.out % 16 == 0;
}

namespace winograd::strided {

inline constexpr std::int64_t planes = 9, parities = 4;

/// How the tiles are cut into blocks, by the problem alone, and where things lie. All sizes are of floats.
struct Plan {
  using V = simd::Vector<float>;

  Plan(const Conv2dProblem& p, bool backward)
      : from(backward ? p.out : p.in),
        to(backward ? p.in : p.out),
        depth(backward ? from : parities * from),
        products(backward ? parities * planes : planes),
        rows(((backward ? p.h : p.out_h()) + (backward ? 3 : 1)) / (backward ? 4 : 2)),
        columns(((backward ? p.w : p.out_w()) + (backward ? 3 : 1)) / (backward ? 4 : 2)),
        tiles(p.n * rows * columns),
        m_stride(std::min(to, group_columns)),
        u_plane(weights_plane<float>(depth, to)) {
    const std::int64_t bytes = (parities * planes * from + products * m_stride) * std::int64_t(sizeof(float));
    const std::int64_t wanted = std::min(std::clamp<std::int64_t>(workspace_bytes / bytes, 18, 48), tiles / 8);
    block = std::max<std::int64_t>(wanted / block_rows, 2) * block_rows;
    blocks = (tiles + block - 1) / block;
    v_plane = plane_distance(block * depth);
    m_plane = plane_distance(block * m_stride);
  }

  std::int64_t weights_size() const { return products * u_plane; }
  std::int64_t workspace_size() const { return products * (v_plane + m_plane); }

  std::int64_t from, to;  ///< channels of the source and of the result
  std::int64_t depth, products;
  std::int64_t rows, columns, tiles;
  std::int64_t m_stride, u_plane, block = 0, blocks = 0, v_plane = 0, m_plane = 0;
};

/// v[plane] = the transformed 3 x 3 window of x, whose first pixel is (h, w) and whose pixels lie `apart`; zeros outside.
template <class T = float>
inline void transform_window(const Images<const float>& x, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t apart,
                             const float* zeros, float* v, std::int64_t plane) {
  using V = simd::Vector<float>;
  const float* pixels[9];
  for (std::int64_t i = 0; i < 9; ++i) {
    const std::int64_t row = h + i / 3 * apart, column = w + i % 3 * apart;
    const bool inside = row >= 0 && row < x.h && column >= 0 && column < x.w;
    pixels[i] = inside ? x.data + ((n * x.h + row) * x.w + column) * x.c : zeros;
  }
  for (std::int64_t c = 0; c < x.c; c += simd::lanes<V>) {
    V half[9];
    simd::unroll<3>([&](auto j) STRATA_INLINED {
      const V d0 = simd::load<V>(pixels[j] + c), d1 = simd::load<V>(pixels[3 + j] + c), d2 = simd::load<V>(pixels[6 + j] + c);
      half[j] = d0 - d1, half[3 + j] = d1, half[6 + j] = d2 - d1;
    });
    simd::unroll<3>([&](auto i) STRATA_INLINED {
      float* const to = v + 3 * i * plane + c;
      simd::store(to, half[3 * i] - half[3 * i + 1]);
      simd::store(to + plane, half[3 * i + 1]);
      simd::store(to + 2 * plane, half[3 * i + 2] - half[3 * i + 1]);
    });
  }
}

/// Transforms nine planes of products back and writes the 2 x 2 pixels from (h, w) on, `apart`, as far as they exist:
/// channels [first, first + columns).
template <class T = float>
inline void write_pixels(const float* m, std::int64_t plane, const Images<float>& y, std::int64_t n, std::int64_t h, std::int64_t w,
                         std::int64_t apart, std::int64_t first, std::int64_t columns, const VectorEpilogue<float>& epilogue) {
  using V = simd::Vector<float>;
  float* pixels[4];
  for (std::int64_t i = 0; i < 4; ++i) {
    const std::int64_t row = h + i / 2 * apart, column = w + i % 2 * apart;
    pixels[i] = row < y.h && column < y.w ? y.data + ((n * y.h + row) * y.w + column) * y.c + first : nullptr;
  }
  for (std::int64_t c = 0; c < columns; c += simd::lanes<V>) {
    V half[6], values[4];
    simd::unroll<3>([&](auto j) STRATA_INLINED {
      const V middle = simd::load<V>(m + (3 + j) * plane + c);
      half[j] = simd::load<V>(m + j * plane + c) + middle, half[3 + j] = middle + simd::load<V>(m + (6 + j) * plane + c);
    });
    simd::unroll<2>([&](auto i) STRATA_INLINED {
      values[2 * i] = half[3 * i] + half[3 * i + 1], values[2 * i + 1] = half[3 * i + 1] + half[3 * i + 2];
    });
    simd::unroll<4>([&](auto i) STRATA_INLINED {
      if (pixels[i] == nullptr) return;
      float* const to = pixels[i] + c;
      simd::store(to, epilogue.accumulate() ? simd::load<V>(to) + values[i] : epilogue.finish(values[i], first + c));
    });
  }
}

/// u[plane] of four vectors of taps, in reading order.
template <class V>
[[gnu::always_inline]] inline void transform_taps(const V* g, V* u) {
  const V top = g[0] + g[1], bottom = g[2] + g[3];
  u[0] = g[0], u[1] = top, u[2] = g[1];
  u[3] = g[0] + g[2], u[4] = top + bottom, u[5] = g[1] + g[3];
  u[6] = g[2], u[7] = bottom, u[8] = g[3];
}

/// The weights in the form that run() reads: planes of panels.
template <class T = float>
inline void pack(const Conv2dProblem& p, bool backward, const float* weight, float* u) {
  using V = simd::Vector<float>;
  constexpr std::int64_t lanes = simd::lanes<V>, panel_columns = panel_vectors * lanes;
  const Plan plan(p, backward);
  const std::int64_t blocks = p.in / lanes;
  parallel_for(p.out / lanes * blocks, [&](std::int64_t task) {  // lanes x lanes channels
    const std::int64_t o = task / blocks * lanes, c = task % blocks * lanes;
    const std::int64_t column = backward ? c : o, panel = column / panel_columns * panel_columns;
    const std::int64_t width = std::min(panel_columns, plan.to - panel);
    for (std::int64_t parity = 0; parity < parities; ++parity) {
      V values[planes][lanes];
      for (std::int64_t i = 0; i < lanes; ++i) {
        V g[4], all[planes];
        simd::unroll<4>([&](auto t) STRATA_INLINED {
          // Forward the first tap meets the first pixel of the window, backward the last.
          const std::int64_t tap = backward ? 3 - t : std::int64_t(t);
          const std::int64_t row = tap / 2 * 2 + parity / 2, col = tap % 2 * 2 + parity % 2;
          g[t] = simd::load<V>(weight + (((o + i) * 4 + row) * 4 + col) * p.in + c);
        });
        transform_taps(g, all);
        simd::unroll<int(planes)>([&](auto k) STRATA_INLINED { values[k][i] = all[k]; });
      }
      for (std::int64_t k = 0; k < planes; ++k) {
        if (!backward) cpu::detail::transpose(values[k]);
        const std::int64_t row = backward ? o : parity * p.in + c, place = backward ? parity * planes + k : k;
        float* const to = u + place * plan.u_plane + plan.depth * panel + row * width + column - panel;
        for (std::int64_t i = 0; i < lanes; ++i) simd::store(to + i * width, values[k][i]);
      }
    }
  });
}

/// y = epilogue(convolution of x, or its adjoint, with packed weights).
template <class T = float>
inline void run(const Conv2dProblem& p, bool backward, const float* x_data, const float* u, float* y_data,
                const Epilogue<float>& scalar_epilogue) {
  const Plan plan(p, backward);
  const Images<const float> x{x_data, p.n, backward ? p.out_h() : p.h, backward ? p.out_w() : p.w, plan.from};
  const Images<float> y{y_data, p.n, backward ? p.h : p.out_h(), backward ? p.w : p.out_w(), plan.to};
  const VectorEpilogue<float> epilogue(scalar_epilogue, y.c);
  WorkerScratch<float> workspace(plan.workspace_size());
  Scratch<float> zeros(std::size_t(x.c));
  std::fill_n(zeros.data(), x.c, 0.0f);
  // Where the window of a parity begins, of the tile at (0, 0): results 2i + a read (2i + a + padding - tap) / 2 backward.
  const auto corner = [&](std::int64_t parity) {
    return backward ? (parity + p.padding) / 2 - 1 : parity - p.padding;
  };
  parallel_for(plan.blocks, [&](std::int64_t task, int worker) {
    float* const v = workspace[worker];
    float* const m = v + plan.products * plan.v_plane;
    const std::int64_t first = task * plan.block, count = std::min(plan.block, plan.tiles - first);
    const std::int64_t rows = (count + block_rows - 1) / block_rows * block_rows;
    const auto for_each_tile = [&](auto&& f) {
      std::int64_t j = first % plan.columns, i = first / plan.columns % plan.rows, n = first / plan.columns / plan.rows;
      for (std::int64_t t = 0; t < count; ++t) {
        f(t, n, i, j);
        if (++j == plan.columns) j = 0, ++i == plan.rows ? i = 0, ++n : n;
      }
    };
    for_each_tile([&](std::int64_t t, std::int64_t n, std::int64_t i, std::int64_t j) {
      const std::int64_t step = backward ? 2 : 4;
      for (std::int64_t a = 0; a < parities; ++a) {
        // Backward, the taps that a parity of the result has are those of the parity with the padding.
        const std::int64_t parity = backward ? ((a / 2 + p.padding) % 2) * 2 + (a % 2 + p.padding) % 2 : a;
        transform_window(x, n, i * step + corner(a / 2), j * step + corner(a % 2), backward ? 1 : 2, zeros.data(),
                         v + t * plan.depth + (backward ? parity * planes * plan.v_plane : a * x.c), plan.v_plane);
      }
    });
    for (std::int64_t k = 0; k < plan.products; ++k)
      std::fill_n(v + k * plan.v_plane + count * plan.depth, (rows - count) * plan.depth, 0.0f);
    for (std::int64_t group = 0; group < y.c; group += group_columns) {
      const std::int64_t columns = std::min(group_columns, y.c - group);
      multiply_planes(rows, plan.depth, group, columns, v, plan.depth, plan.v_plane, u, plan.u_plane, m, plan.m_plane,
                      int(plan.products));
      for_each_tile([&](std::int64_t t, std::int64_t n, std::int64_t i, std::int64_t j) {
        const float* const products = m + t * columns;
        if (!backward) return write_pixels(products, plan.m_plane, y, n, 2 * i, 2 * j, 1, group, columns, epilogue);
        for (std::int64_t a = 0; a < parities; ++a) {
          const std::int64_t parity = ((a / 2 + p.padding) % 2) * 2 + (a % 2 + p.padding) % 2;
          write_pixels(products + parity * planes * plan.m_plane, plan.m_plane, y, n, 4 * i + a / 2, 4 * j + a % 2, 2, group, columns,
                       epilogue);
        }
      });
    }
  });
}

}  // namespace winograd::strided

/// Floats of the weights that strided_winograd_packed reads, and how they are made; forward or for the gradient for the input.
inline std::int64_t strided_winograd_packed_size(const Conv2dProblem& p, bool backward) {
  return winograd::strided::Plan(p, backward).weights_size();
}
template <class T>
void strided_winograd_pack(const Conv2dProblem& p, bool backward, const T* weight, T* packed) {
  winograd::strided::pack(p, backward, weight, packed);
}
template <class T>
void strided_winograd_packed(const Conv2dProblem& p, bool backward, const T* x, const T* packed, T* y, const Epilogue<T>& epilogue) {
  winograd::strided::run(p, backward, x, packed, y, epilogue);
}
/// The same from the weights themselves.
template <class T>
void strided_winograd(const Conv2dProblem& p, bool backward, const T* x, const T* weight, T* y, const Epilogue<T>& epilogue) {
  Scratch<T> packed(std::size_t(strided_winograd_packed_size(p, backward)));
  strided_winograd_pack<T>(p, backward, weight, packed.data());
  strided_winograd_packed<T>(p, backward, x, packed.data(), y, epilogue);
}
/// Bytes that it takes from the pool while it runs.
inline std::size_t strided_winograd_workspace_bytes(const Conv2dProblem& p, bool backward) {
  const winograd::strided::Plan plan(p, backward);
  return MemoryPool::block_bytes(std::size_t(plan.weights_size()) * sizeof(float)) + WorkerScratch<float>::bytes(plan.workspace_size());
}

}  // namespace strata::inline STRATA_ABI::cpu
