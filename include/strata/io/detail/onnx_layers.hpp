// The library's layers as nodes of an ONNX graph. A layer that is not here says itself what it is: `onnx(self, x)`.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/io/detail/onnx_trace.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/fuse.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

template <class M>
inline constexpr bool is_linear_layer = false;
template <int In, int Out, bool Bias>
inline constexpr bool is_linear_layer<Linear<In, Out, Bias>> = true;
template <class M>
inline constexpr bool is_flatten = false;
template <int C, int H, int W>
inline constexpr bool is_flatten<Flatten<C, H, W>> = true;
template <class M>
inline constexpr bool is_leaky_relu = false;
template <class Slope>
inline constexpr bool is_leaky_relu<LeakyReLUOf<Slope>> = true;
template <class M>
inline constexpr bool is_prelu = false;
template <int C>
inline constexpr bool is_prelu<PReLU<C>> = true;
template <class M>
inline constexpr bool is_dropout = false;
template <class P>
inline constexpr bool is_dropout<DropoutOf<P>> = true;
/// How many times larger, or smaller, the shuffling makes the image; 0 for what is none.
template <class M>
struct OnnxShuffle { static constexpr int up = 0, down = 0; };
template <int In, int Factor>
struct OnnxShuffle<PixelShuffle<In, Factor>> { static constexpr int up = Factor, down = 0; };
template <int In, int Factor>
struct OnnxShuffle<PixelUnshuffle<In, Factor>> { static constexpr int up = 0, down = Factor; };

inline std::vector<std::int64_t> two(int number) { return {number, number}; }

template <int C>
Var<C, OnnxSymbol> image(const Var<C, OnnxSymbol>& x) { return Var<C, OnnxSymbol>(as_image(x.symbol())); }
template <int C>
Var<C, OnnxSymbol> flat(const Var<C, OnnxSymbol>& x) {
  OnnxValue y = x.symbol();
  y.flat = true;
  return Var<C, OnnxSymbol>(std::move(y));
}
template <int Out, int C>
Var<Out, OnnxSymbol> flatten(const Var<C, OnnxSymbol>& x) {
  if (x.symbol().flat) return Var<Out, OnnxSymbol>(x.symbol());
  return flat(x.template node_of_other_size<Out>("Flatten"));
}

template <class M, int C>
auto onnx_convolution(const auto& module, const Var<C, OnnxSymbol>& x) {
  std::vector<std::string> tensors{x.tensor(module.weight)};
  if constexpr (M::has_bias) tensors.push_back(x.tensor(module.bias));
  std::vector<OnnxAttribute> attributes{{"kernel_shape", two(M::kernel)},
                                        {"strides", two(M::stride)},
                                        {"pads", std::vector<std::int64_t>(4, M::padding)},
                                        {"dilations", two(M::dilation)}};
  if constexpr (requires { M::groups; }) attributes.push_back({"group", std::int64_t{M::groups}});
  if constexpr (M::stride == 1 && 2 * M::padding == M::dilation * (M::kernel - 1))
    return x.template node<M::io::out>("Conv", std::move(tensors), std::move(attributes));
  else
    return x.template node_of_other_size<M::io::out>("Conv", std::move(tensors), std::move(attributes));
}

template <class M, int C>
auto onnx_transposed_convolution(const M& module, const Var<C, OnnxSymbol>& x) {
  std::vector<std::string> tensors{x.tensor(module.weight)};
  if constexpr (M::has_bias) tensors.push_back(x.tensor(module.bias));
  std::vector<OnnxAttribute> attributes{{"kernel_shape", two(M::kernel)},
                                        {"strides", two(M::stride)},
                                        {"pads", std::vector<std::int64_t>(4, M::padding)},
                                        {"output_padding", two(M::output_padding)}};
  return x.template node_of_other_size<M::io::out>("ConvTranspose", std::move(tensors), std::move(attributes));
}

/// ONNX puts the pixels of a square before its channels, PyTorch behind: the channels are put in order afterwards.
template <int Out, int C>
Var<Out, OnnxSymbol> onnx_unshuffle(const Var<C, OnnxSymbol>& x, int factor) {
  const auto y = x.template node_of_other_size<Out>("SpaceToDepth", {}, {{"blocksize", std::int64_t{factor}}});
  if constexpr (C == 1) {
    return y;
  } else {
    std::vector<std::int64_t> order;
    for (int c = 0; c < C; ++c)
      for (int pixel = 0; pixel < factor * factor; ++pixel) order.push_back(pixel * C + c);
    return y.template node<Out>("Gather", {x.constant({Out}, order)}, {{"axis", std::int64_t{1}}});
  }
}

}  // namespace detail

template <int C>
template <class M>
auto Var<C, OnnxSymbol>::convolution(const auto& module) const {
  return detail::onnx_convolution<M>(module, detail::image(*this));
}

/// A layer as nodes; nn/module.hpp calls it. Containers are followed.
template <class M, class P, int C>
auto symbolic_layer(M& module, P& pass, const Var<C, OnnxSymbol>& x) {
  using Plain = std::remove_const_t<M>;
  if constexpr (detail::is_conv2d<Plain> || detail::is_depthwise_conv2d<Plain>) {
    return x.template convolution<Plain>(module);
  } else if constexpr (detail::is_conv_transpose2d<Plain>) {
    return detail::onnx_transposed_convolution(module, detail::image(x));
  } else if constexpr (detail::is_batch_norm<Plain>) {
    return x.template node<C>("BatchNormalization",
                              {x.tensor(module.weight), x.tensor(module.bias), x.tensor(module.running_mean),
                               x.tensor(module.running_var)},
                              {{"epsilon", float(Plain::eps)}, {"momentum", float(1 - Plain::momentum)}});
  } else if constexpr (detail::is_linear_layer<Plain>) {
    std::vector<std::string> tensors{x.tensor(module.weight)};
    if (module.bias.size() > 0) tensors.push_back(x.tensor(module.bias));
    return detail::flatten<C>(x).template node<Plain::io::out>("Gemm", std::move(tensors), {{"transB", std::int64_t{1}}});
  } else if constexpr (detail::is_flatten<Plain>) {
    return detail::flatten<Plain::io::out>(x);
  } else if constexpr (std::is_same_v<Plain, ReLU>) {
    return x.template node<C>("Relu");
  } else if constexpr (detail::is_leaky_relu<Plain>) {
    return x.template node<C>("LeakyRelu", {}, {{"alpha", float(Plain::negative_slope)}});
  } else if constexpr (detail::is_prelu<Plain>) {
    return detail::image(x).template node<C>("PRelu", {x.tensor(module.weight, {module.weight.size(), 1, 1})});
  } else if constexpr (detail::is_dropout<Plain>) {
    return x;
  } else if constexpr (std::is_same_v<Plain, GlobalAvgPool2d>) {
    return detail::image(x).template node_of_other_size<C>("GlobalAveragePool");
  } else if constexpr (detail::OnnxShuffle<Plain>::up > 0) {
    return detail::image(x).template node_of_other_size<Plain::io::out>(
        "DepthToSpace", {}, {{"blocksize", std::int64_t{detail::OnnxShuffle<Plain>::up}}, {"mode", "CRD"}});
  } else if constexpr (detail::OnnxShuffle<Plain>::down > 0) {
    return detail::onnx_unshuffle<Plain::io::out>(detail::image(x), detail::OnnxShuffle<Plain>::down);
  } else if constexpr (requires { Plain::onnx(module, x); }) {
    return Plain::onnx(module, x);
  } else {
    static_assert(!requires { Plain::is_leaf_layer; },
                  "strata: this layer has no ONNX form yet: give it "
                  "'static auto onnx(auto& self, const auto& x) { return x.template node<Out>(\"Operator\"); }'");
    return Plain::forward(module, pass, x);
  }
}

}  // namespace strata::inline STRATA_ABI
