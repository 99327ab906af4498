// Batch normalisation of images (Ioffe and Szegedy, 2015), with PyTorch's numbers.
//
//     st::BatchNorm2d<64>                                    // eps 1e-5, momentum 0.1
//     st::BatchNorm2d<64, std::ratio<1, 10000>>              // eps 1e-4
//
// A Train pass normalises with the batch's own mean and biased variance, and moves running_mean and running_var (unbiased)
// a step of `momentum` towards them. An Infer pass uses the running ones.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ratio>
#include <string>
#include <utility>

#include "strata/cpu/batch_norm.hpp"
#include "strata/nn/module.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// What the way back needs: y = act((x - mean) * scale + bias) with scale = weight * inverse_std, shift = bias - mean * scale.
template <class T>
struct Normalisation {
  Tensor<T> numbers;  // rows: scale, shift, mean, inverse standard deviation
  int channels;

  explicit Normalisation(int c) : numbers(Shape{4, c}), channels(c) {}
  T* row(int r) { return numbers.data() + r * channels; }
  const T* row(int r) const { return numbers.data() + r * channels; }
  const T* scale() const { return row(0); }
  const T* shift() const { return row(1); }
  const T* mean() const { return row(2); }
  const T* inverse_std() const { return row(3); }

  void set(int c, double mean_value, double inverse, double weight, double bias) {
    row(0)[c] = T(weight * inverse);
    row(1)[c] = T(bias - mean_value * weight * inverse);
    row(2)[c] = T(mean_value);
    row(3)[c] = T(inverse);
  }
};

/// Adds to the gradients of weight and bias and writes that of x. With n = pixels and g = dy behind the activation:
///   dbias = sum g,  dweight = sum g * xhat,  dx = scale * (g - mean(g) - xhat * mean(g * xhat)).
template <class T>
void batch_norm_backward(std::int64_t pixels, const Normalisation<T>& norm, Activation activation, const T* x, const T* dy,
                         Parameter& weight, Parameter& bias, Tape::Target<T> dx) {
  const int channels = norm.channels;
  Scratch<double> sums(std::size_t(2 * channels));
  double *sum_g = sums.data(), *sum_gx = sums.data() + channels;
  cpu::batch_norm_backward_sums(pixels, channels, x, dy, norm.scale(), norm.shift(), norm.mean(), activation, sum_g, sum_gx);
  const auto add = [&](Parameter& parameter, auto value) {
    if (!parameter.requires_grad) return;
    const auto target = parameter.grad_target<T>();
    for (int c = 0; c < channels; ++c) target.data[c] = (target.accumulate ? target.data[c] : T(0)) + T(value(c));
  };
  add(weight, [&](int c) { return sum_gx[c] * double(norm.inverse_std()[c]); });
  add(bias, [&](int c) { return sum_g[c]; });
  if (!dx) return;
  Scratch<T> coefficients(std::size_t(2 * channels));
  T *slope = coefficients.data(), *offset = coefficients.data() + channels;
  for (int c = 0; c < channels; ++c) {
    const double scale = double(norm.scale()[c]), inverse = double(norm.inverse_std()[c]);
    slope[c] = T(-scale * inverse * inverse * sum_gx[c] / double(pixels));
    offset[c] = T(-scale * sum_g[c] / double(pixels));
  }
  cpu::batch_norm_backward_input(pixels, channels, x, dy, norm.scale(), norm.shift(), norm.mean(), slope, offset,
                                 activation, dx.data, dx.accumulate);
}

}  // namespace detail

template <int Channels, class Eps = std::ratio<1, 100000>, class Momentum = std::ratio<1, 10>>
class BatchNorm2d : public Layer<BatchNorm2d<Channels, Eps, Momentum>> {
 public:
  using io = maps<Channels, Channels>;
  static constexpr double eps = double(Eps::num) / double(Eps::den);
  static constexpr double momentum = double(Momentum::num) / double(Momentum::den);

  Parameter weight{Shape{Channels}, 1.0f};
  Parameter bias{Shape{Channels}};
  Buffer running_mean{Shape{Channels}};
  Buffer running_var{Shape{Channels}, 1.0f};
  Buffer num_batches_tracked = Buffer::integers(Shape{});

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("bias", self.bias);
    f("running_mean", self.running_mean);
    f("running_var", self.running_var);
    f("num_batches_tracked", self.num_batches_tracked);
  }
  static constexpr bool is_leaf_layer = true;
  static constexpr void trace(auto& t) { t.parameters(2 * Channels); }
  static std::string name() { return concat("BatchNorm2d(", Channels, ", eps=", eps, ", momentum=", momentum, ")"); }

  /// Scale and shift of every channel by the running statistics.
  template <class T>
  detail::Normalisation<T> inference_numbers() const {
    detail::Normalisation<T> norm(Channels);
    const T *mean = running_mean.template value<T>().data(), *variance = running_var.template value<T>().data();
    const T *scale = weight.template value<T>().data(), *shift = bias.template value<T>().data();
    for (int c = 0; c < Channels; ++c)
      norm.set(c, double(mean[c]), 1.0 / std::sqrt(double(variance[c]) + eps), double(scale[c]), double(shift[c]));
    return norm;
  }

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, Var<Channels, T> x, Activation activation = Activation::none) {
    const std::int64_t pixels = x.size() / Channels;
    const auto& weight = std::as_const(self.weight).template value<T>();
    const auto& bias = std::as_const(self.bias).template value<T>();
    detail::Normalisation<T> norm(Channels);
    if constexpr (P::training) {
      if (pixels < 2)
        throw ShapeError(concat(name(), ": training on ", x.shape().str(),
                                " gives one value per channel, and statistics need more: use larger batches or images"));
      Scratch<double> statistics(std::size_t(2 * Channels));
      double *mean = statistics.data(), *variance = mean + Channels;
      cpu::batch_norm_statistics(pixels, Channels, x.data(), mean, variance);
      T* running_mean = self.running_mean.template value<T>().data();
      T* running_var = self.running_var.template value<T>().data();
      for (int c = 0; c < Channels; ++c) {
        norm.set(c, mean[c], 1.0 / std::sqrt(variance[c] + eps), double(weight.data()[c]), double(bias.data()[c]));
        const double unbiased = variance[c] * double(pixels) / double(pixels - 1);
        running_mean[c] = T((1 - momentum) * double(running_mean[c]) + momentum * mean[c]);
        running_var[c] = T((1 - momentum) * double(running_var[c]) + momentum * unbiased);
      }
      ++*self.num_batches_tracked.template value<std::int64_t>().data();
    } else {
      norm = self.template inference_numbers<T>();
    }
    Image<Channels, T> image(x.n(), x.h(), x.w());
    cpu::batch_norm_apply(pixels, Channels, x.data(), norm.scale(), norm.shift(), image.data(), activation);
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [&self, x = std::move(x), id = y.id(), norm, pixels, activation](Tape& tape) {
        T* dy = tape.gradient<T>(id);
        auto dx = Tape::Target<T>{};
        if (tape.move_gradient(id, x.id()))
          dx = {dy, false};  // in place: each element is read before it is written
        else
          dx = tape.target<T>(x.id());
        detail::batch_norm_backward(pixels, norm, activation, x.data(), dy, self.weight, self.bias, dx);
      });
    return y;
  }

  static_assert(Channels > 0, "strata::BatchNorm2d<Channels>: Channels must be positive");
  static_assert(Eps::num > 0, "strata::BatchNorm2d<Channels, Eps>: Eps must be positive");
  static_assert(Momentum::num >= 0 && Momentum::num <= Momentum::den, "strata::BatchNorm2d: Momentum must be from 0 to 1");
};

}  // namespace strata::inline STRATA_ABI
