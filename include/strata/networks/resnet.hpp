// ResNet-18, -34 and -50, classifiers (He, Zhang, Ren and Sun: "Deep Residual Learning for Image Recognition", CVPR 2016), as
// torchvision has them: the stride of a bottleneck in its 3 x 3 convolution.
//
//     st::networks::ResNet18<> net;                                                // 1000 classes
//     st::load_weights("resnet18-f37072fd.pth", net);
//     st::networks::ResNet18<10, st::networks::SmallImageStem>                     // for images of 32 x 32, as CIFAR-10's
//     const auto fast = st::fold(net);                                             // batch norms gone into the convolutions
//
// Names as in torchvision (conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, fc). Images are RGB, normalised as ImageNet's are
// (networks/vgg.hpp); the result has one pixel. Parameters: 11 689 512, 21 797 672, 25 557 032; multiply-adds for 224 x 224: 1.81,
// 3.66 and 4.09 billion. The last mean is over the whole image, so the image cannot be cut into tiles.
#pragma once

#include <type_traits>

#include "strata/deploy/layers.hpp"
#include "strata/networks/building.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

/// What stands beside a block: nothing where it keeps the image's shape, else a 1 x 1 convolution that changes it.
template <int In, int Out, int Stride>
using Shortcut = std::conditional_t<In == Out && Stride == 1, Identity,
                                    Sequential<Conv2d<In, Out, 1, Conv2dOptions{.stride = Stride, .bias = false}>, BatchNorm2d<Out>>>;

/// y = relu(body(x) + shortcut(x)).
template <int In, int Width, int Stride, template <class> class Form = as_trained>
class BasicBlock : public Layer<BasicBlock<In, Width, Stride, Form>> {
 public:
  static constexpr int out = Width;
  using io = maps<In, out>;
  static constexpr bool has_state = true;

  Form<Sequential<Conv2d<In, Width, 3, Conv2dOptions{.stride = Stride, .padding = 1, .bias = false}>, BatchNorm2d<Width>, ReLU,
                  Conv2d<Width, Width, 3, no_bias>, BatchNorm2d<Width>>> body;
  Form<Shortcut<In, out, Stride>> downsample;

  static constexpr void visit(auto& self, auto&& f) {
    list_as(f, self.body, "conv1", "bn1", "conv2", "bn2");
    f("downsample", self.downsample);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto beside = self.downsample(pass, x);
    return as_var(relu(self.body(pass, x) + beside));
  }
  auto fold() const {
    BasicBlock<In, Width, Stride, deploy_t> folded;
    folded.body = strata::fold(body);
    folded.downsample = strata::fold(downsample);
    return folded;
  }
};

/// The same with a body that works on a quarter of the channels.
template <int In, int Width, int Stride, template <class> class Form = as_trained>
class Bottleneck : public Layer<Bottleneck<In, Width, Stride, Form>> {
 public:
  static constexpr int out = 4 * Width;
  using io = maps<In, out>;
  static constexpr bool has_state = true;

  Form<Sequential<Conv2d<In, Width, 1, no_bias>, BatchNorm2d<Width>, ReLU,
                  Conv2d<Width, Width, 3, Conv2dOptions{.stride = Stride, .padding = 1, .bias = false}>, BatchNorm2d<Width>, ReLU,
                  Conv2d<Width, out, 1, no_bias>, BatchNorm2d<out>>> body;
  Form<Shortcut<In, out, Stride>> downsample;

  static constexpr void visit(auto& self, auto&& f) {
    list_as(f, self.body, "conv1", "bn1", "conv2", "bn2", "conv3", "bn3");
    f("downsample", self.downsample);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto beside = self.downsample(pass, x);
    return as_var(relu(self.body(pass, x) + beside));
  }
  auto fold() const {
    Bottleneck<In, Width, Stride, deploy_t> folded;
    folded.body = strata::fold(body);
    folded.downsample = strata::fold(downsample);
    return folded;
  }
};

/// How an image comes in: at a quarter of its size ...
using ImageNetStem = Sequential<Conv2d<3, 64, 7, Conv2dOptions{.stride = 2, .padding = 3, .bias = false}>, BatchNorm2d<64>, ReLU, MaxPool2d<3, 2, 1>>;
/// ... or at its own.
using SmallImageStem = Sequential<Conv2d<3, 64, 3, no_bias>, BatchNorm2d<64>, ReLU>;

/// Blocks of Block in four stages.
template <template <int, int, int, template <class> class> class Block, int N1, int N2, int N3, int N4, int Classes, class Stem,
          template <class> class Form = as_trained>
class ResNet : public Layer<ResNet<Block, N1, N2, N3, N4, Classes, Stem, Form>> {
  static constexpr int wider = Block<64, 64, 1, as_trained>::out / 64;
  template <int In, int Width, int Stride, int N>
  using Stage = Unrolled<Block<In, Width, Stride, as_trained>, Repeat<N - 1, Block<wider * Width, Width, 1, as_trained>>>;

 public:
  using io = maps<3, Classes>;
  static constexpr bool has_state = true;

  Form<Stem> stem;
  Form<Stage<64, 64, 1, N1>> layer1;
  Form<Stage<wider * 64, 128, 2, N2>> layer2;
  Form<Stage<wider * 128, 256, 2, N3>> layer3;
  Form<Stage<wider * 256, 512, 2, N4>> layer4;
  Linear<wider * 512, Classes> fc;

  static constexpr void visit(auto& self, auto&& f) {
    list_as(f, self.stem, "conv1", "bn1");
    f("layer1", self.layer1);
    f("layer2", self.layer2);
    f("layer3", self.layer3);
    f("layer4", self.layer4);
    f("fc", self.fc);
  }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    const auto small = self.layer2(pass, self.layer1(pass, self.stem(pass, x)));
    return self.fc(pass, GlobalAvgPool2d()(pass, self.layer4(pass, self.layer3(pass, small))));
  }
  auto fold() const {
    ResNet<Block, N1, N2, N3, N4, Classes, Stem, deploy_t> folded;
    folded.stem = strata::fold(stem);
    folded.layer1 = strata::fold(layer1);
    folded.layer2 = strata::fold(layer2);
    folded.layer3 = strata::fold(layer3);
    folded.layer4 = strata::fold(layer4);
    folded.fc = fc;
    return folded;
  }
};

template <int Classes = 1000, class Stem = ImageNetStem>
using ResNet18 = ResNet<BasicBlock, 2, 2, 2, 2, Classes, Stem>;
template <int Classes = 1000, class Stem = ImageNetStem>
using ResNet34 = ResNet<BasicBlock, 3, 4, 6, 3, Classes, Stem>;
template <int Classes = 1000, class Stem = ImageNetStem>
using ResNet50 = ResNet<Bottleneck, 3, 4, 6, 3, Classes, Stem>;

static_assert(parameter_count<ResNet18<>> == 11689512);
static_assert(parameter_count<ResNet34<>> == 21797672);
static_assert(parameter_count<ResNet50<>> == 25557032);

}  // namespace strata::inline STRATA_ABI::networks
