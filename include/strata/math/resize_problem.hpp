// The extents of a resizing, and which pixels each new one is made of: torch.nn.functional.interpolate without
// antialiasing. Places are computed in whole numbers, so that a part of an image has the bits of the whole.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The nearest pixel, two on each axis, or four (Keys, 1981, with a = -0.75 as PyTorch and OpenCV have it).
enum class InterpolateMode : unsigned char { nearest, bilinear, bicubic };

/// One new pixel along an axis: shares of `count` pixels.
struct ResizeTaps {
  int count = 1;
  std::array<std::int64_t, 4> pixel{};
  std::array<double, 4> share{};
};

/// One axis: `size` pixels become `result`, and a new pixel is step / steps old ones wide.
struct ResizeAxis {
  std::int64_t size = 1, result = 1, step = 1, steps = 1;

  /// To `result` pixels, whatever becomes of the proportions.
  static constexpr ResizeAxis to(std::int64_t size, std::int64_t result) { return {size, result, size, result}; }
  /// By the factor up / down; what is less than a pixel in the end is left out.
  static constexpr ResizeAxis by(std::int64_t size, std::int64_t up, std::int64_t down) {
    return {size, size * up / down, down, up};
  }

  constexpr ResizeTaps taps(std::int64_t i, InterpolateMode mode, bool align_corners) const {
    if (mode == InterpolateMode::nearest) return {1, {std::min(i * step / steps, size - 1)}, {1}};
    // The place is number / parts pixels behind the middle of the first one.
    std::int64_t number = (2 * i + 1) * step - steps, parts = 2 * steps;
    if (align_corners) number = result > 1 ? i * (size - 1) : 0, parts = std::max<std::int64_t>(result - 1, 1);
    if (mode == InterpolateMode::bilinear) number = std::max<std::int64_t>(number, 0);
    const std::int64_t first = number / parts - (number % parts < 0 ? 1 : 0);
    const double t = double(number - first * parts) / double(parts);
    const auto inside = [&](std::int64_t at) { return std::clamp<std::int64_t>(at, 0, size - 1); };
    if (mode == InterpolateMode::bilinear) return {2, {inside(first), inside(first + 1)}, {1 - t, t}};
    return {4,
            {inside(first - 1), inside(first), inside(first + 1), inside(first + 2)},
            {within_two(t + 1), within_one(t), within_one(1 - t), within_two(2 - t)}};
  }

 private:
  static constexpr double a = -0.75;
  static constexpr double within_one(double x) { return ((a + 2) * x - (a + 3)) * x * x + 1; }
  static constexpr double within_two(double x) { return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a; }
};

struct ResizeProblem {
  std::int64_t n = 1;
  int channels = 1;
  ResizeAxis rows, columns;
  InterpolateMode mode = InterpolateMode::nearest;
  bool align_corners = false;
};

}}  // namespace strata::STRATA_ABI
