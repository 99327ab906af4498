// Convolution with many small groups on the CPU: forward and the gradient for the input, for groups of Width channels
// on both sides, where Width divides a vector. With a Width of 1 it is a depthwise convolution. float and double.
//
//     st::Conv2dProblem problem{.n = 16, .h = 40, .w = 40, .in = 64, .out = 64, .groups = 64};         // 3 x 3,
//     padding 1 st::cpu::grouped_forward<1>(problem, x, weight, bias, y, st::Activation::relu);
//
// Layouts: x and y are N,H,W,C; weight is C,KH,KW,Width; bias is C. The result does not depend on the number of
// threads.
//
// There are few products for each number that is read, so what counts is that it is read once. A group of neighbouring
// pixels of a row, of two rows where registers suffice, is computed at a time, a vector of channels of each in a
// register; a number of x goes from memory to all sums that it belongs to. With a Width above 1 a vector of x is spread
// Width times, so that each lane meets the channels of its group in turn. Pixels of the border belong to such blocks as
// well, which look at each column whether it exists. A pixel's sum has the same terms in the same order wherever it
// lies. The gradient for the input is the same computation with the kernel turned around, in which a stride leaves out
// taps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/cpu/conv2d_grouped_weight.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/activation.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// Pixel i of a result comes from pixels (i * up + tap * dilation - padding) / down, those that are whole numbers and
/// exist. up is the stride of a convolution, down that of one that goes back.
struct GroupedGather {
  std::int64_t n, in_h, in_w, out_h, out_w;
  int channels;
  std::int64_t kernel, kernel_w, up, down, padding, padding_w, dilation;

  static GroupedGather forward(const Conv2dProblem& p) {
    return {p.n,      p.h, p.w,       p.out_h(),           p.out_w(), p.in, p.kernel, p.kernel_columns(),
            p.stride, 1,   p.padding, p.padding_columns(), p.dilation};
  }
  static GroupedGather backward(const Conv2dProblem& p) {
    return {p.n,
            p.out_h(),
            p.out_w(),
            p.h,
            p.w,
            p.in,
            p.kernel,
            p.kernel_columns(),
            1,
            p.stride,
            p.dilation * (p.kernel - 1) - p.padding,
            p.dilation * (p.kernel_columns() - 1) - p.padding_columns(),
            p.dilation};
  }
  /// Where tap `tap` of row i is, or -1 if it is nowhere.
  std::int64_t source_row(std::int64_t i, std::int64_t tap) const {
    const std::int64_t place = i * up + tap * dilation - padding;
    return i < out_h && place >= 0 && place % down == 0 && place / down < in_h ? place / down : -1;
  }
};

/// What is done with a finished sum.
template <class T>
struct GroupedEpilogue {
  const T* bias;  ///< nullptr: zeros
  T floor;        ///< the least value that the activation gives
  bool accumulate;
  bool streamed;  ///< written past the caches, whole lines of them
};

/// A row of x that a block is made of, and the row of the kernel that belongs to it where the block is of one row.
template <class T>
struct GroupedRow {
  const T *x, *weight;  ///< x: nullptr where the image has no such row
};
/// A column of the kernel that `down` does not leave out, and its place in x from that of the pixel on.
struct GroupedTap {
  std::int64_t column, offset;
};

/// What a block of neighbours is computed from. Kernels get it by value: what they write cannot be part of it.
template <class T>
struct GroupedBlock {
  const GroupedRow<T>* rows;
  const GroupedTap* taps;
  const T* weight;  ///< taps, Width, channels
  std::int64_t row_count, tap_count;
  std::int64_t first;            ///< the column of x from which the first pixel's taps count
  std::int64_t x_step, x_width;  ///< columns of x: from pixel to pixel, and in all
  T* y;                          ///< the first pixel
  std::int64_t y_step, y_row;    ///< numbers from pixel to pixel, and from row to row
  std::int64_t count, y_rows;    ///< how many of the pixels, and rows, there are
  std::int64_t channels;
  GroupedEpilogue<T> epilogue;
};

/// Element i of the result is element i / Width * Width + k of `value`: channel k of the lane's group. A single number
/// has been read from its place already.
template <int Width, int K, class V>
[[gnu::always_inline]] inline V spread(V value) {
  if constexpr (Width == 1 || simd::lanes<V> == 1)
    return value;
  else
    return [&]<int... I>(std::integer_sequence<int, I...>) STRATA_INLINED {
      return __builtin_shufflevector(value, value, (I / Width * Width + K)...);
    }(std::make_integer_sequence<int, simd::lanes<V>>{});
}

/// The numbers of x that the vector of channels at c meets as channel K of its groups.
template <int Width, int K, class V, class T>
[[gnu::always_inline]] inline V load_spread(const T* x, std::int64_t c) {
  if constexpr (Width > 1 && simd::lanes<V> == 1)
    return x[c / Width * Width + K];
  else
    return spread<Width, K>(simd::load<V>(x + c));
}

/// The sums of `Rows` x `Pixels` neighbours for the vector of channels at c. With Edge a column of x need not exist.
template <int Width, int Kernel, int Stride, int Rows, int Pixels, bool Edge, class V, class T>
[[gnu::always_inline]] inline void grouped_sums(const GroupedBlock<T>& block, std::int64_t c, V* sums) {
  const std::int64_t first = block.first + block.taps[0].offset, channels = block.channels;
  simd::unroll<Width>([&](auto k) STRATA_INLINED {
    const auto row = [&](const T* from, auto rows_of_kernel, auto add) STRATA_INLINED {
      (void)rows_of_kernel;
      if (from == nullptr) return;
      const T* x = from + (Edge ? 0 : first * channels);
      simd::unroll<(Pixels - 1) * Stride + Kernel>([&](auto column) STRATA_INLINED {
        if constexpr (Edge)
          if (first + column < 0 || first + column >= block.x_width) return;
        add(column, load_spread<Width, k, V>(Edge ? x + (first + column) * channels : x, c));
        if constexpr (!Edge) x += channels;
      });
    };
    if constexpr (Rows == 1) {
      for (const GroupedRow<T>* at = block.rows; at != block.rows + block.row_count; ++at) {
        V weight[Kernel];
        const T* w = at->weight + k * channels + c;
        simd::unroll<Kernel>([&](auto r) STRATA_INLINED { weight[r] = simd::load<V>(w + r * Width * channels); });
        row(at->x, 0, [&](auto column, V value) STRATA_INLINED {
          simd::unroll<Kernel>([&](auto r) STRATA_INLINED {
            constexpr int place = column - r;
            if constexpr (place >= 0 && place % Stride == 0 && place / Stride < Pixels)
              sums[place / Stride] += weight[r] * value;
          });
        });
      }
    } else {
      V weight[Kernel][Kernel];
      const T* w = block.weight + k * channels + c;
      simd::unroll<Kernel>([&](auto q) STRATA_INLINED {
        simd::unroll<Kernel>(
            [&](auto r) STRATA_INLINED { weight[q][r] = simd::load<V>(w + (q * Kernel + r) * Width * channels); });
      });
      simd::unroll<(Rows - 1) * Stride + Kernel>([&](auto q) STRATA_INLINED {
        row(block.rows[q].x, 0, [&](auto column, V value) STRATA_INLINED {
          simd::unroll<Rows>([&](auto i) STRATA_INLINED {
            constexpr int tap = q - i * Stride;
            if constexpr (tap >= 0 && tap < Kernel)
              simd::unroll<Kernel>([&](auto r) STRATA_INLINED {
                constexpr int place = column - r;
                if constexpr (place >= 0 && place % Stride == 0 && place / Stride < Pixels)
                  sums[i * Pixels + place / Stride] += weight[tap][r] * value;
              });
          });
        });
      });
    }
  });
}

/// The same for one row with any kernel, stride and dilation.
template <int Width, int Pixels, bool Edge, class V, class T>
[[gnu::always_inline]] inline void grouped_sums_of_any(const GroupedBlock<T>& block, std::int64_t c, V* sums) {
  const std::int64_t channels = block.channels, step = block.x_step * channels;
  simd::unroll<Width>([&](auto k) STRATA_INLINED {
    for (const GroupedRow<T>* row = block.rows; row != block.rows + block.row_count; ++row)
      for (const GroupedTap* tap = block.taps; tap != block.taps + block.tap_count; ++tap) {
        const V weight = simd::load<V>(row->weight + (tap->column * Width + k) * channels + c);
        std::int64_t column = block.first + tap->offset;
        const T* x = row->x + (Edge ? 0 : column * channels);
        simd::unroll<Pixels>([&](auto p) STRATA_INLINED {
          if constexpr (Edge) {
            if (column >= 0 && column < block.x_width)
              sums[p] += weight * load_spread<Width, k, V>(x + column * channels, c);
            column += block.x_step;
          } else {
            sums[p] += weight * load_spread<Width, k, V>(x, c);
            x += step;
          }
        });
      }
  });
}

/// Computes and writes a block, all channels of it.
template <int Width, int Kernel, int Stride, int Rows, int Pixels, bool Edge, class T>
[[gnu::noinline]] void grouped_block(GroupedBlock<T> block) {
  constexpr int sum_count = Rows * Pixels, line = 64 / int(sizeof(T));
  // The rows that come new from memory: the processor's own prefetching does not follow so many streams.
  const auto ask_for_next = [block](std::int64_t c) STRATA_INLINED {
    if constexpr (!Edge && Kernel > 0) {
      simd::unroll<Rows * Stride>([&](auto i) STRATA_INLINED {
        const T* const row = block.rows[block.row_count - 1 - i].x;
        if (row == nullptr) return;
        const T* const next =
            row + (block.first + block.taps[0].offset + Kernel - Stride + Pixels * Stride) * block.channels + c;
        simd::unroll<Pixels * Stride>([&](auto column)
                                          STRATA_INLINED { __builtin_prefetch(next + column * block.channels); });
      });
    }
  };
  const auto finished = [block]<class V>(std::int64_t c, V* sums) STRATA_INLINED {
    if constexpr (Kernel == 0)
      grouped_sums_of_any<Width, Pixels, Edge>(block, c, sums);
    else
      grouped_sums<Width, Kernel, Stride, Rows, Pixels, Edge>(block, c, sums);
    const V bias = block.epilogue.bias != nullptr ? simd::load<V>(block.epilogue.bias + c) : V{};
    const V floor = simd::broadcast<V>(block.epilogue.floor);
    simd::unroll<sum_count>([&](auto i) STRATA_INLINED { sums[i] = simd::max(floor, sums[i] + bias); });
  };
  const auto each_pixel = [block](T* to, auto write) STRATA_INLINED {
    simd::unroll<Rows>([&](auto i) STRATA_INLINED {
      if (Rows > 1 && i >= block.y_rows) return;
      simd::unroll<Pixels>([&](auto p) STRATA_INLINED {
        if (Edge && p >= block.count) return;
        write(i * Pixels + p, to + i * block.y_row + p * block.y_step);
      });
    });
  };
  alignas(64)
      T waiting[line / simd::lanes<simd::Vector<T>> > 1 ? sum_count * line : 1];  // vectors whose line is not complete
  simd::over_vectors<T>(block.channels, [&]<class V>(std::int64_t c) STRATA_INLINED {
    constexpr int lanes = simd::lanes<V>;
    V sums[sum_count] = {};
    if (c % line == 0) ask_for_next(c);
    finished(c, sums);
    if (block.epilogue.accumulate) {
      each_pixel(block.y + c, [&](auto i, T* to) STRATA_INLINED { simd::store<V>(to, simd::load<V>(to) + sums[i]); });
    } else if (lanes == 1 || !block.epilogue.streamed) {
      each_pixel(block.y + c, [&](auto i, T* to) STRATA_INLINED { simd::store<V>(to, sums[i]); });
    } else if constexpr (lanes == line) {
      each_pixel(block.y + c, [&](auto i, T* to) STRATA_INLINED { simd::stream<V>(to, sums[i]); });
    } else if constexpr (lanes > 1) {
      const std::int64_t place = c % line;
      simd::unroll<sum_count>([&](auto i) STRATA_INLINED { simd::store<V>(waiting + i * line + place, sums[i]); });
      if (place + lanes == line)
        each_pixel(block.y + c - place, [&](auto i, T* to) STRATA_INLINED {
          simd::unroll<line / lanes>([&](auto v) STRATA_INLINED {
            simd::stream<V>(to + v * lanes, simd::load<V>(waiting + i * line + v * lanes));
          });
        });
    }
  });
}

/// A kernel of 0 and a stride of 0 stand for any; others are square, have no dilation, and down = 1.
template <int Width, int Kernel, int Stride, class T>
void grouped_gather(const GroupedGather& extents, const T* x, const T* weight, T* y,
                    const GroupedEpilogue<T>& epilogue) {
  // Sums and the kernel, or a row of it, fill the registers.
  constexpr int rows_together = Kernel == 3 && simd::registers == 32 ? 2 : 1;
  constexpr int pixels = Kernel == 7 && simd::registers < 32 ? 6 : 8;
  constexpr std::int64_t source_rows =
      Kernel > 0 ? (rows_together - 1) * Stride + Kernel : 0;  // of a block of several rows
  // Which columns of the kernel a pixel of each phase has: those whose number, modulo `down`, is the phase.
  Scratch<GroupedTap> taps(std::size_t(extents.down * extents.kernel_w));
  Scratch<std::int64_t> tap_counts(std::size_t(extents.down));
  for (std::int64_t phase = 0; phase < extents.down; ++phase) {
    std::int64_t& count = tap_counts.data()[phase] = 0;
    for (std::int64_t r = 0; r < extents.kernel_w; ++r) {
      const std::int64_t place = phase + r * extents.dilation - extents.padding_w;
      if (place % extents.down == 0) taps.data()[phase * extents.kernel_w + count++] = {r, place / extents.down};
    }
  }
  // A strip of so many columns (some 100 KB of rows) goes down the image, so that the rows above are still in the
  // second-level cache.
  const std::int64_t strip_size =
      24576 * 4 / std::int64_t(sizeof(T)) / (std::int64_t{extents.channels} * extents.kernel);
  const std::int64_t strip = std::max<std::int64_t>(strip_size / pixels, 1) * pixels * extents.down;
  const std::int64_t some_rows = std::clamp<std::int64_t>(
      std::min((std::int64_t{1} << 18) / (extents.out_w * extents.channels), extents.n * extents.out_h / 16), 1,
      extents.out_h);
  const std::int64_t rows_of_task = (some_rows + rows_together - 1) / rows_together * rows_together;
  const std::int64_t bands = (extents.out_h + rows_of_task - 1) / rows_of_task;
  WorkerScratch<GroupedRow<T>> row_scratch(std::max(source_rows, extents.kernel));

  parallel_for(extents.n * bands, [&](std::int64_t task, int worker) {
    const GroupedGather g = extents;
    const std::int64_t channels = g.channels, image = task / bands, row_size = g.out_w * channels;
    const std::int64_t top = task % bands * rows_of_task, bottom = std::min(g.out_h, top + rows_of_task);
    GroupedRow<T>* const rows = row_scratch[worker];
    for (std::int64_t left = 0; left < g.out_w; left += strip)
      for (std::int64_t i = top; i < bottom; i += rows_together) {
        std::int64_t row_count = 0;
        if constexpr (rows_together > 1) {
          for (; row_count < source_rows; ++row_count) {
            const std::int64_t at = i * g.up + row_count - g.padding;
            rows[row_count] = {at >= 0 && at < g.in_h ? x + (image * g.in_h + at) * g.in_w * channels : nullptr,
                               nullptr};
          }
        } else {
          for (std::int64_t q = 0; q < g.kernel; ++q)
            if (const std::int64_t at = g.source_row(i, q); at >= 0)
              rows[row_count++] = {x + (image * g.in_h + at) * g.in_w * channels,
                                   weight + q * g.kernel_w * Width * channels};
        }
        T* const to = y + (image * g.out_h + i) * row_size;
        for (std::int64_t phase = 0; phase < g.down; ++phase) {
          const std::int64_t end =
              (std::min(g.out_w, left + strip) - phase + g.down - 1) / g.down;  // in columns of the phase
          GroupedBlock<T> block{.rows = rows,
                                .taps = taps.data() + phase * g.kernel_w,
                                .weight = weight,
                                .row_count = row_count,
                                .tap_count = tap_counts.data()[phase],
                                .first = 0,
                                .x_step = g.up,
                                .x_width = g.in_w,
                                .y = nullptr,
                                .y_step = g.down * channels,
                                .y_row = row_size,
                                .count = 0,
                                .y_rows = bottom - i,
                                .channels = channels,
                                .epilogue = epilogue};
          for (std::int64_t j = left / g.down; j < end; j += pixels) {
            block.first = j * g.up;
            block.y = to + (phase + j * g.down) * channels;
            block.count = end - j;
            const bool inside = row_count > 0 && block.count >= pixels &&
                                (block.tap_count == 0 ||
                                 (block.first + block.taps[0].offset >= 0 &&
                                  block.first + (pixels - 1) * g.up + block.taps[block.tap_count - 1].offset < g.in_w));
            if (inside)
              grouped_block<Width, Kernel, Stride, rows_together, pixels, false>(block);
            else
              grouped_block<Width, Kernel, Stride, rows_together, pixels, true>(block);
          }
        }
      }
    if (epilogue.streamed) simd::finish_streaming();
  });
}

/// `weight` in the order taps, channels of a group, channels of the result. `turned`: of the gradient for the input,
/// for which the last tap comes first and both sides of a group change places.
template <class T>
Scratch<T> grouped_weights(const Conv2dProblem& p, const T* weight, bool turned) {
  const std::int64_t taps = p.taps(), width = p.group_in(), channels = p.in;
  Scratch<T> packed(std::size_t(taps * width * channels));
  for (std::int64_t tap = 0; tap < taps; ++tap)
    for (std::int64_t k = 0; k < width; ++k)
      for (std::int64_t c = 0; c < channels; ++c)
        packed.data()[(tap * width + k) * channels + c] =
            turned ? weight[((c / width * width + k) * taps + taps - 1 - tap) * width + c % width]
                   : weight[(c * taps + tap) * width + k];
  return packed;
}

/// From here on a result is written past the caches: x and y together do not stay there until the next layer reads y.
inline constexpr std::int64_t grouped_streamed_bytes = 24 << 20;

/// Chooses the kernel that is compiled for these extents.
template <int Width, class T>
void grouped_run(const GroupedGather& g, const T* x, const T* weight, T* y, GroupedEpilogue<T> epilogue) {
  const std::int64_t bytes = g.n * (g.in_h * g.in_w + g.out_h * g.out_w) * g.channels * std::int64_t(sizeof(T));
  epilogue.streamed = !epilogue.accumulate && bytes >= grouped_streamed_bytes && g.channels * sizeof(T) % 64 == 0 &&
                      reinterpret_cast<std::uintptr_t>(y) % 64 == 0;
  const bool plain = g.dilation == 1 && g.down == 1 && g.kernel == g.kernel_w;
  const auto is = [&](int kernel, int stride) { return plain && g.kernel == kernel && g.up == stride; };
  if (is(3, 1)) return grouped_gather<Width, 3, 1>(g, x, weight, y, epilogue);
  if constexpr (Width == 1) {
    if (is(3, 2)) return grouped_gather<Width, 3, 2>(g, x, weight, y, epilogue);
    if (is(5, 1)) return grouped_gather<Width, 5, 1>(g, x, weight, y, epilogue);
    if (is(7, 1)) return grouped_gather<Width, 7, 1>(g, x, weight, y, epilogue);
  }
  epilogue.streamed = false;
  grouped_gather<Width, 0, 0>(g, x, weight, y, epilogue);
}

}  // namespace detail

/// y = activation(bias + cross-correlation of x with weight). bias may be nullptr: zeros. The padding is zeros.
/// Throws ShapeError if the problem's extents make no convolution.
template <int Width, class T>
void grouped_forward(const Conv2dProblem& p, const T* x, const T* weight, const T* bias, T* y, Activation activation) {
  const auto packed = detail::grouped_weights(p, weight, false);
  const T floor = activation == Activation::relu ? T(0) : -std::numeric_limits<T>::infinity();
  detail::grouped_run<Width, T>(detail::GroupedGather::forward(p), x, packed.data(), y, {bias, floor, false, false});
}

/// dx = the gradient for the input, from the gradient dy for the output; dx += it if `accumulate`.
template <int Width, class T>
void grouped_backward_input(const Conv2dProblem& p, const T* dy, const T* weight, T* dx, bool accumulate) {
  const auto packed = detail::grouped_weights(p, weight, true);
  detail::grouped_run<Width, T>(detail::GroupedGather::backward(p), dy, packed.data(), dx,
                                {nullptr, -std::numeric_limits<T>::infinity(), accumulate, false});
}

}  // namespace strata::inline STRATA_ABI::cpu
