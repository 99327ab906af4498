// Convolutions whose padding is made of the image: the padded image is written down, and what is then computed has no
// padding. The gradient for the padded image is folded back: a pixel gets the sum of the gradients of all places that
// show it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/math/conv2d_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

/// The convolution of the padded image, which is left to do.
constexpr Conv2dProblem padded_problem(const Conv2dProblem& p) {
  Conv2dProblem inner = p;
  inner.h += 2 * std::int64_t{p.padding}, inner.w += 2 * p.padding_columns();
  inner.padding = 0, inner.padding_w = Conv2dProblem::as_rows, inner.padding_mode = PaddingMode::zeros;
  return inner;
}

/// Writes the padded image: n, h + 2 * padding, w + 2 * padding, c.
template <class T>
void pad_image(const Conv2dProblem& p, const T* x, T* padded) {
  const std::int64_t wide = p.w + 2 * p.padding_columns(), high = p.h + 2 * std::int64_t{p.padding}, c = p.in,
                     row = p.w * c;
  parallel_ranges(p.n * high, std::max<std::int64_t>(16384 / (wide * c), 1), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      T* to = padded + i * wide * c;
      const std::int64_t source = padded_source(p.padding_mode, i % high - p.padding, p.h);
      if (source < 0) {
        std::fill_n(to, wide * c, T(0));
        continue;
      }
      const T* const from = x + (i / high * p.h + source) * row;
      const auto margin = [&](std::int64_t first) {
        for (std::int64_t j = first; j < first + p.padding_columns(); ++j, to += c)
          if (const std::int64_t at = padded_source(p.padding_mode, j, p.w); at >= 0)
            std::copy_n(from + at * c, c, to);
          else
            std::fill_n(to, c, T(0));
      };
      margin(-p.padding_columns());
      to = std::copy_n(from, row, to);
      margin(p.w);
    }
  });
}

/// dx = or += the gradient for the image, from that for the padded image.
template <class T>
void fold_padding(const Conv2dProblem& p, const T* padded, T* dx, bool accumulate) {
  const std::int64_t wide = p.w + 2 * p.padding_columns(), high = p.h + 2 * std::int64_t{p.padding}, c = p.in,
                     row = p.w * c;
  parallel_ranges(p.n * p.h, std::max<std::int64_t>(16384 / row, 1), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t image = i / p.h, h = i % p.h;
      T* const to = dx + i * row;
      const auto add_row = [&](std::int64_t at, bool add) {
        const T* const from = padded + ((image * high + at + p.padding) * wide + p.padding_columns()) * c;
        if (add)
          for (std::int64_t k = 0; k < row; ++k) to[k] += from[k];
        else
          std::copy_n(from, row, to);
        const auto margin = [&](std::int64_t first) {
          for (std::int64_t j = first; j < first + p.padding_columns(); ++j)
            if (const std::int64_t source = padded_source(p.padding_mode, j, p.w); source >= 0)
              for (std::int64_t k = 0; k < c; ++k) to[source * c + k] += from[j * c + k];
        };
        margin(-p.padding_columns());
        margin(p.w);
      };
      add_row(h, accumulate);
      // The rows above, then those below.
      for (std::int64_t at = p.padding > 0 ? -std::int64_t{p.padding} : p.h; at < p.h + p.padding;
           at += at == -1 ? p.h + 1 : 1)
        if (padded_source(p.padding_mode, at, p.h) == h) add_row(at, true);
    }
  });
}

}}}  // namespace strata::STRATA_ABI::cpu
