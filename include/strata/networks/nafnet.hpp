// NAFNet, restoration without activation functions: denoising, deblurring (Chen, Chu, Zhang and Sun: "Simple Baselines for Image
// Restoration", ECCV 2022).
//
//     st::networks::NAFNet<32> net;                                             // NAFNet-SIDD-width32.pth
//     st::load_weights("NAFNet-SIDD-width32.pth", net, {.key = "params"});
//     st::networks::NAFNet<32, st::networks::nafnet_gopro>                      // NAFNet-GoPro-width32.pth
//
// Names as in the authors' code (intro, encoders.0.0.conv1, encoders.0.0.beta, downs.0, middle_blks.0, ups.0.0, ending). Images are
// RGB from 0 to 1, height and width multiples of 16. Its attention looks at the whole image, so large images cannot be cut into
// tiles. SIDD, width 32: 29 159 715 parameters, 0.25 million multiply-adds for each pixel.
#pragma once

#include "strata/networks/building.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/group_norm.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

/// y = x + beta * (a filter of x), then y + gamma * (a product of its channels). Gates multiply halves of the channels.
template <int C>
class NAFBlock : public Layer<NAFBlock<C>> {
 public:
  using io = maps<C, C>;
  static constexpr bool has_state = true;

  Conv2d<C, 2 * C, 1> conv1;
  DepthwiseConv2d<2 * C> conv2;
  Conv2d<C, C, 1> conv3;
  Sequential<GlobalAvgPool2d, Conv2d<C, C, 1>> sca;
  Conv2d<C, 2 * C, 1> conv4;
  Conv2d<C, C, 1> conv5;
  LayerNorm2d<C> norm1, norm2;
  Parameter beta{Shape{1, C, 1, 1}}, gamma{Shape{1, C, 1, 1}};  // zeros: a block begins as nothing

  static constexpr void visit(auto& self, auto&& f) {
    f("beta", self.beta);
    f("gamma", self.gamma);
    f("conv1", self.conv1);
    f("conv2", self.conv2);
    f("conv3", self.conv3);
    f("sca", self.sca);
    f("conv4", self.conv4);
    f("conv5", self.conv5);
    f("norm1", self.norm1);
    f("norm2", self.norm2);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto halves = chunk<2>(pass, self.conv2(pass, self.conv1(pass, self.norm1(pass, x))));
    const auto gated = as_var(pass, halves[0] * halves[1]);
    const auto factors = expand_as(pass, self.sca(pass, gated), gated);
    const auto y = as_var(pass, x + self.conv3(pass, gated * factors) * self.beta);
    const auto parts = chunk<2>(pass, self.conv4(pass, self.norm2(pass, y)));
    return as_var(pass, y + self.conv5(pass, parts[0] * parts[1]) * self.gamma);
  }
};

/// How many blocks work at each size, from the largest to the smallest and back.
struct NAFNetBlocks {
  int encoder[4], middle, decoder[4];
};
inline constexpr NAFNetBlocks nafnet_sidd{{2, 2, 4, 8}, 12, {2, 2, 2, 2}};
inline constexpr NAFNetBlocks nafnet_gopro{{1, 1, 1, 28}, 1, {1, 1, 1, 1}};

/// Four modules that are called by their numbers.
template <class A, class B, class C, class D>
struct FourLevels {
  static constexpr bool has_state = true;
  A first;
  B second;
  C third;
  D fourth;

  static constexpr void visit(auto& self, auto&& f) {
    f(0, self.first);
    f(1, self.second);
    f(2, self.third);
    f(3, self.fourth);
  }
};

template <int Width, NAFNetBlocks Blocks = nafnet_sidd>
class NAFNet : public Layer<NAFNet<Width, Blocks>> {
  template <int N, int C>
  using Level = Repeat<N, NAFBlock<C>>;
  template <int C>
  using Down = Conv2d<C, 2 * C, 2, Conv2dOptions{.stride = 2, .padding = 0}>;
  template <int C>
  using Up = Sequential<Conv2d<C, 2 * C, 1, no_bias>, PixelShuffle<2 * C, 2>>;
  static constexpr int W = Width;

 public:
  using io = maps<3, 3>;
  using keeps_its_form = void;  // nothing in it can be folded
  static constexpr bool has_state = true;

  Conv2d<3, W> intro;
  Conv2d<W, 3> ending;
  FourLevels<Level<Blocks.encoder[0], W>, Level<Blocks.encoder[1], 2 * W>, Level<Blocks.encoder[2], 4 * W>, Level<Blocks.encoder[3], 8 * W>> encoders;
  FourLevels<Level<Blocks.decoder[0], 8 * W>, Level<Blocks.decoder[1], 4 * W>, Level<Blocks.decoder[2], 2 * W>, Level<Blocks.decoder[3], W>> decoders;
  Level<Blocks.middle, 16 * W> middle_blks;
  FourLevels<Up<16 * W>, Up<8 * W>, Up<4 * W>, Up<2 * W>> ups;
  FourLevels<Down<W>, Down<2 * W>, Down<4 * W>, Down<8 * W>> downs;

  static constexpr void visit(auto& self, auto&& f) {
    f("intro", self.intro);
    f("ending", self.ending);
    f("encoders", self.encoders);
    f("decoders", self.decoders);
    f("middle_blks", self.middle_blks);
    f("ups", self.ups);
    f("downs", self.downs);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto x1 = self.encoders.first(pass, self.intro(pass, x));
    const auto x2 = self.encoders.second(pass, self.downs.first(pass, x1));
    const auto x3 = self.encoders.third(pass, self.downs.second(pass, x2));
    const auto x4 = self.encoders.fourth(pass, self.downs.third(pass, x3));
    const auto deepest = self.middle_blks(pass, self.downs.fourth(pass, x4));
    const auto y4 = self.decoders.first(pass, self.ups.first(pass, deepest) + x4);
    const auto y3 = self.decoders.second(pass, self.ups.second(pass, y4) + x3);
    const auto y2 = self.decoders.third(pass, self.ups.third(pass, y3) + x2);
    const auto y1 = self.decoders.fourth(pass, self.ups.fourth(pass, y2) + x1);
    return as_var(pass, self.ending(pass, y1) + x);
  }
};

static_assert(parameter_count<NAFNet<32>> == 29159715);
static_assert(parameter_count<NAFNet<32, nafnet_gopro>> == 17111907);

}  // namespace strata::inline STRATA_ABI::networks
