// Batch normalisation of images (Ioffe and Szegedy, 2015), with PyTorch's numbers.
//
//     st::BatchNorm2d<64>                                    // eps 1e-5, momentum 0.1
//     st::BatchNorm2d<64, std::ratio<1, 10000>>              // eps 1e-4
//
// A Train pass normalises with the batch's own mean and biased variance, and moves running_mean and running_var
// (unbiased) a step of `momentum` towards them. An Infer pass uses the running ones. So does a Train pass where the
// statistics are frozen, as in PyTorch where a batch norm is in eval() while the network is trained; weight and bias
// are learned still, and the gradient is that of a fixed scale and shift:
//
//     st::freeze_statistics(net.backbone);                   // of all batch norms below; (..., false) thaws them
//     st::freeze(net.backbone);                              // and all parameters (optim/parameter_group.hpp)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <ratio>
#include <string>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"
#include "strata/tensor/pool_allocator.hpp"

namespace strata { inline namespace STRATA_ABI {

template <int Channels, class Eps, class Momentum>
class SyncBatchNorm2d;  // nn/sync_batch_norm.hpp

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
  /// whether a Train pass uses the running statistics and leaves them as they are. Not in files
  bool frozen_statistics = false;

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("bias", self.bias);
    f("running_mean", self.running_mean);
    f("running_var", self.running_var);
    f("num_batches_tracked", self.num_batches_tracked);
  }
  static constexpr bool is_leaf_layer = true, is_normalisation = true;
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape&) { return {.gradient_in_place = true, .normalises_later = true}; }
  static constexpr bool takes_activation = true, takes_statistics = true, is_affine = true;
  static std::string name() { return concat("BatchNorm2d(", Channels, ", eps=", eps, ", momentum=", momentum, ")"); }
  static auto onnx(auto& self, const auto& x) {
    return x.template node<Channels>(
        "BatchNormalization",
        {x.tensor(self.weight), x.tensor(self.bias), x.tensor(self.running_mean), x.tensor(self.running_var)},
        {{"epsilon", float(eps)}, {"momentum", float(1 - momentum)}});
  }

  /// What an Infer pass makes of channel c, by the running statistics.
  template <class T>
  static auto affine(const auto& self, Device images) {
    check_same_device(images, self.weight.device(), name);
    return [mean = self.running_mean.template value<T>().data(), variance = self.running_var.template value<T>().data(),
            weight = self.weight.template value<T>().data(), bias = self.bias.template value<T>().data()](int c) {
      const double inverse = 1.0 / std::sqrt(double(variance[c]) + eps);
      return ScaleShift{double(weight[c]) * inverse, double(bias[c]) - double(mean[c]) * double(weight[c]) * inverse};
    };
  }

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, Var<Channels, T> x, Activation activation = Activation::none) {
    check_same_device(x.device(), self.weight.device(), name);
    if (on_accelerator(x.device())) return forward_on_accelerator(self, pass, x, activation);
    if constexpr (P::training) {
      Scratch<double> memory(std::size_t(2 * Channels));
      const ChannelStatistics statistics{memory.data(), memory.data() + Channels};
      cpu::batch_norm_statistics(x.size() / Channels, Channels, x.data(), statistics.mean, statistics.variance);
      return forward_with(self, pass, x, statistics, activation, false);
    } else {
      const auto of_channel = affine<T>(self, x.device());
      Scratch<T> scale(Channels), shift(Channels);
      for (int c = 0; c < Channels; ++c) {
        const ScaleShift numbers = of_channel(c);
        scale.data()[c] = T(numbers.scale), shift.data()[c] = T(numbers.shift);
      }
      Image<Channels, T> image(x.n(), x.h(), x.w());
      cpu::batch_norm_apply(x.size() / Channels, Channels, x.data(), scale.data(), shift.data(), image.data(),
                            activation);
      return pass.output(std::move(image));
    }
  }

  /// Training, with the statistics of x at hand. `x_rectified`: x is the result of a ReLU whose gradient is left to
  /// this layer's.
  template <class T>
  static Var<Channels, T> forward_with(auto& self, Train& pass, const Var<Channels, T>& x,
                                       const ChannelStatistics& statistics, Activation activation, bool x_rectified) {
    const std::int64_t pixels = x.size() / Channels;
    const bool frozen = self.frozen_statistics;
    if (pixels < 2 && !frozen) throw_too_few(x.shape());
    const T* weight = std::as_const(self.weight).template value<T>().data();
    const T* bias = std::as_const(self.bias).template value<T>().data();
    T* running_mean = self.running_mean.template value<T>().data();
    T* running_var = self.running_var.template value<T>().data();
    Normalisation<T> norm(Channels);
    for (int c = 0; c < Channels; ++c) {
      const double mean = frozen ? double(running_mean[c]) : statistics.mean[c];
      const double variance = frozen ? double(running_var[c]) : statistics.variance[c];
      norm.set(c, mean, 1.0 / std::sqrt(variance + eps), double(weight[c]), double(bias[c]));
      if (frozen || pass.recomputing()) continue;
      const double unbiased = variance * double(pixels) / double(pixels - 1);
      running_mean[c] = T((1 - momentum) * double(running_mean[c]) + momentum * mean);
      running_var[c] = T((1 - momentum) * double(running_var[c]) + momentum * unbiased);
    }
    if (!pass.recomputing() && !frozen) ++*self.num_batches_tracked.template value<std::int64_t>().data();

    using Normalised = NormalisedImage<Channels, T>;
    const auto image = std::allocate_shared<Normalised>(PoolAllocator<Normalised>(), x.value(), norm, activation);
    auto y = Var<Channels, T>(image, pass.tape());
    pass.tape()->record(
        y.id(),
        [&self, x = x.value(), x_id = x.id(), id = y.id(), norm, activation, x_rectified, frozen](Tape& tape) {
          const auto gathered = tape.take<GatheredSums<Channels>>(id);
          T* const dy = tape.gradient<T>(id);
          Scratch<double> memory(std::size_t(2 * Channels));
          if (gathered == nullptr)
            cpu::batch_norm_backward_sums(x.size() / Channels, Channels, x.data(), dy, norm.scale(), norm.shift(),
                                          norm.mean(), activation, memory.data(), memory.data() + Channels);
          const double* sum_g = gathered != nullptr ? gathered->sum_g : memory.data();
          const double* sum_gx = gathered != nullptr ? gathered->sum_gx : memory.data() + Channels;
          add(self.weight, [&](int c) { return T(sum_gx[c] * double(norm.inverse_std()[c])); });
          add(self.bias, [&](int c) { return T(sum_g[c]); });
          if (x_id < 0) return;
          using Pending = PendingNormGradient<Channels, T>;
          if (frozen) std::fill_n(memory.data(), 2 * Channels, 0.0);  // the statistics do not depend on x
          const auto pending =
              std::allocate_shared<Pending>(PoolAllocator<Pending>(), x, norm, activation, x_rectified,
                                            frozen ? memory.data() : sum_g, frozen ? memory.data() + Channels : sum_gx,
                                            double(x.size() / Channels));
          if (tape.move_gradient(id, x_id)) {
            tape.attach(x_id, pending);  // the convolution before this layer completes it where it reads it
          } else {
            const auto dx = tape.target<T>(x_id);
            (*pending)(dy, dx.data, dx.accumulate);
          }
        },
        x.value(), self.weight, self.bias);
    return y;
  }

  /// The numbers of affine() on an accelerator: normalisation_rows() of what it returns.
  static Tensor<float> affine_rows(const auto& self, Device images) {
    check_same_device(images, self.weight.device(), name);
    Tensor<float> numbers(Shape{4, Channels}, self.weight.template value<float>().pool());
    accelerator(images).batch_norm_inference(
        Channels, self.weight.template value<float>().data(), self.bias.template value<float>().data(),
        self.running_mean.template value<float>().data(), self.running_var.template value<float>().data(), eps,
        detail::normalisation_rows(numbers));
    return numbers;
  }

 private:
  friend class SyncBatchNorm2d<Channels, Eps, Momentum>;

  template <Pass P, class T>
  static Var<Channels, T> forward_on_accelerator(auto& self, P& pass, const Var<Channels, T>& x,
                                                 Activation activation) {
    if constexpr (!std::is_same_v<T, float>) {
      detail::throw_not_float(x.device());
    } else {
      Accelerator& gpu = accelerator(x.device());
      const std::int64_t pixels = x.size() / Channels;
      Tensor<float> numbers;
      if constexpr (P::training) {
        if (self.frozen_statistics)
          throw DeviceError(concat(name(), ": there are no frozen statistics in training on ", x.device().str(),
                                   ": train on the CPU, or leave frozen_statistics at false"));
        if (pixels < 2) throw_too_few(x.shape());
        numbers = Tensor<float>(Shape{4, Channels}, x.pool());
        const bool again = pass.recomputing();  // the running statistics were moved the first time
        Tensor<float> unused = again ? zeros(Shape{2, Channels}, x.pool()) : Tensor<float>();
        gpu.batch_norm_statistics(pixels, Channels, x.data(), std::as_const(self.weight).value().data(),
                                  std::as_const(self.bias).value().data(), eps, momentum,
                                  again ? unused.data() : self.running_mean.value().data(),
                                  again ? unused.data() + Channels : self.running_var.value().data(),
                                  again ? nullptr : self.num_batches_tracked.template value<std::int64_t>().data(),
                                  detail::normalisation_rows(numbers));
      } else {
        numbers = affine_rows(self, x.device());
      }
      Image<Channels, float> image(x.n(), x.h(), x.w(), x.pool());
      gpu.batch_norm_apply(pixels, Channels, x.data(), detail::normalisation_rows(numbers), image.data(), activation);
      auto y = pass.output(std::move(image));
      if constexpr (P::training)
        pass.tape()->record(y.id(), [&self, &gpu, x, id = y.id(), numbers, pixels, activation](Tape& tape) mutable {
          float* const dy = tape.gradient<float>(id);
          GradientTarget<> dx{dy, false};  // in place where nobody has written yet
          if (!tape.move_gradient(id, x.id())) dx = tape.target<float>(x.id());
          gpu.batch_norm_backward(pixels, Channels, detail::normalisation_rows(numbers), activation, x.data(), dy,
                                  detail::gradient_target(self.weight), detail::gradient_target(self.bias), dx);
        }, x, self.weight, self.bias);
      return y;
    }
  }

  static Tensor<float> zeros(const Shape& shape, MemoryPool& pool) {
    Tensor<float> tensor(shape, pool);
    fill(tensor, 0.0f);
    return tensor;
  }
  [[noreturn]] static void throw_too_few(const Shape& shape) {
    throw ShapeError(concat(name(), ": training on ", shape.str(),
                            " gives one value per channel, and statistics need more: use larger batches or images"));
  }

  /// gradient[c] (+)= value(c).
  template <class Value>
  static void add(Parameter& parameter, Value value) {
    using T = decltype(value(0));
    if (!parameter.requires_grad) return;
    const auto target = parameter.grad_target<T>();
    for (int c = 0; c < Channels; ++c) target.data[c] = (target.accumulate ? target.data[c] : T(0)) + value(c);
  }

  static_assert(Channels > 0, "strata::BatchNorm2d<Channels>: Channels must be positive");
  static_assert(Eps::num > 0, "strata::BatchNorm2d<Channels, Eps>: Eps must be positive");
  static_assert(Momentum::num >= 0 && Momentum::num <= Momentum::den,
                "strata::BatchNorm2d: Momentum must be from 0 to 1");
};

}}  // namespace strata::STRATA_ABI
