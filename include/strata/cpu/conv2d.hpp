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
  check_conv2d(problem);
  const Epilogue<T> epilogue{.bias = bias, .activation = activation};
  if constexpr (std::is_same_v<T, float>)
    if (detail::use_winograd(problem)) return winograd_forward(problem, x, weight, y, epilogue);
  direct_forward(problem, x, weight, y, epilogue);
}

/// dx = the gradient for the input, from the gradient dy for the output; dx += it if `accumulate`.
template <class T>
void conv2d_backward_input(const Conv2dProblem& problem, const T* dy, const T* weight, T* dx, bool accumulate) {
  check_conv2d(problem);
  if constexpr (std::is_same_v<T, float>)
    if (detail::use_winograd(problem)) return winograd_backward_input(problem, dy, weight, dx, accumulate);
  direct_backward_input(problem, dy, weight, dx, accumulate);
}

/// dweight = the gradient for the weights and dbias = that for the bias (nullptr: not wanted); += if `accumulate`.
template <class T>
void conv2d_backward_weight(const Conv2dProblem& problem, const T* x, const T* dy, T* dweight, T* dbias,
                            bool accumulate) {
  check_conv2d(problem);
  if constexpr (std::is_same_v<T, float>)
    if (detail::use_winograd(problem)) return winograd_backward_weight(problem, x, dy, dweight, dbias, accumulate);
  direct_backward_weight(problem, x, dy, dweight, dbias, accumulate);
}

}  // namespace strata::inline STRATA_ABI::cpu
