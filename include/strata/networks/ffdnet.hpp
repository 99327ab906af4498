// FFDNet, a fast denoiser for every noise level in one network, at half the resolution (Zhang, Zuo and Zhang: "FFDNet: Toward a
// Fast and Flexible Solution for CNN-based Image Denoising", IEEE Transactions on Image Processing, 2018).
//
//     st::networks::FFDNet<1> net;                                       // ffdnet_gray.pth
//     st::networks::FFDNet<3>                                            // ffdnet_color.pth
//
// Names as in KAIR (model.0 ...), whose published weights have batch norm folded into the convolutions. Input: Channels of the
// image in [0, 1], then one with the standard deviation of the noise at each pixel, on the same scale (sigma 25 is 25 / 255); of
// four pixels the network takes the mean. Height and width must be even. Grey: 485 316 parameters, 0.12 million multiply-adds for
// each pixel, receptive field 62.
#pragma once

#include "strata/networks/building.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

template <int Channels = 1, int Width = Channels == 1 ? 64 : 96, int Depth = Channels == 1 ? 15 : 12>
class FFDNet : public Layer<FFDNet<Channels, Width, Depth>> {
 public:
  using io = maps<Channels + 1, Channels>;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  Unrolled<Conv2d<4 * Channels + 1, Width>, ReLU, Repeat<Depth - 2, Sequential<Conv2d<Width, Width>, ReLU>>, Conv2d<Width, 4 * Channels>> model;

  static constexpr void visit(auto& self, auto&& f) { f("model", self.model); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto pixels = PixelUnshuffle<Channels, 2>()(pass, narrow<0, Channels>(pass, x));
    const auto noise = AvgPool2d<2>()(pass, narrow<Channels, 1>(pass, x));
    return PixelShuffle<4 * Channels, 2>()(pass, self.model(pass, cat(pass, pixels, noise)));
  }
};

static_assert(parameter_count<FFDNet<1>> == 485316);
static_assert(parameter_count<FFDNet<3>> == 852108);

}  // namespace strata::inline STRATA_ABI::networks
