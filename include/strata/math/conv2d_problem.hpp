// The extents of one 2-D convolution, as every backend takes them.
#pragma once

#include <cstdint>
#include <string>

#include "strata/core/config.hpp"
#include "strata/core/error.hpp"
#include "strata/math/padding_mode.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Cross-correlation, padded alike on opposite sides, as PyTorch's Conv2d; without groups
///   y[n, o, i, j] = bias[o] + sum over c, p, q of weight[o, c, p, q] * x[n, c, i*stride + p*dilation - padding, ...]
/// and with them the channels are cut into as many parts on both sides, and each part of y sees its part of x alone.
/// Activations are N,H,W,C in memory; weights O,KH,KW,I, where I counts the channels of a group.
struct Conv2dProblem {
  std::int64_t n = 1, h = 1, w = 1;  ///< of the input
  int in = 1, out = 1;               ///< channels
  int kernel = 3, stride = 1, padding = 1, dilation = 1;
  int groups = 1;
  PaddingMode padding_mode = PaddingMode::zeros;
  int kernel_w = as_rows, padding_w = as_rows;  ///< of columns, where they differ from those of rows
  static constexpr int as_rows = -1;

  constexpr std::int64_t kernel_columns() const { return kernel_w == as_rows ? kernel : kernel_w; }
  constexpr std::int64_t padding_columns() const { return padding_w == as_rows ? padding : padding_w; }
  constexpr bool square() const { return kernel_columns() == kernel && padding_columns() == padding; }
  constexpr bool pads() const { return padding > 0 || padding_columns() > 0; }
  constexpr std::int64_t taps() const { return kernel * kernel_columns(); }
  constexpr int group_in() const { return in / groups; }
  constexpr int group_out() const { return out / groups; }
  /// Whether the kernels without groups and with zeros around the image compute it.
  constexpr bool plain() const { return groups == 1 && (padding_mode == PaddingMode::zeros || !pads()); }

  /// Whether devices compute it by its definition: all that is not plain and square.
  constexpr bool general() const { return !plain() || !square(); }

  constexpr std::int64_t out_h() const { return extent(h, padding, kernel); }
  constexpr std::int64_t out_w() const { return extent(w, padding_columns(), kernel_columns()); }
  constexpr std::int64_t input_size() const { return n * h * w * in; }
  constexpr std::int64_t output_size() const { return n * out_h() * out_w() * out; }
  constexpr std::int64_t weight_size() const { return std::int64_t{out} * taps() * group_in(); }
  constexpr std::int64_t multiply_adds() const { return n * out_h() * out_w() * weight_size(); }

  constexpr bool operator==(const Conv2dProblem&) const = default;

 private:
  constexpr std::int64_t extent(std::int64_t size, std::int64_t pad, std::int64_t taps) const {
    return (size + 2 * pad - dilation * (taps - 1) - 1) / stride + 1;
  }
};

/// "3", or "1x7" where rows and columns differ.
inline std::string sides_text(std::int64_t rows, std::int64_t columns) {
  return rows == columns ? std::to_string(rows) : concat(rows, "x", columns);
}

/// Throws ShapeError for an image too small for its padding, in PyTorch's terms. name() is what to call the operation.
template <class Name>
void check_padding(const Conv2dProblem& p, Name&& name) {
  const auto refuse = [&](const char* wanted) {
    throw ShapeError(concat(name(), ": padding_mode=", padding_mode_text(p.padding_mode), " with a padding of ",
                            sides_text(p.padding, p.padding_columns()), " on an image of ", p.h, "x", p.w,
                            " pixels; the padding must ", wanted));
  };
  if (p.padding_mode == PaddingMode::reflect && (p.padding >= p.h || p.padding_columns() >= p.w))
    refuse("be smaller than the image: give larger images, or PaddingMode::replicate");
  if (p.padding_mode == PaddingMode::circular && (p.padding > p.h || p.padding_columns() > p.w))
    refuse("not be larger than the image, which is wrapped around once");
}

/// Throws ShapeError for extents that make no convolution.
inline void check_conv2d(const Conv2dProblem& p) {
  const std::int64_t rows = std::int64_t{p.dilation} * (p.kernel - 1) + 1,
                     columns = p.dilation * (p.kernel_columns() - 1) + 1;
  if (p.n < 1 || p.h < 1 || p.w < 1 || p.in < 1 || p.out < 1)
    throw ShapeError(concat("conv2d: got an input of ", p.n, "x", p.in, "x", p.h, "x", p.w, " for ", p.out,
                            " output channels; each must be at least 1"));
  if (p.kernel < 1 || p.kernel_columns() < 1 || p.stride < 1 || p.dilation < 1 || p.padding < 0 ||
      p.padding_columns() < 0)
    throw ShapeError(concat("conv2d: got kernel ", sides_text(p.kernel, p.kernel_columns()), ", stride ", p.stride,
                            ", padding ", sides_text(p.padding, p.padding_columns()), ", dilation ", p.dilation,
                            "; wanted at least 1, 1, 0 and 1"));
  if (p.groups < 1 || p.in % p.groups != 0 || p.out % p.groups != 0)
    throw ShapeError(concat("conv2d: ", p.groups, " groups of ", p.in, " input and ", p.out,
                            " output channels; both must be multiples of the groups"));
  if (rows > p.h + 2 * std::int64_t{p.padding} || columns > p.w + 2 * p.padding_columns())
    throw ShapeError(concat("conv2d: a kernel that reaches over ", sides_text(rows, columns), " pixels (kernel ",
                            sides_text(p.kernel, p.kernel_columns()), ", dilation ", p.dilation,
                            ") does not fit an image of ", p.h, "x", p.w, " with padding ",
                            sides_text(p.padding, p.padding_columns())));
  check_padding(p, [] { return "conv2d"; });
}

}}  // namespace strata::STRATA_ABI
