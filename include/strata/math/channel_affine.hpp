// What batch normalisation leaves to the kernels around it: a scale and a shift of every channel, applied where an
// image is read, and the gradient that goes back through the same formula.
//
//     y = act(x * scale + shift)
//     dx = scale * g + (x - mean) * slope + offset,    g = dy where the activation let the value through, else 0
#pragma once

#include "strata/math/activation.hpp"

namespace strata { inline namespace STRATA_ABI {

/// act(x * scale + shift), with one scale and one shift for each channel. Without a scale: x itself.
template <class T>
struct ChannelAffine {
  const T* scale = nullptr;
  const T* shift = nullptr;
  Activation activation = Activation::none;

  explicit operator bool() const { return scale != nullptr; }
};

/// Normalised images on their way back: `x` is what was normalised, N,H,W,C like the gradient; the rest has one number
/// for each channel. Without an x: nothing to do.
template <class T>
struct NormGradient {
  const T* x = nullptr;
  ChannelAffine<T> affine;
  const T* mean = nullptr;
  const T* slope = nullptr;
  const T* offset = nullptr;
  bool x_rectified = false;  ///< x is the result of a ReLU, whose gradient is taken too: dx is 0 where x is not above 0

  explicit operator bool() const { return x != nullptr; }
};

/// The two sums over all pixels that a batch norm's gradients are made of, gathered while the gradient g for its result
/// is written: sum_g = sum of g, sum_gx = sum of g * (x - mean), one of each for each channel, with g = 0 where the
/// activation did not let the value through. Without an x: nothing to do.
template <class T>
struct NormGradientSums {
  const T* x = nullptr;
  ChannelAffine<T> affine;
  const T* mean = nullptr;
  double* sum_g = nullptr;
  double* sum_gx = nullptr;

  explicit operator bool() const { return x != nullptr; }
};

/// Mean and biased variance of every channel of a result, over all its pixels. Without a mean: not wanted.
struct ChannelStatistics {
  double* mean = nullptr;
  double* variance = nullptr;

  explicit operator bool() const { return mean != nullptr; }
};

}}  // namespace strata::STRATA_ABI
