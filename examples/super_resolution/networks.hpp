// Super-resolution by a factor of 2: everything happens at the small size, and the last layer's channels become pixels, as
// in ESPCN (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
// Neural Network", CVPR 2016), with residual blocks as in EDSR.
#pragma once

#include <cstdint>

#include "../common/residual_block.hpp"
#include "strata/strata.hpp"

namespace super_resolution {

namespace st = strata;

/// y = every pixel of x four times + f(x), in Factor * Factor channels that are then shuffled into place. One channel: the
/// luma; of colour images the other two planes are resized by a cubic, since the eye sees little detail in them.
template <int Width = 48, int Blocks = 4>
struct SuperResolution {
  static constexpr int factor = 2;
  using io = st::maps<1, 1>;
  st::Sequential<                                        //
      st::Conv2d<1, Width>, st::ReLU,                    //
      st::Repeat<Blocks, blocks::ResidualBlock<Width>>,  //
      st::Conv2d<Width, factor * factor>> detail;
  st::PixelShuffle<factor * factor, factor> shuffle;

  static constexpr void visit(auto& self, auto&& f) {
    f("detail", self.detail);
    f("shuffle", self.shuffle);
  }

  auto operator()(st::Train& pass, const auto& x) { return shuffle(pass, st::cat(pass, x, x, x, x) + detail(pass, x)); }
  auto operator()(st::Infer& pass, const auto& x) const {
    return shuffle(pass, st::cat(pass, x, x, x, x) + detail(pass, x));
  }

  /// Draws the weights. It starts by repeating pixels.
  void start(std::uint64_t seed) {
    st::initialize(*this, seed);
    for (auto& block : detail.template layer<2>().blocks) block.start_as_identity();
    detail.template layer<3>().weight.reset();
  }
};

}  // namespace super_resolution
