// What a convolution does with a finished sum before it writes it, while the sum is still in a register.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "strata/core/simd.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/math/activation.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

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

/// Applies an epilogue to the products of up to block_rows pixels with one panel: y[p] = result[p] + column and so on.
/// product(write) has to call write(r, j, sum) for every row and vector. Of the rows `count` exist, of the channels
/// `rest`.
template <int Vectors, class T, class Product>
[[gnu::always_inline]] inline void write_panel(T* const* results, std::int64_t count, std::int64_t column,
                                               std::int64_t rest, const VectorEpilogue<T>& epilogue,
                                               Product&& product) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>, width = Vectors * lanes;
  const bool whole = rest >= width && count == block_rows, accumulate = epilogue.accumulate();
  T part[block_rows * width];  // takes the place of y where that has fewer pixels or channels
  T* to[block_rows];
  simd::unroll<block_rows>([&](auto r) STRATA_INLINED { to[r] = whole ? results[r] + column : part + r * width; });
  if (!whole && accumulate)
    for (std::int64_t r = 0; r < count; ++r) std::copy_n(results[r] + column, std::min(rest, width), part + r * width);
  V bias[Vectors];
  simd::unroll<Vectors>([&](auto j) STRATA_INLINED { bias[j] = epilogue.bias(column + j * lanes); });
  const V floor = epilogue.floor();
  product([&](int r, int j, V sum) STRATA_INLINED {
    sum = simd::max(floor, sum + bias[j]);
    simd::store(to[r] + j * lanes, accumulate ? simd::load<V>(to[r] + j * lanes) + sum : sum);
  });
  if (!whole)
    for (std::int64_t r = 0; r < count; ++r) std::copy_n(part + r * width, std::min(rest, width), results[r] + column);
}

}}}  // namespace strata::STRATA_ABI::cpu
