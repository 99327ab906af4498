// Which rows of an image a row of a layer's result is made of. What holds for rows holds for columns.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

constexpr std::int64_t floor_div(std::int64_t a, std::int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }  // b > 0
constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return -floor_div(-a, b); }
constexpr std::int64_t round_to(std::int64_t a, std::int64_t multiple) { return ceil_div(a, multiple) * multiple; }

/// The rows first, first + 1, ..., last; none, or all there are.
struct Rows {
  static constexpr std::int64_t most = std::int64_t{1} << 60;
  std::int64_t first = 0, last = -1;

  static constexpr Rows everything() { return {-most, most}; }
  constexpr bool none() const { return last < first; }
  constexpr bool all() const { return first <= -most || last >= most; }
  constexpr std::int64_t count() const { return last - first + 1; }
  constexpr void include(const Rows& other) {
    if (other.none()) return;
    if (none()) *this = other;
    first = std::min(first, other.first);
    last = std::max(last, other.last);
  }
};

/// How a row is made of rows.
struct Reads {
  enum class Way : unsigned char {
    window,  ///< a kernel that moves over the image: row i of i * stride - padding, and so on
    spread,  ///< its adjoint: row i of the image adds to i * stride - padding, and so on, of the result
    resampled,  ///< an image `dilation` / `stride` times as large: row i of `kernel` rows around its middle
    all      ///< of every row
  };
  Way way = Way::window;
  int kernel = 1, stride = 1, padding = 0, dilation = 1;
  /// So many rows of the result are computed together: the rounding of each depends on all that any of them reads.
  int together = 1;
  /// Rows at the image's border may be made of rows so much further on: a tile must hold them.
  int border = 0;

  constexpr std::int64_t reach() const { return std::int64_t{dilation} * (kernel - 1) + 1; }
  /// What the rows are made of. `rounding`: and what has a part in their rounding.
  constexpr Rows of(Rows rows, bool rounding) const {
    if (rows.none()) return rows;
    if (way == Way::all || rows.all()) return Rows::everything();
    if (rounding && together > 1) {
      rows.first = floor_div(rows.first, together) * together;
      rows.last = floor_div(rows.last, together) * together + together - 1;
    }
    const std::int64_t more = rounding ? border : 0;
    if (way == Way::window)
      return {rows.first * stride - padding - more, rows.last * stride - padding + reach() - 1 + more};
    if (way == Way::resampled) {
      if (kernel == 1) return {floor_div(rows.first * stride, dilation), floor_div(rows.last * stride, dilation)};
      const auto around = [&](std::int64_t i) {
        return floor_div((2 * i + 1) * stride - dilation, 2 * std::int64_t{dilation});
      };
      return {around(rows.first) - kernel / 2 + 1, around(rows.last) + kernel / 2};
    }
    return {ceil_div(rows.first + padding - reach() + 1, stride), floor_div(rows.last + padding, stride)};
  }

  constexpr bool operator==(const Reads&) const = default;
};

}}}  // namespace strata::STRATA_ABI::detail
