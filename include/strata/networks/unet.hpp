// U-Net for segmentation (Ronneberger, Fischer and Brox: "U-Net: Convolutional Networks for Biomedical Image Segmentation",
// MICCAI 2015), with batch norm and padding as in the PyTorch version that most people load, milesial's Pytorch-UNet.
//
//     st::networks::UNet<3, 2> net;                                    // RGB in, two classes out, a logit for each pixel
//     st::load_weights("unet_carvana_scale0.5_epoch2.pth", net, {.ignore = {"mask_values"}});
//     st::networks::UNet<1, 1, 16>                                     // a quarter of the width
//     const auto fast = st::fold(net);                                 // batch norms gone into the convolutions
//
// Names as there with bilinear=False (inc.double_conv.0, down1.maxpool_conv.1.double_conv.0, up1.up, outc.conv). Height and width
// must be multiples of 16. 31 037 698 parameters, 0.84 million multiply-adds for each pixel, receptive field 188.
#pragma once

#include "strata/networks/building.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

template <int In, int Out, template <class> class Form = as_trained>
class DoubleConv : public Layer<DoubleConv<In, Out, Form>> {
 public:
  using io = maps<In, Out>;
  static constexpr bool has_state = true;

  Form<Sequential<Conv2d<In, Out, 3, no_bias>, BatchNorm2d<Out>, ReLU, Conv2d<Out, Out, 3, no_bias>, BatchNorm2d<Out>, ReLU>> double_conv;

  static constexpr void visit(auto& self, auto&& f) { f("double_conv", self.double_conv); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return self.double_conv(pass, x);
  }
  auto fold() const {
    DoubleConv<In, Out, deploy_t> folded;
    folded.double_conv = strata::fold(double_conv);
    return folded;
  }
};

/// Half the size, twice the channels.
template <int In, template <class> class Form = as_trained>
class UNetDown : public Layer<UNetDown<In, Form>> {
 public:
  using io = maps<In, 2 * In>;
  static constexpr bool has_state = true;

  Form<Sequential<MaxPool2d<2>, DoubleConv<In, 2 * In>>> maxpool_conv;

  static constexpr void visit(auto& self, auto&& f) { f("maxpool_conv", self.maxpool_conv); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return self.maxpool_conv(pass, x);
  }
  auto fold() const {
    UNetDown<In, deploy_t> folded;
    folded.maxpool_conv = strata::fold(maxpool_conv);
    return folded;
  }
};

/// Twice the size, half the channels, beside what was seen at that size on the way down. Two images in: no Layer.
template <int In, template <class> class Form = as_trained>
struct UNetUp {
  using io = maps<In, In / 2>;
  static constexpr bool has_state = true;

  ConvTranspose2d<In, In / 2, 2> up;
  Form<DoubleConv<In, In / 2>> conv;

  static constexpr void visit(auto& self, auto&& f) {
    f("up", self.up);
    f("conv", self.conv);
  }
  static constexpr auto join(auto& self, auto& pass, const auto& deep, const auto& beside) {
    return self.conv(pass, cat(pass, beside, self.up(pass, deep)));
  }
  auto fold() const {
    UNetUp<In, deploy_t> folded;
    folded.up = up;
    folded.conv = strata::fold(conv);
    return folded;
  }
};

template <int Channels = 3, int Classes = 2, int Width = 64, template <class> class Form = as_trained>
class UNet : public Layer<UNet<Channels, Classes, Width, Form>> {
 public:
  using io = maps<Channels, Classes>;
  static constexpr bool has_state = true;

  Form<DoubleConv<Channels, Width>> inc;
  Form<UNetDown<Width>> down1;
  Form<UNetDown<2 * Width>> down2;
  Form<UNetDown<4 * Width>> down3;
  Form<UNetDown<8 * Width>> down4;
  Form<UNetUp<16 * Width>> up1;
  Form<UNetUp<8 * Width>> up2;
  Form<UNetUp<4 * Width>> up3;
  Form<UNetUp<2 * Width>> up4;
  Conv2d<Width, Classes, 1> outc;

  static constexpr void visit(auto& self, auto&& f) {
    f("inc", self.inc);
    f("down1", self.down1);
    f("down2", self.down2);
    f("down3", self.down3);
    f("down4", self.down4);
    f("up1", self.up1);
    f("up2", self.up2);
    f("up3", self.up3);
    f("up4", self.up4);
    f("outc.conv", self.outc);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto x1 = self.inc(pass, x);
    const auto x2 = self.down1(pass, x1);
    const auto x3 = self.down2(pass, x2);
    const auto x4 = self.down3(pass, x3);
    const auto x5 = self.down4(pass, x4);
    const auto y4 = join(self.up1, pass, x5, x4);
    const auto y3 = join(self.up2, pass, y4, x3);
    const auto y2 = join(self.up3, pass, y3, x2);
    const auto y1 = join(self.up4, pass, y2, x1);
    return self.outc(pass, y1);
  }
  auto fold() const {
    UNet<Channels, Classes, Width, deploy_t> folded;
    folded.inc = strata::fold(inc);
    folded.down1 = strata::fold(down1);
    folded.down2 = strata::fold(down2);
    folded.down3 = strata::fold(down3);
    folded.down4 = strata::fold(down4);
    folded.up1 = strata::fold(up1);
    folded.up2 = strata::fold(up2);
    folded.up3 = strata::fold(up3);
    folded.up4 = strata::fold(up4);
    folded.outc = outc;
    return folded;
  }

 private:
  static constexpr auto join(auto& up, auto& pass, const auto& deep, const auto& beside) {
    return up.join(up, pass, deep, beside);
  }
};

static_assert(parameter_count<UNet<3, 2>> == 31037698);

}  // namespace strata::inline STRATA_ABI::networks
