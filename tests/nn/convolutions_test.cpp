// Convolutions with groups, padding modes and kernels that are not square, and transposed ones with every padding:
// against PyTorch's, gradients, tiles, names and errors.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "autograd/random_image.hpp"
#include "nn/operators_golden.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/deploy/tile.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;
using st::Conv2d, st::Conv2dOptions, st::ConvTranspose2d, st::ConvTranspose2dOptions, st::KernelSize, st::PaddingMode;
using strata_test::random_image;

namespace {

using Groups = Conv2d<8, 8, 3, Conv2dOptions{.groups = 2}>;
using Apart = Conv2d<6, 9, 3, Conv2dOptions{.stride = 2, .groups = 3, .bias = false}>;
using Multiplied = Conv2d<3, 6, 3, Conv2dOptions{.groups = 3}>;
using Reflect = Conv2d<3, 5, 5, Conv2dOptions{.padding_mode = PaddingMode::reflect}>;
using Replicate = Conv2d<2, 3, 3, Conv2dOptions{.stride = 2, .padding = 3, .padding_mode = PaddingMode::replicate}>;
using Circular = Conv2d<4, 4, 3, Conv2dOptions{.groups = 4, .padding_mode = PaddingMode::circular}>;
using Row = Conv2d<3, 4, KernelSize{1, 7}>;
using Column = Conv2d<3, 4, KernelSize{5, 2},
                      Conv2dOptions{.stride = 2, .padding = 1, .padding_w = 0, .padding_mode = PaddingMode::reflect}>;
using First = ConvTranspose2d<7, 5, 4, ConvTranspose2dOptions{.stride = 1, .padding = 0}>;
using Padded = ConvTranspose2d<3, 4, 3, ConvTranspose2dOptions{.stride = 2, .padding = 0, .output_padding = 1}>;
using Gaps = ConvTranspose2d<3, 2, 2, ConvTranspose2dOptions{.stride = 3, .padding = 0}>;
using Smaller = ConvTranspose2d<18, 20, 3, ConvTranspose2dOptions{.stride = 1, .padding = 2, .bias = false}>;

}  // namespace

TEST_CASE("convolutions with groups equal PyTorch's") {
  operators::check<Groups, 8>("convolution_groups");
  operators::check<Apart, 6>("convolution_groups_apart");
  operators::check<Multiplied, 3>("convolution_multiplied");
}

TEST_CASE("padding modes equal PyTorch's") {
  operators::check<Reflect, 3>("convolution_reflect");
  operators::check<Replicate, 2>("convolution_replicate");
  operators::check<Circular, 4>("convolution_circular");
}

TEST_CASE("kernels that are not square equal PyTorch's") {
  operators::check<Row, 3>("convolution_row");
  operators::check<Column, 3>("convolution_column");
}

TEST_CASE("transposed convolutions with every padding equal PyTorch's") {
  operators::check<First, 7>("convolution_transpose_first");
  operators::check<Padded, 3>("convolution_transpose_padded");
  operators::check<Gaps, 3>("convolution_transpose_gaps");
  operators::check<Smaller, 18>("convolution_transpose_smaller");
}

TEST_CASE("gradients of convolutions with groups and padding modes") {
  const auto check = [](auto net, const auto& image) {
    st::initialize(net, 5);
    const auto report = st::GradientCheck({.samples = 30})(net, image);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  check(Groups(), random_image<8>(2, 5, 4, 1));
  check(Column(), random_image<3>(1, 6, 5, 2));
  check(Circular(), random_image<4>(2, 3, 4, 3));
  check(Gaps(), random_image<3>(1, 2, 3, 4));
}

TEST_CASE("tiles of convolutions with a border of the image's own pixels have the bits of the whole") {
  using Net = st::Sequential<Conv2d<1, 16, 3, Conv2dOptions{.padding_mode = PaddingMode::reflect}>,
                             Conv2d<16, 16, 3, Conv2dOptions{.groups = 4}>,
                             Conv2d<16, 16, 5, Conv2dOptions{.padding_mode = PaddingMode::replicate}>,
                             Conv2d<16, 1, KernelSize{3, 1}, Conv2dOptions{.padding_mode = PaddingMode::reflect}>>;
  static_assert(st::receptive_field<Net> == 11);
  Net net;
  for (const auto& [h, w] : {std::pair{90, 61}, {57, 130}}) {
    const auto image = random_image<1>(1, h, w, 7);
    st::Infer pass;
    const auto whole = st::as_var(std::as_const(net)(pass, image)).value();
    const auto tiled = st::run_tiled(net, image, {.tile = 24});
    CHECK(std::equal(whole.span().begin(), whole.span().end(), tiled.span().begin(), tiled.span().end()));
  }
}

TEST_CASE("names, shapes and costs of convolutions, and what they refuse") {
  CHECK(Groups::name() == "Conv2d(8, 8, kernel_size=3, padding=1, groups=2)");
  CHECK(Column::name() == "Conv2d(3, 4, kernel_size=(5, 2), stride=2, padding=(1, 0), padding_mode=reflect)");
  CHECK(Row::name() == "Conv2d(3, 4, kernel_size=(1, 7), padding=(0, 3))");
  CHECK(First::name() == "ConvTranspose2d(7, 5, kernel_size=4, stride=1)");
  CHECK(Groups().weight.shape() == st::Shape{8, 4, 3, 3});
  CHECK(Row().weight.shape() == st::Shape{4, 3, 1, 7});
  static_assert(st::parameter_count<Groups> == 8 * 4 * 9 + 8);
  static_assert(st::multiply_adds<Groups>(5, 6) == 5 * 6 * 8 * 4 * 9);
  static_assert(std::is_same_v<st::DepthwiseConv2d<6>, Conv2d<6, 6, 3, Conv2dOptions{.groups = 6}>>);
  st::Infer pass;
  CHECK_THROWS_WITH_AS(
      Reflect()(pass, st::Image<3>::full(1, 2, 9, 0.0f)),
      doctest::Contains(
          "padding_mode=reflect with a padding of 2 on an image of 2x9 pixels; the padding must be smaller"),
      st::ShapeError);
  CHECK_THROWS_WITH_AS(Smaller()(pass, st::Image<18>::full(1, 1, 2, 0.0f)),
                       doctest::Contains("the padding leaves nothing"), st::ShapeError);
}
