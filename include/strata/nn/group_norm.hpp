// Normalisations that do not look at the other images of a batch, so training and inference are the same: GroupNorm,
// InstanceNorm2d and LayerNorm2d, with PyTorch's numbers.
//
//     st::GroupNorm<8, 64>              // 64 channels in 8 groups, each with its mean and variance over all pixels
//     st::InstanceNorm2d<64>            // each channel by itself, without weight and bias
//     st::LayerNorm2d<64>               // each pixel over its channels, as in ConvNeXt and NAFNet
#pragma once

#include <cstdint>
#include <ratio>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// What GroupNorm and InstanceNorm2d have in common. Self gives channels, groups, eps and affine.
template <class Self, int Channels, bool Affine>
class GroupNormalisation : public Layer<Self> {
 public:
  using io = maps<Channels, Channels>;
  static constexpr bool is_leaf_layer = true, is_normalisation = true, affine = Affine;

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, const Var<Channels, T>& x) {
    if constexpr (Affine) check_same_device(x.device(), self.weight.device(), Self::name);
    const GroupNormProblem problem{
        .n = x.n(), .pixels = x.h() * x.w(), .channels = Channels, .groups = Self::groups, .eps = Self::eps};
    const std::int64_t count = problem.pixels * Channels / Self::groups;
    if (count == 0 || (P::training && count < 2))
      throw ShapeError(concat(Self::name(), ": got images of ", x.h(), " x ", x.w(), " pixels, whose groups have ",
                              count, " numbers; a variance wants 2 or more"));
    const T *weight = nullptr, *bias = nullptr;
    if constexpr (Affine)
      weight = std::as_const(self.weight).template value<T>().data(),
      bias = std::as_const(self.bias).template value<T>().data();
    Tensor<T> numbers(Shape{problem.numbers()}, x.pool());
    Image<Channels, T> image(x.n(), x.h(), x.w(), x.pool());
    dispatch<T>(
        x.device(), [&] { cpu::group_norm_forward(problem, x.data(), weight, bias, image.data(), numbers.data()); },
        [&](auto& gpu) { gpu.group_norm_forward(problem, x.data(), weight, bias, image.data(), numbers.data()); });
    auto y = pass.output(std::move(image));
    if constexpr (P::training) {
      const auto step = [&self, problem, x, numbers, id = y.id()](Tape& tape) {
        GradientTarget<T> dweight, dbias;
        if constexpr (Affine) dweight = gradient_target<T>(self.weight), dbias = gradient_target<T>(self.bias);
        const auto dx = tape.target<T>(x.id());
        const T* const dy = tape.gradient<T>(id);
        dispatch<T>(
            x.device(),
            [&] {
              cpu::group_norm_backward(problem, x.data(), numbers.data(), dy, dx.data, dx.accumulate, dweight.data,
                                       dweight.accumulate, dbias.data, dbias.accumulate);
            },
            [&](auto& gpu) { gpu.group_norm_backward(problem, x.data(), numbers.data(), dy, dweight, dbias, dx); });
      };
      if constexpr (Affine)
        pass.tape()->record(y.id(), step, x, self.weight, self.bias);
      else
        pass.tape()->record(y.id(), step, x);
    }
    return y;
  }
};

}  // namespace detail

template <int Groups, int Channels, class Eps = std::ratio<1, 100000>>
class GroupNorm : public detail::GroupNormalisation<GroupNorm<Groups, Channels, Eps>, Channels, true> {
 public:
  static constexpr int groups = Groups;
  static constexpr double eps = double(Eps::num) / double(Eps::den);

  Parameter weight{Shape{Channels}, 1.0f};
  Parameter bias{Shape{Channels}};

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("bias", self.bias);
  }
  static constexpr void trace(auto& t) { t.looks_at_whole_image(); }
  static std::string name() { return concat("GroupNorm(", Groups, ", ", Channels, ", eps=", eps, ")"); }

  /// A group as one channel of an instance normalisation.
  static auto onnx(auto& self, const auto& input) {
    const auto x = input.as_image();
    const auto shape = x.template node<Channels>("Shape");
    const auto grouped =
        x.template node_of_other_size<Groups>("Reshape", {x.constant({3}, std::vector<std::int64_t>{0, Groups, -1})});
    const auto normal = grouped.template node<Groups>("InstanceNormalization",
                                                      {x.constant({Groups}, std::vector<float>(Groups, 1.0f)),
                                                       x.constant({Groups}, std::vector<float>(Groups, 0.0f))},
                                                      {{"epsilon", float(eps)}});
    return normal.template node_of_other_size<Channels>("Reshape", {shape.symbol().name})
        .template node<Channels>("Mul", {x.tensor(self.weight, {Channels, 1, 1})})
        .template node<Channels>("Add", {x.tensor(self.bias, {Channels, 1, 1})});
  }

  static_assert(Groups > 0 && Channels > 0, "strata::GroupNorm<Groups, Channels>: both must be positive");
  static_assert(Channels % Groups == 0, "strata::GroupNorm<Groups, Channels>: Channels must be a multiple of Groups");
};

/// As PyTorch's with its defaults: no weight, no bias, no running statistics.
template <int Channels, class Eps = std::ratio<1, 100000>>
class InstanceNorm2d : public detail::GroupNormalisation<InstanceNorm2d<Channels, Eps>, Channels, false> {
 public:
  static constexpr int groups = Channels;
  static constexpr double eps = double(Eps::num) / double(Eps::den);
  static constexpr bool has_state = false;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) { t.looks_at_whole_image(); }
  static std::string name() { return concat("InstanceNorm2d(", Channels, ", eps=", eps, ")"); }

  static auto onnx(auto&, const auto& input) {
    const auto x = input.as_image();
    return x.template node<Channels>("InstanceNormalization",
                                     {x.constant({Channels}, std::vector<float>(Channels, 1.0f)),
                                      x.constant({Channels}, std::vector<float>(Channels, 0.0f))},
                                     {{"epsilon", float(eps)}});
  }

  static_assert(Channels > 0, "strata::InstanceNorm2d<Channels>: Channels must be positive");
};

/// torch.nn.LayerNorm over the channels of each pixel.
template <int Channels, class Eps = std::ratio<1, 1000000>>
class LayerNorm2d : public Layer<LayerNorm2d<Channels, Eps>> {
 public:
  using io = maps<Channels, Channels>;
  static constexpr bool is_leaf_layer = true, is_normalisation = true;
  static constexpr double eps = double(Eps::num) / double(Eps::den);

  Parameter weight{Shape{Channels}, 1.0f};
  Parameter bias{Shape{Channels}};

  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("bias", self.bias);
  }
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape& x) {
    return {.kept = MemoryPool::block_bytes(std::size_t(2 * x.n() * x.h() * x.w()) * sizeof(float))};
  }
  static std::string name() { return concat("LayerNorm2d(", Channels, ", eps=", eps, ")"); }

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, const Var<Channels, T>& x) {
    check_same_device(x.device(), self.weight.device(), name);
    const std::int64_t pixels = x.size() / Channels;
    Image<Channels, T> image(x.n(), x.h(), x.w(), x.pool());
    const T* weight = std::as_const(self.weight).template value<T>().data();
    const T* bias = std::as_const(self.bias).template value<T>().data();
    const auto compute = [&](T* numbers) {
      detail::dispatch<T>(
          x.device(),
          [&] { cpu::layer_norm_forward<T>(pixels, Channels, eps, x.data(), weight, bias, image.data(), numbers); },
          [&](auto& gpu) {
            gpu.layer_norm_forward(pixels, Channels, eps, x.data(), weight, bias, image.data(), numbers);
          });
    };
    if constexpr (!P::training) {
      compute(nullptr);
      return pass.output(std::move(image));
    } else {
      Tensor<T> numbers(Shape{2 * pixels}, x.pool());
      compute(numbers.data());
      auto y = pass.output(std::move(image));
      pass.tape()->record(y.id(), [&self, pixels, x, numbers, id = y.id()](Tape& tape) {
        const auto dweight = detail::gradient_target<T>(self.weight), dbias = detail::gradient_target<T>(self.bias);
        const auto dx = tape.target<T>(x.id());
        const T* const w = std::as_const(self.weight).template value<T>().data();
        const T* const dy = tape.gradient<T>(id);
        detail::dispatch<T>(
            x.device(),
            [&] {
              cpu::layer_norm_backward(pixels, Channels, x.data(), numbers.data(), w, dy, dx.data, dx.accumulate,
                                       dweight.data, dweight.accumulate, dbias.data, dbias.accumulate);
            },
            [&](auto& gpu) {
              gpu.layer_norm_backward(pixels, Channels, x.data(), numbers.data(), w, dy, dweight, dbias, dx);
            });
      }, x, self.weight, self.bias);
      return y;
    }
  }

  static auto onnx(auto& self, const auto& x) {
    return x.as_image()
        .template node<Channels>("Transpose", {}, {{"perm", std::vector<std::int64_t>{0, 2, 3, 1}}})
        .template node<Channels>("LayerNormalization", {x.tensor(self.weight), x.tensor(self.bias)},
                                 {{"epsilon", float(eps)}})
        .template node<Channels>("Transpose", {}, {{"perm", std::vector<std::int64_t>{0, 3, 1, 2}}});
  }

  static_assert(Channels > 0, "strata::LayerNorm2d<Channels>: Channels must be positive");
};

}}  // namespace strata::STRATA_ABI
