// Networks that go to other programs: between them they have every layer, and modules of a user's own.
#pragma once

#include "../../examples/ffdnet/networks.hpp"
#include "../../examples/super_resolution/networks.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/io/onnx_export.hpp"
#include "strata/nn/spectral_norm.hpp"
#include "strata/strata.hpp"

namespace interchange {

namespace st = strata;

/// DnCNN: a chain in a chain, batch norm to be folded, y = x - f(x).
using Denoiser = st::Residual<st::Sequential<                                                         //
    st::Conv2d<1, 8>, st::ReLU,                                                                       //
    st::Repeat<3, st::Sequential<st::Conv2d<8, 8, 3, st::no_bias>, st::BatchNorm2d<8>, st::ReLU>>,    //
    st::Conv2d<8, 1>>>;

/// y = x + 0.5 f(x), as plain C++.
template <int C>
struct ScaledBlock {
  using io = st::maps<C, C>;
  st::Sequential<st::Conv2d<C, C>, st::PReLU<C>, st::Conv2d<C, C, 3, st::Conv2dOptions{.padding = 2, .dilation = 2}>>
      body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) { return x + 0.5f * body(pass, x); }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const { return x + 0.5f * body(pass, x); }
};

/// Two scales joined, all arithmetic, an up-scaling by pixels. As an Infer pass alone takes it.
struct Upscaler {
  using io = st::maps<2, 3>;
  st::Sequential<st::PixelUnshuffle<2, 2>, st::Conv2d<8, 6>, st::LeakyReLUOf<std::ratio<1, 5>>,
                 st::Repeat<2, ScaledBlock<6>>, st::PReLU<>, st::Conv2d<6, 8, 1>, st::Tanh,
                 st::ConvTranspose2d<8, 2, 4>>
      coarse;
  st::Sequential<st::Conv2d<2, 2, 5>, st::BatchNorm2d<2>> fine;  // its output is used twice
  st::Sequential<st::GlobalAvgPool2d, st::Conv2d<2, 2, 1>, st::Sigmoid> gate;
  st::Sequential<st::Conv2d<4, 12>, st::SiLU, st::PixelShuffle<12, 2>> join;

  static constexpr void visit(auto& self, auto&& f) {
    f("coarse", self.coarse);
    f("fine", self.fine);
    f("gate", self.gate);
    f("join", self.join);
  }
  auto operator()(st::Infer& pass, const auto& x) const {
    const auto a = coarse(pass, x), b = fine(pass, x);
    const auto c = minimum(maximum(a, b), abs(a) + 0.1f) / (exp(-square(b)) + sqrt(square(a) + 1e-3f));
    const auto y = join(pass, st::cat(pass, c - b * st::expand_as(pass, gate(pass, b), b), log(abs(b) + 1.0f)));
    return clamp(y, -0.5, 1.5) * 2;
  }
};

/// A classifier of images of any size from 8 x 8 on.
using Classifier = st::Sequential<st::Conv2d<1, 6, 3, st::Conv2dOptions{.stride = 2, .padding = 0}>, st::BatchNorm2d<6>,
                                  st::ReLU, st::Dropout, st::MaxPool2d<2, 1>, st::AvgPool2d<2>, st::GlobalAvgPool2d,
                                  st::Linear<6, 8>, st::PReLU<8>, st::Linear<8, 4>, st::Sigmoid>;

/// A classifier of images of one size, whose result goes back to an image.
using FixedClassifier = st::Sequential<st::PixelUnshuffle<1, 2>, st::Conv2d<4, 5>, st::ReLU, st::Flatten<5, 4, 6>,
                                       st::Linear<120, 7, false>, st::ReLU, st::Conv2d<7, 3, 1>>;

/// Blocks with normalisation of each image, a gate between halves of the channels, pixels repeated and interpolated.
struct Gated {
  using io = st::maps<3, 2>;
  st::Sequential<st::Conv2d<3, 12>, st::GroupNorm<3, 12>, st::GELU> head;
  st::Sequential<st::DepthwiseConv2d<12, 5>, st::LayerNorm2d<12>, st::Conv2d<12, 12, 1>, st::ELU, st::Upsample<2>> left;
  st::Sequential<st::InstanceNorm2d<12>, st::Hardswish, st::Softplus, st::Upsample<2, st::UpsampleMode::bilinear>>
      right;
  st::Conv2d<6, 2> tail;

  static constexpr void visit(auto& self, auto&& f) {
    f("head", self.head);
    f("left", self.left);
    f("right", self.right);
    f("tail", self.tail);
  }
  auto operator()(st::Infer& pass, const auto& x) const {
    const auto y = head(pass, x);
    const auto sum = 0.25f * (left(pass, y) + right(pass, y));
    const auto halves = st::chunk<2>(pass, sum);
    return tail(pass, halves[0] * halves[1]);
  }
};

/// One channel beside several, weights made of others, parts of an image of any size.
struct Masked {
  using io = st::maps<3, 5>;
  st::SpectralNorm<st::Conv2d<3, 8>> head;
  st::Sequential<st::GELUOf<st::Approximate::tanh>, st::WeightNorm<st::Conv2d<8, 1, 1>>> mask;
  st::Sequential<st::AdaptiveMaxPool2d<3, 2>, st::SpectralNorm<st::ConvTranspose2d<8, 5, 4>>, st::LogSoftmax2d> tail;

  static constexpr void visit(auto& self, auto&& f) {
    f("head", self.head);
    f("mask", self.mask);
    f("tail", self.tail);
  }
  auto operator()(st::Infer& pass, const auto& x) const {
    const auto y = head(pass, x);
    const auto m = mask(pass, y);
    return tail(pass, st::as_var(pass, y * sigmoid(m) + minimum(m, y) / (1.0 + square(m))));
  }
};

/// Networks of the examples, smaller: a noise map as a channel, half the resolution; pixels from channels.
using ColourDenoiser = ffdnet::FFDNet<3, 16, 2>;
using Resolution = super_resolution::SuperResolution<12, 2>;

/// For a deploy form with a batch norm that no convolution takes, before a ReLU and at the end.
using Norms = st::Sequential<st::BatchNorm2d<2>, st::ReLU, st::Dropout, st::Conv2d<2, 5>, st::BatchNorm2d<5>,
                             st::LeakyReLU, st::BatchNorm2d<5>>;

}  // namespace interchange
