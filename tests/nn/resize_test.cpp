// Images of other sizes against PyTorch's interpolate, and the facts of such layers.
#include "strata/nn/resize.hpp"

#include "nn/operators_golden.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;
using operators::check;
using st::InterpolateMode;

namespace {

template <InterpolateMode Mode>
void check_mode(const std::string& name) {
  check<st::Resize<std::ratio<3, 2>, Mode>, 3>(name);
  check<st::Resize<std::ratio<1, 2>, Mode>, 3>(name + "_down");
  check<st::Resize<std::ratio<2, 3>, Mode>, 3>(name + "_thirds");
  check<st::Resize<std::ratio<2>, Mode>, 3>(name + "_twice");
  check<st::Resize<std::ratio<2, 5>, Mode>, 3>(name + "_less");
  check<3, 2>(name + "_like",
              [](auto& pass, const auto& x, const auto& y) { return st::resize_like(pass, x, y, {.mode = Mode}); });
  check<5>(name + "_one", [](auto& pass, const auto& x) { return st::interpolate(pass, x, 3, 1, {.mode = Mode}); });
  if constexpr (Mode != InterpolateMode::nearest) {
    check<st::Resize<std::ratio<2>, Mode, true>, 3>(name + "_corners");
    check<3, 2>(name + "_corners_like", [](auto& pass, const auto& x, const auto& y) {
      return st::resize_like(pass, x, y, {.mode = Mode, .align_corners = true});
    });
  }
}

}  // namespace

TEST_CASE("nearest pixels equal PyTorch's") { check_mode<InterpolateMode::nearest>("resize_nearest"); }
TEST_CASE("bilinear interpolation equals PyTorch's") { check_mode<InterpolateMode::bilinear>("resize_bilinear"); }
TEST_CASE("bicubic interpolation equals PyTorch's") { check_mode<InterpolateMode::bicubic>("resize_bicubic"); }

TEST_CASE("resizing: facts, and what does not fit") {
  using Up = st::Sequential<st::Resize<std::ratio<3, 2>, InterpolateMode::bicubic>, st::Conv2d<1, 1>>;
  static_assert(st::output_extents<Up>(7, 10).h == 10 && st::output_extents<Up>(7, 10).w == 15);
  static_assert(st::receptive_field<Up> == 6);  // three rows, two thirds of a row apart, of four each
  static_assert(
      st::receptive_field<st::Sequential<st::Resize<std::ratio<1, 2>, InterpolateMode::bilinear>, st::Conv2d<1, 1>>> ==
      6);
  static_assert(st::receptive_field<st::Resize<std::ratio<2>, InterpolateMode::bilinear, true>> == st::whole_image);
  CHECK(st::Resize<std::ratio<3, 2>, InterpolateMode::bicubic>::name() == "Resize(scale_factor=3/2, mode=bicubic)");
  st::Infer pass;
  const auto x = st::Image<1>::full(1, 1, 4, 1.0f);
  CHECK_THROWS_WITH_AS((void)(st::Resize<std::ratio<1, 2>>()(pass, x)),
                       doctest::Contains("an image of 1 x 4 pixels would become one of 0 x 2"), st::ShapeError);
  CHECK_FALSE(st::output_extents<st::Resize<std::ratio<1, 2>>>(1, 4).valid);
  CHECK_THROWS_AS((void)st::interpolate(pass, x, 2, 2, {.align_corners = true}), st::ValueError);
  CHECK_THROWS_AS((void)st::interpolate(pass, x, 0, 2), st::ShapeError);
}
