// Windows over N,H,W,C images: maximum and mean. Vectors lie along the channels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/cpu/pixel_shuffle.hpp"
#include "strata/math/pool_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

using strata::PoolProblem;

namespace detail {

/// Calls f(corner of the window in x, place of the result in y), in elements, for every output pixel on all threads. With
/// `disjoint` no two threads get windows that share a pixel.
template <class F>
void for_windows(const PoolProblem& p, bool disjoint, F&& f) {
  const std::int64_t rows = p.out_h(), columns = p.out_w();
  const std::int64_t together = disjoint && p.stride < p.kernel ? rows : 1;  // rows of one task
  parallel_for(p.n * rows / together, [&](std::int64_t task) {
    for (std::int64_t row = task * together; row < (task + 1) * together; ++row)
      for (std::int64_t j = 0; j < columns; ++j)
        f(((row / rows * p.h + row % rows * p.stride) * p.w + j * p.stride) * p.channels, (row * columns + j) * p.channels);
  });
}

}  // namespace detail

/// y = the largest value in each window; `from` gets the place of each in x, for the way back. The first of equals counts,
/// and NaN above all.
template <class T>
void max_pool_forward(const PoolProblem& p, const T* x, T* y, std::int64_t* from) {
  detail::for_windows(p, false, [&](std::int64_t corner, std::int64_t out) {
    simd::over_vectors<T>(std::int64_t{p.channels}, [&]<class V>(std::int64_t c) {
      V best = simd::load<V>(x + corner + c);
      auto place = V{} > V{};  // integers of the elements' width: the distance from the corner; zeros
      for (int q = 0; q < p.kernel; ++q)
        for (int r = 0; r < p.kernel; ++r) {
          const std::int64_t at = (q * p.w + r) * p.channels;
          const V value = simd::load<V>(x + corner + at + c);
          if constexpr (std::is_same_v<V, T>) {
            if (value > best || value != value) {
              best = value;
              if (from != nullptr) from[out + c] = corner + at + c;
            } else if (q + r == 0 && from != nullptr) {
              from[out + c] = corner + c;
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
          for (int lane = 0; lane < simd::lanes<V>; ++lane) from[out + c + lane] = corner + c + lane + place[lane];
    });
  });
}

/// dx must hold zeros or a gradient to add to.
template <class T>
void max_pool_backward(const PoolProblem& p, const std::int64_t* from, const T* dy, T* dx) {
  detail::for_windows(p, true, [&](std::int64_t, std::int64_t out) {
    for (std::int64_t i = out; i < out + p.channels; ++i) dx[from[i]] += dy[i];
  });
}

/// y = the mean of each window.
template <class T>
void avg_pool_forward(const PoolProblem& p, const T* x, T* y) {
  const T share = T(1) / T(p.kernel * p.kernel);
  detail::for_windows(p, false, [&](std::int64_t corner, std::int64_t out) {
    simd::over_vectors<T>(std::int64_t{p.channels}, [&]<class V>(std::int64_t c) {
      V total{};
      for (int q = 0; q < p.kernel; ++q)
        for (int r = 0; r < p.kernel; ++r) total += simd::load<V>(x + corner + (q * p.w + r) * p.channels + c);
      simd::store<V>(y + out + c, total * share);
    });
  });
}

/// dx must hold zeros or a gradient to add to.
template <class T>
void avg_pool_backward(const PoolProblem& p, const T* dy, T* dx) {
  const T share = T(1) / T(p.kernel * p.kernel);
  detail::for_windows(p, true, [&](std::int64_t corner, std::int64_t out) {
    simd::over_vectors<T>(std::int64_t{p.channels}, [&]<class V>(std::int64_t c) {
      const V g = simd::load<V>(dy + out + c) * share;
      for (int q = 0; q < p.kernel; ++q)
        for (int r = 0; r < p.kernel; ++r) {
          T* const to = dx + corner + (q * p.w + r) * p.channels + c;
          simd::store<V>(to, simd::load<V>(to) + g);
        }
    });
  });
}

/// The mean of every channel over `pixels` pixels of each of n images: y is N, C.
template <class T>
void global_avg_pool_forward(std::int64_t n, std::int64_t pixels, int channels, const T* x, T* y) {
  constexpr std::int64_t chunk = 1024, run = 64;  // pixels of a task; pixels summed in T before their sum goes on in double
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

}  // namespace strata::inline STRATA_ABI::cpu
