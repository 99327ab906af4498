// A denoiser for every noise level in one network: it gets the image and a map of the noise's standard deviation as one
// more channel, and works at half the resolution, which costs a quarter. After FFDNet (Zhang, Zuo and Zhang, "FFDNet:
// Toward a Fast and Flexible Solution for CNN-based Image Denoising", IEEE Transactions on Image Processing, 2018), with
// residual blocks in place of its chain of convolutions with batch norm, and the noise as what is predicted.
#pragma once

#include <cstdint>

#include "../common/residual_block.hpp"
#include "strata/strata.hpp"

namespace ffdnet {

namespace st = strata;

/// y = image - body(image, noise map).
template <int Channels, class Body>
struct NoiseMapDenoiser : st::Layer<NoiseMapDenoiser<Channels, Body>> {
  using io = st::maps<Channels + 1, Channels>;
  Body body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }

  static constexpr auto join(auto& pass, const auto& x, const auto& noise) { return st::narrow<0, Channels>(pass, x) - noise; }
  static constexpr auto forward(auto& self, auto& pass, const auto& x) { return join(pass, x, self.body(pass, x)); }
};

/// Input: Channels of the image in [0, 1], then one with the standard deviation of the noise at each pixel, on the same
/// scale (sigma 25 is 25 / 255). Height and width must be even.
template <int Channels = 1, int Width = 64, int Blocks = 5>
using FFDNet = NoiseMapDenoiser<Channels, st::Sequential<                  //
                                              st::PixelUnshuffle<Channels + 1, 2>,                  //
                                              st::Conv2d<4 * (Channels + 1), Width>, st::ReLU,      //
                                              st::Repeat<Blocks, blocks::ResidualBlock<Width>>,     //
                                              st::Conv2d<Width, 4 * Channels>,                      //
                                              st::PixelShuffle<4 * Channels, 2>>>;

/// Draws the weights. The network starts by taking nothing away, which saves many steps.
template <int Channels, class Body>
void start(NoiseMapDenoiser<Channels, Body>& net, std::uint64_t seed) {
  st::initialize(net, seed);
  for (auto& block : net.body.template layer<3>().blocks) blocks::start_as_identity(block);
  net.body.template layer<4>().weight.reset();
}

}  // namespace ffdnet
