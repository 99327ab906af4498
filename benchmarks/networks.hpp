// The networks that are timed, each once: how it is trained, and what runs after training with batch norm folded into
// the convolutions. benchmarks/peers/networks.py names the same ones.
//
//     bench::for_each_network([]<class Train, class Infer>(const char* name) { ... });
#pragma once

#include <cstdint>

#include "strata/strata.hpp"

namespace bench {

namespace st = strata;

template <int Channels, int Width, int Depth>
using DnCNN = st::Residual<st::Sequential<
    st::Conv2d<Channels, Width>, st::ReLU,
    st::Repeat<Depth - 2, st::Sequential<st::Conv2d<Width, Width, 3, st::no_bias>, st::BatchNorm2d<Width>, st::ReLU>>,
    st::Conv2d<Width, Channels>>>;

template <int Channels, int Width, int Depth>
using FoldedDnCNN =
    st::Residual<st::Sequential<st::Conv2d<Channels, Width>, st::ReLU,
                                st::Repeat<Depth - 2, st::Sequential<st::Conv2d<Width, Width>, st::ReLU>>,
                                st::Conv2d<Width, Channels>>>;

/// Kim, Lee, Lee: "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016: y = x + f(x).
struct VDSR {
  using io = st::maps<1, 1>;
  st::Sequential<st::Conv2d<1, 64>, st::ReLU, st::Repeat<18, st::Sequential<st::Conv2d<64, 64>, st::ReLU>>,
                 st::Conv2d<64, 1>>
      body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) {
    return x + body(pass, x);
  }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const {
    return x + body(pass, x);
  }
};

/// Dong, Loy, He, Tang: "Image Super-Resolution Using Deep Convolutional Networks", TPAMI 2016, its 9-1-5 form.
using SRCNN = st::Sequential<st::Conv2d<1, 64, 9>, st::ReLU, st::Conv2d<64, 32, 1>, st::ReLU, st::Conv2d<32, 1, 5>>;

/// Calls use.operator()<Train, Infer>(name) for every network.
template <class Use>
void for_each_network(Use&& use) {
  use.template operator()<DnCNN<1, 64, 17>, FoldedDnCNN<1, 64, 17>>("dncnn17");
  use.template operator()<DnCNN<1, 32, 8>, FoldedDnCNN<1, 32, 8>>("dncnn8x32");
  use.template operator()<DnCNN<1, 48, 17>, FoldedDnCNN<1, 48, 17>>("dncnn17x48");
  use.template operator()<DnCNN<1, 96, 17>, FoldedDnCNN<1, 96, 17>>("dncnn17x96");
  use.template operator()<DnCNN<3, 64, 17>, FoldedDnCNN<3, 64, 17>>("dncnn17rgb");
  use.template operator()<VDSR, VDSR>("vdsr");
  use.template operator()<SRCNN, SRCNN>("srcnn");
}

template <int C>
st::Image<C> random_images(std::int64_t n, std::int64_t h, std::int64_t w, std::uint64_t seed) {
  st::Image<C> image(n, h, w);
  st::Rng rng(seed);
  for (float& x : image.span()) x = rng.uniform();
  return image;
}

/// Calls use(precision, name behind the network's) for what convolutions multiply in on this processor.
template <class Use>
void for_each_precision(Use&& use) {
  use(st::Precision::fp32, "");
  if (st::cpu::bfloat16_instructions) use(st::Precision::bf16, "_bf16");
}

/// A network with its data and optimiser; step() trains it once, to give random numbers.
template <class Net>
class TrainingStep {
 public:
  TrainingStep(std::int64_t n, std::int64_t h, std::int64_t w, st::Precision precision = st::Precision::fp32,
               double lr = 1e-3)
      : sgd_(net_, {.lr = lr, .momentum = 0.9}), precision_(precision), input_(random_images<Net::io::in>(n, h, w, 1)) {
    const st::Extents result = st::output_extents<Net>(h, w);
    target_ = random_images<Net::io::out>(n, result.h, result.w, 2);
  }

  void operator()() {
    st::Train pass({.seed = 1, .step = step_++, .precision = precision_});
    const auto loss = mse_(net_(pass, input_), target_);
    sgd_.zero_grad();
    pass.backward(loss);
    sgd_.step();
  }

 private:
  Net net_;
  st::SGD sgd_;
  st::MSELoss mse_;
  st::Precision precision_;
  st::Image<Net::io::in> input_;
  st::Image<Net::io::out> target_;
  std::int64_t step_ = 0;
};

/// A network with an image to run it on.
template <class Net>
class Inference {
 public:
  Inference(std::int64_t n, std::int64_t h, std::int64_t w, st::Precision precision = st::Precision::fp32)
      : precision_(precision), input_(random_images<Net::io::in>(n, h, w, 1)) {}

  void operator()() {
    st::Infer pass({.precision = precision_});
    const st::Image<Net::io::out> output = st::as_var(net_(pass, input_)).value();
    last_ = output.data()[0];
  }

 private:
  const Net net_{};
  st::Precision precision_;
  st::Image<Net::io::in> input_;
  volatile float last_ = 0;
};

/// Floating-point operations of a direct convolution for n images; training counts three times the forward pass.
template <class Net>
double operations(std::int64_t n, std::int64_t h, std::int64_t w, bool training) {
  return (training ? 6.0 : 2.0) * double(n) * double(st::multiply_adds<Net>(h, w));
}

}  // namespace bench
