// What follows from a network's forward: counts, receptive fields, the summary.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "autograd/random_image.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/group_norm.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/summary.hpp"

namespace st = strata;

namespace {

template <int C, int Width, int Depth>
using DnCNN = st::Residual<st::Sequential<
    st::Conv2d<C, Width>, st::ReLU,
    st::Repeat<Depth - 2, st::Sequential<st::Conv2d<Width, Width, 3, st::no_bias>, st::BatchNorm2d<Width>, st::ReLU>>,
    st::Conv2d<Width, C>>>;

using Classifier = st::Sequential<st::Conv2d<1, 8, 5, st::Conv2dOptions{.padding = 0}>, st::ReLU, st::MaxPool2d<2>,
                                  st::Conv2d<8, 16>, st::Dropout, st::Flatten<16, 12, 12>, st::Linear<2304, 10>>;

// Modules as users write them. Where the call operator is constexpr, the compiler tells their facts.

template <int In, int Out, int Stride>
struct Basic {  // of ResNet: body and shortcut go apart and meet
  using io = st::maps<In, Out>;
  using Shortcut =
      st::Sequential<st::Conv2d<In, Out, 1, st::Conv2dOptions{.stride = Stride, .bias = false}>, st::BatchNorm2d<Out>>;
  st::Sequential<st::Conv2d<In, Out, 3, st::Conv2dOptions{.stride = Stride, .bias = false}>, st::BatchNorm2d<Out>,
                 st::ReLU, st::Conv2d<Out, Out, 3, st::no_bias>, st::BatchNorm2d<Out>>
      body;
  std::optional<Shortcut> shortcut;
  constexpr Basic() {
    if constexpr (In != Out) shortcut.emplace();
  }
  static constexpr void visit(auto& self, auto&& f) {
    f("body", self.body);
    f("shortcut", self.shortcut);
  }
  constexpr auto operator()(auto& pass, const auto& x) {
    const auto y = body(pass, x);
    if constexpr (In == Out) {
      return st::ReLU()(pass, y + x);
    } else {
      const auto beside = (*shortcut)(pass, x);
      return st::ReLU()(pass, y + beside);
    }
  }
};
template <class Stem>
using ResNet18 = st::Sequential<Stem, Basic<64, 64, 1>, Basic<64, 64, 1>, Basic<64, 128, 2>, Basic<128, 128, 1>,
                                Basic<128, 256, 2>, Basic<256, 256, 1>, Basic<256, 512, 2>, Basic<512, 512, 1>,
                                st::GlobalAvgPool2d, st::Linear<512, 10>>;
using SmallStem = st::Sequential<st::Conv2d<3, 64, 3, st::no_bias>, st::BatchNorm2d<64>, st::ReLU>;
using LargeStem = st::Sequential<st::Conv2d<3, 64, 7, st::Conv2dOptions{.stride = 2, .bias = false}>,
                                 st::BatchNorm2d<64>, st::ReLU, st::MaxPool2d<2>>;

struct NafBlock {  // of NAFNet: channel attention, a gate of two halves, shared and local layers, a number of its own
  using io = st::maps<8, 8>;
  st::LayerNorm2d<8> norm;
  st::Conv2d<8, 16, 1> widen;
  st::DepthwiseConv2d<16> spatial;
  st::Sequential<st::GlobalAvgPool2d, st::Conv2d<8, 8, 1>> attention;
  st::Conv2d<8, 8, 1> project;
  float scale = 0.5f;
  bool twice = false;
  static constexpr void visit(auto& self, auto&& f) {
    f("norm", self.norm);
    f("widen", self.widen);
    f("spatial", self.spatial);
    f("attention", self.attention);
    f("project", self.project);
  }
  constexpr auto operator()(auto& pass, const auto& x) const {
    const auto halves = st::chunk<2>(pass, spatial(pass, widen(pass, norm(pass, x))));
    const auto gated = st::as_var(halves[0] * halves[1]);
    auto y = st::as_var(x + scale * project(pass, gated * st::expand_as(pass, attention(pass, gated), gated)));
    if (twice) y = st::Sigmoid()(pass, project(pass, y));
    return y;
  }
};

struct Levels {  // a U-Net whose pool is made where it is used
  using io = st::maps<1, 1>;
  st::Conv2d<1, 8> in;
  st::Conv2d<8, 16> coarse;
  st::ConvTranspose2d<16, 8, 2> up;
  st::Conv2d<16, 1, 3, st::Conv2dOptions{.dilation = 2}> out;
  static constexpr void visit(auto& self, auto&& f) {
    f("in", self.in);
    f("coarse", self.coarse);
    f("up", self.up);
    f("out", self.out);
  }
  constexpr auto operator()(auto& pass, const auto& x) const {
    const auto a = in(pass, x);
    return out(pass, st::cat(pass, up(pass, coarse(pass, st::MaxPool2d<2>()(pass, a))), a));
  }
};
/// The same, but the compiler cannot run it.
struct OrdinaryLevels {
  using io = st::maps<1, 1>;
  Levels levels;
  static constexpr void visit(auto& self, auto&& f) { f("levels", self.levels); }
  auto operator()(auto& pass, const auto& x) const { return levels(pass, x); }
};

/// A forward that nobody can follow, and what it says of itself.
struct Opaque {
  using io = st::maps<1, 1>;
  st::Parameter weight{st::Shape{1, 1, 1, 3}};
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
  static constexpr void trace(auto& t) {
    t.window(3, 1, 1, 1);
    t.multiply_adds(3 * t.extents().h * t.extents().w);
  }
  auto operator()(auto& pass, const st::Var<1>& x) const { return pass.output(x.value().clone()); }
};

struct NotMadeAlone {
  using io = st::maps<1, 8>;
  st::Conv2d<1, 8> conv;
  int times;
  explicit NotMadeAlone(int n) : times(n) {}
  static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); }
  auto operator()(auto& pass, const auto& x) const {
    auto y = conv(pass, x);
    for (int i = 0; i < times; ++i) y = st::ReLU()(pass, y);
    return y;
  }
};

/// The rows of input pixels that one output pixel depends on, found by changing them one after another.
template <class Net>
int empirical_field(int size) {
  Net net;
  st::for_each_parameter(net, [](const std::string&, st::Parameter& p) {
    for (float& x : p.value().span()) x = 0.25f;  // positive: nothing cancels, nothing is cut off
  });
  st::Infer infer;
  st::Image<1> image = st::Image<1>::full(1, size, size, 0.5f);
  const auto before = st::as_var(net(infer, image)).value().clone();
  int most = 0;
  for (int y : {int(before.h()) / 2, int(before.h()) / 2 + 1}) {
    int count = 0;
    for (int row = 0; row < size; ++row) {
      st::Image<1> changed = image.clone();
      for (int column = 0; column < size; ++column) changed(0, 0, row, column) = 1.5f;
      const auto after = st::as_var(net(infer, changed)).value();
      count += after(0, 0, y, before.w() / 2) != before(0, 0, y, before.w() / 2);
    }
    most = std::max(most, count);
  }
  return most;
}

}  // namespace

static_assert(st::parameter_count<DnCNN<1, 64, 17>> == 556097);
static_assert(st::receptive_field<DnCNN<1, 64, 17>> == 35);
static_assert(st::multiply_adds<DnCNN<1, 64, 17>>(50, 40) == std::int64_t{50} * 40 * 9 * (64 + 15 * 64 * 64 + 64));
static_assert(st::parameter_count<DnCNN<3, 8, 5>> == 3 * 8 * 9 + 8 + 3 * (8 * 8 * 9 + 16) + 8 * 3 * 9 + 3);
static_assert(st::parameter_count<Classifier> == 25 * 8 + 8 + 8 * 16 * 9 + 16 + 23040 + 10);
static_assert(st::output_extents<Classifier>(28, 28).c == 10 && st::output_extents<Classifier>(28, 28).h == 1);
static_assert(st::multiply_adds<Classifier>(28, 28) == 24 * 24 * 8 * 25 + 12 * 12 * 16 * 8 * 9 + 23040);
static_assert(!st::output_extents<Classifier>(4, 28).valid && st::output_extents<Classifier>(28, 28).valid);
static_assert(st::parameter_count<st::Sequential<st::PReLU<5>, st::Conv2d<5, 5, 1, st::no_bias>>> == 30);
static_assert(st::receptive_field<Classifier> == st::whole_image);

static_assert(st::multiply_adds<ResNet18<SmallStem>>(32, 32) == 555'422'720);
// the paper's has 1000 classes
static_assert(st::multiply_adds<ResNet18<LargeStem>>(224, 224) == 1'814'073'344 - 512 * 990);
static_assert(st::parameter_count<ResNet18<SmallStem>> == 11'173'962);
static_assert(st::output_extents<NafBlock>(20, 30).w == 30 && st::output_extents<NafBlock>(20, 30).whole);
static_assert(st::multiply_adds<NafBlock>(20, 30) == 600 * (8 * 16 + 16 * 9 + 8 * 8) + 8 * 8);
static_assert(st::receptive_field<Levels> == 12);
static_assert(st::multiply_adds<Levels>(8, 6) == 48 * (72 + 144) + 12 * 9 * 8 * 16 + 12 * 4 * 16 * 8);
static_assert(!st::output_extents<Levels>(9, 8).valid);  // the skip has another height

TEST_CASE("the parameters counted from the type are those that are there") {
  const auto count = [](auto net) {
    std::int64_t total = 0;
    st::for_each_parameter(net, [&](const std::string&, const st::Parameter& p) { total += p.size(); });
    return total;
  };
  CHECK(count(DnCNN<1, 16, 6>()) == st::parameter_count<DnCNN<1, 16, 6>>);
  CHECK(count(Classifier()) == st::parameter_count<Classifier>);
}

TEST_CASE("what the compiler cannot tell is found when it is asked for, of the object where there is one") {
  CHECK(st::receptive_field<OrdinaryLevels> == 12);
  CHECK(st::parameter_count<OrdinaryLevels> == st::parameter_count<Levels>);
  CHECK(st::multiply_adds<OrdinaryLevels>(8, 6) == st::multiply_adds<Levels>(8, 6));
  CHECK_THROWS_WITH_AS(st::multiply_adds<OrdinaryLevels>(9, 6),
                       doctest::Contains("cat of images of different extents: 1x8x8x6 and 1x8x9x6"), st::ShapeError);
  NafBlock block;
  const std::int64_t once = st::multiply_adds(block, 20, 30);
  block.twice = true;
  CHECK(st::multiply_adds(block, 20, 30) == once + 600 * 8 * 8);
  const NotMadeAlone made(3);
  const st::Facts facts = st::facts(made, 10, 12);
  CHECK(facts.parameters == 80);
  CHECK(facts.multiply_adds == 120 * 72);
  CHECK(facts.receptive_field == 3);
  CHECK(facts.output.c == 8);
  using Says = st::Sequential<st::Conv2d<1, 1>, Opaque>;
  CHECK(st::receptive_field<Says> == 5);
  CHECK(st::parameter_count<Says> == 13);
  CHECK(st::multiply_adds<Says>(10, 10) == 1200);
  CHECK_THROWS_AS(st::multiply_adds<Levels>(0, 8), st::ShapeError);
}

TEST_CASE("networks with static storage are made when the program starts, not by the compiler") {
  static const st::Sequential<st::Conv2d<1, 2>, st::ReLU, st::BatchNorm2d<2>> net;
  CHECK(net.layer<0>().weight.value().size() == 18);
  CHECK(net.layer<2>().running_var.value().data()[1] == 1.0f);
}

TEST_CASE("the receptive field is what an output depends on") {
  using st::Conv2d, st::Conv2dOptions, st::DepthwiseConv2d, st::Sequential, st::MaxPool2d, st::AvgPool2d,
      st::PixelShuffle;
  const auto check = []<class Net>(Net, int size) { CHECK(empirical_field<Net>(size) == st::receptive_field<Net>); };
  check(DnCNN<1, 2, 5>(), 19);
  check(Sequential<Conv2d<1, 1, 5>, Conv2d<1, 1, 1>, Conv2d<1, 1, 3, Conv2dOptions{.dilation = 3}>>(), 21);
  check(Sequential<Conv2d<1, 1, 3, Conv2dOptions{.stride = 2}>, Conv2d<1, 1>, Conv2d<1, 1>>(), 31);
  check(Sequential<Conv2d<1, 1>, AvgPool2d<2>, Conv2d<1, 1>, AvgPool2d<3, 2>, Conv2d<1, 1>>(), 49);
  check(Sequential<DepthwiseConv2d<1, 5, Conv2dOptions{.stride = 2}>,
                   DepthwiseConv2d<1, 3, Conv2dOptions{.dilation = 2}>>(),
        41);
  check(Sequential<Conv2d<1, 2, 3, Conv2dOptions{.stride = 2}>, Conv2d<2, 4>, PixelShuffle<4, 2>, Conv2d<1, 1>>(), 31);
}

TEST_CASE("the summary's text") {
  using Net = st::Residual<st::Sequential<st::Conv2d<1, 4>, st::ReLU, st::Repeat<2, st::Conv2d<4, 4, 3, st::no_bias>>,
                                          st::Conv2d<4, 1, 3, st::Conv2dOptions{.dilation = 2}>>>;
  CHECK(st::summary(Net(), {.batch = 2, .height = 10, .width = 100}) ==
        "name      layer                                               output (N x C x H x W)  parameters  "
        "multiply-adds\n"
        "body.0    Conv2d(1, 4, kernel_size=3, padding=1)              2x4x10x100                      40         "
        "72,000\n"
        "body.1    + ReLU()                                            2x4x10x100                       0              "
        "0\n"
        "body.2.0  Conv2d(4, 4, kernel_size=3, padding=1, bias=False)  2x4x10x100                     144        "
        "288,000\n"
        "body.2.1  Conv2d(4, 4, kernel_size=3, padding=1, bias=False)  2x4x10x100                     144        "
        "288,000\n"
        "body.3    Conv2d(4, 1, kernel_size=3, padding=2, dilation=2)  2x1x10x100                      37         "
        "72,000\n"
        "total: 365 parameters, 720,000 multiply-adds, receptive field 11 x 11\n");
  using Separable = st::Sequential<st::DepthwiseConv2d<4, 5, st::Conv2dOptions{.stride = 2, .bias = false}>, st::ReLU,
                                   st::Conv2d<4, 8, 1>>;
  CHECK(st::summary(Separable(), {.height = 10, .width = 20}) ==
        "name  layer                                                                         output (N x C x H x W)  "
        "parameters  multiply-adds\n"
        "0     DepthwiseConv2d(4, kernel_size=5, stride=2, padding=2, groups=4, bias=False)  1x4x5x10                  "
        "     100          5,000\n"
        "1     + ReLU()                                                                      1x4x5x10                  "
        "       0              0\n"
        "2     Conv2d(4, 8, kernel_size=1)                                                   1x8x5x10                  "
        "      40          1,600\n"
        "total: 140 parameters, 6,600 multiply-adds, receptive field 5 x 5\n");
  CHECK(st::summary(Classifier(), {.height = 28, .width = 28}).find("5     Flatten(16x12x12)") != std::string::npos);
  CHECK_THROWS_WITH_AS(st::summary(Classifier(), {.height = 5, .width = 5}), doctest::Contains("too few for it"),
                       st::ShapeError);
  CHECK_THROWS_AS(st::summary(Net(), {.batch = 0}), st::ValueError);
}

TEST_CASE("the summary of modules shows each layer as it runs") {
  NafBlock block;
  block.twice = true;
  CHECK(st::summary(block, {.batch = 2, .height = 10, .width = 10}) ==
        "name         layer                                                     output (N x C x H x W)  parameters  "
        "multiply-adds\n"
        "norm         LayerNorm2d(8, eps=1e-06)                                 2x8x10x10                       16     "
        "         0\n"
        "widen        Conv2d(8, 16, kernel_size=1)                              2x16x10x10                     144     "
        "    25,600\n"
        "spatial      DepthwiseConv2d(16, kernel_size=3, padding=1, groups=16)  2x16x10x10                     160     "
        "    28,800\n"
        "attention.0  GlobalAvgPool2d()                                         2x8x1x1                          0     "
        "         0\n"
        "attention.1  Conv2d(8, 8, kernel_size=1)                               2x8x1x1                         72     "
        "       128\n"
        "project      Conv2d(8, 8, kernel_size=1)                               2x8x10x10                       72     "
        "    12,800\n"
        "project      Conv2d(8, 8, kernel_size=1)                               2x8x10x10                   shared     "
        "    12,800\n"
        "-            Sigmoid()                                                 2x8x10x10                        0     "
        "         0\n"
        "total: 464 parameters, 80,128 multiply-adds, receptive field the whole image\n");
  CHECK(st::summary(ResNet18<SmallStem>(), {.height = 32, .width = 32}).find("555,422,720 multiply-adds") !=
        std::string::npos);
  CHECK(st::summary(Opaque()).find("Opaque") != std::string::npos);
  CHECK_THROWS_WITH_AS(st::summary(Levels(), {.height = 9}), doctest::Contains("cat of images"), st::ShapeError);
}
