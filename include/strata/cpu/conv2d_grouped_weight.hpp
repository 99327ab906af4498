// The gradients for the weights and the bias of a convolution with groups of Width channels (cpu/conv2d_grouped.hpp).
// Rows are cut into tasks by the problem's size, each of which sums for itself; their sums are added in order, in
// double.
//
// The vectors of dy are turned within their groups, Width times, so that each lane, a channel of x, meets all channels
// of y that it is a part of: turn m of lane c is for channel c / Width * Width + (c + m) % Width of y.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// Columns of the result for which tap `tap` is inside the image.
struct ColumnRange {
  std::int64_t begin, end;
};
constexpr ColumnRange grouped_columns(const Conv2dProblem& p, std::int64_t tap, std::int64_t left, std::int64_t right) {
  const std::int64_t offset = tap * p.dilation - p.padding_columns();
  const std::int64_t begin = offset >= 0 ? 0 : (-offset + p.stride - 1) / p.stride;
  const std::int64_t end = offset >= p.w ? 0 : (p.w - 1 - offset) / p.stride + 1;
  return {std::clamp(begin, left, right), std::clamp(end, left, right)};
}

/// What the channels at c of x meet in turn M: see above.
template <int Width, int M, class V, class T>
[[gnu::always_inline]] inline V load_turned(const T* dy, std::int64_t c) {
  if constexpr (Width == 1) {
    return simd::load<V>(dy + c);
  } else if constexpr (simd::lanes<V> == 1) {
    return dy[c / Width * Width + (c + M) % Width];
  } else {
    const V value = simd::load<V>(dy + c);
    return [&]<int... I>(std::integer_sequence<int, I...>) STRATA_INLINED {
      return __builtin_shufflevector(value, value, (I / Width * Width + (I + M) % Width)...);
    }(std::make_integer_sequence<int, simd::lanes<V>>{});
  }
}

/// For a vector of channels at c, adds the products of a piece of a row of dy with `Rows` rows of x to the sums of as
/// many rows of the kernel, and dy itself to those of the bias where `bias` is not nullptr. `dy` and `x` are the rows'
/// beginnings.
template <int Width, int M, int Kernel, int Rows, class V, class T>
[[gnu::always_inline]] inline void grouped_weight_rows(const Conv2dProblem& p, std::int64_t left, std::int64_t right,
                                                       ColumnRange inner, const T* dy, std::int64_t c,
                                                       const T* const* x, T* sums, T* bias) {
  const std::int64_t channels = p.in, step = p.stride * channels, tap = p.dilation * channels;
  V total{}, products[Rows * Kernel] = {};
  const auto edge = [&](std::int64_t j) STRATA_INLINED {
    const V g = load_turned<Width, M, V>(dy + j * channels, c);
    total += g;
    simd::unroll<Kernel>([&](auto r) STRATA_INLINED {
      const std::int64_t at = j * p.stride + r * p.dilation - p.padding_columns();
      if (at < 0 || at >= p.w) return;
      simd::unroll<Rows>([&](auto q)
                             STRATA_INLINED { products[q * Kernel + r] += g * simd::load<V>(x[q] + at * channels); });
    });
  };
  for (std::int64_t j = left; j < inner.begin; ++j) edge(j);
  const T* from[Rows];
  simd::unroll<Rows>(
      [&](auto q) STRATA_INLINED { from[q] = x[q] + (inner.begin * p.stride - p.padding_columns()) * channels; });
  const T* g_at = dy + inner.begin * channels;
  for (std::int64_t j = inner.begin; j < inner.end; ++j) {
    const V g = load_turned<Width, M, V>(g_at, c);
    total += g;
    simd::unroll<Rows>([&](auto q) STRATA_INLINED {
      simd::unroll<Kernel>([&](auto r)
                               STRATA_INLINED { products[q * Kernel + r] += g * simd::load<V>(from[q] + r * tap); });
      from[q] += step;
    });
    g_at += channels;
  }
  for (std::int64_t j = inner.end; j < right; ++j) edge(j);
  simd::unroll<Rows * Kernel>([&](auto i) STRATA_INLINED {
    simd::store<V>(sums + i * channels, simd::load<V>(sums + i * channels) + products[i]);
  });
  if (bias != nullptr) simd::store<V>(bias, simd::load<V>(bias) + total);
}

/// The same for a kernel of any size, one tap at a time. Four sums, so that an addition need not wait for the last.
template <int Width, int M, class V, class T>
void grouped_weight_tap(const Conv2dProblem& p, ColumnRange columns, std::int64_t tap, const T* dy, std::int64_t c,
                        const T* x, T* sum) {
  const std::int64_t channels = p.in, step = p.stride * channels;
  V products[4] = {};
  const T* g = dy + columns.begin * channels;
  const T* from = x + (columns.begin * p.stride + tap * p.dilation - p.padding_columns()) * channels;
  std::int64_t left = columns.end - columns.begin;
  for (; left >= 4; left -= 4, g += 4 * channels, from += 4 * step)
    simd::unroll<4>([&](auto i) STRATA_INLINED {
      products[i] += load_turned<Width, M, V>(g + i * channels, c) * simd::load<V>(from + i * step);
    });
  for (; left > 0; --left, g += channels, from += step)
    products[0] += load_turned<Width, M, V>(g, c) * simd::load<V>(from);
  simd::store<V>(sum, simd::load<V>(sum) + ((products[0] + products[1]) + (products[2] + products[3])));
}

/// All rows of the kernel for a piece of a row of dy. `x` has a row of x for each. sums: turns, taps, channels; then
/// the bias.
template <int Width, int Kernel, class T>
void grouped_weight_piece(const Conv2dProblem& p, std::int64_t left, std::int64_t right, const T* dy, const T* const* x,
                          T* sums) {
  const std::int64_t channels = p.in, wide = p.kernel_columns(), turn = p.taps() * channels;
  T* const bias = sums + Width * turn;
  // Columns that have all taps.
  ColumnRange inner{grouped_columns(p, 0, left, right).begin, grouped_columns(p, wide - 1, left, right).end};
  inner.end = std::max(inner.begin, inner.end);
  simd::over_vectors<T>(p.in, [&]<class V>(int c) {
    simd::unroll<Width>([&](auto m) {
      if constexpr (Kernel == 0) {
        for (std::int64_t q = 0; q < p.kernel; ++q)
          for (std::int64_t r = 0; r < wide; ++r)
            if (const ColumnRange columns = grouped_columns(p, r, left, right); columns.begin < columns.end)
              grouped_weight_tap<Width, m, V>(p, columns, r, dy, c, x[q] + c,
                                              sums + m * turn + (q * wide + r) * channels + c);
        if (m > 0) return;
        V total = simd::load<V>(bias + c);
        for (std::int64_t j = left; j < right; ++j) total += simd::load<V>(dy + j * channels + c);
        simd::store<V>(bias + c, total);
      } else {
        constexpr int together = std::min(Kernel, (simd::registers - 2) / Kernel), rest = Kernel % together;
        const auto rows = [&]<int Rows>(int q) STRATA_INLINED {
          const T* at[Rows];
          for (int i = 0; i < Rows; ++i) at[i] = x[q + i] + c;
          grouped_weight_rows<Width, m, Kernel, Rows, V>(p, left, right, inner, dy, c, at,
                                                         sums + m * turn + std::int64_t{q} * Kernel * channels + c,
                                                         q == 0 && m == 0 ? bias + c : nullptr);
        };
        for (int q = 0; q + together <= Kernel; q += together) rows.template operator()<together>(q);
        if constexpr (rest > 0) rows.template operator()<rest>(Kernel - rest);
      }
    });
  });
}

}  // namespace detail

/// dweight = the gradient for the weights and dbias = that for the bias (nullptr: not wanted); += if `accumulate`.
template <int Width, class T>
void grouped_backward_weight(const Conv2dProblem& p, const T* x, const T* dy, T* dweight, T* dbias, bool accumulate) {
  const std::int64_t channels = p.in, taps = p.taps(), count = (Width * taps + 1) * channels;
  const std::int64_t all_rows = p.n * p.out_h(), columns = p.out_w(), row_size = p.w * channels;
  const std::int64_t rows_of_task =
      std::max<std::int64_t>(std::min((std::int64_t{1} << 14) / columns, all_rows / 16), 1);
  const std::int64_t tasks = (all_rows + rows_of_task - 1) / rows_of_task;
  // A strip of so many columns (some 100 KB of rows) goes down the image, so that it stays in the second-level cache.
  const std::int64_t strip =
      std::max<std::int64_t>(24576 * 4 / std::int64_t(sizeof(T)) / (channels * (p.kernel + 1)), 16);
  Scratch<T> zeros{std::size_t(row_size)}, partial{std::size_t(tasks * count)};
  std::fill_n(zeros.data(), row_size, T(0));  // a row that is not there
  Scratch<const T*> rows(std::size_t(tasks * p.kernel));
  const std::int64_t square = p.kernel == p.kernel_columns() ? p.kernel : 0;

  parallel_for(tasks, [&](std::int64_t task) {
    const std::int64_t top = task * rows_of_task, bottom = std::min(all_rows, top + rows_of_task);
    T* const sums = partial.data() + task * count;
    std::fill_n(sums, count, T(0));
    const T** const from = rows.data() + task * p.kernel;
    for (std::int64_t left = 0; left < columns; left += strip)
      for (std::int64_t row = top; row < bottom; ++row) {
        const std::int64_t image = row / p.out_h(), i = row % p.out_h(), right = std::min(columns, left + strip);
        for (int q = 0; q < p.kernel; ++q) {
          const std::int64_t at = i * p.stride + std::int64_t{q} * p.dilation - p.padding;
          from[q] = at >= 0 && at < p.h ? x + (image * p.h + at) * row_size : zeros.data();
        }
        const T* const g = dy + row * columns * channels;
        if (square == 3) {
          detail::grouped_weight_piece<Width, 3>(p, left, right, g, from, sums);
          continue;
        }
        if constexpr (Width == 1) {
          if (square == 5 || square == 7) {
            const auto piece =
                square == 5 ? detail::grouped_weight_piece<1, 5, T> : detail::grouped_weight_piece<1, 7, T>;
            piece(p, left, right, g, from, sums);
            continue;
          }
        }
        detail::grouped_weight_piece<Width, 0>(p, left, right, g, from, sums);
      }
  });

  Scratch<double> total{std::size_t(count)};
  detail::sum_rows(partial.data(), tasks, count, total.data());
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t tap = 0; tap < taps; ++tap)
      for (std::int64_t k = 0; k < Width; ++k) {
        const std::int64_t lane = c / Width * Width + k, turn = (c - lane + Width) % Width;
        T& to = dweight[(c * taps + tap) * Width + k];
        to = T(total.data()[(turn * taps + tap) * channels + lane] + (accumulate ? double(to) : 0.0));
      }
    if (dbias != nullptr)
      dbias[c] = T(total.data()[Width * taps * channels + c] + (accumulate ? double(dbias[c]) : 0.0));
  }
}

}  // namespace strata::inline STRATA_ABI::cpu
