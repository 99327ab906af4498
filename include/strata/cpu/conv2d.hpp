// 2-D convolution on the CPU: forward, and the gradients for its input and its weights. float and double; double serves
// gradient checks.
//
//     st::Conv2dProblem problem{.n = 16, .h = 40, .w = 40, .in = 64, .out = 64};         // 3 x 3, padding 1
//     st::cpu::conv2d_forward(problem, x, weight, bias, y, st::Activation::relu);
//
// Layouts: x and y are N,H,W,C; weight is O,KH,KW,I; bias is O. The result does not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "strata/core/error.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/cpu/conv2d_direct.hpp"
#include "strata/cpu/conv2d_direct_weight.hpp"
#include "strata/cpu/conv2d_winograd.hpp"
#include "strata/cpu/conv2d_winograd_strided.hpp"
#include "strata/cpu/conv2d_winograd_weight.hpp"
#include "strata/cpu/packed_weights.hpp"
#include "strata/math/activation.hpp"
#include "strata/math/channel_affine.hpp"
#include "strata/math/conv2d_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

using strata::Activation;

namespace detail {

/// Whether Winograd's algorithm computes a problem, and faster than the direct one. It needs at least a vector of
/// channels on both sides (fewer of the input will do where the kernel has many parts), and images that its 4 x 4 tiles
/// do not exceed by too much. It makes half as many products a second, since the transforms take their time too. Beyond
/// 3 x 3 without dilation the choice is the same for all images of at least a tile in each direction.
constexpr bool use_winograd(const Conv2dProblem& p) {
  if (!has_winograd_form(p) || p.out < 8 || (p.in < 8 && (p.kernel < 9 || p.out < 16))) return false;
  const std::int64_t products = winograd::FilterParts(p.kernel).count * winograd::planes;  // of a tile
  const std::int64_t taps = std::int64_t{p.kernel} * p.kernel, h = p.out_h(), w = p.out_w();
  if (p.kernel == 3 && p.dilation == 1) return 2 * winograd::Tiles(1, h, w).count * products < taps * h * w;
  constexpr int pixels = winograd::step * winograd::step;
  const std::int64_t reach = std::int64_t{p.dilation} * (p.kernel - 1);
  // Every tap sees a pixel: the gradient of one that does not is exactly 0.
  const bool all_taps = p.padding < std::min(h, w) && reach - p.padding < std::min(p.h, p.w);
  return 2 * products < taps * pixels && all_taps && std::min(h, w) >= winograd::step * p.dilation;
}
/// The same for the gradient for the input, where the roles of the channels are exchanged.
constexpr bool use_winograd_backward_input(const Conv2dProblem& p) { return p.in >= 8 && use_winograd(p); }
/// And for that for the weights, where the way from 36 sums back to 9 costs more than it saves with few tiles.
constexpr bool use_winograd_backward_weight(const Conv2dProblem& p) {
  return use_winograd(p) && winograd::Tiles(p.n, p.out_h(), p.out_w(), p.dilation).count > 16;
}

}  // namespace detail

namespace detail {

/// The same for 4 x 4 with stride 2, in both directions: by the channels alone. Its weights are 2.25 times as many, so
/// there must not be more of them than pixels make up for.
constexpr bool use_strided_winograd(const Conv2dProblem& p) {
  return has_strided_form(p) && p.in >= 32 && p.out >= 32 && std::int64_t{p.in} * p.out <= 128 * 256;
}

/// What makes the key of another form of the weights.
inline constexpr std::uint64_t direct_form = 0x9e3779b97f4a7c15, bfloat16_form = ~std::uint64_t{0};

/// input(x), in `memory`, or x itself where there is nothing to do.
template <class T>
const T* apply_affine(const Conv2dProblem& p, const T* x, const ChannelAffine<T>& input,
                      std::optional<Scratch<T>>& memory) {
  if (!input) return x;
  memory.emplace(std::size_t(p.input_size()));
  batch_norm_apply(p.n * p.h * p.w, p.in, x, input.scale, input.shift, memory->data(), input.activation);
  return memory->data();
}

}  // namespace detail

/// What a convolution does besides, in the same pass over memory where its method allows.
template <class T>
struct Conv2dForwardFusion {
  ChannelAffine<T> input = {};        ///< the convolution is of input(x)
  ChannelStatistics statistics = {};  ///< of y
  bool accumulate = false;            ///< y += the sums, without bias, activation and statistics
};

/// y = activation(bias + cross-correlation of x with weight). bias may be nullptr: zeros. Winograd's products of
/// float32 images multiply in Factor, which may be Bfloat16; everything else is computed in T. Throws ShapeError if the
/// problem's extents make no convolution.
template <class T, class Factor = T>
void conv2d_forward(const Conv2dProblem& problem, const T* x, const T* weight, const T* bias, T* y,
                    Activation activation = Activation::none, const Conv2dForwardFusion<T>& fusion = {}) {
  check_conv2d(problem);
  const Epilogue<T> epilogue{.bias = bias, .activation = activation, .accumulate = fusion.accumulate};
  if constexpr (std::is_same_v<T, float>)
    if (detail::use_winograd(problem))
      return winograd_forward<Factor>(problem, x, weight, y, epilogue, fusion.input, fusion.statistics);
  std::optional<Scratch<T>> memory;
  const T* const input = detail::apply_affine(problem, x, fusion.input, memory);
  bool done = false;
  if constexpr (std::is_same_v<T, float>)
    if ((done = detail::use_strided_winograd(problem)))
      strided_winograd<float>(problem, false, input, weight, y, epilogue);
  if (!done) direct_forward(problem, input, weight, y, epilogue);
  if (fusion.statistics)
    batch_norm_statistics(problem.n * problem.out_h() * problem.out_w(), problem.out, y, fusion.statistics.mean,
                          fusion.statistics.variance);
}

/// The same for weights that stay, as in inference: `cache` keeps the form that the kernel reads under `key`, a
/// checksum of what the weights come from. weight() gives them, and is not called when the cache holds them.
template <class T, class Factor = T, class Weight>
void conv2d_forward_cached(const Conv2dProblem& problem, const T* x, PackedWeights& cache, std::uint64_t key,
                           Weight&& weight, const T* bias, T* y, Activation activation) {
  check_conv2d(problem);
  const Epilogue<T> epilogue{.bias = bias, .activation = activation};
  if constexpr (std::is_same_v<T, float>) {
    if (detail::use_winograd(problem)) {
      const std::uint64_t form = std::is_same_v<Factor, float> ? 0 : detail::bfloat16_form;
      const auto packed = cache.get(key ^ form, winograd_packed_size<Factor>(problem), [&](float* to) {
        winograd_pack(problem, weight(), reinterpret_cast<Factor*>(to));
      });
      return winograd_forward_packed(problem, x, reinterpret_cast<const Factor*>(packed->data()), y, epilogue);
    }
    if (detail::use_strided_winograd(problem)) {
      const auto packed = cache.get(key, strided_winograd_packed_size(problem, false),
                                    [&](float* to) { strided_winograd_pack<float>(problem, false, weight(), to); });
      return strided_winograd_packed<float>(problem, false, x, packed->data(), y, epilogue);
    }
    if (const std::int64_t size = direct_packed_size<float>(problem); size > 0) {
      const auto packed =
          cache.get(key ^ detail::direct_form, size, [&](float* to) { direct_pack<float>(problem, weight(), to); });
      return direct_forward_packed<float>(problem, x, packed->data(), y, epilogue);
    }
  }
  direct_forward(problem, x, weight(), y, epilogue);
}

/// dx = the gradient for the input, from the gradient dy for the output; dx += it if `accumulate`. With `sums`, x is
/// the result of a batch norm (and activation): gathers its sums of dx, which may on the way be set to 0 where the
/// activation did not let the value through. Factor is as in conv2d_forward; the gradient for the weights is always of
/// T. A `bias` for each channel of dx makes it a transposed convolution; it is not for what is added to.
template <class T, class Factor = T>
void conv2d_backward_input(const Conv2dProblem& problem, const T* dy, const T* weight, T* dx, bool accumulate,
                           const NormGradientSums<T>& sums = {}, const T* bias = nullptr) {
  check_conv2d(problem);
  const Epilogue<T> epilogue{.bias = bias, .accumulate = accumulate};
  bool gathered = false;
  if constexpr (std::is_same_v<T, float>) {
    if (detail::use_winograd_backward_input(problem)) {
      gathered = !accumulate;  // what is added to has its sums elsewhere
      winograd_backward_input<Factor>(problem, dy, weight, dx, epilogue, gathered ? sums : NormGradientSums<T>{});
    } else if (detail::use_strided_winograd(problem)) {
      strided_winograd<float>(problem, true, dy, weight, dx, epilogue);
    } else {
      direct_backward_input(problem, dy, weight, dx, epilogue);
    }
  } else {
    direct_backward_input(problem, dy, weight, dx, epilogue);
  }
  if (sums && !gathered)
    batch_norm_backward_sums(problem.n * problem.h * problem.w, problem.in, sums.x, dx, sums.affine.scale,
                             sums.affine.shift, sums.mean, sums.affine.activation, sums.sum_g, sums.sum_gx);
}

/// y = bias + the transposed convolution of x, which is the gradient for the input, for weights that stay: see
/// conv2d_forward_cached. `problem` is that of the convolution that it is the adjoint of.
template <class T, class Factor = T, class Weight>
void conv2d_transposed_cached(const Conv2dProblem& problem, const T* x, PackedWeights& cache, std::uint64_t key,
                              Weight&& weight, const T* bias, T* y) {
  check_conv2d(problem);
  if constexpr (std::is_same_v<T, float>) {
    if (detail::use_strided_winograd(problem)) {
      const auto packed = cache.get(key, strided_winograd_packed_size(problem, true),
                                    [&](float* to) { strided_winograd_pack<float>(problem, true, weight(), to); });
      return strided_winograd_packed<float>(problem, true, x, packed->data(), y, {.bias = bias});
    }
    if (const std::int64_t size = direct_backward_packed_size<float>(problem);
        size > 0 && !detail::use_winograd_backward_input(problem)) {
      const auto packed = cache.get(key, size, [&](float* to) { direct_backward_pack<float>(problem, weight(), to); });
      return direct_backward_input_packed<float>(problem, x, packed->data(), y, {.bias = bias});
    }
  }
  conv2d_backward_input<T, Factor>(problem, x, weight(), y, false, {}, bias);
}

/// What the gradients for a convolution's parameters take into account besides.
template <class T>
struct Conv2dBackwardFusion {
  ChannelAffine<T> input;  ///< the convolution is of input(x)
  NormGradient<T> output;  ///< dy is the gradient for a batch norm of y, and is replaced by that for y
};

/// dweight = the gradient for the weights and dbias = that for the bias (nullptr: not wanted); += if `accumulate`.
/// dy is not changed unless the fusion says so.
template <class T>
void conv2d_backward_weight(const Conv2dProblem& problem, const T* x, T* dy, T* dweight, T* dbias, bool accumulate,
                            Conv2dBackwardFusion<T> fusion) {
  check_conv2d(problem);
  constexpr bool single = std::is_same_v<T, float>;
  const bool winograd = single && detail::use_winograd_backward_weight(problem);
  if (fusion.output && !(winograd && reads_gradient_once(problem))) {
    batch_norm_backward_input(problem.n * problem.out_h() * problem.out_w(), problem.out, fusion.output, dy, dy, false);
    fusion.output = {};
  }
  if constexpr (single)
    if (winograd)
      return winograd_backward_weight(problem, x, dy, dweight, dbias, accumulate, fusion.input, fusion.output);
  std::optional<Scratch<T>> input;
  direct_backward_weight(problem, detail::apply_affine(problem, x, fusion.input, input), dy, dweight, dbias,
                         accumulate);
}

/// The same without a batch norm behind: dy is not changed.
template <class T>
void conv2d_backward_weight(const Conv2dProblem& problem, const T* x, const T* dy, T* dweight, T* dbias,
                            bool accumulate) {
  conv2d_backward_weight(problem, x, const_cast<T*>(dy), dweight, dbias, accumulate, {});
}

// ---- memory that float32 convolutions take from the pool, in bytes. That of thin ones is small, and counts as none.

namespace detail {

inline std::size_t bytes_of_floats(std::int64_t count) {
  return count == 0 ? 0 : MemoryPool::block_bytes(std::size_t(count) * sizeof(float));
}

}  // namespace detail

/// Of the weights that conv2d_forward_cached keeps.
inline std::size_t conv2d_packed_bytes(const Conv2dProblem& p) {
  if (detail::use_winograd(p)) return detail::bytes_of_floats(winograd_packed_size(p));
  if (detail::use_strided_winograd(p)) return detail::bytes_of_floats(strided_winograd_packed_size(p, false));
  return detail::bytes_of_floats(direct_packed_size<float>(p));
}
/// Of those that conv2d_transposed_cached keeps.
inline std::size_t conv2d_transposed_packed_bytes(const Conv2dProblem& p) {
  if (detail::use_winograd_backward_input(p)) return 0;
  if (detail::use_strided_winograd(p)) return detail::bytes_of_floats(strided_winograd_packed_size(p, true));
  return detail::bytes_of_floats(direct_backward_packed_size<float>(p));
}
/// While a forward convolution runs; with `packs` it prepares the weights itself.
inline std::size_t conv2d_forward_workspace(const Conv2dProblem& p, bool packs) {
  if (detail::use_winograd(p)) return winograd_workspace_bytes(p, false, !packs);
  const std::size_t all = detail::use_strided_winograd(p) ? strided_winograd_workspace_bytes(p, false)
                                                            : direct_workspace_bytes(p, false);
  return all - (packs ? 0 : conv2d_packed_bytes(p));
}
/// While the gradients for the weights and for the input are computed.
inline std::size_t conv2d_weight_workspace(const Conv2dProblem& p) {
  return detail::use_winograd_backward_weight(p) ? winograd_weight_workspace_bytes(p)
                                                 : direct_weight_workspace_bytes(p);
}
inline std::size_t conv2d_input_workspace(const Conv2dProblem& p) {
  if (detail::use_winograd_backward_input(p)) return winograd_workspace_bytes(p, true);
  return detail::use_strided_winograd(p) ? strided_winograd_workspace_bytes(p, true) : direct_workspace_bytes(p, true);
}
/// So many rows of the result are computed together, and columns: the rounding of each depends on all that they read. 1
/// for a direct convolution, where a pixel's sum has the same terms in the same order wherever it lies.
constexpr int conv2d_rows_together(const Conv2dProblem& p) {
  return detail::use_winograd(p) ? winograd::step * p.dilation : 1;
}
/// The same for the gradient for the input, which a transposed convolution computes.
constexpr int conv2d_input_rows_together(const Conv2dProblem& p) {
  return detail::use_winograd_backward_input(p) ? winograd::step * p.dilation : 1;
}
/// Whether the input's normalisation is applied where it is read, both ways; else a normalised copy is made.
constexpr bool conv2d_normalises_on_load(const Conv2dProblem& p) { return detail::use_winograd_backward_weight(p); }

}}}  // namespace strata::STRATA_ABI::cpu
