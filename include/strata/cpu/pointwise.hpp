// Functions of single elements and per-channel slopes, at memory speed.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

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

namespace detail {

/// Slopes of N,H,W,C elements as vectors: element i of the image has lane i mod (channels * lanes) of `channels`
/// vectors one after the other, whatever the number of channels. One slope for all counts as one channel.
template <class T>
class SlopePattern {
 public:
  using V = simd::Vector<T>;

  SlopePattern(const T* slope, int slopes)
      : vectors(slopes), elements(slopes * simd::lanes<V>), slopes_(std::size_t(elements)) {
    for (std::int64_t i = 0; i < elements; ++i) slopes_.data()[i] = slope[i % slopes];
  }
  const T* data() { return slopes_.data(); }
  /// Elements of a task: a whole number of patterns.
  std::int64_t grain() const { return (pointwise_grain + elements - 1) / elements * elements; }

  const std::int64_t vectors, elements;

 private:
  Scratch<T> slopes_;
};

}  // namespace detail

/// PReLU on N,H,W,C: y = x above 0, slope[c] * x otherwise; one slope for all channels when slopes == 1.
template <class T>
void prelu_forward(std::int64_t pixels, int channels, const T* x, const T* slope, int slopes, T* y) {
  detail::SlopePattern<T> pattern(slope, slopes);
  const T* const all = pattern.data();
  parallel_ranges(pixels * channels, pattern.grain(), [&](std::int64_t begin, std::int64_t end) {
    using V = simd::Vector<T>;
    std::int64_t i = begin, place = 0;
    for (; i + simd::lanes<V> <= end; i += simd::lanes<V>) {
      const V value = simd::load<V>(x + i);
      simd::store(y + i, value > V{} ? value : simd::load<V>(all + place) * value);
      place = place + simd::lanes<V> == pattern.elements ? 0 : place + simd::lanes<V>;
    }
    for (; i < end; ++i, ++place) y[i] = x[i] > T(0) ? x[i] : all[place] * x[i];
  });
}

/// dx (+)= dy * (x > 0 ? 1 : slope);  dslope += sum of dy * x where x <= 0. dx may be null.
template <class T>
void prelu_backward(std::int64_t pixels, int channels, const T* x, const T* slope, int slopes, const T* dy, T* dx,
                    bool accumulate, T* dslope) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>, run = 64;  // elements summed in T before their sum goes on in double
  detail::SlopePattern<T> pattern(slope, slopes);
  const T* const all = pattern.data();
  const std::int64_t size = pixels * channels, grain = pattern.grain(), tasks = (size + grain - 1) / grain;
  Scratch<double> partial(std::size_t(tasks * slopes));
  WorkerScratch<T> workspace(pattern.elements);
  parallel_for(tasks, [&](std::int64_t task, int worker) {
    T* const sums = workspace[worker];
    double* const totals = partial.data() + task * slopes;
    std::fill_n(totals, slopes, 0.0);
    const std::int64_t end = std::min(size, (task + 1) * grain);
    for (std::int64_t begin = task * grain; begin < end; begin += run * pattern.elements) {
      const std::int64_t run_end = std::min(end, begin + run * pattern.elements);
      std::fill_n(sums, pattern.elements, T(0));
      const auto step = [&]<class W>(std::int64_t i, std::int64_t place) STRATA_INLINED {
        const W value = simd::load<W>(x + i), g = simd::load<W>(dy + i), s = simd::load<W>(sums + place);
        simd::store<W>(sums + place, value > W{} ? s : s + g * value);
        if (dx == nullptr) return;
        const W result = value > W{} ? g : simd::load<W>(all + place) * g;
        simd::store<W>(dx + i, accumulate ? simd::load<W>(dx + i) + result : result);
      };
      std::int64_t i = begin, place = 0;
      for (; i + lanes <= run_end; i += lanes) {
        step.template operator()<V>(i, place);
        place = place + lanes == pattern.elements ? 0 : place + lanes;
      }
      for (; i < run_end; ++i, ++place) step.template operator()<T>(i, place);
      for (std::int64_t e = 0; e < pattern.elements; ++e) totals[e % slopes] += double(sums[e]);
    }
  });
  for (int s = 0; s < slopes; ++s) {
    double total = 0;
    for (std::int64_t task = 0; task < tasks; ++task) total += partial[std::size_t(task * slopes + s)];
    dslope[s] += T(total);
  }
}

}}}  // namespace strata::STRATA_ABI::cpu
