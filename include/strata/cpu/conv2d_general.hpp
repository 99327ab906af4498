// Convolutions with groups and with padding that is not zeros, on the CPU. float and double.
//
//     st::Conv2dProblem problem{.n = 16, .h = 40, .w = 40, .in = 128, .out = 128, .groups = 32};
//     st::cpu::general_forward<st::cpu::group_form<float>(128, 128, 32)>(problem, x, weight, bias, y,
//                                                                        st::Activation::none);
//
// The form of the groups chooses the kernel, and is known where the layer's type is, so that a program compiles what it
// uses:
//
//     1, 2, 4, 8    so many channels on both sides of a group, where vectors hold whole groups: cpu/conv2d_grouped.hpp
//     multiplied    one channel becomes several (a depthwise convolution with a multiplier): each channel of x is
//                   written as many times, and the rest is depthwise
//     apart         others, and no groups: each by itself, by the kernels of cpu/conv2d.hpp on copies of its channels
//
// In double, which checks gradients, 2, 4 and 8 are computed apart as well.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d.hpp"
#include "strata/cpu/conv2d_grouped.hpp"
#include "strata/cpu/conv2d_padding.hpp"
#include "strata/cpu/copy_channels.hpp"
#include "strata/math/conv2d_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

inline constexpr int multiplied_groups = -1, groups_apart = 0;

/// How a convolution with these channels is computed: the number of channels of its groups, or one of the two above.
template <class T>
constexpr int group_form(int in, int out, int groups) {
  if (groups == 1) return groups_apart;
  if (in == groups && out > in) return multiplied_groups;
  const int width = in / groups;
  const bool fits = width == 1 || (std::is_same_v<T, float> && (width == 2 || width == 4 || width == 8) &&
                                   width <= simd::lanes<simd::Vector<T>>);
  return in == out && fits ? width : groups_apart;
}

namespace detail {

/// The problem of one group.
constexpr Conv2dProblem group_problem(const Conv2dProblem& p) {
  Conv2dProblem one = p;
  one.in = p.group_in(), one.out = p.group_out(), one.groups = 1;
  return one;
}
/// The depthwise problem of an image whose channels have been written as many times as each is used.
constexpr Conv2dProblem multiplied_problem(const Conv2dProblem& p) {
  Conv2dProblem wide = p;
  wide.in = wide.groups = p.out;
  return wide;
}
/// wide[pixel, o] = x[pixel, o / times].
template <class T>
void multiply_channels(std::int64_t pixels, std::int64_t channels, std::int64_t times, const T* x, T* wide) {
  parallel_ranges(pixels, std::max<std::int64_t>(16384 / (channels * times), 1),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t i = begin * channels; i < end * channels; ++i)
                      std::fill_n(wide + i * times, times, x[i]);
                  });
}

/// The same functions as below, of images padded with zeros.
template <int Form, class T, class Factor>
void zeros_forward(const Conv2dProblem& p, const T* x, const T* weight, const T* bias, T* y, Activation activation) {
  if constexpr (Form > 0) {
    grouped_forward<Form, T>(p, x, weight, bias, y, activation);
  } else if constexpr (Form == multiplied_groups) {
    Scratch<T> wide(std::size_t(p.n * p.h * p.w * p.out));
    multiply_channels(p.n * p.h * p.w, p.in, p.group_out(), x, wide.data());
    grouped_forward<1, T>(multiplied_problem(p), wide.data(), weight, bias, y, activation);
  } else {
    const Conv2dProblem one = group_problem(p);
    if (p.groups == 1) return conv2d_forward<T, Factor>(one, x, weight, bias, y, activation);
    Scratch<T> from(std::size_t(one.input_size())), to(std::size_t(one.output_size()));
    for (int g = 0; g < p.groups; ++g) {
      copy_channels(p.n * p.h * p.w, one.in, x + g * one.in, p.in, from.data(), one.in, false);
      conv2d_forward<T, Factor>(one, from.data(), weight + g * one.weight_size(),
                                bias != nullptr ? bias + g * one.out : nullptr, to.data(), activation);
      copy_channels(one.output_size() / one.out, one.out, to.data(), one.out, y + g * one.out, p.out, false);
    }
  }
}
template <int Form, class T, class Factor>
void zeros_backward_input(const Conv2dProblem& p, const T* dy, const T* weight, T* dx, bool accumulate) {
  if constexpr (Form > 0) {
    grouped_backward_input<Form, T>(p, dy, weight, dx, accumulate);
  } else if constexpr (Form == multiplied_groups) {
    const std::int64_t times = p.group_out(), count = p.input_size();
    Scratch<T> wide(std::size_t(count * times));
    grouped_backward_input<1, T>(multiplied_problem(p), dy, weight, wide.data(), false);
    parallel_ranges(count, 4096, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        T sum = accumulate ? dx[i] : T(0);
        for (std::int64_t k = 0; k < times; ++k) sum += wide.data()[i * times + k];
        dx[i] = sum;
      }
    });
  } else {
    const Conv2dProblem one = group_problem(p);
    if (p.groups == 1) return conv2d_backward_input<T, Factor>(one, dy, weight, dx, accumulate);
    Scratch<T> from(std::size_t(one.output_size())), to(std::size_t(one.input_size()));
    for (int g = 0; g < p.groups; ++g) {
      copy_channels(one.output_size() / one.out, one.out, dy + g * one.out, p.out, from.data(), one.out, false);
      conv2d_backward_input<T, Factor>(one, from.data(), weight + g * one.weight_size(), to.data(), false);
      copy_channels(p.n * p.h * p.w, one.in, to.data(), one.in, dx + g * one.in, p.in, accumulate);
    }
  }
}
template <int Form, class T>
void zeros_backward_weight(const Conv2dProblem& p, const T* x, const T* dy, T* dweight, T* dbias, bool accumulate) {
  if constexpr (Form > 0) {
    grouped_backward_weight<Form, T>(p, x, dy, dweight, dbias, accumulate);
  } else if constexpr (Form == multiplied_groups) {
    Scratch<T> wide(std::size_t(p.n * p.h * p.w * p.out));
    multiply_channels(p.n * p.h * p.w, p.in, p.group_out(), x, wide.data());
    grouped_backward_weight<1, T>(multiplied_problem(p), wide.data(), dy, dweight, dbias, accumulate);
  } else {
    const Conv2dProblem one = group_problem(p);
    if (p.groups == 1) return conv2d_backward_weight<T>(one, x, dy, dweight, dbias, accumulate);
    Scratch<T> from(std::size_t(one.input_size())), to(std::size_t(one.output_size()));
    for (int g = 0; g < p.groups; ++g) {
      copy_channels(p.n * p.h * p.w, one.in, x + g * one.in, p.in, from.data(), one.in, false);
      copy_channels(one.output_size() / one.out, one.out, dy + g * one.out, p.out, to.data(), one.out, false);
      conv2d_backward_weight<T>(one, from.data(), to.data(), dweight + g * one.weight_size(),
                                dbias != nullptr ? dbias + g * one.out : nullptr, accumulate);
    }
  }
}

}  // namespace detail

/// y = activation(bias + the convolution of x). bias may be nullptr: zeros. Factor: see conv2d_forward, which the
/// groups apart use. Form is group_form<T> of the problem's channels. Throws ShapeError if the problem's extents make
/// no convolution.
template <int Form, class T, class Factor = T>
void general_forward(const Conv2dProblem& p, const T* x, const T* weight, const T* bias, T* y, Activation activation) {
  check_conv2d(p);
  if (p.padding_mode == PaddingMode::zeros || !p.pads())
    return detail::zeros_forward<Form, T, Factor>(p, x, weight, bias, y, activation);
  const Conv2dProblem inner = padded_problem(p);
  Scratch<T> padded(std::size_t(inner.input_size()));
  pad_image(p, x, padded.data());
  detail::zeros_forward<Form, T, Factor>(inner, padded.data(), weight, bias, y, activation);
}

/// dx = the gradient for the input, from the gradient dy for the output; dx += it if `accumulate`.
template <int Form, class T, class Factor = T>
void general_backward_input(const Conv2dProblem& p, const T* dy, const T* weight, T* dx, bool accumulate) {
  check_conv2d(p);
  if (p.padding_mode == PaddingMode::zeros || !p.pads())
    return detail::zeros_backward_input<Form, T, Factor>(p, dy, weight, dx, accumulate);
  const Conv2dProblem inner = padded_problem(p);
  Scratch<T> padded(std::size_t(inner.input_size()));
  detail::zeros_backward_input<Form, T, Factor>(inner, dy, weight, padded.data(), false);
  fold_padding(p, padded.data(), dx, accumulate);
}

/// dweight = the gradient for the weights and dbias = that for the bias (nullptr: not wanted); += if `accumulate`.
template <int Form, class T>
void general_backward_weight(const Conv2dProblem& p, const T* x, const T* dy, T* dweight, T* dbias, bool accumulate) {
  check_conv2d(p);
  if (p.padding_mode == PaddingMode::zeros || !p.pads())
    return detail::zeros_backward_weight<Form, T>(p, x, dy, dweight, dbias, accumulate);
  const Conv2dProblem inner = padded_problem(p);
  Scratch<T> padded(std::size_t(inner.input_size()));
  pad_image(p, x, padded.data());
  detail::zeros_backward_weight<Form, T>(inner, padded.data(), dy, dweight, dbias, accumulate);
}

/// So many rows of the result of groups apart are computed together: see conv2d_rows_together.
constexpr int general_rows_together(const Conv2dProblem& p) {
  return conv2d_rows_together(detail::group_problem(p.padding_mode == PaddingMode::zeros ? p : padded_problem(p)));
}

/// Memory that float32 takes from the pool, in bytes, forward (pass 0), for the gradient for the weights (1) and for
/// the input (2). What grouped_forward and its like take counts as none.
inline std::size_t general_workspace(int form, const Conv2dProblem& p, int pass) {
  const bool pads = p.padding_mode != PaddingMode::zeros && p.pads();
  const Conv2dProblem q = pads ? padded_problem(p) : p, one = detail::group_problem(q);
  std::size_t bytes = pads ? detail::bytes_of_floats(q.input_size()) : 0;
  if (form == multiplied_groups) bytes += detail::bytes_of_floats(q.n * q.h * q.w * q.out);
  if (form != groups_apart) return bytes;
  if (p.groups > 1) bytes += detail::bytes_of_floats(one.input_size()) + detail::bytes_of_floats(one.output_size());
  return bytes + (pass == 0   ? conv2d_forward_workspace(one, true)
                  : pass == 1 ? conv2d_weight_workspace(one)
                              : conv2d_input_workspace(one));
}

}}}  // namespace strata::STRATA_ABI::cpu
