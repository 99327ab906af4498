// What a convolution does with a finished sum before it writes it, while the sum is still in a register.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "strata/core/simd.hpp"
#include "strata/math/activation.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

/// y = activation(sum + bias), or y += sum where `accumulate` is set (bias and activation are then not used).
template <class T>
struct Epilogue {
  const T* bias = nullptr;  ///< one per channel; nullptr: zeros
  Activation activation = Activation::none;
  bool accumulate = false;
};

/// An Epilogue ready for vectors: the bias padded to whole vectors, the activation as a lower limit.
template <class T>
class VectorEpilogue {
 public:
  using V = simd::Vector<T>;

  VectorEpilogue(const Epilogue<T>& epilogue, std::int64_t channels)
      : bias_(std::size_t(simd::padded<V>(channels))),
        floor_(epilogue.activation == Activation::relu ? T(0) : -std::numeric_limits<T>::infinity()),
        accumulate_(epilogue.accumulate) {
    std::fill_n(bias_.data(), simd::padded<V>(channels), T(0));
    if (epilogue.bias) std::copy_n(epilogue.bias, channels, bias_.data());
  }

  bool accumulate() const { return accumulate_; }
  /// The bias of the vector of channels that starts at `channel`.
  V bias(std::int64_t channel) const { return simd::load<V>(bias_values_ + channel); }
  /// The least value the activation gives.
  V floor() const { return simd::broadcast<V>(floor_); }
  /// activation(sum + bias) for the vector of channels that starts at `channel`. NaN stays NaN.
  [[gnu::always_inline]] V finish(V sum, std::int64_t channel) const { return simd::max(floor(), sum + bias(channel)); }
  /// The same for a single channel.
  T finish_one(T sum, std::int64_t channel) const {
    const T value = sum + bias_values_[channel];
    return floor_ > value ? floor_ : value;
  }

 private:
  Scratch<T> bias_;
  const T* bias_values_ = bias_.data();
  T floor_;
  bool accumulate_;
};

}  // namespace strata::inline STRATA_ABI::cpu
