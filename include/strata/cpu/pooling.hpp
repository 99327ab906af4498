// Windows over N,H,W,C images: maximum and mean. Vectors lie along the channels. What is beyond the image is in no
// window; a mean may count it, as zeros.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/cpu/pixel_shuffle.hpp"
#include "strata/math/pool_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

using strata::PoolProblem;

namespace detail {

/// The part of a window that lies in the image.
struct PoolWindow {
  std::int64_t corner;         // in elements of x
  int rows, columns;
  std::int64_t count;          // what a mean divides by
};

/// Calls f(window, place of the result in y, in elements) for every output pixel on all threads. With `disjoint` no two
/// threads get windows that share a pixel.
template <class F>
void for_windows(const PoolProblem& p, bool disjoint, F&& f) {
  const std::int64_t rows = p.out_h(), columns = p.out_w();
  const std::int64_t together = disjoint && p.overlap() ? rows : 1;  // rows of one task
  parallel_for(p.n * rows / together, [&](std::int64_t task) {
    for (std::int64_t row = task * together; row < (task + 1) * together; ++row) {
      const PoolSpan down = p.rows(row % rows);
      const std::int64_t line = (row / rows * p.h + down.begin) * p.w;
      for (std::int64_t j = 0; j < columns; ++j) {
        const PoolSpan across = p.columns(j);
        f(PoolWindow{(line + across.begin) * p.channels, int(down.end - down.begin), int(across.end - across.begin),
                     down.count * across.count},
          (row * columns + j) * p.channels);
      }
    }
  });
}

/// 1 / the number of pixels of each window.
template <class T>
struct WindowShare {
  std::int64_t usual_count;
  T usual;
  explicit WindowShare(const PoolProblem& p)
      : usual_count(std::int64_t{p.kernel} * p.kernel), usual(T(1) / T(p.kernel * p.kernel)) {}
  T of(const PoolWindow& window) const { return window.count == usual_count ? usual : T(1) / T(window.count); }
};

}  // namespace detail

/// y = the largest value in each window; `from` gets the place of each in x, for the way back. The first of equals
/// counts, and NaN above all.
template <class T>
void max_pool_forward(const PoolProblem& p, const T* x, T* y, std::int64_t* from) {
  detail::for_windows(p, false, [&](const detail::PoolWindow& window, std::int64_t out) {
    const auto largest = [&]<class V>(std::int64_t c) {
      V best = simd::load<V>(x + window.corner + c);
      auto place = V{} > V{};  // integers of the elements' width: the distance from the corner; zeros
      for (int q = 0; q < window.rows; ++q)
        for (int r = 0; r < window.columns; ++r) {
          const std::int64_t at = (q * p.w + r) * p.channels;
          const V value = simd::load<V>(x + window.corner + at + c);
          if constexpr (std::is_same_v<V, T>) {
            if (value > best || value != value) {
              best = value;
              if (from != nullptr) from[out + c] = window.corner + at + c;
            } else if (q + r == 0 && from != nullptr) {
              from[out + c] = window.corner + c;
            }
          } else {
            const auto larger = (value > best) | (value != value);
            best = larger ? value : best;
            if (from != nullptr) place = larger ? (place ^ place) + simd::Lane<decltype(place)>(at) : place;
          }
        }
      simd::store<V>(y + out + c, best);
      if constexpr (!std::is_same_v<V, T>)
        if (from != nullptr)
          for (int lane = 0; lane < simd::lanes<V>; ++lane)
            from[out + c + lane] = window.corner + c + lane + place[lane];
    };
    // Lanes hold distances as wide as T: in a window that reaches further, elements go one by one.
    const std::int64_t reach = ((window.rows - 1) * p.w + window.columns) * std::int64_t{p.channels};
    if (sizeof(T) < sizeof(reach) && reach > std::numeric_limits<std::int32_t>::max())
      for (std::int64_t c = 0; c < p.channels; ++c) largest.template operator()<T>(c);
    else
      simd::over_vectors<T>(std::int64_t{p.channels}, largest);
  });
}

/// dx must hold zeros or a gradient to add to.
template <class T>
void max_pool_backward(const PoolProblem& p, const std::int64_t* from, const T* dy, T* dx) {
  detail::for_windows(p, true, [&](const detail::PoolWindow&, std::int64_t out) {
    for (std::int64_t i = out; i < out + p.channels; ++i) dx[from[i]] += dy[i];
  });
}

/// y = the mean of each window.
template <class T>
void avg_pool_forward(const PoolProblem& p, const T* x, T* y) {
  const detail::WindowShare<T> shares(p);
  detail::for_windows(p, false, [&](const detail::PoolWindow& window, std::int64_t out) {
    const T share = shares.of(window);
    simd::over_vectors<T>(std::int64_t{p.channels}, [&]<class V>(std::int64_t c) {
      V total{};
      for (int q = 0; q < window.rows; ++q)
        for (int r = 0; r < window.columns; ++r)
          total += simd::load<V>(x + window.corner + (q * p.w + r) * p.channels + c);
      simd::store<V>(y + out + c, total * share);
    });
  });
}

/// dx must hold zeros or a gradient to add to.
template <class T>
void avg_pool_backward(const PoolProblem& p, const T* dy, T* dx) {
  const detail::WindowShare<T> shares(p);
  detail::for_windows(p, true, [&](const detail::PoolWindow& window, std::int64_t out) {
    const T share = shares.of(window);
    simd::over_vectors<T>(std::int64_t{p.channels}, [&]<class V>(std::int64_t c) {
      const V g = simd::load<V>(dy + out + c) * share;
      for (int q = 0; q < window.rows; ++q)
        for (int r = 0; r < window.columns; ++r) {
          T* const to = dx + window.corner + (q * p.w + r) * p.channels + c;
          simd::store<V>(to, simd::load<V>(to) + g);
        }
    });
  });
}

/// The mean of every channel over `pixels` pixels of each of n images: y is N, C.
template <class T>
void global_avg_pool_forward(std::int64_t n, std::int64_t pixels, int channels, const T* x, T* y) {
  // pixels of a task; pixels summed in T before their sum goes on in double
  constexpr std::int64_t chunk = 1024, run = 64;
  const std::int64_t chunks = (pixels + chunk - 1) / chunk;
  Scratch<double> partial(std::size_t(n * chunks * channels));
  parallel_for(n * chunks, [&](std::int64_t task) {
    double* const totals = partial.data() + task * channels;
    std::fill_n(totals, channels, 0.0);
    const std::int64_t end = std::min(pixels, (task % chunks + 1) * chunk);
    for (std::int64_t begin = task % chunks * chunk; begin < end; begin += run)
      simd::over_vectors<T>(std::int64_t{channels}, [&]<class V>(std::int64_t c) {
        const T* from = x + (task / chunks * pixels + begin) * channels + c;
        V even{}, odd{};  // two sums, so that an addition need not wait for the last
        std::int64_t left = std::min(run, end - begin);
        for (; left >= 2; left -= 2, from += 2 * channels) {
          even += simd::load<V>(from);
          odd += simd::load<V>(from + channels);
        }
        if (left > 0) even += simd::load<V>(from);
        const V sum = even + odd;
        if constexpr (std::is_same_v<V, T>)
          totals[c] += double(sum);
        else
          for (int lane = 0; lane < simd::lanes<V>; ++lane) totals[c + lane] += double(sum[lane]);
      });
  });
  for (std::int64_t image = 0; image < n; ++image)
    for (int c = 0; c < channels; ++c) {
      double total = 0;
      for (std::int64_t k = 0; k < chunks; ++k) total += partial[std::size_t((image * chunks + k) * channels + c)];
      y[image * channels + c] = T(total / double(pixels));
    }
}

/// dx (+)= dy / pixels.
template <class T>
void global_avg_pool_backward(std::int64_t n, std::int64_t pixels, int channels, const T* dy, T* dx, bool accumulate) {
  const T share = T(1) / T(pixels);
  constexpr std::int64_t chunk = 256;
  const std::int64_t chunks = (pixels + chunk - 1) / chunk;
  parallel_for(n * chunks, [&](std::int64_t task) {
    const std::int64_t image = task / chunks, end = std::min(pixels, (task % chunks + 1) * chunk);
    for (std::int64_t p = task % chunks * chunk; p < end; ++p)
      simd::over_vectors<T>(std::int64_t{channels}, [&]<class V>(std::int64_t c) {
        T* const to = dx + (image * pixels + p) * channels + c;
        const V g = simd::load<V>(dy + image * channels + c) * share;
        simd::store<V>(to, accumulate ? simd::load<V>(to) + g : g);
      });
  });
}

}}}  // namespace strata::STRATA_ABI::cpu
