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
#include "strata/cpu/batch_norm.hpp"
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

/// The sums of `Pixels` neighbours, of which the first tap of the first is in column `first` of x. With Edge a column need
/// not exist.
template <int Kernel, int Stride, int Pixels, bool Edge, class V, class T>
[[gnu::always_inline]] inline void depthwise_sums(const DepthwiseRow<T>* rows, int count, std::int64_t first, std::int64_t width,
                                                  std::int64_t channels, std::int64_t c, V* sums) {
  for (int k = 0; k < count; ++k) {
    V weight[Kernel];
    const T* from = rows[k].weight + c;
    simd::unroll<Kernel>([&](auto r) STRATA_INLINED { weight[r] = simd::load<V>(from + r * channels); });
    const T* x = rows[k].x + c + (Edge ? 0 : first * channels);
    simd::unroll<(Pixels - 1) * Stride + Kernel>([&](auto column) STRATA_INLINED {
      if constexpr (Edge)
        if (first + column < 0 || first + column >= width) return;
      const V value = simd::load<V>(Edge ? x + (first + column) * channels : x);
      simd::unroll<Kernel>([&](auto r) STRATA_INLINED {
        constexpr int place = column - r;
        if constexpr (place >= 0 && place % Stride == 0 && place / Stride < Pixels) sums[place / Stride] += weight[r] * value;
      });
      if constexpr (!Edge) x += channels;
    });
  }
}

/// The same for any kernel, stride and dilation: `step` is the distance of neighbours in x.
template <int Pixels, bool Edge, class V, class T>
[[gnu::always_inline]] inline void depthwise_sums(const DepthwiseRow<T>* rows, int count, const DepthwiseTap* taps, int tap_count,
                                                  std::int64_t first, std::int64_t step, std::int64_t width,
                                                  std::int64_t channels, std::int64_t c, V* sums) {
  for (int k = 0; k < count; ++k)
    for (int r = 0; r < tap_count; ++r) {
      const V weight = simd::load<V>(rows[k].weight + taps[r].column * channels + c);
      const std::int64_t column = first + taps[r].offset;
      const T* x = rows[k].x + c;
      simd::unroll<Pixels>([&](auto p) STRATA_INLINED {
        const std::int64_t at = column + p * step;
        if (!Edge || (at >= 0 && at < width)) sums[p] += weight * simd::load<V>(x + at * channels);
      });
    }
}

/// A kernel of 0 and a stride of 0 stand for any; others have no dilation, and down = 1.
template <int Kernel, int Stride, class T>
void depthwise_gather(const DepthwiseGather& g, const T* x, const T* weight, T* y, const DepthwiseEpilogue<T>& epilogue) {
  constexpr bool any = Kernel == 0;
  constexpr int pixels = Kernel == 7 && simd::registers < 32 ? 6 : 8;  // with a row of the kernel they fill the registers
  const std::int64_t channels = g.channels, row_size = g.in_w * channels;
  // Which columns of the kernel a pixel of each phase has: those whose number, modulo `down`, is the phase.
  Scratch<DepthwiseTap> taps(std::size_t(g.down * g.kernel));
  Scratch<int> tap_counts(std::size_t(g.down));
  for (int phase = 0; phase < g.down; ++phase) {
    int& count = tap_counts.data()[phase] = 0;
    for (int r = 0; r < g.kernel; ++r) {
      const std::int64_t place = phase + std::int64_t{r} * g.dilation - g.padding;
      if (place % g.down == 0) taps.data()[phase * g.kernel + count++] = {r, place / g.down};
    }
  }
  // A strip of so many columns goes down the image, so that the rows above are still in the first-level cache.
  const std::int64_t strip =
      std::max<std::int64_t>(6144 * 4 / std::int64_t(sizeof(T)) / (channels * g.kernel) / pixels, 1) * pixels * g.down;
  const std::int64_t rows_of_task = std::clamp<std::int64_t>(
      std::min((std::int64_t{1} << 18) / (g.out_w * channels), g.n * g.out_h / 16), 1, g.out_h);
  const std::int64_t bands = (g.out_h + rows_of_task - 1) / rows_of_task;
  WorkerScratch<DepthwiseRow<T>> row_scratch(g.kernel);

  parallel_for(g.n * bands, [&](std::int64_t task, int worker) {
    DepthwiseRow<T>* const rows = row_scratch[worker];
    const std::int64_t image = task / bands, top = task % bands * rows_of_task, bottom = std::min(g.out_h, top + rows_of_task);
    for (std::int64_t left = 0; left < g.out_w; left += strip)
      for (std::int64_t i = top; i < bottom; ++i) {
        int row_count = 0;
        for (int q = 0; q < g.kernel; ++q)
          if (const std::int64_t at = g.source(i, q, g.in_h); at >= 0)
            rows[row_count++] = {x + (image * g.in_h + at) * row_size, weight + q * g.kernel * channels};
        T* const to = y + (image * g.out_h + i) * g.out_w * channels;
        for (int phase = 0; phase < g.down; ++phase) {
          const std::int64_t end = (std::min(g.out_w, left + strip) - phase + g.down - 1) / g.down;  // in columns of the phase
          const DepthwiseTap* const own = taps.data() + phase * g.kernel;
          const int own_count = tap_counts.data()[phase];
          for (std::int64_t j = left / g.down; j < end; j += pixels) {
            const std::int64_t first = j * g.up, reach = first + (pixels - 1) * g.up;
            const bool edge = j + pixels > end || (own_count > 0 && (first + own[0].offset < 0 || reach + own[own_count - 1].offset >= g.in_w));
            const auto group = [&]<class V, bool Edge>(std::int64_t c) STRATA_INLINED {
              V sums[pixels] = {};
              if constexpr (any)
                depthwise_sums<pixels, Edge>(rows, row_count, own, own_count, first, g.up, g.in_w, channels, c, sums);
              else
                depthwise_sums<Kernel, Stride, pixels, Edge>(rows, row_count, first - g.padding, g.in_w, channels, c, sums);
              const V bias = epilogue.bias != nullptr ? simd::load<V>(epilogue.bias + c) : V{};
              const V floor = simd::broadcast<V>(epilogue.floor);
              simd::unroll<pixels>([&](auto p) STRATA_INLINED {
                if (Edge && j + p >= end) return;
                T* const at = to + (phase + (j + p) * g.down) * channels + c;
                const V value = simd::max(floor, sums[p] + bias);
                simd::store<V>(at, epilogue.accumulate ? simd::load<V>(at) + value : value);
              });
            };
            if (edge)
              over_channels<T>(g.channels, [&]<class V>(int c) { group.template operator()<V, true>(c); });
            else
              over_channels<T>(g.channels, [&]<class V>(int c) { group.template operator()<V, false>(c); });
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
