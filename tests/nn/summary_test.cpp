// What follows from a network's type: counts, receptive fields, the summary.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "autograd/random_image.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/pooling.hpp"
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

TEST_CASE("the parameters counted from the type are those that are there") {
  const auto count = [](auto net) {
    std::int64_t total = 0;
    st::for_each_parameter(net, [&](const std::string&, const st::Parameter& p) { total += p.size(); });
    return total;
  };
  CHECK(count(DnCNN<1, 16, 6>()) == st::parameter_count<DnCNN<1, 16, 6>>);
  CHECK(count(Classifier()) == st::parameter_count<Classifier>);
}

TEST_CASE("the receptive field is what an output depends on") {
  using st::Conv2d, st::Conv2dOptions, st::DepthwiseConv2d, st::Sequential, st::MaxPool2d, st::AvgPool2d, st::PixelShuffle;
  const auto check = []<class Net>(Net, int size) { CHECK(empirical_field<Net>(size) == st::receptive_field<Net>); };
  check(DnCNN<1, 2, 5>(), 19);
  check(Sequential<Conv2d<1, 1, 5>, Conv2d<1, 1, 1>, Conv2d<1, 1, 3, Conv2dOptions{.dilation = 3}>>(), 21);
  check(Sequential<Conv2d<1, 1, 3, Conv2dOptions{.stride = 2}>, Conv2d<1, 1>, Conv2d<1, 1>>(), 31);
  check(Sequential<Conv2d<1, 1>, AvgPool2d<2>, Conv2d<1, 1>, AvgPool2d<3, 2>, Conv2d<1, 1>>(), 49);
  check(Sequential<DepthwiseConv2d<1, 5, Conv2dOptions{.stride = 2}>, DepthwiseConv2d<1, 3, Conv2dOptions{.dilation = 2}>>(), 41);
  check(Sequential<Conv2d<1, 2, 3, Conv2dOptions{.stride = 2}>, Conv2d<2, 4>, PixelShuffle<4, 2>, Conv2d<1, 1>>(), 31);
}

TEST_CASE("the summary's text") {
  using Net = st::Residual<st::Sequential<st::Conv2d<1, 4>, st::ReLU, st::Repeat<2, st::Conv2d<4, 4, 3, st::no_bias>>,
                                          st::Conv2d<4, 1, 3, st::Conv2dOptions{.dilation = 2}>>>;
  CHECK(st::summary(Net(), {.batch = 2, .height = 10, .width = 100}) ==
        "name      layer                                               output (N x C x H x W)  parameters  multiply-adds\n"
        "body.0    Conv2d(1, 4, kernel_size=3, padding=1)              2x4x10x100                      40         72,000\n"
        "body.1    + ReLU()                                            2x4x10x100                       0              0\n"
        "body.2.0  Conv2d(4, 4, kernel_size=3, padding=1, bias=False)  2x4x10x100                     144        288,000\n"
        "body.2.1  Conv2d(4, 4, kernel_size=3, padding=1, bias=False)  2x4x10x100                     144        288,000\n"
        "body.3    Conv2d(4, 1, kernel_size=3, padding=2, dilation=2)  2x1x10x100                      37         72,000\n"
        "total: 365 parameters, 720,000 multiply-adds, receptive field 11 x 11\n");
  using Separable = st::Sequential<st::DepthwiseConv2d<4, 5, st::Conv2dOptions{.stride = 2, .bias = false}>, st::ReLU, st::Conv2d<4, 8, 1>>;
  CHECK(st::summary(Separable(), {.height = 10, .width = 20}) ==
        "name  layer                                                                         output (N x C x H x W)  parameters  multiply-adds\n"
        "0     DepthwiseConv2d(4, kernel_size=5, stride=2, padding=2, groups=4, bias=False)  1x4x5x10                       100          5,000\n"
        "1     + ReLU()                                                                      1x4x5x10                         0              0\n"
        "2     Conv2d(4, 8, kernel_size=1)                                                   1x8x5x10                        40          1,600\n"
        "total: 140 parameters, 6,600 multiply-adds, receptive field 5 x 5\n");
  CHECK(st::summary(Classifier(), {.height = 28, .width = 28}).find("5     Flatten(16x12x12)") != std::string::npos);
  CHECK_THROWS_WITH_AS(st::summary(Classifier(), {.height = 5, .width = 5}), doctest::Contains("too few for it"), st::ShapeError);
  CHECK_THROWS_AS(st::summary(Net(), {.batch = 0}), st::ValueError);
}
