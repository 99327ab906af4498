// Rows and columns around an image, or taken away, and back. N,H,W,C images; rows are tasks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/math/pad_problem.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// Columns that lie beside each other in the image and in the result; from -1: zeros.
struct PadRun {
  std::int64_t from, to, count;
};
inline std::vector<PadRun> pad_runs(const PadProblem& p) {
  std::vector<PadRun> runs;
  for (std::int64_t j = 0; j < p.out_w(); ++j) {
    const std::int64_t from = p.column(j);
    if (!runs.empty() &&
        (from < 0 ? runs.back().from < 0 : runs.back().from >= 0 && from == runs.back().from + runs.back().count))
      ++runs.back().count;
    else
      runs.push_back({from, j, 1});
  }
  return runs;
}

}  // namespace detail

template <class T>
void pad_forward(const PadProblem& p, const T* x, T* y) {
  const std::vector<detail::PadRun> runs = detail::pad_runs(p);
  const std::int64_t out_h = p.out_h(), row_size = p.out_w() * p.channels;
  parallel_for(p.n * out_h, [&](std::int64_t line) {
    const std::int64_t row = p.row(line % out_h);
    T* const to = y + line * row_size;
    if (row < 0) {
      std::fill_n(to, row_size, T(0));
      return;
    }
    const T* const from = x + (line / out_h * p.h + row) * p.w * p.channels;
    for (const detail::PadRun& run : runs)
      if (run.from < 0)
        std::fill_n(to + run.to * p.channels, run.count * p.channels, T(0));
      else
        std::copy_n(from + run.from * p.channels, run.count * p.channels, to + run.to * p.channels);
  });
}

/// dx (+)= the sum of dy over the pixels that show each.
template <class T>
void pad_backward(const PadProblem& p, const T* dy, T* dx, bool accumulate) {
  const std::vector<detail::PadRun> runs = detail::pad_runs(p);
  const std::int64_t out_h = p.out_h();
  parallel_for(p.n * p.h, [&](std::int64_t line) {
    T* const to = dx + line * p.w * p.channels;
    if (!accumulate) std::fill_n(to, p.w * p.channels, T(0));
    for (std::int64_t i = 0; i < out_h; ++i) {
      if (p.row(i) != line % p.h) continue;
      const T* const g = dy + (line / p.h * out_h + i) * p.out_w() * p.channels;
      for (const detail::PadRun& run : runs)
        if (run.from >= 0)
          simd::over_vectors<T>(run.count * p.channels, [&]<class V>(std::int64_t k) STRATA_INLINED {
            T* const at = to + run.from * p.channels + k;
            simd::store<V>(at, simd::load<V>(at) + simd::load<V>(g + run.to * p.channels + k));
          });
    }
  });
}

}  // namespace strata::inline STRATA_ABI::cpu
