// An image that a batch norm gives, act((x - mean) * scale + bias), kept as x and the numbers of each channel. It is
// computed when it is first asked for. A kernel that reads it can instead apply the numbers itself:
//
//     if (const auto* normalised = x.normalised())
//       cpu::conv2d_forward(problem, normalised->input().data(), ..., {.input = normalised->affine()});
#pragma once

#include <cstdint>
#include <utility>

#include "strata/cpu/batch_norm.hpp"
#include "strata/math/channel_affine.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The numbers of a normalisation: y = act(x * scale + shift) with scale = weight * inverse_std and
/// shift = bias - mean * scale.
template <class T>
class Normalisation {
 public:
  explicit Normalisation(int channels) : numbers_(Shape{4, channels}), channels_(channels) {}

  int channels() const { return channels_; }
  const T* scale() const { return row(0); }
  const T* shift() const { return row(1); }
  const T* mean() const { return row(2); }
  const T* inverse_std() const { return row(3); }

  void set(int c, double mean_value, double inverse, double weight, double bias) {
    T* const first = numbers_.data() + c;
    first[0] = T(weight * inverse);
    first[channels_] = T(bias - mean_value * weight * inverse);
    first[2 * channels_] = T(mean_value);
    first[3 * channels_] = T(inverse);
  }

 private:
  const T* row(int r) const { return numbers_.data() + r * channels_; }

  Tensor<T> numbers_;  // rows: scale, shift, mean, inverse standard deviation
  int channels_;
};

template <int C, class T>
class NormalisedImage {
 public:
  NormalisedImage(Image<C, T> input, Normalisation<T> numbers, Activation activation)
      : input_(std::move(input)),
        numbers_(std::move(numbers)),
        activation_(activation),
        apply_(cpu::batch_norm_apply<T>) {}

  const Image<C, T>& input() const { return input_; }
  const Normalisation<T>& numbers() const { return numbers_; }
  ChannelAffine<T> affine() const { return {numbers_.scale(), numbers_.shift(), activation_}; }

  bool computed() const { return value_.size() != 0; }
  /// Not to be called first by several threads at once.
  const Image<C, T>& value() const {
    if (!computed()) {
      Image<C, T> image(input_.n(), input_.h(), input_.w());
      apply_(input_.size() / C, C, input_.data(), numbers_.scale(), numbers_.shift(), image.data(), activation_);
      value_ = std::move(image);
    }
    return value_;
  }

 private:
  Image<C, T> input_;
  Normalisation<T> numbers_;
  Activation activation_;
  decltype(&cpu::batch_norm_apply<T>) apply_;  // by address: a program that makes no such image holds no batch norm
  mutable Image<C, T> value_;
};

// ---- notes at gradients (autograd/tape.hpp), between a normalisation and the layers around it

/// At the gradient for a normalisation's result: the two sums over it that NormGradientSums describes, which the step
/// that wrote the gradient has gathered. They hold for no other gradient.
template <int C>
struct GatheredSums {
  double sum_g[C], sum_gx[C];
  void settle(void*) {}
};

/// At the gradient for a normalisation's input, where that for its result still lies: what is missing between the two,
/// which is NormGradient, with the memory it reads.
template <int C, class T>
class PendingNormGradient {
 public:
  /// The sums are over `pixels`, where the statistics were taken of more than x.
  PendingNormGradient(Image<C, T> x, Normalisation<T> numbers, Activation activation, bool x_rectified,
                      const double* sum_g, const double* sum_gx, double pixels)
      : x_(std::move(x)),
        numbers_(std::move(numbers)),
        coefficients_(Shape{2, C}),
        activation_(activation),
        x_rectified_(x_rectified) {
    for (int c = 0; c < C; ++c) {
      const double scale = double(numbers_.scale()[c]), inverse = double(numbers_.inverse_std()[c]);
      coefficients_.data()[c] = T(-scale * inverse * inverse * sum_gx[c] / pixels);
      coefficients_.data()[C + c] = T(-scale * sum_g[c] / pixels);
    }
  }

  NormGradient<T> parameters() const {
    return {x_.data(), {numbers_.scale(), numbers_.shift(), activation_}, numbers_.mean(), coefficients_.data(),
            coefficients_.data() + C, x_rectified_};
  }
  /// Writes the gradient for x, from that for y.
  void operator()(const T* dy, T* dx, bool accumulate) const {
    cpu::batch_norm_backward_input(x_.size() / C, C, parameters(), dy, dx, accumulate);
  }
  void settle(void* gradient) const { (*this)(static_cast<T*>(gradient), static_cast<T*>(gradient), false); }

 private:
  Image<C, T> x_;
  Normalisation<T> numbers_;
  Tensor<T> coefficients_;  // rows: slope, offset
  Activation activation_;
  bool x_rectified_;
};

}}  // namespace strata::STRATA_ABI
