// MobileNetV2, a classifier for small devices (Sandler, Howard, Zhu, Zhmoginov and Chen: "MobileNetV2: Inverted Residuals and
// Linear Bottlenecks", CVPR 2018).
//
//     st::networks::MobileNetV2<> net;                                 // 1000 classes
//     st::load_weights("mobilenet_v2-b0353104.pth", net);
//     const auto fast = st::fold(net);                                 // batch norms gone into the convolutions
//
// Names as in torchvision (features.0.0, features.1.conv.0.0, classifier.1). Images are RGB of any size from 1 x 1 on, normalised
// as ImageNet's are (networks/vgg.hpp); the result has one pixel. 3 504 872 parameters, 301 million multiply-adds for 224 x 224.
#pragma once

#include <ratio>
#include <type_traits>

#include "strata/networks/building.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

/// Convolution, batch norm, ReLU6.
template <class Conv>
using ConvNormReLU6 = Sequential<Conv, BatchNorm2d<Conv::io::out>, ReLU6>;

/// Expands the channels, filters each, and brings them together again; adds its input where it can.
template <int In, int Out, int Stride = 1, int Expand = 6, template <class> class Form = as_trained>
class InvertedResidual : public Layer<InvertedResidual<In, Out, Stride, Expand, Form>> {
  static constexpr int wide = In * Expand;
  using Widen = ConvNormReLU6<Conv2d<In, wide, 1, no_bias>>;
  using Filter = ConvNormReLU6<DepthwiseConv2d<wide, 3, Conv2dOptions{.stride = Stride, .padding = 1, .bias = false}>>;
  using Narrow = Conv2d<wide, Out, 1, no_bias>;

 public:
  using io = maps<In, Out>;
  static constexpr bool has_state = true;

  Form<std::conditional_t<Expand == 1, Sequential<Filter, Narrow, BatchNorm2d<Out>>,
                          Sequential<Widen, Filter, Narrow, BatchNorm2d<Out>>>> conv;

  static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    if constexpr (Stride == 1 && In == Out)
      return as_var(x + self.conv(pass, x));
    else
      return self.conv(pass, x);
  }
  auto fold() const {
    InvertedResidual<In, Out, Stride, Expand, deploy_t> folded;
    folded.conv = strata::fold(conv);
    return folded;
  }
};

template <int Classes = 1000, class Drop = DropoutOf<std::ratio<1, 5>>, template <class> class Form = as_trained>
class MobileNetV2 : public Layer<MobileNetV2<Classes, Drop, Form>> {

 public:
  using io = maps<3, Classes>;
  static constexpr bool has_state = true;

  Form<Unrolled<ConvNormReLU6<Conv2d<3, 32, 3, Conv2dOptions{.stride = 2, .padding = 1, .bias = false}>>,
                InvertedResidual<32, 16, 1, 1>,                                       //
                InvertedResidual<16, 24, 2>, InvertedResidual<24, 24>,                //
                InvertedResidual<24, 32, 2>, Repeat<2, InvertedResidual<32, 32>>,     //
                InvertedResidual<32, 64, 2>, Repeat<3, InvertedResidual<64, 64>>,     //
                InvertedResidual<64, 96>, Repeat<2, InvertedResidual<96, 96>>,        //
                InvertedResidual<96, 160, 2>, Repeat<2, InvertedResidual<160, 160>>,  //
                InvertedResidual<160, 320>,                                           //
                ConvNormReLU6<Conv2d<320, 1280, 1, no_bias>>>> features;
  Form<Sequential<Drop, Linear<1280, Classes>>> classifier;

  static constexpr void visit(auto& self, auto&& f) {
    f("features", self.features);
    f("classifier", self.classifier);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return self.classifier(pass, GlobalAvgPool2d()(pass, self.features(pass, x)));
  }
  auto fold() const {
    MobileNetV2<Classes, Drop, deploy_t> folded;
    folded.features = strata::fold(features);
    folded.classifier = strata::fold(classifier);
    return folded;
  }
};

static_assert(parameter_count<MobileNetV2<>> == 3504872);

}  // namespace strata::inline STRATA_ABI::networks
