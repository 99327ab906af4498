// 2-D convolution on the CPU: forward, and the gradients for its input and its weights. float and double; double serves
// gradient checks.
//
//     st::Conv2dProblem problem{.n = 16, .h = 40, .w = 40, .in = 64, .out = 64};         // 3 x 3, padding 1
//     st::cpu::conv2d_forward(problem, x, weight, bias, y, st::Activation::relu);
//
// Layouts: x and y are N,H,W,C; weight is O,KH,KW,I; bias is O. The result does not depend on the number of threads.
#pragma once

#include <cstdint>
#include <type_traits>

#include "strata/core/error.hpp"
#include "strata/cpu/conv2d_direct.hpp"
#include "strata/cpu/conv2d_direct_weight.hpp"
#include "strata/cpu/conv2d_winograd.hpp"
#include "strata/cpu/conv2d_winograd_weight.hpp"
#include "strata/math/activation.hpp"
#include "strata/math/conv2d_problem.hpp"

namespace strata::inline STRATA_ABI::cpu {

using strata::Activation;

namespace detail {

/// Throws ShapeError for extents that make no convolution.
inline void check_conv2d(const Conv2dProblem& p) {
  const std::int64_t reach = std::int64_t{p.dilation} * (p.kernel - 1) + 1;
  if (p.n < 1 || p.h < 1 || p.w < 1 || p.in < 1 || p.out < 1)
    throw ShapeError(concat("conv2d: got an input of ", p.n, "x", p.in, "x", p.h, "x", p.w, " for ", p.out,
                            " output channels; each must be at least 1"));
  if (p.kernel < 1 || p.stride < 1 || p.dilation < 1 || p.padding < 0)
    throw ShapeError(concat("conv2d: got kernel ", p.kernel, ", stride ", p.stride, ", padding ", p.padding,
                            ", dilation ", p.dilation, "; wanted at least 1, 1, 0 and 1"));
  if (reach > p.h + 2 * p.padding || reach > p.w + 2 * p.padding)
    throw ShapeError(concat("conv2d: a kernel that reaches over ", reach, " pixels (kernel ", p.kernel, ", dilation ",
                            p.dilation, ") does not fit an image of ", p.h, "x", p.w, " with padding ", p.padding));
}

/// Whether Winograd's algorithm computes a problem, and faster than the direct one. It needs at least a vector of
/// channels on both sides, and images that its 4 x 4 tiles do not exceed by too much.
constexpr bool use_winograd(const Conv2dProblem& p) {
  if (!has_winograd_form(p) || p.in < 8 || p.out < 8) return false;
  const winograd::Tiles tiles(1, p.out_h(), p.out_w());
  return 2 * tiles.count * winograd::planes < 9 * p.out_h() * p.out_w();
}

}  // namespace detail

/// y = activation(bias + cross-correlation of x with weight). bias may be nullptr: zeros.
/// Throws ShapeError if the problem's extents make no convolution.
template <class T>
void conv2d_forward(const Conv2dProblem& problem, const T* x, const T* weight, const T* bias, T* y,
                    Activation activation = Activation::none) {
  detail::check_conv2d(problem);
  const Epilogue<T> epilogue{.bias = bias, .activation = activation};
  if constexpr (std::is_same_v<T, float>)
    if (detail::use_winograd(problem)) return winograd_forward(problem, x, weight, y, epilogue);
  direct_forward(problem, x, weight, y, epilogue);
}

/// dx = the gradient for the input, from the gradient dy for the output; dx += it if `accumulate`.
template <class T>
void conv2d_backward_input(const Conv2dProblem& problem, const T* dy, const T* weight, T* dx, bool accumulate) {
  detail::check_conv2d(problem);
  if constexpr (std::is_same_v<T, float>)
    if (detail::use_winograd(problem)) return winograd_backward_input(problem, dy, weight, dx, accumulate);
  direct_backward_input(problem, dy, weight, dx, accumulate);
}

/// dweight = the gradient for the weights and dbias = that for the bias (nullptr: not wanted); += if `accumulate`.
template <class T>
void conv2d_backward_weight(const Conv2dProblem& problem, const T* x, const T* dy, T* dweight, T* dbias,
                            bool accumulate) {
  detail::check_conv2d(problem);
  if constexpr (std::is_same_v<T, float>)
    if (detail::use_winograd(problem)) return winograd_backward_weight(problem, x, dy, dweight, dbias, accumulate);
  direct_backward_weight(problem, x, dy, dweight, dbias, accumulate);
}

}  // namespace strata::inline STRATA_ABI::cpu
