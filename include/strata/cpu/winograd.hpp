// Winograd's minimal filtering F(4x4, 3x3): sixteen results of a 3 x 3 convolution from 36 products instead of 144.
// Lavin and Gray, "Fast algorithms for convolutional neural networks", 2015. For a 6 x 6 tile d of the input and a
// filter g,
//
//     y = A^T [ (G g G^T) * (B^T d B) ] A            * is the product element by element; y is 4 x 4
//
// In one direction the three steps are: values of the filter's polynomial at six points, values of d as a linear form
// there, and the interpolation of their products. With the points 0, a, -a, b, -b and infinity, where a = sqrt(1/2) and
// b = sqrt(2) = 1/a, rows come in pairs u + v and u - v, and rounding errors are half of those of the usual 0, 1, -1,
// 2, -2:
//
//             0 |  1   0   -5/2   0   1   0             0 |   1     0     0              0  a   -a   b  -b  inf
//             a |  0 -2a    -2    a   1   0             a | -2a/3 -1/3  -a/3            -----------------------
//     B^T =  -a |  0  2a    -2   -a   1   0      G  =  -a | -2a/3  1/3  -a/3     A^T =   1  b    b   a   a   0
//             b |  0 -b/2  -1/2   b   1   0             b |  b/6   1/3   b/3             0  1   -1   1  -1   0
//            -b |  0  b/2  -1/2  -b   1   0            -b |  b/6  -1/3   b/3             0  a    a   b   b   0
//           inf |  0   1     0  -5/2  0   1           inf |   0     0     1              0 1/2 -1/2  2  -2   1
//
// B^T holds, for a point p, the coefficients of the product of x - q over the other points q; G holds (1, p, p^2) * p /
// N with N the value of that product at p; A^T holds (1, p, p^2, p^3) / p. The factor p, which 0 does not have, saves
// operations in A^T.
//
// The gradients need nothing new. The input's is the same convolution with the filter turned by 180 degrees. The
// filter's is the derivative of the formula above, and multiplies the transformed tiles of the input with those of the
// gradient:
//
//     dg = G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G
//
// Channels lie innermost, so one vector holds the same pixel of several channels and no step needs a shuffle.
#pragma once

#include <cstdint>
#include <numbers>

#include "strata/core/simd.hpp"
#include "strata/cpu/bfloat16.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu::winograd {

inline constexpr int tile = 6;  ///< pixels of the input that a tile reads, per direction
inline constexpr int step = 4;  ///< pixels of the output that it gives
inline constexpr int planes = tile * tile;
inline constexpr float r2 = std::numbers::sqrt2_v<float>;
inline constexpr float half_r2 = r2 / 2;

// One-dimensional transforms of vectors that lie `From` apart, to vectors that lie `To` apart.

/// v = B^T d, six from six.
template <int From, int To, class V>
[[gnu::always_inline]] inline void input_1d(const V* d, V* v) {
  const V d0 = d[0], d1 = d[From], d2 = d[2 * From], d3 = d[3 * From], d4 = d[4 * From], d5 = d[5 * From];
  const V even_a = d4 - 2.0f * d2, odd_a = d3 - 2.0f * d1;
  const V even_b = d4 - 0.5f * d2, odd_b = d3 - 0.5f * d1;
  v[0] = d0 - 2.5f * d2 + d4;
  v[To] = even_a + half_r2 * odd_a;
  v[2 * To] = even_a - half_r2 * odd_a;
  v[3 * To] = even_b + r2 * odd_b;
  v[4 * To] = even_b - r2 * odd_b;
  v[5 * To] = d1 - 2.5f * d3 + d5;
}

/// u = G g, six from three.
template <int From, int To, class V>
[[gnu::always_inline]] inline void weight_1d(const V* g, V* u) {
  const V g0 = g[0], g1 = g[From], g2 = g[2 * From];
  const V even_a = (g0 + 0.5f * g2) * (-half_r2 / 1.5f), even_b = (g0 + 2.0f * g2) * (r2 / 6);
  u[0] = g0;
  u[To] = even_a - (1.0f / 3) * g1;
  u[2 * To] = even_a + (1.0f / 3) * g1;
  u[3 * To] = even_b + (1.0f / 3) * g1;
  u[4 * To] = even_b - (1.0f / 3) * g1;
  u[5 * To] = g2;
}

/// y = A^T m, four from six.
template <int From, int To, class V>
[[gnu::always_inline]] inline void output_1d(const V* m, V* y) {
  const V sum_a = m[From] + m[2 * From], difference_a = m[From] - m[2 * From];
  const V sum_b = m[3 * From] + m[4 * From], difference_b = m[3 * From] - m[4 * From];
  y[0] = m[0] + r2 * sum_a + half_r2 * sum_b;
  y[To] = difference_a + difference_b;
  y[2 * To] = half_r2 * sum_a + r2 * sum_b;
  y[3 * To] = m[5 * From] + 0.5f * difference_a + 2.0f * difference_b;
}

/// q = A dy, six from four.
template <int From, int To, class V>
[[gnu::always_inline]] inline void output_gradient_1d(const V* dy, V* q) {
  const V y0 = dy[0], y1 = dy[From], y2 = dy[2 * From], y3 = dy[3 * From];
  const V even_a = r2 * y0 + half_r2 * y2, odd_a = y1 + 0.5f * y3;
  const V even_b = half_r2 * y0 + r2 * y2, odd_b = y1 + 2.0f * y3;
  q[0] = y0;
  q[To] = even_a + odd_a;
  q[2 * To] = even_a - odd_a;
  q[3 * To] = even_b + odd_b;
  q[4 * To] = even_b - odd_b;
  q[5 * To] = y3;
}

/// dg = G^T du, three from six.
template <int From, int To, class V>
[[gnu::always_inline]] inline void weight_gradient_1d(const V* du, V* dg) {
  const V sum_a = (du[From] + du[2 * From]) * (-half_r2 / 1.5f), sum_b = (du[3 * From] + du[4 * From]) * (r2 / 6);
  dg[0] = du[0] + sum_a + sum_b;
  dg[To] = (du[2 * From] - du[From] + du[3 * From] - du[4 * From]) * (1.0f / 3);
  dg[2 * To] = 0.5f * sum_a + 2.0f * sum_b + du[5 * From];
}

/// v[plane] = (B^T d B)[plane] for one vector of channels; pixel.read(i, j) is d[i, j], planes lie `plane` apart.
/// pixel.prefetch(i, j) may fetch what the next tile will read there.
template <class Pixels, class Factor>
inline void transform_input(const Pixels& pixel, Factor* v, std::int64_t plane) {
  using V = simd::Vector<float>;
  V half[planes];
  simd::unroll<tile>([&](auto j) STRATA_INLINED {
    V column[tile];
    simd::unroll<tile>([&](auto i) STRATA_INLINED {
      column[i] = pixel.read(i, j);
      if constexpr (j >= tile - step) pixel.prefetch(i, j);
    });
    input_1d<1, tile>(column, half + j);
  });
  simd::unroll<tile>([&](auto i) STRATA_INLINED {
    V values[tile];
    input_1d<1, 1>(half + i * tile, values);
    simd::unroll<tile>([&](auto j) STRATA_INLINED { store_factors(v + (i * tile + j) * plane, values[j]); });
  });
}

/// q[plane] = (A dy A^T)[plane] likewise; the result is the sum of the sixteen pixels.
template <class Pixels>
inline simd::Vector<float> transform_output_gradient(const Pixels& pixel, float* q, std::int64_t plane) {
  using V = simd::Vector<float>;
  V half[tile * step], sum{};
  simd::unroll<step>([&](auto j) STRATA_INLINED {
    V column[step];
    simd::unroll<step>([&](auto i) STRATA_INLINED {
      column[i] = pixel.read(i, j);
      pixel.prefetch(i, j);
    });
    sum += (column[0] + column[1]) + (column[2] + column[3]);
    output_gradient_1d<1, step>(column, half + j);
  });
  simd::unroll<tile>([&](auto i) STRATA_INLINED {
    V values[tile];
    output_gradient_1d<1, 1>(half + i * step, values);
    simd::unroll<tile>([&](auto j) STRATA_INLINED { simd::store(q + (i * tile + j) * plane, values[j]); });
  });
  return sum;
}

/// Calls write((A^T m A)[i, j], pixel(i, j)) for the sixteen pixels of one vector of channels, and
/// write.prefetch(address) with the addresses of the next tile's.
template <class Pixels, class Write>
inline void transform_output(const float* m, std::int64_t plane, const Pixels& pixel, const Write& write) {
  using V = simd::Vector<float>;
  V half[step * tile];
  simd::unroll<tile>([&](auto j) STRATA_INLINED {
    V column[tile];
    simd::unroll<tile>([&](auto i) STRATA_INLINED { column[i] = simd::load<V>(m + (i * tile + j) * plane); });
    output_1d<1, tile>(column, half + j);
  });
  simd::unroll<step>([&](auto i) STRATA_INLINED {
    V values[step];
    output_1d<1, 1>(half + i * tile, values);
    simd::unroll<step>([&](auto j) STRATA_INLINED {
      write(values[j], pixel(i, j));
      write.prefetch(pixel.next_tile(i, j));
    });
  });
}

}}}  // namespace strata::STRATA_ABI::cpu::winograd
