// Images of another size, and back. N,H,W,C images; float and double. A row is first made of rows, then of columns.
// Rows are tasks, forward those of the result, back those of the image, so the result does not depend on the number of
// threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/math/resize_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// Part `share` of pixel or row `at`.
template <class T>
struct ResizeShare {
  std::int64_t at;
  T share;
};
/// Of what each of several is made: those of number i are shares[begins[i]] to shares[begins[i + 1]].
template <class T>
struct ResizeTable {
  std::vector<std::size_t> begins;
  std::vector<ResizeShare<T>> shares;

  template <class F>
  void each(std::int64_t i, F&& f) const {
    for (std::size_t k = begins[std::size_t(i)]; k < begins[std::size_t(i) + 1]; ++k) f(shares[k]);
  }
};

template <class T>
ResizeTable<T> resize_table(const ResizeProblem& p, const ResizeAxis& axis) {
  ResizeTable<T> table{{0}, {}};
  for (std::int64_t i = 0; i < axis.result; ++i) {
    const ResizeTaps taps = axis.taps(i, p.mode, p.align_corners);
    for (int k = 0; k < taps.count; ++k)
      if (taps.share[std::size_t(k)] != 0)
        table.shares.push_back({taps.pixel[std::size_t(k)], T(taps.share[std::size_t(k)])});
    table.begins.push_back(table.shares.size());
  }
  return table;
}
/// Who takes how much of each: the table read the other way.
template <class T>
ResizeTable<T> takers(const ResizeTable<T>& table, std::int64_t size) {
  ResizeTable<T> back{std::vector<std::size_t>(std::size_t(size) + 1, 0),
                      std::vector<ResizeShare<T>>(table.shares.size())};
  for (const auto& share : table.shares) ++back.begins[std::size_t(share.at) + 1];
  for (std::size_t i = 1; i < back.begins.size(); ++i) back.begins[i] += back.begins[i - 1];
  std::vector<std::size_t> next = back.begins;
  for (std::size_t i = 0; i + 1 < table.begins.size(); ++i)
    for (std::size_t k = table.begins[i]; k < table.begins[i + 1]; ++k)
      back.shares[next[std::size_t(table.shares[k].at)]++] = {std::int64_t(i), table.shares[k].share};
  return back;
}

/// to (+)= share * from.
template <class T>
void add_share(T* to, T share, const T* from, std::int64_t count, bool accumulate) {
  simd::over_vectors<T>(count, [&]<class V>(std::int64_t i) STRATA_INLINED {
    const V value = simd::load<V>(from + i) * share;
    simd::store<V>(to + i, accumulate ? simd::load<V>(to + i) + value : value);
  });
}

/// y (+)= the rows and columns of x that the tables say. x has from_w columns and lines of from_h rows.
template <class T>
void resize(std::int64_t n, int channels, std::int64_t from_h, std::int64_t from_w, std::int64_t to_h,
            std::int64_t to_w, const ResizeTable<T>& rows, const ResizeTable<T>& columns, const T* x, T* y,
            bool accumulate) {
  const std::int64_t from_row = from_w * channels, to_row = to_w * channels;
  parallel_ranges(n * to_h, std::max<std::int64_t>((1 << 14) / std::max<std::int64_t>(to_row, 1), 1),
                  [&](std::int64_t begin, std::int64_t end) {
                    Scratch<T> between{std::size_t(from_row)};
                    for (std::int64_t line = begin; line < end; ++line) {
                      const T* const image = x + line / to_h * from_h * from_row;
                      bool any = false;
                      rows.each(line % to_h, [&](const ResizeShare<T>& row) {
                        add_share(between.data(), row.share, image + row.at * from_row, from_row, any);
                        any = true;
                      });
                      if (!any) std::fill_n(between.data(), from_row, T(0));
                      for (std::int64_t j = 0; j < to_w; ++j) {
                        T* const to = y + line * to_row + j * channels;
                        bool add = accumulate;
                        columns.each(j, [&](const ResizeShare<T>& column) {
                          add_share(to, column.share, between.data() + column.at * channels, channels, add);
                          add = true;
                        });
                        if (!add) std::fill_n(to, channels, T(0));
                      }
                    }
                  });
}

}  // namespace detail

template <class T>
void resize_forward(const ResizeProblem& p, const T* x, T* y) {
  detail::resize(p.n, p.channels, p.rows.size, p.columns.size, p.rows.result, p.columns.result,
                 detail::resize_table<T>(p, p.rows), detail::resize_table<T>(p, p.columns), x, y, false);
}

/// dx (+)= the gradient for x.
template <class T>
void resize_backward(const ResizeProblem& p, const T* dy, T* dx, bool accumulate) {
  detail::resize(p.n, p.channels, p.rows.result, p.columns.result, p.rows.size, p.columns.size,
                 detail::takers(detail::resize_table<T>(p, p.rows), p.rows.size),
                 detail::takers(detail::resize_table<T>(p, p.columns), p.columns.size), dy, dx, accumulate);
}

}  // namespace strata::inline STRATA_ABI::cpu
