// Depthwise 2-D convolution on the CPU: forward, and the gradients for its input and its weights. float and double.
//
//     st::DepthwiseConv2dProblem problem{.n = 16, .h = 40, .w = 40, .channels = 64};         // 3 x 3, padding 1
//     st::cpu::depthwise_conv2d_forward(problem, x, weight, bias, y, st::Activation::relu);
//
// Layouts: x and y are N,H,W,C; weight is C,KH,KW; bias is C. The result does not depend on the number of threads.
//
// There are few products for each number that is read, so what counts is that it is read once. A group of neighbouring
// pixels of a row is computed at a time, a vector of channels of each in a register; a number of x goes from memory to all
// sums that it belongs to. Pixels of the border belong to such groups as well, which look at each column whether it exists.
// A pixel's sum has the same terms in the same order wherever it lies. The gradient for the input is the same computation
// with the kernel turned around, in which a stride leaves out taps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/cpu/depthwise_conv2d_weight.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/activation.hpp"
#include "strata/math/depthwise_conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// Pixel i of a result comes from pixels (i * up + tap * dilation - padding) / down, those that are whole numbers and
/// exist. up is the stride of a convolution, down that of one that goes back.
struct DepthwiseGather {
  std::int64_t n, in_h, in_w, out_h, out_w;
  int channels, kernel, up, down, padding, dilation;

  /// Where tap `tap` of pixel i is, or -1 if it is nowhere.
  std::int64_t source(std::int64_t i, int tap, std::int64_t size) const {
    const std::int64_t place = i * up + std::int64_t{tap} * dilation - padding;
    return place >= 0 && place % down == 0 && place / down < size ? place / down : -1;
  }
};

/// What is done with a finished sum.
template <class T>
struct DepthwiseEpilogue {
  const T* bias;  ///< nullptr: zeros
  T floor;        ///< the least value that the activation gives
  bool accumulate;
};

/// A row of x that a row of the result is made of, and its row of the kernel: taps, channels.
template <class T>
struct DepthwiseRow {
  const T *x, *weight;
};
/// A column of the kernel that `down` does not leave out, and its place in x from that of the pixel on.
struct DepthwiseTap {
  int column;
  std::int64_t offset;
};

/// What a group of neighbours is computed from. Kernels get it by value: what they write cannot be part of it.
template <class T>
struct DepthwiseGroup {
  const DepthwiseRow<T>* rows;
  const DepthwiseTap* taps;
  int row_count, tap_count;
  std::int64_t first;            ///< the column of x from which the first pixel's taps count
  std::int64_t x_step, x_width;  ///< columns of x: from pixel to pixel, and in all
  T* y;                          ///< the first pixel
  std::int64_t y_step, count;    ///< numbers from pixel to pixel, and how many of the pixels there are
  std::int64_t channels;
  DepthwiseEpilogue<T> epilogue;
};

/// The sums of `Pixels` neighbours for the vector of channels at c. With Edge a column of x need not exist.
template <int Kernel, int Stride, int Pixels, bool Edge, class V, class T>
[[gnu::always_inline]] inline void depthwise_sums(const DepthwiseGroup<T>& group, std::int64_t c, V* sums) {
  const std::int64_t first = group.first + group.taps[0].offset;
  for (const DepthwiseRow<T>* row = group.rows; row != group.rows + group.row_count; ++row) {
    V weight[Kernel];
    const T* from = row->weight + c;
    simd::unroll<Kernel>([&](auto r) STRATA_INLINED { weight[r] = simd::load<V>(from + r * group.channels); });
    const T* x = row->x + c + (Edge ? 0 : first * group.channels);
    simd::unroll<(Pixels - 1) * Stride + Kernel>([&](auto column) STRATA_INLINED {
      if constexpr (Edge)
        if (first + column < 0 || first + column >= group.x_width) return;
      const V value = simd::load<V>(Edge ? x + (first + column) * group.channels : x);
      simd::unroll<Kernel>([&](auto r) STRATA_INLINED {
        constexpr int place = column - r;
        if constexpr (place >= 0 && place % Stride == 0 && place / Stride < Pixels) sums[place / Stride] += weight[r] * value;
      });
      if constexpr (!Edge) x += group.channels;
    });
  }
}

/// The same for any kernel, stride and dilation.
template <int Pixels, bool Edge, class V, class T>
[[gnu::always_inline]] inline void depthwise_sums_of_any(const DepthwiseGroup<T>& group, std::int64_t c, V* sums) {
  const std::int64_t channels = group.channels, step = group.x_step * channels;
  for (const DepthwiseRow<T>* row = group.rows; row != group.rows + group.row_count; ++row)
    for (const DepthwiseTap* tap = group.taps; tap != group.taps + group.tap_count; ++tap) {
      const V weight = simd::load<V>(row->weight + tap->column * channels + c);
      std::int64_t column = group.first + tap->offset;
      const T* x = row->x + c + (Edge ? 0 : column * channels);
      simd::unroll<Pixels>([&](auto p) STRATA_INLINED {
        if constexpr (Edge) {
          if (column >= 0 && column < group.x_width) sums[p] += weight * simd::load<V>(x + column * channels);
          column += group.x_step;
        } else {
          sums[p] += weight * simd::load<V>(x);
          x += step;
        }
      });
    }
}

/// Computes and writes a group, all channels of it.
template <int Kernel, int Stride, int Pixels, bool Edge, class T>
[[gnu::noinline]] void depthwise_group(DepthwiseGroup<T> group) {
  simd::over_vectors<T>(int(group.channels), [group]<class V>(int c) STRATA_INLINED {
    V sums[Pixels] = {};
    if constexpr (Kernel == 0)
      depthwise_sums_of_any<Pixels, Edge>(group, c, sums);
    else
      depthwise_sums<Kernel, Stride, Pixels, Edge>(group, c, sums);
    const V bias = group.epilogue.bias != nullptr ? simd::load<V>(group.epilogue.bias + c) : V{};
    const V floor = simd::broadcast<V>(group.epilogue.floor);
    T* to = group.y + c;
    const auto write = [&](auto finish) STRATA_INLINED {
      simd::unroll<Pixels>([&](auto p) STRATA_INLINED {
        if (Edge && p >= group.count) return;
        simd::store<V>(to, finish(simd::max(floor, sums[p] + bias)));
        to += group.y_step;
      });
    };
    if (group.epilogue.accumulate)
      write([&](V value) STRATA_INLINED { return simd::load<V>(to) + value; });
    else
      write([](V value) STRATA_INLINED { return value; });
  });
}

/// A kernel of 0 and a stride of 0 stand for any; others have no dilation, and down = 1.
template <int Kernel, int Stride, class T>
void depthwise_gather(const DepthwiseGather& extents, const T* x, const T* weight, T* y, const DepthwiseEpilogue<T>& epilogue) {
  constexpr int pixels = Kernel == 7 && simd::registers < 32 ? 6 : 8;  // with a row of the kernel they fill the registers
  // Which columns of the kernel a pixel of each phase has: those whose number, modulo `down`, is the phase.
  Scratch<DepthwiseTap> taps(std::size_t(extents.down * extents.kernel));
  Scratch<int> tap_counts(std::size_t(extents.down));
  for (int phase = 0; phase < extents.down; ++phase) {
    int& count = tap_counts.data()[phase] = 0;
    for (int r = 0; r < extents.kernel; ++r) {
      const std::int64_t place = phase + std::int64_t{r} * extents.dilation - extents.padding;
      if (place % extents.down == 0) taps.data()[phase * extents.kernel + count++] = {r, place / extents.down};
    }
  }
  // A strip of so many columns (some 100 KB of rows) goes down the image, so that the rows above are still in the second-level cache.
  const std::int64_t strip_size = 24576 * 4 / std::int64_t(sizeof(T)) / (std::int64_t{extents.channels} * extents.kernel);
  const std::int64_t strip = std::max<std::int64_t>(strip_size / pixels, 1) * pixels * extents.down;
  const std::int64_t rows_of_task = std::clamp<std::int64_t>(
      std::min((std::int64_t{1} << 18) / (extents.out_w * extents.channels), extents.n * extents.out_h / 16), 1, extents.out_h);
  const std::int64_t bands = (extents.out_h + rows_of_task - 1) / rows_of_task;
  WorkerScratch<DepthwiseRow<T>> row_scratch(extents.kernel);

  parallel_for(extents.n * bands, [&](std::int64_t task, int worker) {
    const DepthwiseGather g = extents;
    const std::int64_t channels = g.channels, image = task / bands;
    const std::int64_t top = task % bands * rows_of_task, bottom = std::min(g.out_h, top + rows_of_task);
    DepthwiseRow<T>* const rows = row_scratch[worker];
    for (std::int64_t left = 0; left < g.out_w; left += strip)
      for (std::int64_t i = top; i < bottom; ++i) {
        int row_count = 0;
        for (int q = 0; q < g.kernel; ++q)
          if (const std::int64_t at = g.source(i, q, g.in_h); at >= 0)
            rows[row_count++] = {x + (image * g.in_h + at) * g.in_w * channels, weight + q * g.kernel * channels};
        T* const to = y + (image * g.out_h + i) * g.out_w * channels;
        for (int phase = 0; phase < g.down; ++phase) {
          const std::int64_t end = (std::min(g.out_w, left + strip) - phase + g.down - 1) / g.down;  // in columns of the phase
          DepthwiseGroup<T> group{.rows = rows, .taps = taps.data() + phase * g.kernel, .row_count = row_count,
                                  .tap_count = tap_counts.data()[phase], .first = 0, .x_step = g.up, .x_width = g.in_w, .y = nullptr,
                                  .y_step = g.down * channels, .count = 0, .channels = channels, .epilogue = epilogue};
          for (std::int64_t j = left / g.down; j < end; j += pixels) {
            group.first = j * g.up;
            group.y = to + (phase + j * g.down) * channels;
            group.count = end - j;
            const bool inside = group.count >= pixels &&
                                (group.tap_count == 0 ||
                                 (group.first + group.taps[0].offset >= 0 &&
                                  group.first + (pixels - 1) * g.up + group.taps[group.tap_count - 1].offset < g.in_w));
            if (inside)
              depthwise_group<Kernel, Stride, pixels, false>(group);
            else
              depthwise_group<Kernel, Stride, pixels, true>(group);
          }
        }
      }
  });
}

/// `weight` in the order taps, channels; with `turned` the last tap first.
template <class T>
Scratch<T> depthwise_weights(int channels, int taps, const T* weight, bool turned) {
  Scratch<T> packed(std::size_t(channels * taps));
  for (int tap = 0; tap < taps; ++tap)
    for (int c = 0; c < channels; ++c)
      packed.data()[tap * channels + c] = weight[c * taps + (turned ? taps - 1 - tap : tap)];
  return packed;
}

/// Chooses the kernel that is compiled for these extents.
template <class T>
void depthwise_run(const DepthwiseGather& g, const T* x, const T* weight, T* y, const DepthwiseEpilogue<T>& epilogue) {
  const bool plain = g.dilation == 1 && g.down == 1;
  const auto is = [&](int kernel, int stride) { return plain && g.kernel == kernel && g.up == stride; };
  if (is(3, 1)) return depthwise_gather<3, 1>(g, x, weight, y, epilogue);
  if (is(3, 2)) return depthwise_gather<3, 2>(g, x, weight, y, epilogue);
  if (is(5, 1)) return depthwise_gather<5, 1>(g, x, weight, y, epilogue);
  if (is(7, 1)) return depthwise_gather<7, 1>(g, x, weight, y, epilogue);
  depthwise_gather<0, 0>(g, x, weight, y, epilogue);
}

}  // namespace detail

/// y = activation(bias + cross-correlation of each channel of x with its weights). bias may be nullptr: zeros.
/// Throws ShapeError if the problem's extents make no convolution.
template <class T>
void depthwise_conv2d_forward(const DepthwiseConv2dProblem& p, const T* x, const T* weight, const T* bias, T* y,
                              Activation activation) {
  check_depthwise_conv2d(p);
  const auto packed = detail::depthwise_weights(p.channels, p.kernel * p.kernel, weight, false);
  const T floor = activation == Activation::relu ? T(0) : -std::numeric_limits<T>::infinity();
  detail::depthwise_run<T>({p.n, p.h, p.w, p.out_h(), p.out_w(), p.channels, p.kernel, p.stride, 1, p.padding, p.dilation}, x,
                           packed.data(), y, {bias, floor, false});
}

/// dx = the gradient for the input, from the gradient dy for the output; dx += it if `accumulate`.
template <class T>
void depthwise_conv2d_backward_input(const DepthwiseConv2dProblem& p, const T* dy, const T* weight, T* dx, bool accumulate) {
  check_depthwise_conv2d(p);
  const auto packed = detail::depthwise_weights(p.channels, p.kernel * p.kernel, weight, true);
  detail::depthwise_run<T>({p.n, p.out_h(), p.out_w(), p.h, p.w, p.channels, p.kernel, 1, p.stride,
                            p.dilation * (p.kernel - 1) - p.padding, p.dilation},
                           dy, packed.data(), dx, {nullptr, -std::numeric_limits<T>::infinity(), accumulate});
}

}  // namespace strata::inline STRATA_ABI::cpu
