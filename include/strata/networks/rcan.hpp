// RCAN, super-resolution by 2, 3 or 4 with channel attention (Zhang, Li, Li, Wang, Zhong and Fu: "Image Super-Resolution Using
// Very Deep Residual Channel Attention Networks", ECCV 2018).
//
//     st::networks::RCAN<4> net;
//     st::load_weights("RCAN_BIX4.pt", net);
//
// Names as in the authors' code (sub_mean, head, body.0.body.0.body.3.conv_du.0, tail, add_mean). Images are RGB from 0 to 1;
// inside they are from 0 to 255. Each attention looks at the whole image, so large images cannot be cut into tiles. Factor 4:
// 15 592 355 parameters, 15.9 million multiply-adds for each pixel it is given.
#pragma once

#include "strata/networks/building.hpp"
#include "strata/networks/colours.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

/// y = x * a factor for each channel, from the channels' means.
template <int Features, int Reduction>
class ChannelAttention : public Layer<ChannelAttention<Features, Reduction>> {
 public:
  using io = maps<Features, Features>;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  Sequential<Conv2d<Features, Features / Reduction, 1>, ReLU, Conv2d<Features / Reduction, Features, 1>, Sigmoid> conv_du;

  static constexpr void visit(auto& self, auto&& f) { f("conv_du", self.conv_du); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto factors = self.conv_du(pass, GlobalAvgPool2d()(pass, x));
    return as_var(x * expand_as(pass, factors, x));
  }
};

template <int Features, int Reduction>
using RCAB = Add<Sequential<Conv2d<Features, Features>, ReLU, Conv2d<Features, Features>, ChannelAttention<Features, Reduction>>>;
template <int Features, int Blocks, int Reduction>
using ResidualGroup = Add<Unrolled<Repeat<Blocks, RCAB<Features, Reduction>>, Conv2d<Features, Features>>>;

template <int Factor, int Features = 64, int Groups = 10, int Blocks = 20, int Reduction = 16>
class RCAN : public Layer<RCAN<Factor, Features, Groups, Blocks, Reduction>> {
 public:
  using io = maps<3, 3>;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  MeanShift<-1> sub_mean;
  Sequential<Conv2d<3, Features>> head;
  Unrolled<Repeat<Groups, ResidualGroup<Features, Blocks, Reduction>>, Conv2d<Features, Features>> body;
  Sequential<PixelUpsampler<Features, Factor>, Conv2d<Features, 3>> tail;
  MeanShift<1> add_mean;

  static constexpr void visit(auto& self, auto&& f) {
    f("sub_mean", self.sub_mean);
    f("add_mean", self.add_mean);
    f("head", self.head);
    f("body", self.body);
    f("tail", self.tail);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto shallow = self.head(pass, self.sub_mean(pass, 255.0 * x));
    const auto large = self.tail(pass, shallow + self.body(pass, shallow));
    return as_var(self.add_mean(pass, large) * (1 / 255.0));
  }
};

static_assert(parameter_count<RCAN<4>> == 15592355);

}  // namespace strata::inline STRATA_ABI::networks
