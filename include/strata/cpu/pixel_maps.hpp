// What is done to values where a kernel reads or writes them, so that no pass over memory of its own is needed: batch
// normalisation on the way in, statistics and sums on the way out.
//
//     auto normalise = AffineMap(affine).at<V>(channel);      // the numbers of one vector of channels, in registers
//     V y = normalise(value, address);
//
// prefetch(address) fetches what the call for that address will need; it need not exist. V is a simd vector, or float
// for channels that fill no vector. A map gives the value to use; a sink takes the value that is written and gives the
// one to write.
#pragma once

#include <cstdint>
#include <limits>

#include "strata/core/simd.hpp"
#include "strata/math/channel_affine.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

[[gnu::always_inline]] inline void prefetch(std::uintptr_t address) {
  __builtin_prefetch(reinterpret_cast<const char*>(address));
}
[[gnu::always_inline]] inline void prefetch_to_write(std::uintptr_t address) {
  __builtin_prefetch(reinterpret_cast<const char*>(address), 1);
}
/// What lies where `address` does, in an image like `from`.
[[gnu::always_inline]] inline std::uintptr_t counterpart(std::uintptr_t address, const float* from,
                                                         const float* other) {
  return address - reinterpret_cast<std::uintptr_t>(from) + reinterpret_cast<std::uintptr_t>(other);
}
/// What the activation lets through is above this.
inline float pass_limit(Activation activation) {
  return activation == Activation::relu ? 0.0f : -std::numeric_limits<float>::infinity();
}

}  // namespace detail

/// The value itself.
struct Unchanged {
  static constexpr bool keeps_zero = true;  ///< zeros of the padding need no care
  template <class>
  Unchanged at(std::int64_t) const {
    return {};
  }
  template <class V>
  [[gnu::always_inline]] V operator()(V value, const float*) const {
    return value;
  }
  [[gnu::always_inline]] void prefetch(std::uintptr_t address) const { detail::prefetch(address); }
};

/// act(value * scale + shift).
class AffineMap {
 public:
  static constexpr bool keeps_zero = false;

  explicit AffineMap(const ChannelAffine<float>& affine) : affine_(affine) {}

  template <class V>
  struct At {
    V scale, shift, floor;
    [[gnu::always_inline]] V operator()(V value, const float*) const { return simd::max(floor, value * scale + shift); }
    [[gnu::always_inline]] void prefetch(std::uintptr_t address) const { detail::prefetch(address); }
  };
  template <class V>
  At<V> at(std::int64_t channel) const {
    const float floor = affine_.activation == Activation::relu ? 0.0f : -std::numeric_limits<float>::infinity();
    return {simd::load<V>(affine_.scale + channel), simd::load<V>(affine_.shift + channel), simd::broadcast<V>(floor)};
  }

 private:
  ChannelAffine<float> affine_;
};

/// From the gradient of a batch norm's result to that of its input, which also takes the other's place in memory: `dy`
/// is where the gradients begin.
class NormGradientMap {
 public:
  static constexpr bool keeps_zero = false;

  NormGradientMap(const NormGradient<float>& norm, float* dy) : norm_(norm), dy_(dy) {}

  template <class V>
  struct At {
    V scale, shift, limit, mean, slope, offset, x_limit;
    const float* x;
    float* dy;
    [[gnu::always_inline]] V operator()(V value, float* address) const {
      const V input = simd::load<V>(x + (address - dy));
      const V g = input * scale + shift > limit ? value : V{};
      V result = scale * g + (input - mean) * slope + offset;
      result = input > x_limit ? result : V{};
      simd::store<V>(address, result);
      return result;
    }
    [[gnu::always_inline]] void prefetch(std::uintptr_t address) const {
      detail::prefetch_to_write(address);
      detail::prefetch(detail::counterpart(address, dy, x));
    }
  };
  template <class V>
  At<V> at(std::int64_t channel) const {
    const float x_limit = detail::pass_limit(norm_.x_rectified ? Activation::relu : Activation::none);
    return {simd::load<V>(norm_.affine.scale + channel), simd::load<V>(norm_.affine.shift + channel),
            simd::broadcast<V>(detail::pass_limit(norm_.affine.activation)), simd::load<V>(norm_.mean + channel),
            simd::load<V>(norm_.slope + channel), simd::load<V>(norm_.offset + channel), simd::broadcast<V>(x_limit),
            norm_.x, dy_};
  }

 private:
  NormGradient<float> norm_;
  float* dy_;
};

/// Nothing is gathered.
struct NoSink {
  struct At {
    template <class V>
    [[gnu::always_inline]] V operator()(V value, const float*) const {
      return value;
    }
    [[gnu::always_inline]] void prefetch(std::uintptr_t address) const { detail::prefetch_to_write(address); }
  };
};

/// Sums of deviations from a pivot, and of their squares, for each channel. The pivot is near the mean, so that nothing
/// cancels.
struct StatisticsSink {
  static constexpr int rows = 3;  ///< sums, sums of squares, pivots
  float* numbers;                 ///< rows of `channels` numbers
  std::int64_t channels;

  template <class V>
  struct At {
    V pivot, sum, squares;
    [[gnu::always_inline]] V operator()(V value, const float*) {
      const V d = value - pivot;
      sum += d;
      squares += d * d;
      return value;
    }
    [[gnu::always_inline]] void prefetch(std::uintptr_t address) const { detail::prefetch_to_write(address); }
  };
  template <class V>
  At<V> at(std::int64_t channel) const {
    return {simd::load<V>(numbers + 2 * channels + channel), simd::load<V>(numbers + channel),
            simd::load<V>(numbers + channels + channel)};
  }
  template <class V>
  void keep(std::int64_t channel, const At<V>& at) const {
    simd::store<V>(numbers + channel, at.sum);
    simd::store<V>(numbers + channels + channel, at.squares);
  }
};

/// Gradients that pass the activation behind a batch norm, and the sums of g and of g * (x - mean).
struct NormSumsSink {
  static constexpr int rows = 2;  ///< sums of g, sums of g * (x - mean)
  float* numbers;
  std::int64_t channels;
  NormGradientSums<float> norm;
  const float* dx;  ///< where the gradients begin

  template <class V>
  struct At {
    V scale, shift, limit, mean, sum, products;
    const float* x;
    const float* dx;
    [[gnu::always_inline]] V operator()(V value, const float* address) {
      const V input = simd::load<V>(x + (address - dx));
      const V g = input * scale + shift > limit ? value : V{};
      sum += g;
      products += g * (input - mean);
      return g;
    }
    [[gnu::always_inline]] void prefetch(std::uintptr_t address) const {
      detail::prefetch_to_write(address);
      detail::prefetch(detail::counterpart(address, dx, x));
    }
  };
  template <class V>
  At<V> at(std::int64_t channel) const {
    return {simd::load<V>(norm.affine.scale + channel),
            simd::load<V>(norm.affine.shift + channel),
            simd::broadcast<V>(detail::pass_limit(norm.affine.activation)),
            simd::load<V>(norm.mean + channel),
            simd::load<V>(numbers + channel),
            simd::load<V>(numbers + channels + channel),
            norm.x,
            dx};
  }
  template <class V>
  void keep(std::int64_t channel, const At<V>& at) const {
    simd::store<V>(numbers + channel, at.sum);
    simd::store<V>(numbers + channels + channel, at.products);
  }
};

}}}  // namespace strata::STRATA_ABI::cpu
