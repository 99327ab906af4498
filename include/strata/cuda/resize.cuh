// Images of another size, and back: a thread to an element, or four channels, of the result. Places are computed in
// whole numbers as in math/resize_problem.hpp, shares in float32. The gradient is gathered: the new pixels that show an
// old one lie beside each other, so nothing is added by chance order. Fewer than 2^31 elements on either side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/math/resize_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// One side of a resizing. New pixel i lies (i * step + offset) / parts pixels behind the middle of the first old one.
struct ResizeSide {
  int size, result;
  InterpolateMode mode;
  std::int64_t step, offset, parts;
  WideDivisor by_parts{1}, by_step{1};

  ResizeSide(const ResizeAxis& axis, InterpolateMode how, bool align_corners)
      : size(int(axis.size)), result(int(axis.result)), mode(how) {
    if (how == InterpolateMode::nearest) {
      step = axis.step, offset = 0, parts = axis.steps;
    } else if (align_corners) {
      step = result > 1 ? size - 1 : 0, offset = 0, parts = std::max(result - 1, 1);
    } else {
      step = 2 * axis.step, offset = axis.step - axis.steps, parts = 2 * axis.steps;
    }
    const std::int64_t common = std::gcd(std::gcd(step, offset), parts);
    step /= common, offset /= common, parts /= common;
    by_parts = WideDivisor(parts), by_step = WideDivisor(std::max<std::int64_t>(step, 1));
  }

  /// Pixels before and behind the one that a place begins in which have a share.
  STRATA_DEVICE_MEMBER int before() const { return mode == InterpolateMode::bicubic ? 1 : 0; }
  STRATA_DEVICE_MEMBER int behind() const {
    return mode == InterpolateMode::bicubic ? 2 : mode == InterpolateMode::bilinear ? 1 : 0;
  }

  /// The place of new pixel i, times parts.
  STRATA_DEVICE_MEMBER std::int64_t number(int i) const {
    const std::int64_t at = i * step + offset;
    return mode == InterpolateMode::bilinear && at < 0 ? 0 : at;
  }
  /// The pixel that a place begins in: -1 for those before the first, which are less than a pixel away.
  STRATA_DEVICE_MEMBER int first(std::int64_t at) const {
    return int(by_parts.quotient(at + parts)) - 1;
  }
  STRATA_DEVICE_MEMBER int inside(int pixel) const { return pixel < 0 ? 0 : pixel < size ? pixel : size - 1; }

  /// The share that pixel `v`, perhaps outside of the image, has in a place that begins in pixel `begin`; v is from
  /// begin - before() to begin + behind().
  STRATA_DEVICE_MEMBER float share(std::int64_t at, int begin, int v) const {
    if (mode == InterpolateMode::nearest) return v == begin ? 1.0f : 0.0f;
    const std::int64_t ahead = at - v * parts, distance = ahead < 0 ? -ahead : ahead;
    if (mode == InterpolateMode::bilinear) return float(parts - distance) / float(parts);
    const float d = float(distance) / float(parts), a = -0.75f;  // Keys, 1981
    return distance < parts ? ((a + 2.0f) * d - (a + 3.0f)) * d * d + 1.0f
                            : ((a * d - 5.0f * a) * d + 8.0f * a) * d - 4.0f * a;
  }
  /// The share that pixel p has in new pixel i: its own, and those of the pixels outside that it stands for.
  STRATA_DEVICE_MEMBER float whole_share(int i, int p) const {
    const std::int64_t at = number(i);
    const int begin = first(at);
    float sum = 0;
#pragma unroll 1
    for (int k = -before(); k <= behind(); ++k)
      if (inside(begin + k) == p) sum += share(at, begin, begin + k);
    return sum;
  }
  /// The first new pixel whose place is at least `pixel` old ones behind the first.
  STRATA_DEVICE_MEMBER int from(int pixel) const {
    const std::int64_t distance = pixel * parts - offset;
    if (distance <= 0) return 0;
    const std::int64_t i = by_step.quotient(distance + step - 1);
    return i < result ? int(i) : result;
  }
  /// The new pixels that pixel p may have a share in: from first_reader to below last_reader.
  STRATA_DEVICE_MEMBER int first_reader(int p) const { return p == 0 || step == 0 ? 0 : from(p - behind()); }
  STRATA_DEVICE_MEMBER int last_reader(int p) const {
    return p == size - 1 || step == 0 ? result : from(p + before() + 1);
  }
};

/// y = shares of rows and columns of x.
struct ResizeForward {
  const float* x;
  float* y;
  ResizeSide rows, columns;
  ElementPlace place;  ///< of the result
  int channels;
  bool aligned() const { return channels % 4 == 0 && aligned16(x, y); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const ElementPlace::Place o = place(element);
    const std::int64_t down = rows.number(o.i), across = columns.number(o.j);
    const int row = rows.first(down), column = columns.first(across);
    float of_row[4];
    int line[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      of_row[k] = k <= rows.before() + rows.behind() ? rows.share(down, row, row - rows.before() + k) : 0.0f;
      line[k] = (o.n * rows.size + rows.inside(row - rows.before() + k)) * columns.size;
    }
    Numbers<W> sum{};
#pragma unroll
    for (int l = 0; l < 4; ++l) {
      const int v = column - columns.before() + l;
      const float of_column = l <= columns.before() + columns.behind() ? columns.share(across, column, v) : 0.0f;
      if (of_column == 0.0f) continue;
      Numbers<W> between{};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (of_row[k] == 0.0f) continue;
        const Numbers<W> from = load<W>(x + std::int64_t(line[k] + columns.inside(v)) * channels + o.c);
#pragma unroll
        for (int e = 0; e < W; ++e) between.v[e] += of_row[k] * from.v[e];
      }
#pragma unroll
      for (int e = 0; e < W; ++e) sum.v[e] += of_column * between.v[e];
    }
    store<W>(y + element, sum);
  }
};

/// dx (+)= the sum of dy, times the pixel's shares, over the new pixels that it has a share in.
struct ResizeBackward : LongElements {
  const float* dy;
  float* dx;
  ResizeSide rows, columns;
  ElementPlace place;  ///< of the image
  int channels;
  bool accumulate;
  bool aligned() const { return channels % 4 == 0 && aligned16(dy, dx); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const ElementPlace::Place p = place(element);
    const int last_i = rows.last_reader(p.i), first_j = columns.first_reader(p.j), last_j = columns.last_reader(p.j);
    Numbers<W> sum{};
    for (int i = rows.first_reader(p.i); i < last_i; ++i) {
      const float of_row = rows.whole_share(i, p.i);
      if (of_row == 0.0f) continue;
      const float* const line = dy + std::int64_t(p.n * rows.result + i) * columns.result * channels + p.c;
      Numbers<W> between{};
      for (int j = first_j; j < last_j; ++j) {
        const float of_column = columns.whole_share(j, p.j);
        if (of_column == 0.0f) continue;
        const Numbers<W> g = load<W>(line + std::int64_t(j) * channels);
#pragma unroll
        for (int e = 0; e < W; ++e) between.v[e] += of_column * g.v[e];
      }
#pragma unroll
      for (int e = 0; e < W; ++e) sum.v[e] += of_row * between.v[e];
    }
    store<W>(dx + element, sum, accumulate);
  }
};

inline cudaError_t resize_forward(cudaStream_t stream, const ResizeProblem& p, const float* x, float* y) {
  return elementwise(
      stream, p.n * p.rows.result * p.columns.result * p.channels,
      ResizeForward{x, y, ResizeSide(p.rows, p.mode, p.align_corners), ResizeSide(p.columns, p.mode, p.align_corners),
                    ElementPlace(p.channels, p.columns.result, p.rows.result), p.channels});
}
inline cudaError_t resize_backward(cudaStream_t stream, const ResizeProblem& p, const float* dy, float* dx,
                                   bool accumulate) {
  return elementwise(stream, p.n * p.rows.size * p.columns.size * p.channels,
                     ResizeBackward{{},
                                    dy,
                                    dx,
                                    ResizeSide(p.rows, p.mode, p.align_corners),
                                    ResizeSide(p.columns, p.mode, p.align_corners),
                                    ElementPlace(p.channels, p.columns.size, p.rows.size),
                                    p.channels,
                                    accumulate});
}

}}}  // namespace strata::STRATA_ABI::cuda
