// Windows over N,H,W,C images: maximum and mean, pixel shuffle.
#pragma once

#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/math/pool_problem.hpp"

namespace strata::inline STRATA_ABI::cpu {

using strata::PoolProblem;

namespace detail {
/// Calls f(n, i, first output element of the row) for every output row on all threads.
template <class F>
void for_rows(const PoolProblem& p, F&& f) {
  parallel_for(p.n * p.out_h(), [&](std::int64_t row) {
    f(row / p.out_h(), row % p.out_h(), row * p.out_w() * p.channels);
  });
}
}  // namespace detail

/// y = the largest value in each window; `from` gets the place of each in x, for the way back. The first of equals counts.
template <class T>
void max_pool_forward(const PoolProblem& p, const T* x, T* y, std::int64_t* from) {
  detail::for_rows(p, [&](std::int64_t n, std::int64_t i, std::int64_t out) {
    for (std::int64_t j = 0; j < p.out_w(); ++j)
      for (int c = 0; c < p.channels; ++c, ++out) {
        std::int64_t best = -1;
        for (int q = 0; q < p.kernel; ++q)
          for (int r = 0; r < p.kernel; ++r) {
            const std::int64_t at = ((n * p.h + i * p.stride + q) * p.w + j * p.stride + r) * p.channels + c;
            if (best < 0 || x[at] > x[best] || x[at] != x[at]) best = at;
          }
        y[out] = x[best];
        if (from != nullptr) from[out] = best;
      }
  });
}

/// dx must hold zeros or a gradient to add to.
template <class T>
void max_pool_backward(const PoolProblem& p, const std::int64_t* from, const T* dy, T* dx) {
  parallel_for(p.n, [&](std::int64_t n) {  // windows of one image may overlap, those of two do not
    const std::int64_t count = p.out_h() * p.out_w() * p.channels;
    for (std::int64_t i = n * count; i < (n + 1) * count; ++i) dx[from[i]] += dy[i];
  });
}

/// y = the mean of each window.
template <class T>
void avg_pool_forward(const PoolProblem& p, const T* x, T* y) {
  const T share = T(1) / T(p.kernel * p.kernel);
  detail::for_rows(p, [&](std::int64_t n, std::int64_t i, std::int64_t out) {
    for (std::int64_t j = 0; j < p.out_w(); ++j)
      for (int c = 0; c < p.channels; ++c, ++out) {
        T total = 0;
        for (int q = 0; q < p.kernel; ++q)
          for (int r = 0; r < p.kernel; ++r)
            total += x[((n * p.h + i * p.stride + q) * p.w + j * p.stride + r) * p.channels + c];
        y[out] = total * share;
      }
  });
}

/// dx must hold zeros or a gradient to add to.
template <class T>
void avg_pool_backward(const PoolProblem& p, const T* dy, T* dx) {
  const T share = T(1) / T(p.kernel * p.kernel);
  parallel_for(p.n, [&](std::int64_t n) {
    for (std::int64_t i = 0; i < p.out_h(); ++i)
      for (std::int64_t j = 0; j < p.out_w(); ++j)
        for (int q = 0; q < p.kernel; ++q)
          for (int r = 0; r < p.kernel; ++r) {
            const T* g = dy + ((n * p.out_h() + i) * p.out_w() + j) * p.channels;
            T* to = dx + ((n * p.h + i * p.stride + q) * p.w + j * p.stride + r) * p.channels;
            for (int c = 0; c < p.channels; ++c) to[c] += g[c] * share;
          }
  });
}

/// The mean of every channel over `pixels` pixels of each of n images: y is N, C.
template <class T>
void global_avg_pool_forward(std::int64_t n, std::int64_t pixels, int channels, const T* x, T* y) {
  parallel_for(n, [&](std::int64_t image) {
    for (int c = 0; c < channels; ++c) {
      double total = 0;
      for (std::int64_t p = 0; p < pixels; ++p) total += double(x[(image * pixels + p) * channels + c]);
      y[image * channels + c] = T(total / double(pixels));
    }
  });
}

/// dx (+)= dy / pixels.
template <class T>
void global_avg_pool_backward(std::int64_t n, std::int64_t pixels, int channels, const T* dy, T* dx, bool accumulate) {
  const T share = T(1) / T(pixels);
  parallel_for(n, [&](std::int64_t image) {
    for (std::int64_t p = 0; p < pixels; ++p)
      for (int c = 0; c < channels; ++c) {
        T& to = dx[(image * pixels + p) * channels + c];
        to = (accumulate ? to : T(0)) + dy[image * channels + c] * share;
      }
  });
}

/// Pixel shuffle (Shi et al., 2016) of an image with channels * r * r channels and h x w pixels into channels and
/// (h * r) x (w * r): output (c, i*r + p, j*r + q) is input (c*r*r + p*r + q, i, j). With `inverse`, moves from the large
/// image to the small one. to (+)= from.
template <class T>
void pixel_shuffle(std::int64_t n, std::int64_t h, std::int64_t w, int channels, int r, const T* from, T* to, bool inverse,
                   bool accumulate) {
  parallel_for(n * h, [&](std::int64_t row) {
    const std::int64_t image = row / h, i = row % h;
    for (int p = 0; p < r; ++p)
      for (std::int64_t j = 0; j < w; ++j)
        for (int q = 0; q < r; ++q)
          for (int c = 0; c < channels; ++c) {
            const std::int64_t small = ((image * h + i) * w + j) * channels * r * r + (c * r + p) * r + q;
            const std::int64_t large = ((image * h * r + i * r + p) * w * r + j * r + q) * channels + c;
            T& y = to[inverse ? small : large];
            y = (accumulate ? y : T(0)) + from[inverse ? large : small];
          }
  });
}

}  // namespace strata::inline STRATA_ABI::cpu
