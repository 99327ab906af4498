// Products of small matrices whose accumulators stay in registers: what every convolution here ends in.
//
// One side is packed once into panels, narrow strips of columns that are read in order. multiply() then gives 6 rows of
// the result at a time. For each step k it loads one row of the panel and broadcasts one number per result row:
//
//     sum[r][j] += a[r][k] * panel[k][j]        6 rows x 2 vectors: 12 sums, 2 panel vectors, 1 broadcast = 15
//     registers
//
// 12 fused multiply-adds for 8 loads keep both multipliers of an AVX2 core busy; AVX-512 has 32 registers and takes
// 4 vectors (24 sums, 4 + 1). Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

/// Rows of the result that one call of multiply() gives.
inline constexpr int block_rows = 6;

/// The same for panels of a single vector: 6 sums would wait for each other, since a fused multiply-add takes 4 cycles
/// and two can start in each.
constexpr int panel_rows(int vectors) { return vectors == 1 ? 2 * block_rows : block_rows; }

/// Vectors in one row of a full panel.
inline constexpr int panel_vectors = simd::registers == 32 ? 4 : 2;

/// Calls f(first_column, vectors) for each panel of a matrix of `columns`; vectors is a std::integral_constant:
/// panel_vectors, or fewer for the last panel.
template <class V, class F>
void for_each_panel(std::int64_t columns, F&& f) {
  const std::int64_t vectors = simd::padded<V>(columns) / simd::lanes<V>;
  std::int64_t vector = 0;
  for (; vector + panel_vectors <= vectors; vector += panel_vectors)
    f(vector * simd::lanes<V>, std::integral_constant<int, panel_vectors>{});
  simd::unroll<panel_vectors - 1>([&](auto less) STRATA_INLINED {
    if (vectors - vector == less + 1) f(vector * simd::lanes<V>, std::integral_constant<int, less + 1>{});
  });
}

/// Calls f(first_row, rows) for the rows of a result of panels of `vectors`: as many at a time as keep the multipliers
/// busy. `count` is a multiple of block_rows; rows is a std::integral_constant.
template <int Vectors, class F>
[[gnu::always_inline]] inline void for_each_row_block(std::int64_t count, F&& f) {
  constexpr std::integral_constant<int, panel_rows(Vectors)> most;
  constexpr std::integral_constant<int, block_rows> least;
  std::int64_t row = 0;
  for (; row + most <= count; row += most) f(row, most);
  if constexpr (most > least)
    if (row < count) f(row, least);
}

/// Elements of a depth x columns matrix in panels. The panel that starts at column c begins at depth * c.
template <class V>
constexpr std::int64_t packed_size(std::int64_t depth, std::int64_t columns) {
  return depth * simd::padded<V>(columns);
}

/// Writes the matrix element(segment, k, column), whose rows are k < depth of each segment in turn, into panels: panel
/// by panel, row after row, zeros where the last vector goes beyond the last column.
template <class V, class Element>
void pack_panels(std::int64_t segments, std::int64_t depth, std::int64_t columns, Element&& element,
                 simd::Lane<V>* packed) {
  for_each_panel<V>(columns, [&](std::int64_t first, auto vectors) {
    const std::int64_t end = first + vectors * simd::lanes<V>;
    for (std::int64_t segment = 0; segment < segments; ++segment)
      for (std::int64_t k = 0; k < depth; ++k)
        for (std::int64_t column = first; column < end; ++column)
          *packed++ = column < columns ? element(segment, k, column) : simd::Lane<V>(0);
  });
}

/// Sums that begin at 0.
template <class V>
struct FromZero {
  [[gnu::always_inline]] V operator()(int, int) const { return V{}; }
};

/// sum[r][j] = sum over segments s and k < depth of row(s, r)[k] * panel[s * depth + k][j], added in that order to
/// start(r, j); then calls result(r, j, sum[r][j]) for every row and vector j. The depth can lie in several segments,
/// so that the rows of a convolution need not be copied together: a segment is one tap, row(s, r) the pixel under it.
template <class V, int Rows, int Vectors, class Row, class Result, class Start = FromZero<V>>
[[gnu::always_inline]] inline void multiply(std::int64_t segments, std::int64_t depth, Row&& row,
                                            const simd::Lane<V>* panel, Result&& result, Start&& start = {}) {
  V sum[Rows][Vectors];
  simd::unroll<Rows>([&](auto r) STRATA_INLINED {
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] = start(int(r), int(j)); });
  });
  for (std::int64_t s = 0; s < segments; ++s) {
    const simd::Lane<V>* a[Rows];
    simd::unroll<Rows>([&](auto r) STRATA_INLINED { a[r] = row(s, int(r)); });
#pragma GCC unroll 2
    for (std::int64_t k = 0; k < depth; ++k, panel += Vectors * simd::lanes<V>) {
      V b[Vectors];
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { b[j] = simd::load<V>(panel + j * simd::lanes<V>); });
      simd::unroll<Rows>([&](auto r) STRATA_INLINED {
        const V x = simd::broadcast<V>(a[r][k]);
        simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] += x * b[j]; });
      });
    }
  }
  simd::unroll<Rows>([&](auto r) STRATA_INLINED {
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { result(int(r), int(j), sum[r][j]); });
  });
}

/// The same for rows that lie side by side: sum[r][j] = sum over k < depth of a[k * Rows + r] * panel[k][j].
template <class V, int Rows, int Vectors, class Result>
[[gnu::always_inline]] inline void multiply_side_by_side(std::int64_t depth, const simd::Lane<V>* a,
                                                         const simd::Lane<V>* panel, Result&& result) {
  V sum[Rows][Vectors] = {};
  for (std::int64_t k = 0; k < depth; ++k, a += Rows, panel += Vectors * simd::lanes<V>) {
    V b[Vectors];
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { b[j] = simd::load<V>(panel + j * simd::lanes<V>); });
    simd::unroll<Rows>([&](auto r) STRATA_INLINED {
      const V x = simd::broadcast<V>(a[r]);
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] += x * b[j]; });
    });
  }
  simd::unroll<Rows>([&](auto r) STRATA_INLINED {
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { result(int(r), int(j), sum[r][j]); });
  });
}

namespace detail {

// c[r][j] = or += sum over k of a[k][r] * b[k][j] for Rows rows and Vectors vectors of c.
template <class V, int Rows, int Vectors, class T>
void outer_product_strip(std::int64_t depth, const T* a, std::int64_t a_stride, const T* b, std::int64_t b_stride, T* c,
                         std::int64_t c_stride, bool accumulate) {
  V sum[Rows][Vectors] = {};
#pragma GCC unroll 2
  for (std::int64_t k = 0; k < depth; ++k, a += a_stride, b += b_stride) {
    V y[Vectors];
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { y[j] = simd::load<V>(b + j * simd::lanes<V>); });
    simd::unroll<Rows>([&](auto r) STRATA_INLINED {
      const V x = simd::broadcast<V>(a[r]);
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] += x * y[j]; });
    });
  }
  simd::unroll<Rows>([&](auto r) STRATA_INLINED {
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED {
      T* to = c + r * c_stride + j * simd::lanes<V>;
      simd::store(to, accumulate ? simd::load<V>(to) + sum[r][j] : sum[r][j]);
    });
  });
}

}  // namespace detail

/// c = or += transposed(a) * b: a sum of outer products, c[i][j] (+)= sum over k of a[k][i] * b[k][j], for i < rows and
/// j < columns. Rows of b and c are padded to whole vectors. The depth is meant to be short enough for a and b to stay
/// in the nearest caches.
template <class V>
void add_outer_products(std::int64_t depth, std::int64_t rows, std::int64_t columns, const simd::Lane<V>* a,
                        std::int64_t a_stride, const simd::Lane<V>* b, std::int64_t b_stride, simd::Lane<V>* c,
                        std::int64_t c_stride, bool accumulate) {
  // As even strips: 16 rows are 6 + 5 + 5, since a strip of 6 + 6 + 4 would leave multipliers idle.
  for_each_panel<V>(columns, [&](std::int64_t column, auto vectors) {
    constexpr int most = panel_rows(vectors);
    const std::int64_t strips = (rows + most - 1) / most;
    for (std::int64_t strip = 0; strip < strips; ++strip) {
      const std::int64_t first = rows * strip / strips, count = rows * (strip + 1) / strips - first;
      simd::unroll<most>([&](auto less) STRATA_INLINED {
        if (count == less + 1)
          detail::outer_product_strip<V, less + 1, vectors>(depth, a + first, a_stride, b + column, b_stride,
                                                            c + first * c_stride + column, c_stride, accumulate);
      });
    }
  });
}

}}}  // namespace strata::STRATA_ABI::cpu
