// Functions of single elements and per-channel slopes, at memory speed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {
inline constexpr std::int64_t pointwise_grain = 1 << 14;

/// Calls f.template operator()<V>(i) for all elements on all threads, whole vectors first in each range.
template <class T, class F>
void for_elements(std::int64_t size, F&& f) {
  using V = simd::Vector<T>;
  parallel_ranges(size, pointwise_grain, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t i = begin;
    for (; i + simd::lanes<V> <= end; i += simd::lanes<V>) f.template operator()<V>(i);
    for (; i < end; ++i) f.template operator()<T>(i);
  });
}
}  // namespace detail

/// y = x above 0, slope * x otherwise. x and y may be the same. NaN stays NaN.
template <class T>
void leaky_relu_forward(std::int64_t size, const T* x, T* y, T slope) {
  detail::for_elements<T>(size, [&]<class V>(std::int64_t i) {
    const V value = simd::load<V>(x + i);
    simd::store<V>(y + i, value < V{} ? value * slope : value);
  });
}

/// dx (+)= dy where y is above 0, slope * dy otherwise (slope not negative, so that y has the sign of x). dx may be dy.
template <class T>
void leaky_relu_backward(std::int64_t size, const T* y, const T* dy, T* dx, T slope, bool accumulate) {
  detail::for_elements<T>(size, [&]<class V>(std::int64_t i) {
    const V g = simd::load<V>(dy + i);
    V result = simd::load<V>(y + i) > V{} ? g : g * slope;
    if (accumulate) result += simd::load<V>(dx + i);
    simd::store<V>(dx + i, result);
  });
}

/// y = max(x, 0). x and y may be the same. NaN stays NaN.
template <class T>
void relu_forward(std::int64_t size, const T* x, T* y) {
  detail::for_elements<T>(size, [&]<class V>(std::int64_t i) {
    const V value = simd::load<V>(x + i);
    simd::store<V>(y + i, value < V{} ? V{} : value);
  });
}

/// dx (+)= dy where y is above 0. dx may be dy.
template <class T>
void relu_backward(std::int64_t size, const T* y, const T* dy, T* dx, bool accumulate) {
  detail::for_elements<T>(size, [&]<class V>(std::int64_t i) {
    const V g = simd::load<V>(dy + i);
    V result = simd::load<V>(y + i) > V{} ? g : V{};
    if (accumulate) result += simd::load<V>(dx + i);
    simd::store<V>(dx + i, result);
  });
}

/// PReLU on N,H,W,C: y = x above 0, slope[c] * x otherwise; one slope for all channels when slopes == 1.
template <class T>
void prelu_forward(std::int64_t pixels, int channels, const T* x, const T* slope, int slopes, T* y) {
  parallel_ranges(pixels, 1024, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      for (int c = 0; c < channels; ++c) {
        const T value = x[p * channels + c];
        y[p * channels + c] = value > T(0) ? value : slope[slopes == 1 ? 0 : c] * value;
      }
  });
}

/// dx (+)= dy * (x > 0 ? 1 : slope);  dslope += sum of dy * x where x <= 0. dx may be null.
template <class T>
void prelu_backward(std::int64_t pixels, int channels, const T* x, const T* slope, int slopes, const T* dy, T* dx,
                    bool accumulate, T* dslope) {
  constexpr std::int64_t chunk = 1024;
  const std::int64_t chunks = (pixels + chunk - 1) / chunk;
  Scratch<double> partial(std::size_t(chunks * slopes));
  parallel_for(chunks, [&](std::int64_t index) {
    double* sums = partial.data() + index * slopes;
    std::fill_n(sums, slopes, 0.0);
    for (std::int64_t p = index * chunk; p < std::min(pixels, (index + 1) * chunk); ++p)
      for (int c = 0; c < channels; ++c) {
        const std::int64_t i = p * channels + c;
        const int s = slopes == 1 ? 0 : c;
        const bool positive = x[i] > T(0);
        if (!positive) sums[s] += double(dy[i]) * double(x[i]);
        if (dx != nullptr) dx[i] = (accumulate ? dx[i] : T(0)) + (positive ? dy[i] : slope[s] * dy[i]);
      }
  });
  for (int s = 0; s < slopes; ++s) {
    double total = 0;
    for (std::int64_t index = 0; index < chunks; ++index) total += partial[std::size_t(index * slopes + s)];
    dslope[s] += T(total);
  }
}

}  // namespace strata::inline STRATA_ABI::cpu
