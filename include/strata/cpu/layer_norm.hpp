// Normalisation of every pixel over its channels (Ba, Kiros and Hinton, 2016). N,H,W,C images; float and double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

inline std::int64_t layer_norm_grain(int channels) { return std::clamp<std::int64_t>((1 << 14) / channels, 1, 4096); }

/// The sum of f.operator()<V>(c) over all channels.
template <class T, class F>
[[gnu::always_inline]] inline T sum_channels(int channels, F&& f) {
  using V = simd::Vector<T>;
  V sum{};
  int c = 0;
  for (; c + simd::lanes<V> <= channels; c += simd::lanes<V>) sum += f.template operator()<V>(c);
  T total = 0;
  for (int i = 0; i < simd::lanes<V>; ++i) total += sum[i];
  for (; c < channels; ++c) total += f.template operator()<T>(c);
  return total;
}

}  // namespace detail

/// y = (x - mean) / sqrt(variance + eps) * weight + bias, the mean and variance over a pixel's channels. `numbers` gets
/// the mean and 1 / standard deviation of each pixel, for the gradient; nullptr: not wanted.
template <class T>
void layer_norm_forward(std::int64_t pixels, int channels, double eps, const T* x, const T* weight, const T* bias, T* y,
                        T* numbers) {
  parallel_ranges(pixels, detail::layer_norm_grain(channels), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t pixel = begin; pixel < end; ++pixel) {
      const T* const from = x + pixel * channels;
      T* const to = y + pixel * channels;
      const T mean =
          detail::sum_channels<T>(channels, [&]<class V>(int c) STRATA_INLINED { return simd::load<V>(from + c); }) /
          T(channels);
      const T variance = detail::sum_channels<T>(channels, [&]<class V>(int c) STRATA_INLINED {
                           const V deviation = simd::load<V>(from + c) - mean;
                           return deviation * deviation;
                         }) / T(channels);
      const T inverse = T(1 / std::sqrt(double(variance) + eps));
      simd::over_vectors<T>(channels, [&]<class V>(int c) STRATA_INLINED {
        const V normal = (simd::load<V>(from + c) - mean) * inverse;
        simd::store<V>(to + c, normal * simd::load<V>(weight + c) + simd::load<V>(bias + c));
      });
      if (numbers != nullptr) numbers[2 * pixel] = mean, numbers[2 * pixel + 1] = inverse;
    }
  });
}

/// dx (+)= the gradient for x, and dweight, dbias (+)= those for weight and bias; nullptr: not wanted.
template <class T>
void layer_norm_backward(std::int64_t pixels, int channels, const T* x, const T* numbers, const T* weight, const T* dy,
                         T* dx, bool accumulate, T* dweight, bool accumulate_weight, T* dbias, bool accumulate_bias) {
  const std::int64_t grain = detail::layer_norm_grain(channels), tasks = (pixels + grain - 1) / grain;
  Scratch<T> partial(std::size_t(tasks * 2 * channels));
  parallel_for(tasks, [&](std::int64_t task) {
    T *const for_weight = partial.data() + task * 2 * channels, *const for_bias = for_weight + channels;
    std::fill_n(for_weight, 2 * channels, T(0));
    for (std::int64_t pixel = task * grain; pixel < std::min(pixels, (task + 1) * grain); ++pixel) {
      const T *const from = x + pixel * channels, *const g = dy + pixel * channels;
      const T mean = numbers[2 * pixel], inverse = numbers[2 * pixel + 1];
      const auto normal = [&]<class V>(int c) STRATA_INLINED { return (simd::load<V>(from + c) - mean) * inverse; };
      simd::over_vectors<T>(channels, [&]<class V>(int c) STRATA_INLINED {
        simd::store<V>(for_weight + c,
                       simd::load<V>(for_weight + c) + simd::load<V>(g + c) * normal.template operator()<V>(c));
        simd::store<V>(for_bias + c, simd::load<V>(for_bias + c) + simd::load<V>(g + c));
      });
      if (dx == nullptr) continue;
      const auto scaled = [&]<class V>(int c)
                              STRATA_INLINED { return simd::load<V>(g + c) * simd::load<V>(weight + c); };
      const T mean_g = detail::sum_channels<T>(channels, scaled) / T(channels);
      const T mean_gx = detail::sum_channels<T>(channels, [&]<class V>(int c) STRATA_INLINED {
                          return scaled.template operator()<V>(c) * normal.template operator()<V>(c);
                        }) / T(channels);
      T* const to = dx + pixel * channels;
      simd::over_vectors<T>(channels, [&]<class V>(int c) STRATA_INLINED {
        const V result =
            (scaled.template operator()<V>(c) - mean_g - normal.template operator()<V>(c) * mean_gx) * inverse;
        simd::store<V>(to + c, accumulate ? simd::load<V>(to + c) + result : result);
      });
    }
  });
  for (int c = 0; c < channels; ++c) {
    double for_weight = 0, for_bias = 0;
    for (std::int64_t task = 0; task < tasks; ++task) {
      for_weight += double(partial[std::size_t(task * 2 * channels + c)]);
      for_bias += double(partial[std::size_t(task * 2 * channels + channels + c)]);
    }
    if (dweight != nullptr) dweight[c] = (accumulate_weight ? dweight[c] : T(0)) + T(for_weight);
    if (dbias != nullptr) dbias[c] = (accumulate_bias ? dbias[c] : T(0)) + T(for_bias);
  }
}

}}}  // namespace strata::STRATA_ABI::cpu
