// Images several times as large, by repeating pixels or by linear interpolation, and back. N,H,W,C images; float and
// double. A small image's rows are tasks, so the result does not depend on the number of threads.
//
//     st::cpu::upsample_forward(st::UpsampleProblem{.n = 1, .h = 40, .w = 40, .channels = 64, .factor = 2}, x, y);
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/math/upsample_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

/// to (+)= a * from_a + b * from_b over `count` elements; from_b is not read where b is 0.
template <class T>
void blend(T* to, T a, const T* from_a, T b, const T* from_b, std::int64_t count, bool accumulate) {
  using V = simd::Vector<T>;
  const auto step = [&]<class W>(std::int64_t i) STRATA_INLINED {
    W value = a * simd::load<W>(from_a + i);
    if (b != T(0)) value = simd::multiply_add(simd::broadcast<W>(b), simd::load<W>(from_b + i), value);
    if (accumulate) value += simd::load<W>(to + i);
    simd::store<W>(to + i, value);
  };
  std::int64_t i = 0;
  for (; i + simd::lanes<V> <= count; i += simd::lanes<V>) step.template operator()<V>(i);
  for (; i < count; ++i) step.template operator()<T>(i);
}

}  // namespace detail

/// y = x, `factor` times as high and wide.
template <class T>
void upsample_forward(const UpsampleProblem& p, const T* x, T* y) {
  const int c = p.channels, factor = p.factor;
  const std::int64_t row_size = p.w * factor * c;
  parallel_for(p.n * p.h, [&](std::int64_t line) {
    const std::int64_t image = line / p.h * p.h, row = line % p.h;
    for (int part_y = 0; part_y < factor; ++part_y) {
      T* to = y + (line * factor + part_y) * row_size;
      if (p.mode == UpsampleMode::nearest && part_y > 0) {
        std::copy_n(to - row_size, row_size, to);
        continue;
      }
      const UpsampleTap tap_y = p.tap(row, part_y, p.h);
      const T* const above = x + (image + tap_y.first) * p.w * c;
      const T* const below = x + (image + tap_y.second) * p.w * c;
      const T upper = T(1 - tap_y.second_share), lower = T(tap_y.second_share);
      for (std::int64_t column = 0; column < p.w; ++column)
        for (int part = 0; part < factor; ++part, to += c) {
          const UpsampleTap tap = p.tap(column, part, p.w);
          const T left = T(1 - tap.second_share), right = T(tap.second_share);
          detail::blend(to, upper * left, above + tap.first * c, upper * right, above + tap.second * c, c, false);
          if (lower != T(0))
            detail::blend(to, lower * left, below + tap.first * c, lower * right, below + tap.second * c, c, true);
        }
    }
  });
}

/// dx (+)= the gradient for x.
template <class T>
void upsample_backward(const UpsampleProblem& p, const T* dy, T* dx, bool accumulate) {
  const int c = p.channels, factor = p.factor;
  parallel_for(p.n * p.h, [&](std::int64_t line) {
    const std::int64_t image = line / p.h * p.h, row = line % p.h;
    T* const to = dx + line * p.w * c;
    if (!accumulate) std::fill_n(to, p.w * c, T(0));
    const std::int64_t reach = p.mode == UpsampleMode::nearest ? 0 : 1;
    for (std::int64_t reader = std::max<std::int64_t>(row - reach, 0); reader <= std::min(row + reach, p.h - 1);
         ++reader)
      for (int part_y = 0; part_y < factor; ++part_y) {
        const UpsampleTap tap_y = p.tap(reader, part_y, p.h);
        const double share =
            (tap_y.first == row ? 1 - tap_y.second_share : 0) + (tap_y.second == row ? tap_y.second_share : 0);
        if (share == 0) continue;
        const T* g = dy + ((image + reader) * factor + part_y) * p.w * factor * c;
        for (std::int64_t column = 0; column < p.w; ++column)
          for (int part = 0; part < factor; ++part, g += c) {
            const UpsampleTap tap = p.tap(column, part, p.w);
            detail::blend(to + tap.first * c, T(share * (1 - tap.second_share)), g, T(0), g, c, true);
            if (tap.second_share != 0)
              detail::blend(to + tap.second * c, T(share * tap.second_share), g, T(0), g, c, true);
          }
      }
  });
}

}}}  // namespace strata::STRATA_ABI::cpu
