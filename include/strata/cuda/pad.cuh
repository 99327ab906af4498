// Rows and columns around an image, or taken away, and back: a thread to an element, or four channels, of the result.
// Fewer than 2^31 elements on either side, and in reflect mode fewer than 2^29 rows and columns.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/math/pad_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// One side of a padding: `before` new pixels, then the image's `size`, or less of them; `result` in all.
struct PadSide {
  int size, result, before;
  PaddingMode mode;
  int lower, upper, direction;  ///< where the first pixel's mirrors lie, or those where the image begins anew
  /// How many spans of new pixels show a pixel: its own place, with the margins that repeat it, and both mirrors, or
  /// both ends at which the image begins anew.
  int spans;

  PadSide(std::int64_t pixels, std::int64_t in_all, std::int64_t margin, PaddingMode how)
      : size(int(pixels)), result(int(in_all)), before(int(margin)), mode(how),
        lower(how == PaddingMode::circular ? before - size : before),
        upper(how == PaddingMode::circular ? before + size : before + 2 * (size - 1)),
        direction(how == PaddingMode::circular ? 1 : -1),
        spans(how == PaddingMode::reflect || how == PaddingMode::circular ? 3 : 1) {}
  static PadSide rows(const PadProblem& p) { return {p.h, p.out_h(), p.margins.top, p.mode}; }
  static PadSide columns(const PadProblem& p) { return {p.w, p.out_w(), p.margins.left, p.mode}; }

  /// The pixel that new pixel i shows, or -1: see PadProblem.
  STRATA_DEVICE_MEMBER int source(int i) const {
    const int at = i - before;
    if (at >= 0 && at < size) return at;
    if (mode == PaddingMode::zeros) return -1;
    if (mode == PaddingMode::reflect) return at < 0 ? -at : 2 * (size - 1) - at;
    if (mode == PaddingMode::replicate) return at < 0 ? 0 : size - 1;
    return at < 0 ? at + size : at - size;
  }

  /// The new pixels that show pixel p: begin to below end.
  struct Span {
    int begin, end;
  };
  STRATA_DEVICE_MEMBER Span span(int k, int p) const {
    const int own = p + before;
    int begin = own, end = own + 1;
    if (k > 0) {
      begin = (k == 1 ? lower : upper) + direction * p;
      end = begin + (begin != own);  // it is not mirrored at itself
    } else if (mode == PaddingMode::replicate) {
      if (p == 0) begin = 0;
      if (p == size - 1) end = result;
    }
    return {begin < 0 ? 0 : begin, end < result ? end : result};
  }
};

/// y = what the pixel shows, or 0.
struct PadForward {
  const float* x;
  float* y;
  PadSide rows, columns;
  ElementPlace place;  ///< of the result
  int channels;
  bool aligned() const { return channels % 4 == 0 && aligned16(x, y); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const ElementPlace::Place o = place(element);
    const int row = rows.source(o.i), column = columns.source(o.j);
    Numbers<W> v{};
    if (row >= 0 && column >= 0)
      v = load<W>(x + (std::int64_t(o.n * rows.size + row) * columns.size + column) * channels + o.c);
    store<W>(y + element, v);
  }
};

/// dx (+)= the sum of dy over the new pixels that show the pixel.
struct PadBackward : LongElements {
  const float* dy;
  float* dx;
  PadSide rows, columns;
  ElementPlace place;  ///< of the image
  int channels;
  bool accumulate;
  bool aligned() const { return channels % 4 == 0 && aligned16(dy, dx); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const ElementPlace::Place p = place(element);
    Numbers<W> sum{};
    for (int a = 0; a < rows.spans; ++a) {
      const PadSide::Span down = rows.span(a, p.i);
      for (int i = down.begin; i < down.end; ++i) {
        const float* const line = dy + std::int64_t(p.n * rows.result + i) * columns.result * channels + p.c;
        for (int b = 0; b < columns.spans; ++b) {
          const PadSide::Span across = columns.span(b, p.j);
          for (int j = across.begin; j < across.end; ++j) {
            const Numbers<W> g = load<W>(line + std::int64_t(j) * channels);
#pragma unroll
            for (int e = 0; e < W; ++e) sum.v[e] += g.v[e];
          }
        }
      }
    }
    store<W>(dx + element, sum, accumulate);
  }
};

inline cudaError_t pad_forward(cudaStream_t stream, const PadProblem& p, const float* x, float* y) {
  return elementwise(stream, p.n * p.out_h() * p.out_w() * p.channels,
                     PadForward{x, y, PadSide::rows(p), PadSide::columns(p),
                                ElementPlace(p.channels, p.out_w(), p.out_h()), p.channels});
}
inline cudaError_t pad_backward(cudaStream_t stream, const PadProblem& p, const float* dy, float* dx, bool accumulate) {
  return elementwise(stream, p.n * p.h * p.w * p.channels,
                     PadBackward{{},
                                 dy,
                                 dx,
                                 PadSide::rows(p),
                                 PadSide::columns(p),
                                 ElementPlace(p.channels, p.w, p.h),
                                 p.channels,
                                 accumulate});
}

}}}  // namespace strata::STRATA_ABI::cuda
