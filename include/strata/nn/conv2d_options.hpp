// What a convolution is told besides its channels, at compile time:
//
//     st::Conv2d<3, 64, 7, st::Conv2dOptions{.stride = 2, .padding = 3, .bias = false}>
//     st::Conv2d<8, 8, st::KernelSize{1, 7}>
#pragma once

#include <type_traits>

#include "strata/math/padding_mode.hpp"
#include "strata/nn/protocol.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The rows and columns of a kernel; a number stands for a square one.
struct KernelSize {
  constexpr KernelSize(int both) : h(both), w(both) {}
  constexpr KernelSize(int rows, int columns) : h(rows), w(columns) {}
  int h, w;
};

/// The compile-time options of a convolution. Padding is the same on opposite sides; `same` keeps the size of the image
/// at stride 1. padding_w is that of columns, where it is not as that of rows.
struct Conv2dOptions {
  static constexpr int same = -1;
  int stride = 1;
  int padding = same;
  int padding_w = same;
  int dilation = 1;
  int groups = 1;
  bool bias = true;
  PaddingMode padding_mode = PaddingMode::zeros;
};
inline constexpr Conv2dOptions no_bias{.bias = false};

namespace detail {

constexpr Window conv_window(KernelSize kernel, const Conv2dOptions& options) {
  const auto padding = [&](int taps) {
    return options.padding >= 0 ? options.padding : options.dilation * (taps - 1) / 2;
  };
  Window window{
      .kernel = kernel.h, .stride = options.stride, .padding = padding(kernel.h), .dilation = options.dilation};
  const int columns = options.padding_w >= 0 ? options.padding_w : padding(kernel.w);
  if (kernel.w != kernel.h) window.kernel_w = kernel.w;
  if (columns != window.padding) window.padding_w = columns;
  return window;
}
constexpr Conv2dOptions with_bias(Conv2dOptions options) {
  options.bias = true;
  return options;
}
constexpr Conv2dOptions with_groups(Conv2dOptions options, int groups) {
  options.groups = groups;
  return options;
}
/// The options that a convolution is given; after one error, for numbers in their place, the usual ones.
template <class Options, auto Given, auto... More>
constexpr Options options_given() {
  constexpr bool named = sizeof...(More) == 0 && std::is_same_v<std::remove_cv_t<decltype(Given)>, Options>;
  static_assert(
      named,
      "strata: a convolution's stride, padding and the like have names and are not numbers one after another: "
      "write st::Conv2d<3, 8, 3, st::Conv2dOptions{.stride = 2, .padding = 1}>, and "
      "st::ConvTranspose2dOptions for a transposed one");
  if constexpr (named) {
    return Given;
  } else {
    Options usual;
    usual.padding = 0;  // fits every kernel
    return usual;
  }
}

}  // namespace detail

}}  // namespace strata::STRATA_ABI
