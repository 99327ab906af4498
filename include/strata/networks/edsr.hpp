// EDSR, super-resolution by 2, 3 or 4 (Lim, Son, Kim, Nah and Lee: "Enhanced Deep Residual Networks for Single Image
// Super-Resolution", CVPR Workshops 2017).
//
//     st::networks::EDSR<2> net;                                    // EDSR-baseline: 16 blocks of 64 channels
//     st::load_weights("edsr_baseline_x2.pt", net);
//     st::networks::LargeEDSR<2>                                    // the paper's: 32 blocks of 256 channels
//
// Names as in EDSR-PyTorch (sub_mean, head, body, tail, add_mean). Images are RGB from 0 to 1; inside they are from 0 to 255, as
// in the authors' training. Baseline, factor 2: 1 369 859 parameters, 1.37 million multiply-adds for each pixel it is given,
// receptive field 72.
#pragma once

#include <ratio>

#include "strata/networks/building.hpp"
#include "strata/networks/colours.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

/// y = x + Scale * conv(relu(conv(x))).
template <int Features, class Scale>
class EDSRBlock : public Layer<EDSRBlock<Features, Scale>> {
 public:
  using io = maps<Features, Features>;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  Sequential<Conv2d<Features, Features>, ReLU, Conv2d<Features, Features>> body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    constexpr double scale = double(Scale::num) / double(Scale::den);
    if constexpr (scale == 1)
      return as_var(x + self.body(pass, x));
    else
      return as_var(x + scale * self.body(pass, x));
  }
};

template <int Factor, int Features = 64, int Blocks = 16, class Scale = std::ratio<1>>
class EDSR : public Layer<EDSR<Factor, Features, Blocks, Scale>> {
 public:
  using io = maps<3, 3>;
  using keeps_its_form = void;  // ReLU is the convolution's last step as it is
  static constexpr bool has_state = true;

  MeanShift<-1> sub_mean;
  Sequential<Conv2d<3, Features>> head;
  Unrolled<Repeat<Blocks, EDSRBlock<Features, Scale>>, Conv2d<Features, Features>> body;
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

template <int Factor>
using LargeEDSR = EDSR<Factor, 256, 32, std::ratio<1, 10>>;

static_assert(parameter_count<EDSR<2>> == 1369859);
static_assert(parameter_count<EDSR<4>> == 1517571);

}  // namespace strata::inline STRATA_ABI::networks
