// DRUNet, a denoiser for every noise level and the prior of plug-and-play restoration (Zhang, Li, Zuo, Zhang, Van Gool and
// Timofte: "Plug-and-Play Image Restoration with Deep Denoiser Prior", IEEE Transactions on Pattern Analysis and Machine
// Intelligence, 2021).
//
//     st::networks::DRUNet<1> net;                                       // drunet_gray.pth
//     st::networks::DRUNet<3>                                            // drunet_color.pth
//
// Names as in KAIR (m_head, m_down1.0.res.0 ... m_tail). Input: Channels of the image in [0, 1], then one with the standard
// deviation of the noise at each pixel, on the same scale (sigma 25 is 25 / 255). Height and width must be multiples of 8.
// Grey: 32 638 656 parameters, 2.19 million multiply-adds for each pixel, receptive field 313.
#pragma once

#include "strata/networks/building.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

/// y = x + conv(relu(conv(x))).
template <int C>
class DRUNetBlock : public Layer<DRUNetBlock<C>> {
 public:
  using io = maps<C, C>;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  Sequential<Conv2d<C, C, 3, no_bias>, ReLU, Conv2d<C, C, 3, no_bias>> res;

  static constexpr void visit(auto& self, auto&& f) { f("res", self.res); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return as_var(x + self.res(pass, x));
  }
};

template <int Channels = 1, int Width = 64, int Blocks = 4>
class DRUNet : public Layer<DRUNet<Channels, Width, Blocks>> {
  template <int C>
  using Level = Repeat<Blocks, DRUNetBlock<C>>;
  template <int C>
  using Down = Unrolled<Level<C>, Conv2d<C, 2 * C, 2, Conv2dOptions{.stride = 2, .padding = 0, .bias = false}>>;
  template <int C>
  using Up = Unrolled<ConvTranspose2d<2 * C, C, 2, ConvTranspose2dOptions{.stride = 2, .bias = false}>, Level<C>>;

 public:
  using io = maps<Channels + 1, Channels>;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  Conv2d<Channels + 1, Width, 3, no_bias> m_head;
  Down<Width> m_down1;
  Down<2 * Width> m_down2;
  Down<4 * Width> m_down3;
  Level<8 * Width> m_body;
  Up<4 * Width> m_up3;
  Up<2 * Width> m_up2;
  Up<Width> m_up1;
  Conv2d<Width, Channels, 3, no_bias> m_tail;

  static constexpr void visit(auto& self, auto&& f) {
    f("m_head", self.m_head);
    f("m_down1", self.m_down1);
    f("m_down2", self.m_down2);
    f("m_down3", self.m_down3);
    f("m_body", self.m_body);
    f("m_up3", self.m_up3);
    f("m_up2", self.m_up2);
    f("m_up1", self.m_up1);
    f("m_tail", self.m_tail);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto x1 = self.m_head(pass, x);
    const auto x2 = self.m_down1(pass, x1);
    const auto x3 = self.m_down2(pass, x2);
    const auto x4 = self.m_down3(pass, x3);
    const auto y3 = self.m_up3(pass, self.m_body(pass, x4) + x4);
    const auto y2 = self.m_up2(pass, y3 + x3);
    const auto y1 = self.m_up1(pass, y2 + x2);
    return self.m_tail(pass, y1 + x1);
  }
};

static_assert(parameter_count<DRUNet<1>> == 32638656);
static_assert(parameter_count<DRUNet<3>> == 32640960);

}  // namespace strata::inline STRATA_ABI::networks
