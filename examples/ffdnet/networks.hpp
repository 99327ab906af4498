// A denoiser for every noise level in one network: it gets the image and a map of the noise's standard deviation as one
// more channel, and works at half the resolution, which costs a quarter. After FFDNet (Zhang, Zuo and Zhang, "FFDNet:
// Toward a Fast and Flexible Solution for CNN-based Image Denoising", IEEE Transactions on Image Processing, 2018), with
// residual blocks in place of its chain of convolutions with batch norm, and the noise as what is predicted.
#pragma once

#include <utility>

#include "../common/residual_block.hpp"
#include "strata/strata.hpp"

namespace ffdnet {

namespace st = strata;

/// The first Channels channels of an image.
template <int Channels, st::Pass P, int All>
auto first_channels(P& pass, const st::Var<All>& x) {
  return st::custom_op(
      pass,
      [](const st::Image<All>& image) {
        st::Image<Channels> out(image.n(), image.h(), image.w());
        for (std::int64_t i = 0, pixels = out.size() / Channels; i < pixels; ++i)
          std::copy_n(image.data() + i * All, Channels, out.data() + i * Channels);
        return out;
      },
      [](const st::Image<Channels>& gy, const st::Image<Channels>&, const st::Image<All>& image) {
        st::Image<All> gx(image.n(), image.h(), image.w());
        gx.tensor().fill(0);
        for (std::int64_t i = 0, pixels = gy.size() / Channels; i < pixels; ++i)
          std::copy_n(gy.data() + i * Channels, Channels, gx.data() + i * All);
        return gx;
      },
      x);
}

/// y = image - f(image, noise map). Input: Channels of the image in [0, 1], then one with the standard deviation of the
/// noise at each pixel, on the same scale (sigma 25 is 25 / 255). Height and width must be even.
template <int Channels = 1, int Width = 64, int Blocks = 5>
struct FFDNet {
  using io = st::maps<Channels + 1, Channels>;
  st::Sequential<                                             //
      st::PixelUnshuffle<Channels + 1, 2>,                    //
      st::Conv2d<4 * (Channels + 1), Width>, st::ReLU,        //
      st::Repeat<Blocks, blocks::ResidualBlock<Width>>,       //
      st::Conv2d<Width, 4 * Channels>,                        //
      st::PixelShuffle<4 * Channels, 2>> noise;

  static constexpr void visit(auto& self, auto&& f) { f("noise", self.noise); }

  auto operator()(st::Train& pass, const auto& x) { return first_channels<Channels>(pass, st::as_var(x)) - noise(pass, x); }
  auto operator()(st::Infer& pass, const auto& x) const {
    return first_channels<Channels>(pass, st::as_var(x)) - noise(pass, x);
  }

  /// Draws the weights. It starts by taking nothing away, which saves many steps.
  void start(std::uint64_t seed) {
    st::initialize(*this, seed);
    for (auto& block : noise.template layer<3>().blocks) block.start_as_identity();
    noise.template layer<4>().weight.reset();
  }
};

}  // namespace ffdnet
