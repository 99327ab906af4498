// Images of another size, and with borders, on the CUDA backend against the CPU's in double.
#include <algorithm>

#include "device_test.hpp"
#include "strata/cpu/pad.hpp"
#include "strata/cpu/resize.hpp"

using namespace device_test;
using strata::InterpolateMode, strata::PaddingMode, strata::PadProblem, strata::ResizeAxis, strata::ResizeProblem;

namespace {

std::vector<double> sum(std::vector<double> wanted, const Numbers& old) {
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += double(old[i]);
  return wanted;
}

void check_resize(const ResizeProblem& p) {
  const std::string shape =
      strata::concat(p.n, "x", p.channels, "x", p.rows.size, "x", p.columns.size, " to ", p.rows.result, " x ",
                     p.columns.result, ", mode ", int(p.mode), p.align_corners ? ", aligned" : "");
  CAPTURE(shape);
  const std::int64_t in = p.n * p.rows.size * p.columns.size * p.channels,
                     out = p.n * p.rows.result * p.columns.result * p.channels;
  const Numbers x = numbers(in, 1), dy = numbers(out, 2), old = numbers(in, 3);
  std::vector<double> y(static_cast<std::size_t>(out)), dx(x.size(), 0.0);
  strata::cpu::resize_forward<double>(p, doubles(x).data(), y.data());
  strata::cpu::resize_backward<double>(p, doubles(dy).data(), dx.data(), false);
  const DeviceArray<float> dev_x(x), dev_dy(dy), dev_y(y.size()), dev_dx(x.size()), dev_added(old);
  gpu().resize_forward(p, dev_x.data(), dev_y.data());
  // Three roundings of each share of a row and a column, as many in each of the two sums, and bicubic's shares, whose
  // magnitudes add up to 1.6 at most, are polynomials of ten operations on numbers up to 6.
  const bool exact = p.mode == InterpolateMode::nearest;
  CHECK(largest_error(dev_y, y) <= (exact ? 0 : p.mode == InterpolateMode::bilinear ? 10 : 60) * unit);
  gpu().resize_backward(p, dev_dy.data(), dev_dx.data(), false);
  const double readers = std::max(1.0, double(p.rows.result * p.columns.result) / double(p.rows.size * p.columns.size));
  const double error = (p.mode == InterpolateMode::bicubic ? 60 : 10) * unit;
  CHECK(largest_error(dev_dx, dx, readers) <= error);
  gpu().resize_backward(p, dev_dy.data(), dev_added.data(), true);
  CHECK(largest_error(dev_added, sum(dx, old), readers) <= error);
}

/// All modes and corners.
void check_resizes(ResizeProblem p) {
  for (const InterpolateMode mode : {InterpolateMode::nearest, InterpolateMode::bilinear, InterpolateMode::bicubic})
    for (const bool align : {false, true}) {
      if (align && mode == InterpolateMode::nearest) continue;
      p.mode = mode, p.align_corners = align;
      check_resize(p);
    }
}

void check_pad(const PadProblem& p) {
  const std::string shape =
      strata::concat(p.n, "x", p.channels, "x", p.h, "x", p.w, ", margins ", p.margins.left, " ", p.margins.right, " ",
                     p.margins.top, " ", p.margins.bottom, ", mode ", int(p.mode));
  CAPTURE(shape);
  const std::int64_t in = p.n * p.h * p.w * p.channels, out = p.n * p.out_h() * p.out_w() * p.channels;
  const Numbers x = numbers(in, 1), dy = numbers(out, 2), old = numbers(in, 3);
  std::vector<double> y(static_cast<std::size_t>(out)), dx(x.size(), 0.0);
  strata::cpu::pad_forward<double>(p, doubles(x).data(), y.data());
  strata::cpu::pad_backward<double>(p, doubles(dy).data(), dx.data(), false);
  const DeviceArray<float> dev_x(x), dev_dy(dy), dev_y(y.size()), dev_dx(x.size()), dev_added(old);
  gpu().pad_forward(p, dev_x.data(), dev_y.data());
  CHECK(largest_error(dev_y, y) == 0);
  gpu().pad_backward(p, dev_dy.data(), dev_dx.data(), false);
  CHECK(largest_error(dev_dx, dx, 4) <= 6 * unit);
  gpu().pad_backward(p, dev_dy.data(), dev_added.data(), true);
  CHECK(largest_error(dev_added, sum(dx, old), 4) <= 6 * unit);
}

/// All modes that the image is large enough for.
void check_pads(PadProblem p) {
  const auto& [left, right, top, bottom] = p.margins;
  using enum PaddingMode;
  for (const PaddingMode mode : {zeros, reflect, replicate, circular}) {
    if (mode == PaddingMode::reflect && (std::max(left, right) >= p.w || std::max(top, bottom) >= p.h)) continue;
    if (mode == PaddingMode::circular && (std::max(left, right) > p.w || std::max(top, bottom) > p.h)) continue;
    p.mode = mode;
    check_pad(p);
  }
}

}  // namespace

TEST_CASE("resizing by factors and to extents") {
  in_every_order([] {
    check_resizes({.n = 2, .channels = 3, .rows = ResizeAxis::by(5, 2, 1), .columns = ResizeAxis::by(4, 2, 1)});
    check_resizes({.n = 1, .channels = 4, .rows = ResizeAxis::to(7, 3), .columns = ResizeAxis::to(5, 9)});
  });
  in_random_order([] {
    check_resizes({.n = 1, .channels = 1, .rows = ResizeAxis::to(1, 1), .columns = ResizeAxis::to(1, 1)});
    check_resizes({.n = 2, .channels = 2, .rows = ResizeAxis::to(1, 6), .columns = ResizeAxis::to(2, 7)});
    check_resizes({.n = 2, .channels = 8, .rows = ResizeAxis::to(6, 1), .columns = ResizeAxis::to(9, 2)});
    check_resizes({.n = 1, .channels = 5, .rows = ResizeAxis::by(7, 3, 2), .columns = ResizeAxis::by(9, 3, 2)});
    check_resizes({.n = 1, .channels = 3, .rows = ResizeAxis::by(11, 2, 7), .columns = ResizeAxis::by(8, 1, 2)});
    check_resizes({.n = 1, .channels = 4, .rows = ResizeAxis::by(3, 4, 1), .columns = ResizeAxis::by(3, 5, 1)});
  });
}

TEST_CASE("extents whose products are more than 31 bits") {
  for (const InterpolateMode mode : {InterpolateMode::bilinear, InterpolateMode::bicubic})
    in_random_order([&] {
      check_resize(
          {.rows = ResizeAxis::to(1, 1), .columns = ResizeAxis::to(50022, 60014), .mode = mode, .align_corners = true});
    });
}

TEST_CASE("a pixel without a share is not read") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const InterpolateMode mode : {InterpolateMode::bilinear, InterpolateMode::bicubic}) {
    const Numbers x{1, 2, nan, 4, 5, 6, 7, 8, 9};
    const DeviceArray<float> from(x), to(9);
    gpu().resize_forward({.channels = 1, .rows = ResizeAxis::to(3, 3), .columns = ResizeAxis::to(3, 3), .mode = mode},
                         from.data(), to.data());
    const Numbers y = to.download();
    for (std::size_t i = 0; i < 9; ++i) CHECK((i == 2 ? std::isnan(y[i]) : y[i] == x[i]));
  }
}

TEST_CASE("borders of every mode, and parts of images") {
  in_every_order([] {
    check_pads({.n = 2, .h = 5, .w = 4, .channels = 3, .margins = {.left = 1, .right = 2, .top = 3, .bottom = 1}});
    check_pads({.n = 1, .h = 4, .w = 6, .channels = 4, .margins = {.left = -2, .right = 3, .top = 2, .bottom = -1}});
  });
  in_random_order([] {
    check_pads({.n = 1, .h = 1, .w = 1, .channels = 1, .margins = {}});
    check_pads({.n = 2, .h = 1, .w = 2, .channels = 8, .margins = {.left = 3, .right = 4, .top = 2, .bottom = 5}});
    check_pads({.n = 2, .h = 6, .w = 5, .channels = 2, .margins = {.left = 4, .right = 4, .top = 5, .bottom = 5}});
    check_pads({.n = 1, .h = 7, .w = 8, .channels = 5, .margins = {.left = -3, .right = -2, .top = -4, .bottom = -2}});
    check_pads({.n = 1, .h = 3, .w = 4, .channels = 1, .margins = {.left = 2, .right = -4, .top = -3, .bottom = 2}});
  });
}

TEST_CASE("extents that cannot be: an error") {
  const DeviceArray<float> x(16);
  CHECK_THROWS_AS(gpu().resize_forward({.channels = 1, .rows = ResizeAxis::to(4, 0), .columns = ResizeAxis::to(4, 2)},
                                       x.data(), x.data()),
                  strata::ShapeError);
  CHECK_THROWS_AS(gpu().pad_forward({.h = 4, .w = 4, .margins = {.left = -5, .right = 3}}, x.data(), x.data()),
                  strata::ShapeError);
  CHECK_THROWS_AS(
      gpu().pad_forward({.h = 2, .w = 2, .margins = {.left = 2}, .mode = PaddingMode::reflect}, x.data(), x.data()),
      strata::ShapeError);
  CHECK_THROWS_AS(gpu().pad_forward({.h = 2, .w = 2, .margins = {.top = -2}}, x.data(), x.data()), strata::ShapeError);

  // More elements than 31 bits count, and more than 64 do.
  for (const std::int64_t side : {std::int64_t{1} << 16, std::int64_t{1} << 32}) {
    const ResizeAxis axis = ResizeAxis::to(1, side);
    CHECK_THROWS_AS(gpu().resize_forward({.rows = axis, .columns = axis}, x.data(), x.data()), strata::ShapeError);
    CHECK_THROWS_AS(gpu().resize_backward({.rows = axis, .columns = axis}, x.data(), x.data(), false),
                    strata::ShapeError);
    CHECK_THROWS_AS(gpu().pad_forward({.margins = {.left = side, .top = side}}, x.data(), x.data()),
                    strata::ShapeError);
  }
  CHECK_THROWS_AS(gpu().pad_forward({.margins = {.left = std::int64_t{1} << 62}}, x.data(), x.data()),
                  strata::ShapeError);
  CHECK_THROWS_AS(
      gpu().avg_pool_forward({.n = std::int64_t{1} << 40, .h = 1 << 12, .w = 1 << 12}, x.data(), x.data()),
      strata::ShapeError);
}
