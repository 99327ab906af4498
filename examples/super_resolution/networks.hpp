// Super-resolution by a factor of 2: everything happens at the small size, and the last layer's channels become pixels, as
// in ESPCN (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
// Neural Network", CVPR 2016), with residual blocks as in EDSR.
#pragma once

#include <cstdint>

#include "../common/residual_block.hpp"
#include "strata/strata.hpp"

namespace super_resolution {

namespace st = strata;

inline constexpr int factor = 2;

/// y = x once for each pixel that it becomes + body(x): factor * factor channels.
template <class Body>
struct AddToPixels : st::Layer<AddToPixels<Body>> {
  using io = st::maps<1, factor * factor>;
  Body body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }

  static constexpr auto join(auto& pass, const auto& x, const auto& y) { return st::cat(pass, x, x, x, x) + y; }
  static constexpr auto forward(auto& self, auto& pass, const auto& x) { return join(pass, x, self.body(pass, x)); }
};

/// One channel: the luma. The other two planes of a colour image are resized by a cubic, since the eye sees little detail
/// in them.
template <int Width = 48, int Blocks = 4>
using SuperResolution = st::Sequential<AddToPixels<st::Sequential<                                 //
                                           st::Conv2d<1, Width>, st::ReLU,                         //
                                           st::Repeat<Blocks, blocks::ResidualBlock<Width>>,       //
                                           st::Conv2d<Width, factor * factor>>>,
                                       st::PixelShuffle<factor * factor, factor>>;

/// Draws the weights. The network starts by repeating pixels.
template <int Width, int Blocks>
void start(SuperResolution<Width, Blocks>& net, std::uint64_t seed) {
  st::initialize(net, seed);
  auto& body = net.template layer<0>().body;
  for (auto& block : body.template layer<2>().blocks) blocks::start_as_identity(block);
  body.template layer<3>().weight.reset();
}

}  // namespace super_resolution
