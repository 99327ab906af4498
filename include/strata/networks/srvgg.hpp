// SRVGGNetCompact, the small networks of Real-ESRGAN ("Compact"): super-resolution by 2, 3 or 4 with all convolutions at the
// small size (Wang, Xie, Dong and Shan: "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data",
// ICCV Workshops 2021).
//
//     st::networks::SRVGGNetCompact<4> net;                              // realesr-animevideov3
//     st::networks::SRVGGNetCompact<4, 32>                               // realesr-general-x4v3
//
// Names as in Real-ESRGAN (body.0 ...). Images are RGB from 0 to 1. Factor 4: 621 424 parameters with 16 convolutions in the
// middle, 0.62 million multiply-adds for each pixel it is given, receptive field 37.
#pragma once

#include "strata/networks/building.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/upsample.hpp"

namespace strata::inline STRATA_ABI::networks {

template <int Factor = 4, int Convolutions = 16, int Features = 64, class Act = PReLU<Features>>
class SRVGGNetCompact : public Layer<SRVGGNetCompact<Factor, Convolutions, Features, Act>> {
 public:
  using io = maps<3, 3>;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  Unrolled<Conv2d<3, Features>, Act, Repeat<Convolutions, Sequential<Conv2d<Features, Features>, Act>>,
           Conv2d<Features, 3 * Factor * Factor>> body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const PixelShuffle<3 * Factor * Factor, Factor> upsampler;
    return as_var(upsampler(pass, self.body(pass, x)) + Upsample<Factor>()(pass, x));
  }
};

static_assert(parameter_count<SRVGGNetCompact<4>> == 621424);
static_assert(parameter_count<SRVGGNetCompact<4, 32>> == 1213296);

}  // namespace strata::inline STRATA_ABI::networks
