// Every layer against PyTorch, forward and backward, in float and double. tests/golden/layers.py makes the golden file.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>

#include "nn/golden_file.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/io/weights.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/group_norm.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/summary.hpp"
#include "strata/nn/upsample.hpp"
#include "test_data.hpp"

namespace st = strata;

namespace {

const auto path = strata_test::golden("golden/layers.safetensors");

template <class T>
st::Tensor<T> golden(const std::string& name) {
  return strata_test::golden_tensor<T>(path, name);
}
template <class T>
void compare(const std::string& name, const st::Shape& shape, const T* got) {
  strata_test::compare_with_golden(path, name, shape, got);
}

template <class T, class Net>
void check_as(const std::string& name) {
  Net net;
  if constexpr (st::detail::holds_state<Net>) {
    st::load_weights(path, net, {.prefix = name + ".state."});
    st::to<T>(net);
  }
  const st::Tensor<T> x = golden<T>(name + ".x");
  constexpr int in = [] {
    if constexpr (requires { Net::io::in; })
      return Net::io::in;
    else
      return 0;
  }();
  const auto run = [&]<int C>(std::integral_constant<int, C>) {
    const st::Image<C, T> image(x);
    st::Infer infer;
    const auto inferred = st::as_var(std::as_const(net)(infer, image));
    compare(name + ".infer", inferred.shape(), inferred.data());

    st::Train pass;
    const auto watched = pass.watch(image);
    const auto y = st::as_var(net(pass, watched));
    compare(name + ".y", y.shape(), y.data());
    pass.backward(sum(y * std::remove_cvref_t<decltype(y.value())>(golden<T>(name + ".gy"))));
    const auto gx = pass.gradient(watched);
    compare(name + ".gx", gx.shape(), gx.data());
    st::for_each_parameter(net, [&](const std::string& key, st::Parameter& parameter) {
      compare(name + ".grad." + key, parameter.shape(), parameter.grad<T>().data());
    });
  };
  if constexpr (in != 0)
    run(std::integral_constant<int, in>{});
  else  // a layer for any number of channels: those that the golden inputs have
    switch (x.shape().c()) {
      case 2: run(std::integral_constant<int, 2>{}); break;
      case 3: run(std::integral_constant<int, 3>{}); break;
      case 5: run(std::integral_constant<int, 5>{}); break;
      default: FAIL("no case for ", x.shape().c(), " channels");
    }
}

template <class Net>
void check(const std::string& name) {
  CAPTURE(name);
  check_as<float, Net>(name);
  check_as<double, Net>(name);
}

}  // namespace

TEST_CASE("convolutions equal PyTorch's") {
  check<st::Conv2d<3, 5>>("conv");
  check<st::Conv2d<3, 5>>("conv_one_pixel");
  check<st::Conv2d<2, 3, 3, st::Conv2dOptions{.padding = 0}>>("conv_valid");
  check<st::Conv2d<4, 6, 5, st::Conv2dOptions{.stride = 2, .padding = 2}>>("conv_stride");
  check<st::Conv2d<8, 8, 3, st::Conv2dOptions{.dilation = 2, .bias = false}>>("conv_dilated");
  check<st::Conv2d<3, 4, 4, st::Conv2dOptions{.stride = 2, .padding = 1}>>("conv_even");
  check<st::Conv2d<7, 9, 1>>("conv_1x1");
  check<st::Conv2d<16, 16>>("conv_wide");
}

TEST_CASE("depthwise convolutions equal PyTorch's") {
  check<st::DepthwiseConv2d<5>>("depthwise");
  check<st::DepthwiseConv2d<19, 3, st::Conv2dOptions{.stride = 2, .bias = false}>>("depthwise_stride");
  check<st::DepthwiseConv2d<8, 5, st::Conv2dOptions{.padding = 3, .dilation = 2}>>("depthwise_dilated");
  check<st::DepthwiseConv2d<17, 7>>("depthwise_large");
}

TEST_CASE("transposed convolutions equal PyTorch's") {
  check<st::ConvTranspose2d<3, 5, 4>>("conv_transpose");
  check<st::ConvTranspose2d<3, 2, 3>>("conv_transpose_odd");
  check<st::ConvTranspose2d<8, 1, 9, st::ConvTranspose2dOptions{.stride = 3}>>("conv_transpose_large");
  check<st::ConvTranspose2d<9, 10, 3, st::ConvTranspose2dOptions{.stride = 1, .bias = false}>>("conv_transpose_same");
  using Net = st::Sequential<st::Conv2d<1, 8>, st::ConvTranspose2d<8, 8, 4>,
                             st::ConvTranspose2d<8, 1, 9, st::ConvTranspose2dOptions{.stride = 3}>>;
  static_assert(st::output_extents<Net>(10, 7).h == 60 && st::receptive_field<Net> == 5);
  CHECK(st::ConvTranspose2d<3, 2, 3>::name() ==
        "ConvTranspose2d(3, 2, kernel_size=3, stride=2, padding=1, output_padding=1)");
}

TEST_CASE("activations equal PyTorch's") {
  check<st::Sigmoid>("sigmoid");
  check<st::Tanh>("tanh");
  check<st::SiLU>("silu");
  check<st::GELU>("gelu");
  check<st::ELU>("elu");
  check<st::ELUOf<std::ratio<1, 2>>>("elu_half");
  check<st::Softplus>("softplus");
  check<st::Mish>("mish");
  check<st::ReLU6>("relu6");
  check_as<float, st::Hardsigmoid>("hardsigmoid");  // PyTorch's gradient has 1/6 in float32
  check<st::Hardswish>("hardswish");
}

TEST_CASE("upsampling equals PyTorch's") {
  using st::UpsampleMode;
  check<st::Upsample<2>>("upsample");
  check<st::Upsample<3>>("upsample_3");
  check<st::Upsample<2, UpsampleMode::bilinear>>("upsample_bilinear");
  check<st::Upsample<3, UpsampleMode::bilinear>>("upsample_bilinear_3");
  check<st::Upsample<4, UpsampleMode::bilinear>>("upsample_bilinear_4");
  using Net = st::Sequential<st::Conv2d<1, 8>, st::Upsample<2>, st::Conv2d<8, 1>>;
  static_assert(st::output_extents<Net>(10, 7).h == 20 && st::receptive_field<Net> == 4);
  using Smooth = st::Sequential<st::Conv2d<1, 8>, st::Upsample<2, UpsampleMode::bilinear>>;
  static_assert(st::output_extents<Smooth>(10, 7).w == 14 && st::receptive_field<Smooth> == 4);
}

TEST_CASE("normalisations of each image equal PyTorch's") {
  check<st::GroupNorm<2, 6>>("group_norm");
  check<st::GroupNorm<1, 20, std::ratio<1, 100>>>("group_norm_all");
  check<st::GroupNorm<9, 9>>("group_norm_each");
  check<st::InstanceNorm2d<5>>("instance_norm");
  check<st::LayerNorm2d<5>>("layer_norm");
  check<st::LayerNorm2d<35, std::ratio<1, 1000>>>("layer_norm_wide");
  const auto frozen = []<class Norm>(Norm layer) {
    layer.weight.requires_grad = false;
    st::Image<6> x(2, 3, 4);
    st::Rng(1).fill_normal(x.span(), 0, 1);
    st::Train step;
    step.backward(sum(square(layer(step, x))));
    CHECK_FALSE(layer.weight.has_grad());
    CHECK(layer.bias.has_grad());
  };
  frozen(st::GroupNorm<2, 6>());
  frozen(st::LayerNorm2d<6>());
  st::InstanceNorm2d<2> norm;
  st::Train pass;
  CHECK_THROWS_WITH_AS((void)norm(pass, st::Image<2>(3, 1, 1)), doctest::Contains("2 or more"), st::ShapeError);
}

TEST_CASE("batch norm equals PyTorch's") {
  check<st::BatchNorm2d<5>>("batch_norm");
  check<st::BatchNorm2d<9, std::ratio<1, 100>, std::ratio<3, 10>>>("batch_norm_options");
}

TEST_CASE("rectifiers equal PyTorch's, at 0 too") {
  check<st::ReLU>("relu");
  check<st::LeakyReLU>("leaky_relu");
  check<st::LeakyReLUOf<std::ratio<1, 5>>>("leaky_relu_fifth");
  check<st::PReLU<>>("prelu");
  check<st::PReLU<5>>("prelu_channels");
}

TEST_CASE("pooling equals PyTorch's, for equal numbers too") {
  check<st::MaxPool2d<2>>("max_pool");
  check<st::MaxPool2d<3, 2>>("max_pool_overlapping");
  check<st::MaxPool2d<3, 1>>("max_pool_dense");
  check<st::AvgPool2d<2>>("avg_pool");
  check<st::AvgPool2d<3, 2>>("avg_pool_overlapping");
  check<st::GlobalAvgPool2d>("global_avg_pool");
  check<st::PixelShuffle<12, 2>>("pixel_shuffle");
  check<st::PixelShuffle<18, 3>>("pixel_shuffle_3");
}

TEST_CASE("linear layers equal PyTorch's") {
  check<st::Flatten<3, 4, 5>>("flatten");
  check<st::Linear<7, 4>>("linear");
  check<st::Linear<5, 3, false>>("linear_no_bias");
}

TEST_CASE("a small DnCNN equals PyTorch's") {
  check<st::Residual<
      st::Sequential<st::Conv2d<1, 6>, st::ReLU,
                     st::Repeat<2, st::Sequential<st::Conv2d<6, 6, 3, st::no_bias>, st::BatchNorm2d<6>, st::ReLU>>,
                     st::Conv2d<6, 1>>>>("dncnn");
}

TEST_CASE("running statistics over steps equal PyTorch's") {
  st::BatchNorm2d<3> norm;
  for (int step = 0; step < 3; ++step) {
    const std::string name = "steps." + std::to_string(step);
    st::Train pass;
    norm(pass, st::Image<3>(golden<float>(name + ".x")));
    compare(name + ".running_mean", st::Shape{3}, norm.running_mean.value().data());
    compare(name + ".running_var", st::Shape{3}, norm.running_var.value().data());
    CHECK(norm.num_batches_tracked.value<std::int64_t>().data()[0] == step + 1);
  }
}

namespace {

template <class T, class Loss, class Target>
void check_loss(const std::string& name, const Loss& loss, const Target& target) {
  CAPTURE(name);
  st::Train pass;
  const auto prediction = pass.watch(st::Image<3, T>(golden<T>("loss.prediction")));
  const st::Scalar<T> value = loss(prediction, target);
  const T item = value.item();
  compare(name + ".value", st::Shape{1}, &item);
  pass.backward(value);
  const auto gradient = pass.gradient(prediction);
  compare(name + ".gradient", gradient.shape(), gradient.data());
}

template <class T>
void check_losses() {
  const st::Image<3, T> target(golden<T>("loss.target"));
  check_loss<T>("mse_mean", st::MSELoss(), target);
  check_loss<T>("mse_sum", st::MSELoss({.reduction = st::Reduction::sum}), target);
  check_loss<T>("l1_mean", st::L1Loss(), target);
  check_loss<T>("l1_sum", st::L1Loss({.reduction = st::Reduction::sum}), target);
  check_loss<T>("charbonnier", st::CharbonnierLoss({.epsilon = 0.1}), target);
  const auto labels = golden<st::Label>("loss.labels");
  check_loss<T>("cross_entropy_mean", st::CrossEntropyLoss(), labels);
  check_loss<T>("cross_entropy_sum", st::CrossEntropyLoss({.reduction = st::Reduction::sum}), labels);
}

}  // namespace

namespace {

/// That a change of what the layer has read, or a move of its parameters, is found before anything goes back.
template <class Layer, int C>
void check_guards(const char* what, int size = 4) {
  CAPTURE(what);
  st::Image<C> x = st::Image<C>::full(3, size, size, 0.5f);
  for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = float(i % 7) - 3;
  const auto run = [&](auto&& change, const char* text) {
    Layer layer;
    Layer other = layer;
    st::Image<C> in = x.clone();
    st::Train pass;
    const auto loss = sum(square(layer(pass, in)));
    change(layer, other, in);
    CAPTURE(text);
    if (*text == 0)
      CHECK_NOTHROW(pass.backward(loss));
    else
      CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains(text), st::Error);
  };
  const auto first = [](Layer& layer) -> st::Parameter& {
    st::Parameter* found = nullptr;
    st::for_each_parameter(layer, [&](const std::string&, st::Parameter& p) { found = found == nullptr ? &p : found; });
    return *found;
  };
  run([&](Layer& layer, Layer&, auto&) { first(layer).value().data()[0] += 1; }, "a parameter of shape");
  run([&](Layer& layer, Layer& other, auto&) { layer = other; }, "a parameter of shape");
  run([&](Layer& layer, Layer&, auto&) { const Layer moved = std::move(layer); }, "was moved");
  run([&](Layer&, Layer&, auto& in) { in.data()[1] += 1; }, "have changed in place");
  run([&](Layer& layer, Layer&, auto& in) { CHECK(std::isfinite(first(layer).value().data()[0] + in.data()[0])); }, "");
  {  // used twice in a pass: the second use only reads
    Layer layer;
    st::Train pass;
    const auto a = layer(pass, x), b = layer(pass, x);
    CHECK_NOTHROW(pass.backward(sum(square(a)) + sum(square(b))));
  }
}

}  // namespace

TEST_CASE("layers notice that what they have read has changed") {
  check_guards<st::Conv2d<2, 3>, 2>("Conv2d");
  check_guards<st::Sequential<st::Conv2d<2, 3>, st::ReLU>, 2>("Conv2d, ReLU");
  check_guards<st::Sequential<st::Conv2d<2, 3>, st::BatchNorm2d<3>, st::ReLU, st::Conv2d<3, 2>>, 2>(
      "Conv2d, BatchNorm2d, ReLU");
  check_guards<st::DepthwiseConv2d<3>, 3>("DepthwiseConv2d");
  check_guards<st::ConvTranspose2d<2, 3, 4>, 2>("ConvTranspose2d");
  check_guards<st::Linear<4, 3>, 4>("Linear", 1);
  check_guards<st::BatchNorm2d<3>, 3>("BatchNorm2d");
  check_guards<st::GroupNorm<2, 4>, 4>("GroupNorm");
  check_guards<st::LayerNorm2d<4>, 4>("LayerNorm2d");
  check_guards<st::PReLU<3>, 3>("PReLU");

  st::Tensor<st::Label> labels = st::Tensor<st::Label>::zeros(st::Shape{2});
  st::Linear<4, 3> classifier;
  st::Train pass;
  const auto loss = st::CrossEntropyLoss()(classifier(pass, st::Image<4>::full(2, 1, 1, 1)), labels);
  labels.data()[0] = 2;
  CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains("have changed in place"), st::Error);
}

TEST_CASE("losses equal PyTorch's") {
  check_losses<float>();
  check_losses<double>();
}
