// Pooling with padding, cut windows and parts of an image, against PyTorch's; the plain cases are in layers_test.cpp.
#include "strata/nn/pooling.hpp"

#include <array>

#include "autograd/random_image.hpp"
#include "nn/operators_golden.hpp"
#include "strata/nn/adaptive_max_pool.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/memory.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;
using operators::check;

TEST_CASE("pooling with padding and cut windows equals PyTorch's") {
  constexpr st::MaxPool2dOptions ceil{.ceil_mode = true};
  check<st::MaxPool2d<3, 2, 1>, 3>("max_pool_resnet");
  check<st::MaxPool2d<2, 1, 1>, 2>("max_pool_padded");
  check<st::MaxPool2d<3, 2, 0, ceil>, 5>("max_pool_ceil");
  check<st::MaxPool2d<4, 3, 2, ceil>, 2>("max_pool_all");
  check<st::AvgPool2d<3, 2, 1>, 3>("avg_pool_padded");
  check<st::AvgPool2d<3, 2, 1, st::AvgPool2dOptions{.count_include_pad = false}>, 3>("avg_pool_without_padding");
  check<st::AvgPool2d<3, 2, 1, st::AvgPool2dOptions{.ceil_mode = true}>, 2>("avg_pool_ceil");
  check<st::AvgPool2d<4, 3, 2, st::AvgPool2dOptions{.ceil_mode = true, .count_include_pad = false}>, 5>("avg_pool_all");
  check<st::AvgPool2d<3, 1, 1>, 3>("avg_pool_one_pixel");
}

TEST_CASE("adaptive pooling equals PyTorch's") {
  check<st::AdaptiveAvgPool2d<3, 2>, 3>("adaptive_pool");
  check<st::AdaptiveAvgPool2d<7>, 2>("adaptive_pool_larger");
  check<st::AdaptiveAvgPool2d<2>, 5>("adaptive_pool_even");
  check<st::AdaptiveAvgPool2d<1>, 3>("adaptive_pool_one");
  check<st::AdaptiveMaxPool2d<3, 2>, 3>("adaptive_max_pool");
  check<st::AdaptiveMaxPool2d<7>, 2>("adaptive_max_pool_larger");
  check<st::AdaptiveMaxPool2d<2>, 5>("adaptive_max_pool_even");
  check<st::AdaptiveMaxPool2d<1>, 19>("adaptive_max_pool_one");
  for (const auto [h, w] : {std::array<std::int64_t, 2>{1, 1}, {5, 7}}) {
    const auto report =
        st::gradient_check([](auto& pass, const auto& x) { return st::AdaptiveMaxPool2d<3, 2>()(pass, x); },
                           strata_test::random_image<5>(2, h, w, 1));
    CHECK_MESSAGE(report.ok(), report.str());
  }
}

TEST_CASE("pooling: facts, names and what does not fit") {
  using Net = st::Sequential<st::Conv2d<3, 4, 1>, st::MaxPool2d<3, 2, 1>,
                             st::AvgPool2d<3, 2, 0, st::AvgPool2dOptions{.ceil_mode = true}>>;
  static_assert(st::receptive_field<Net> == 7);
  static_assert(st::output_extents<Net>(13, 16).h == 3 && st::output_extents<Net>(13, 16).w == 4);  // 7 x 8 between
  static_assert(st::output_extents<st::AdaptiveAvgPool2d<3, 2>>(10, 1).w == 2);
  static_assert(st::receptive_field<st::AdaptiveAvgPool2d<3, 2>> == st::whole_image);
  st::Infer pass;
  const st::Image<3> x = st::Image<3>::full(1, 13, 16, 1.0f);
  CHECK(Net()(pass, x).value().shape() == st::Shape{1, 4, 3, 4});
  CHECK(st::MaxPool2d<3, 2, 1>::name() == "MaxPool2d(kernel_size=3, stride=2, padding=1)");
  CHECK(st::AvgPool2d<3, 2, 1, st::AvgPool2dOptions{.ceil_mode = true, .count_include_pad = false}>::name() ==
        "AvgPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)");
  CHECK(st::AdaptiveAvgPool2d<7, 5>::name() == "AdaptiveAvgPool2d(output_size=(7, 5))");
  CHECK(st::MaxPool2d<3, 2, 1>::memory({1, 4, 7, 6}).kept ==
        st::MemoryPool::block_bytes(4 * 4 * 3 * sizeof(std::int64_t)));
  CHECK_THROWS_WITH_AS(
      (void)(st::MaxPool2d<5, 1, 1>()(pass, st::Image<1>(1, 2, 4))),
      doctest::Contains("an image of 2 x 4 pixels is smaller than the window of 5 x 5 with its padding"),
      st::ShapeError);
  CHECK_FALSE(st::output_extents<st::MaxPool2d<5, 1, 1>>(2, 4).valid);
  CHECK_THROWS_AS((void)(st::AdaptiveAvgPool2d<2>()(pass, st::Image<1>(1, 0, 4))), st::ShapeError);
  static_assert(st::output_extents<st::AdaptiveMaxPool2d<3, 2>>(10, 1).w == 2);
  CHECK(st::AdaptiveMaxPool2d<7, 5>::name() == "AdaptiveMaxPool2d(output_size=(7, 5))");
  CHECK_THROWS_AS((void)(st::AdaptiveMaxPool2d<2>()(pass, st::Image<1>(1, 0, 4))), st::ShapeError);
}
