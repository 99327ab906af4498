// RRDBNet, the generator of ESRGAN and Real-ESRGAN: super-resolution by 4, 2 or 1 (Wang et al.: "ESRGAN: Enhanced
// Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018; Wang, Xie, Dong and Shan: "Real-ESRGAN", 2021).
//
//     st::networks::RRDBNet<4> net;
//     st::load_weights("RealESRGAN_x4plus.pth", net, {.key = "params_ema"});
//     st::networks::RRDBNet<4, 6>                          // RealESRGAN_x4plus_anime_6B
//
// Names as in BasicSR (conv_first, body.0.rdb1.conv1, conv_body, conv_up1, conv_up2, conv_hr, conv_last). Images are RGB from 0
// to 1; for the factors 2 and 1 their height and width must be multiples of 2 and 4, since the network works at a quarter of the
// result's size. Factor 4: 16 697 987 parameters, 17.9 million multiply-adds for each pixel it is given, receptive field 698.
#pragma once

#include <ratio>

#include "strata/networks/building.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/upsample.hpp"

namespace strata::inline STRATA_ABI::networks {

/// Each convolution gets all that came before it; y = x + 0.2 * the last one's.
template <int Features, int Growth>
class ResidualDenseBlock : public Layer<ResidualDenseBlock<Features, Growth>> {
 public:
  using io = maps<Features, Features>;
  static constexpr bool has_state = true;

  Conv2d<Features, Growth> conv1;
  Conv2d<Features + Growth, Growth> conv2;
  Conv2d<Features + 2 * Growth, Growth> conv3;
  Conv2d<Features + 3 * Growth, Growth> conv4;
  Conv2d<Features + 4 * Growth, Features> conv5;

  static constexpr void visit(auto& self, auto&& f) {
    f("conv1", self.conv1);
    f("conv2", self.conv2);
    f("conv3", self.conv3);
    f("conv4", self.conv4);
    f("conv5", self.conv5);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const LeakyReLUOf<std::ratio<1, 5>> act;
    const auto a = act(pass, self.conv1(pass, x));
    const auto b = act(pass, self.conv2(pass, cat(pass, x, a)));
    const auto c = act(pass, self.conv3(pass, cat(pass, x, a, b)));
    const auto d = act(pass, self.conv4(pass, cat(pass, x, a, b, c)));
    return as_var(x + 0.2 * self.conv5(pass, cat(pass, x, a, b, c, d)));
  }
};

/// Residual in residual: y = x + 0.2 * three of these blocks.
template <int Features, int Growth>
class RRDB : public Layer<RRDB<Features, Growth>> {
 public:
  using io = maps<Features, Features>;
  static constexpr bool has_state = true;

  ResidualDenseBlock<Features, Growth> rdb1, rdb2, rdb3;

  static constexpr void visit(auto& self, auto&& f) {
    f("rdb1", self.rdb1);
    f("rdb2", self.rdb2);
    f("rdb3", self.rdb3);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return as_var(x + 0.2 * self.rdb3(pass, self.rdb2(pass, self.rdb1(pass, x))));
  }
};

template <int Factor = 4, int Blocks = 23, int Features = 64, int Growth = 32>
class RRDBNet : public Layer<RRDBNet<Factor, Blocks, Features, Growth>> {
  static_assert(Factor == 1 || Factor == 2 || Factor == 4, "strata::networks::RRDBNet<Factor>: Factor must be 1, 2 or 4");
  static constexpr int shrink = 4 / Factor;

 public:
  using io = maps<3, 3>;
  using keeps_its_form = void;  // nothing in it can be folded
  static constexpr bool has_state = true;

  Conv2d<3 * shrink * shrink, Features> conv_first;
  Repeat<Blocks, RRDB<Features, Growth>> body;
  Conv2d<Features, Features> conv_body, conv_up1, conv_up2, conv_hr;
  Conv2d<Features, 3> conv_last;

  static constexpr void visit(auto& self, auto&& f) {
    f("conv_first", self.conv_first);
    f("body", self.body);
    f("conv_body", self.conv_body);
    f("conv_up1", self.conv_up1);
    f("conv_up2", self.conv_up2);
    f("conv_hr", self.conv_hr);
    f("conv_last", self.conv_last);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const LeakyReLUOf<std::ratio<1, 5>> act;
    const Upsample<2> twice;
    const auto shallow = self.conv_first(pass, PixelUnshuffle<3, shrink>()(pass, x));
    const auto deep = as_var(shallow + self.conv_body(pass, self.body(pass, shallow)));
    const auto up1 = act(pass, self.conv_up1(pass, twice(pass, deep)));
    const auto up2 = act(pass, self.conv_up2(pass, twice(pass, up1)));
    return self.conv_last(pass, act(pass, self.conv_hr(pass, up2)));
  }
};

static_assert(parameter_count<RRDBNet<4>> == 16697987);

}  // namespace strata::inline STRATA_ABI::networks
