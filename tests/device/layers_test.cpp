// Every layer, container, expression and loss gives on a device what it gives on the CPU, and host code never reads or
// writes the device's memory.
#include <doctest/doctest.h>

#include <ratio>
#include <span>
#include <vector>

#include "device/compare.hpp"
#include "device/host_accelerator.hpp"
#include "strata/nn/sync_batch_norm.hpp"

using namespace strata_test;

TEST_CASE("device: layers") {
  compare<3>(host_accelerator().device(), st::Conv2d<3, 5>(), 2, 7, 5);
  compare<3>(host_accelerator().device(), st::Conv2d<3, 4, 3, st::no_bias>(), 1, 4, 5);
  compare<2>(host_accelerator().device(), st::Conv2d<2, 3, 5, st::Conv2dOptions{.stride = 2, .padding = 2}>(), 2, 9, 8);
  compare<8>(host_accelerator().device(), st::Conv2d<8, 16>(), 1, 12, 12);
  compare<3>(host_accelerator().device(), st::BatchNorm2d<3>(), 2, 5, 4);
  compare<3>(host_accelerator().device(), st::SyncBatchNorm2d<3>(), 2, 5, 4);  // alone
  compare<6>(host_accelerator().device(), st::Linear<6, 4>(), 5, 1, 1);
  compare<6>(host_accelerator().device(), st::Linear<6, 1, false>(), 2, 1, 1);
  compare<3>(host_accelerator().device(), st::Sequential<st::Flatten<3, 2, 4>, st::Linear<24, 5>>(), 3, 2, 4);
  compare<3>(host_accelerator().device(), st::MaxPool2d<2>(), 2, 6, 4);
  compare<3>(host_accelerator().device(), st::MaxPool2d<3, 2>(), 1, 7, 9);
  compare<3>(host_accelerator().device(), st::AvgPool2d<2>(), 2, 6, 4);
  compare<3>(host_accelerator().device(), st::AvgPool2d<3, 1>(), 1, 5, 6);
  compare<3>(host_accelerator().device(), st::MaxPool2d<3, 2, 1>(), 1, 7, 9);
  compare<3>(host_accelerator().device(),
             st::AvgPool2d<3, 2, 1, st::AvgPool2dOptions{.ceil_mode = true, .count_include_pad = false}>(), 2, 6, 9);
  compare<3>(host_accelerator().device(), st::AdaptiveAvgPool2d<3, 2>(), 2, 7, 6);
  compare<3>(host_accelerator().device(), st::AdaptiveMaxPool2d<3, 2>(), 2, 7, 6);
  compare<3>(host_accelerator().device(), st::GELUOf<st::Approximate::tanh>(), 2, 5, 7);
  compare<3>(host_accelerator().device(), st::GlobalAvgPool2d(), 3, 5, 2);
  compare<8>(host_accelerator().device(), st::PixelShuffle<8, 2>(), 2, 3, 4);
  compare<2>(host_accelerator().device(), st::PixelUnshuffle<2, 3>(), 2, 6, 3);
  compare<3>(host_accelerator().device(), st::ReLU(), 2, 3, 5);
  compare<3>(host_accelerator().device(), st::LeakyReLU(), 2, 3, 5);
  compare<3>(host_accelerator().device(), st::PReLU<3>(), 2, 3, 5);
  compare<3>(host_accelerator().device(), st::PReLU<>(), 2, 3, 5);
  compare<3>(host_accelerator().device(), st::Dropout(), 2, 5, 7);
  compare<3>(host_accelerator().device(), st::Sigmoid(), 2, 5, 7);
  compare<3>(host_accelerator().device(), st::Tanh(), 2, 5, 7);
  compare<3>(host_accelerator().device(), st::SiLU(), 2, 5, 7);
  compare<3>(host_accelerator().device(), st::GELU(), 2, 5, 7);
  compare<3>(host_accelerator().device(), st::ConvTranspose2d<3, 5, 4>(), 2, 5, 7);
  compare<9>(host_accelerator().device(),
             st::ConvTranspose2d<9, 10, 3, st::ConvTranspose2dOptions{.stride = 1, .bias = false}>(), 1, 9, 8);
  compare<9>(host_accelerator().device(), st::DepthwiseConv2d<9>(), 2, 9, 8);
  compare<8>(host_accelerator().device(),
             st::Conv2d<8, 4, 3, st::Conv2dOptions{.groups = 2, .padding_mode = st::PaddingMode::reflect}>(), 1, 5, 6);
  compare<3>(host_accelerator().device(), st::Conv2d<3, 4, st::KernelSize{1, 5}>(), 1, 5, 6);
  compare<6>(host_accelerator().device(), st::GroupNorm<2, 6>(), 2, 5, 4);
  compare<3>(host_accelerator().device(), st::InstanceNorm2d<3>(), 2, 5, 4);
  compare<5>(host_accelerator().device(), st::LayerNorm2d<5>(), 2, 3, 4);
  compare<3>(host_accelerator().device(), st::Upsample<2>(), 2, 3, 4);
  compare<3>(host_accelerator().device(), st::Upsample<3, st::UpsampleMode::bilinear>(), 1, 3, 4);
  compare<3>(host_accelerator().device(), st::Resize<std::ratio<3, 2>, st::InterpolateMode::bicubic>(), 1, 6, 5);
}

TEST_CASE("device: neighbours that run as one step, and containers") {
  using st::BatchNorm2d;
  using st::Conv2d;
  using st::ReLU;
  using st::Sequential;
  // Cancellation in a batch norm's gradient leaves a few digits less.
  compare<2>(host_accelerator().device(), Sequential<Conv2d<2, 4>, ReLU>(), 2, 5, 6);
  compare<2>(host_accelerator().device(), Sequential<Conv2d<2, 4, 3, st::no_bias>, BatchNorm2d<4>, ReLU>(), 2, 5, 6,
             1e-4);
  compare<2>(host_accelerator().device(), Sequential<Conv2d<2, 4, 3, st::no_bias>, BatchNorm2d<4>>(), 2, 5, 6, 1e-4);
  compare<2>(host_accelerator().device(), Sequential<Conv2d<2, 4>, ReLU, BatchNorm2d<4>, ReLU>(), 2, 5, 6, 1e-4);
  compare<4>(host_accelerator().device(), Sequential<BatchNorm2d<4>, ReLU>(), 2, 5, 6, 1e-4);
  compare<1>(
      host_accelerator().device(),
      st::Residual<
          Sequential<Conv2d<1, 8>, ReLU, st::Repeat<3, Sequential<Conv2d<8, 8, 3, st::no_bias>, BatchNorm2d<8>, ReLU>>,
                     Conv2d<8, 1>>>(),
      2, 8, 9, 1e-4);

  // A bias in front of a batch norm has a gradient of 0, so that only rounding would be compared: the inference form
  // alone.
  Sequential<Conv2d<2, 4>, BatchNorm2d<4>, ReLU> net;
  st::initialize(net, 5);
  net.layer<0>().bias.value().fill(0.25f);
  net.layer<1>().running_mean.value().fill(0.5f);
  net.layer<1>().running_var.value().fill(2.0f);
  auto there = net;
  st::to(there, host_accelerator().device());
  st::Infer pass;
  const st::Image<2> x = random_image<2>(2, 5, 6, 1);
  check_close(there(pass, x.to(host_accelerator().device())).value(), net(pass, x).value(), "inference");
}

namespace {

/// A skip with arithmetic, a branch joined by its channels, and an operation of its own.
struct Free {
  using io = st::maps<2, 5>;
  st::Conv2d<2, 2> a;
  st::Conv2d<2, 3> b;
  static constexpr void visit(auto& self, auto&& f) {
    f("a", self.a);
    f("b", self.b);
  }
  template <class Self, st::Pass P>
  static auto run(Self& self, P& pass, const st::Var<2>& x) {
    const st::Var<2> y = x + 0.5f * self.a(pass, x);
    const auto doubled = st::custom_op(
        pass, [](const st::Image<2>& image) { return (image + image).value(); },
        [](const st::Image<2>& g, const st::Image<2>&, const st::Image<2>&) { return (g + g).value(); }, y);
    const auto weighted = y * st::expand_as(pass, st::GlobalAvgPool2d()(pass, y), y);
    const auto bordered = st::pad(pass, weighted, {.left = 1, .right = 2, .top = 1}, st::PaddingMode::reflect);
    const auto moved =
        st::resize_like(pass, st::crop(pass, bordered, 1, 0, 3, 4), y, {.mode = st::InterpolateMode::bilinear});
    const auto mean = st::mean_over_pixels(pass, moved);
    const auto level = st::expand_as(pass, st::as_var(pass, mean + st::sum_over_pixels(pass, y)), y);
    return st::cat(pass, doubled + weighted + moved + level, self.b(pass, y));
  }
  template <st::Pass P>
  auto operator()(P& pass, const st::Var<2>& x) {
    return run(*this, pass, x);
  }
  auto operator()(st::Infer& pass, const st::Var<2>& x) const { return run(*this, pass, x); }
};

/// The gradient of an expression of two watched images, here and there.
template <class F>
void compare_expression(F&& f) {
  const st::Device device = host_accelerator().device();
  st::Image<3> a = random_image<3>(2, 3, 5, 1), b = random_image<3>(2, 3, 5, 2);
  for (float& x : b.span()) x = 1.5f + 0.5f * x;  // for divisors, roots and logarithms
  st::Train here, there;
  const auto ha = here.watch(a), hb = here.watch(b), ta = there.watch(a.to(device)), tb = there.watch(b.to(device));
  const auto here_loss = f(ha, hb), there_loss = f(ta, tb);
  CHECK(there_loss.item() == doctest::Approx(here_loss.item()).epsilon(1e-5));
  here.backward(here_loss);
  there.backward(there_loss);
  check_close(there.gradient(ta), here.gradient(ha), "gradient of a");
  check_close(there.gradient(tb), here.gradient(hb), "gradient of b");
}

}  // namespace

namespace {

struct Scaled {
  using io = st::maps<3, 3>;
  st::Parameter beta{st::Shape{1, 3, 1, 1}, 0.5f}, gain{st::Shape{1}, 2.0f};
  static constexpr void visit(auto& self, auto&& f) {
    f("beta", self.beta);
    f("gain", self.gain);
  }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) { return st::as_var(pass, x * beta + gain / (square(x * gain) + beta)); }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const {
    return st::as_var(pass, x * beta + gain / (square(x * gain) + beta));
  }
};

}  // namespace

TEST_CASE("device: learned numbers in expressions") { compare<3>(host_accelerator().device(), Scaled(), 2, 5, 4); }

TEST_CASE("device: free forwards") { compare<2>(host_accelerator().device(), Free(), 2, 5, 4); }

TEST_CASE("device: expressions") {
  compare_expression([](const auto& a, const auto& b) { return mean(sqrt(square(a - b) + 1e-3f)); });
  compare_expression([](const auto& a, const auto& b) { return sum(abs(a) * b - a / b); });
  compare_expression([](const auto& a, const auto& b) {
    return mean(maximum(a, b) + minimum(a * a, b) - 2.0f * clamp(a, -0.5, 0.25));
  });
  compare_expression([](const auto& a, const auto& b) { return mean(exp(-a) + log(b)); });
  compare_expression([](const auto& a, const auto& b) { return mean(a * b) + 0.25f * sum(square(b)); });
  compare_expression([](const auto& a, const auto& b) {
    const st::Var<3> kept = a * b;  // computed, used twice
    return mean(square(kept) + kept);
  });
  compare_expression([](const auto& a, const auto& b) {
    return mean(st::relu(a) * st::leaky_relu(a, 0.2) + st::pow(b, 1.5) + st::gelu(a) - st::silu(b));
  });
  compare_expression([](const auto& a, const auto& b) { return mean(square(b * mean(a * a) - a)); });
  // The same memory as a value and as a constant: the constant takes no gradient.
  compare_expression([](const auto& a, const auto& b) { return mean(a * a.value() + b); });
  compare_expression([](const auto& a, const auto& b) { return mean(a.value() * b * a.value()) + mean(a); });
}

TEST_CASE("device: an image of one channel beside several") {
  const st::Device device = host_accelerator().device();
  const st::Image<3> a = random_image<3>(2, 3, 5, 1);
  st::Image<1> b = random_image<1>(2, 3, 5, 2);
  for (float& x : b.span()) x = 1.5f + 0.5f * x;
  const auto loss = [](const auto& x, const auto& one, const st::Image<1>& constant) {
    return mean(square(x * one - constant) / one + maximum(one, x) * sigmoid(one) + (one - x) * constant) + mean(one);
  };
  st::Train here, there;
  const auto ha = here.watch(a), ta = there.watch(a.to(device));
  const auto hb = here.watch(b), tb = there.watch(b.to(device));
  const auto here_loss = loss(ha, hb, b), there_loss = loss(ta, tb, b.to(device));
  CHECK(there_loss.item() == doctest::Approx(here_loss.item()).epsilon(1e-5));
  here.backward(here_loss);
  there.backward(there_loss);
  check_close(there.gradient(ta), here.gradient(ha), "gradient of the image");
  check_close(there.gradient(tb), here.gradient(hb), "gradient of its channel");
}

TEST_CASE("device: losses") {
  const st::Device device = host_accelerator().device();
  const st::Image<3> a = random_image<3>(2, 3, 5, 1), b = random_image<3>(2, 3, 5, 2);
  const auto both = [&](const auto& loss) {
    st::Train here, there;
    const auto ha = here.watch(a), ta = there.watch(a.to(device));
    const auto here_loss = loss(ha, b), there_loss = loss(ta, b.to(device));
    CHECK(there_loss.item() == doctest::Approx(here_loss.item()).epsilon(1e-5));
    here.backward(here_loss);
    there.backward(there_loss);
    check_close(there.gradient(ta), here.gradient(ha), "gradient");
  };
  both(st::MSELoss());
  both(st::MSELoss({.reduction = st::Reduction::half_sum}));
  both(st::L1Loss());
  both(st::CharbonnierLoss());
  both(st::HuberLoss({.delta = 0.3}));
  both(st::SmoothL1Loss({.beta = 0.3}));
  both(st::SmoothL1Loss({.beta = 0}));
  both(st::BCEWithLogitsLoss({.pos_weight = 2}));

  st::Tensor<st::Label> labels(st::Shape{30});
  for (std::int64_t i = 0; i < 30; ++i) labels.data()[i] = i % 3;
  const st::CrossEntropyLoss cross_entropy, smooth({.label_smoothing = 0.2});
  for (const bool labels_there : {false, true}) {
    st::Train here, there;
    const auto ha = here.watch(a), ta = there.watch(a.to(device));
    const auto& loss = labels_there ? smooth : cross_entropy;
    const auto here_loss = loss(ha, labels), there_loss = loss(ta, labels_there ? labels.to(device) : labels);
    CHECK(there_loss.item() == doctest::Approx(here_loss.item()).epsilon(1e-5));
    here.backward(here_loss);
    there.backward(there_loss);
    check_close(there.gradient(ta), here.gradient(ha), "gradient");
  }
  CHECK(st::CrossEntropyLoss({.label_smoothing = 0.1})(a.to(device), labels).item() ==
        doctest::Approx(st::CrossEntropyLoss({.label_smoothing = 0.1})(a, labels).item()).epsilon(1e-5));
  CHECK_THROWS_WITH_AS(st::CrossEntropyLoss({.weight = {1, 2, 3}})(a.to(device), labels),
                       doctest::Contains("there are no class weights and ignored labels on cuda:0"), st::DeviceError);
  labels.data()[7] = 3;
  CHECK_THROWS_AS(cross_entropy(a.to(device), labels), st::ValueError);
  CHECK(std::isnan(cross_entropy(a.to(device), labels.to(device)).item()));
  CHECK_THROWS_AS(cross_entropy(a, labels.to(device)), st::DeviceError);
}

TEST_CASE("device: mistakes are told") {
  const st::Device device = host_accelerator().device();
  const st::Image<2> x = random_image<2>(1, 4, 4, 1), there = x.to(device);
  st::Conv2d<2, 2> conv;
  st::Infer pass;
  CHECK_THROWS_WITH_AS(conv(pass, there), doctest::Contains("the images are on cuda:0 and the layer's weights on cpu"),
                       st::DeviceError);
  st::to(conv, device);
  CHECK_THROWS_WITH_AS(conv(pass, x), doctest::Contains("the images are on cpu and the layer's weights on cuda:0"),
                       st::DeviceError);
  CHECK_THROWS_WITH_AS(mean(x - there), doctest::Contains("different devices: cpu and cuda:0"), st::DeviceError);
  CHECK_THROWS_AS(st::cat(pass, x, there), st::DeviceError);
  CHECK_THROWS_WITH_AS((void)st::sum_over_channels(pass, there), doctest::Contains("runs on the cpu"), st::DeviceError);
  CHECK_THROWS_WITH_AS(st::psnr(there, there), doctest::Contains("psnr: the numbers are on cuda:0"), st::DeviceError);
  CHECK_THROWS_AS(st::to<double>(conv), st::DeviceError);
  st::BatchNorm2d<2> norm;
  CHECK_THROWS_AS(norm(pass, there), st::DeviceError);
  st::GroupNorm<1, 2> group_norm;
  st::LayerNorm2d<2> layer_norm;
  st::to(group_norm, device);
  st::to(layer_norm, device);
  CHECK_THROWS_WITH_AS(group_norm(pass, x), doctest::Contains("layer's weights on cuda:0"), st::DeviceError);
  CHECK_THROWS_WITH_AS(layer_norm(pass, x), doctest::Contains("layer's weights on cuda:0"), st::DeviceError);
  st::DepthwiseConv2d<2> depthwise;
  CHECK_THROWS_WITH_AS(depthwise(pass, there),
                       doctest::Contains("the images are on cuda:0 and the layer's weights on cpu"), st::DeviceError);
  st::to(depthwise, device);
  CHECK_NOTHROW(depthwise(pass, there));
  st::Train train;
  CHECK_THROWS_AS(depthwise(train, x), st::DeviceError);
  struct Two : st::BatchGroup {
    int parts() const override { return 2; }
    int own_parts() const override { return 1; }
    std::vector<double> gather(std::span<const double>) override { return {}; }
  } two;
  st::Train shared({.batch = &two});
  st::SyncBatchNorm2d<2> sync;
  st::to(sync, device);
  CHECK_THROWS_WITH_AS(sync(shared, there), doctest::Contains("several shards on the cpu only"), st::DeviceError);
  st::Sequential<st::Conv2d<2, 2>, st::SyncBatchNorm2d<2>> fused;
  st::to(fused, device);
  CHECK_THROWS_WITH_AS(fused(shared, there), doctest::Contains("SyncBatchNorm2d(2"), st::DeviceError);

  const st::Tensor<double> doubles = st::Tensor<double>::full(st::Shape{1, 2, 4, 4}, 1.0).to(device);
  CHECK_THROWS_WITH_AS(mean(st::Image<2, double>(doubles)), doctest::Contains("float64 on cuda:0"), st::DeviceError);
  CHECK_THROWS_AS(st::ReLU()(pass, st::Image<2, double>(doubles)), st::DeviceError);
}

TEST_CASE("device: the precision of a pass reaches the kernels, and the CPU has no tf32") {
  HostAccelerator& gpu = host_accelerator();
  const st::Image<2> x = random_image<2>(1, 4, 4, 1);
  st::Conv2d<2, 2> conv;
  CHECK_THROWS_AS(([&] {
                    st::Infer pass({.precision = st::Precision::tf32});
                    conv(pass, x);
                  }()),
                  st::ValueError);
  st::to(conv, gpu.device());
  st::Train pass({.precision = st::Precision::tf32});
  const auto loss = mean(square(conv(pass, x.to(gpu.device()))));
  CHECK(gpu.last_precision == st::Precision::tf32);
  gpu.last_precision = st::Precision::fp32;
  pass.backward(loss);
  CHECK(gpu.last_precision == st::Precision::tf32);
}
