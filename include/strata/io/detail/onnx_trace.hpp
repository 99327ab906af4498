// Makes an ONNX graph of a network: its forward is run with an Infer pass on symbols in place of images, and each layer and
// each operation of an expression becomes a node. A custom module written for images of any type is followed like any other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/custom_op.hpp"
#include "strata/io/detail/onnx_graph.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI {

/// Stands where an element's type does: Var<C, OnnxSymbol> is an image of C channels of which only the name is known. As a
/// number it is a constant of an expression.
struct OnnxSymbol {
  using is_symbol = void;
  double number = 0;
  OnnxSymbol() = default;
  template <class T>
    requires std::is_arithmetic_v<T>
  explicit OnnxSymbol(T value) : number(double(value)) {}
};

namespace detail {

/// What is known of an image in a graph.
struct OnnxValue {
  OnnxGraph* graph = nullptr;
  std::string name;
  int grid = 0;       ///< images of one number have the same height and width; 0 is the input's
  bool flat = false;  ///< (N, C) and not (N, C, H, W)
};

}  // namespace detail

/// An image of C channels in a graph. A call operator of your own for it says what your module is in ONNX:
///
///     template <int C>
///     struct Softplus {
///       using io = st::maps<C, C>;
///       static constexpr void visit(auto&, auto&&) {}
///       template <st::Pass P>
///       auto operator()(P& pass, const st::Var<C>& x) const { return pass.output(softplus(x.value())); }
///       auto operator()(st::Infer&, const st::Symbolic auto& x) const { return x.template node<C>("Softplus"); }
///     };
template <int C>
class Var<C, OnnxSymbol> {
 public:
  static constexpr int channels = C;
  using value_type = OnnxSymbol;

  Var() = default;
  explicit Var(detail::OnnxValue symbol) : symbol_(std::move(symbol)) {}
  const detail::OnnxValue& symbol() const { return symbol_; }
  Tape* tape() const { return nullptr; }

  /// The output, of Out channels, of an operator whose inputs are this image and `tensors`: what tensor() and constant()
  /// returned. Its height and width are this image's.
  template <int Out>
  Var<Out, OnnxSymbol> node(const std::string& op, std::vector<std::string> tensors = {},
                            std::vector<OnnxAttribute> attributes = {}) const {
    detail::OnnxValue y = symbol_;
    tensors.insert(tensors.begin(), y.name);
    y.name = y.graph->add(op, op, std::move(tensors), std::move(attributes));
    return Var<Out, OnnxSymbol>(std::move(y));
  }
  /// The same for an operator that changes height or width.
  template <int Out>
  Var<Out, OnnxSymbol> node_of_other_size(const std::string& op, std::vector<std::string> tensors = {},
                                          std::vector<OnnxAttribute> attributes = {}) const {
    detail::OnnxValue y = node<Out>(op, std::move(tensors), std::move(attributes)).symbol();
    y.grid = ++y.graph->grids;
    return Var<Out, OnnxSymbol>(std::move(y));
  }

  /// A convolution: `module` has a weight of shape (Out, In, Kernel, Kernel), or (C, 1, Kernel, Kernel) where M::groups is C,
  /// and, where M::has_bias, a bias, and M is or has the constants of a Conv2d or a DepthwiseConv2d.
  template <class M>
  auto convolution(const auto& module) const;

  /// The name of a parameter or buffer of the network, whose numbers become part of the graph. `shape` may be another one
  /// of the same size. Throws ValueError when no visit lists it.
  std::string tensor(const auto& leaf, std::vector<std::int64_t> shape = {}) const {
    const auto found = symbol_.graph->names.find(&leaf.any_value());
    if (found == symbol_.graph->names.end())
      throw ValueError("export_onnx: a module gave a parameter that its visit does not list");
    if (shape.empty())
      for (int axis = 0; axis < leaf.shape().rank(); ++axis) shape.push_back(leaf.shape()[axis]);
    symbol_.graph->tensors[found->second] = {std::move(shape), to_nchw(leaf.template value<float>())};
    return found->second;
  }
  /// The name of a constant of this shape: float or std::int64_t, in PyTorch's memory order.
  template <class T>
  std::string constant(std::vector<std::int64_t> shape, std::vector<T> numbers) const {
    std::string name = symbol_.graph->unused("constant");
    symbol_.graph->tensors[name] = {std::move(shape), std::move(numbers)};
    return name;
  }

  // What ordinary variables have and a graph has not.
  template <class Self = Var>
  const Shape& shape() const { return refused<Self, Shape>(); }
  template <class Self = Var>
  const Image<C>& value() const { return refused<Self, Image<C>>(); }
  template <class Self = Var>
  const float* data() const { return &refused<Self, float>(); }
  template <class Self = Var>
  std::int64_t size() const { return refused<Self, std::int64_t>(); }
  template <class Self = Var>
  std::int64_t n() const { return refused<Self, std::int64_t>(); }
  template <class Self = Var>
  std::int64_t h() const { return refused<Self, std::int64_t>(); }
  template <class Self = Var>
  std::int64_t w() const { return refused<Self, std::int64_t>(); }

 private:
  template <class Self, class T>
  static const T& refused() {
    static_assert(detail::never<Self>,
                  "strata: a module that asks for an image's extents or numbers cannot be exported by itself, since an ONNX "
                  "graph is for images of any size: give it a second call operator, "
                  "'auto operator()(st::Infer& pass, const st::Symbolic auto& x) const' (io/onnx_export.hpp)");
    static const T none{};
    return none;
  }

  detail::OnnxValue symbol_;
};

namespace detail {

template <int C>
struct LeafNode<C, OnnxSymbol> : ExpressionTag {
  using value_type = OnnxSymbol;
  static constexpr int channels = C;
  Var<C, OnnxSymbol> x;

  explicit LeafNode(Var<C, OnnxSymbol> variable) : x(std::move(variable)) {}
  Tape* tape() const { return nullptr; }
  const Shape* shape_or_null() const { return nullptr; }
  MemoryPool* pool_or_null() const { return nullptr; }
};

/// A value as the image (N, C, 1, 1) where it is flat.
inline OnnxValue as_image(const OnnxValue& x) {
  if (!x.flat) return x;
  const std::string shape = x.graph->unused("image_shape");
  x.graph->tensors[shape] = {{4}, std::vector<std::int64_t>{0, -1, 1, 1}};  // 0 keeps, -1 takes the rest
  return {x.graph, x.graph->add("Reshape", "Reshape", {x.name, shape}), x.grid, false};
}

inline OnnxValue onnx_constant(OnnxGraph* graph, double number) {
  std::string name = graph->unused("constant");
  graph->tensors[name] = {{}, std::vector<float>{float(number)}};
  return {graph, std::move(name), -1, false};
}

// ---- expressions. A constant's grid is -1, since it has none.

inline OnnxValue onnx_node(OnnxGraph* graph, const ConstantNode<OnnxSymbol>& constant) {
  return onnx_constant(graph, constant.number.number);
}
template <int C>
OnnxValue onnx_node(OnnxGraph*, const LeafNode<C, OnnxSymbol>& leaf) {
  return leaf.x.symbol();
}

template <class Function, class A>
OnnxValue onnx_node(OnnxGraph* graph, const UnaryNode<Function, A>& node) {
  OnnxValue x = onnx_node(graph, node.a);
  if constexpr (std::is_same_v<Function, math::Square>) {
    x.name = graph->add("Mul", "Mul", {x.name, x.name});
  } else if constexpr (std::is_same_v<Function, math::Clamp>) {
    const std::string low = onnx_constant(graph, node.function.low).name;
    const std::string high = onnx_constant(graph, node.function.high).name;
    x.name = graph->add("Clip", "Clip", {x.name, low, high});
  } else {
    constexpr const char* op = [] {
      if constexpr (std::is_same_v<Function, math::Negate>) return "Neg";
      else if constexpr (std::is_same_v<Function, math::Sqrt>) return "Sqrt";
      else if constexpr (std::is_same_v<Function, math::Abs>) return "Abs";
      else if constexpr (std::is_same_v<Function, math::Exp>) return "Exp";
      else if constexpr (std::is_same_v<Function, math::Log>) return "Log";
      else if constexpr (std::is_same_v<Function, math::Sigmoid>) return "Sigmoid";
      else if constexpr (std::is_same_v<Function, math::Tanh>) return "Tanh";
      else if constexpr (std::is_same_v<Function, math::Erf>) return "Erf";
      else static_assert(never<Function>, "strata: this function of an expression has no ONNX form yet");
    }();
    x.name = graph->add(op, op, {x.name});
  }
  return x;
}

template <class Function, class A, class B>
OnnxValue onnx_node(OnnxGraph* graph, const BinaryNode<Function, A, B>& node) {
  OnnxValue a = onnx_node(graph, node.a), b = onnx_node(graph, node.b);
  if (a.flat != b.flat && a.grid >= 0 && b.grid >= 0) a = as_image(a), b = as_image(b);
  constexpr const char* op = [] {
    if constexpr (std::is_same_v<Function, math::Add>) return "Add";
    else if constexpr (std::is_same_v<Function, math::Subtract>) return "Sub";
    else if constexpr (std::is_same_v<Function, math::Multiply>) return "Mul";
    else if constexpr (std::is_same_v<Function, math::Divide>) return "Div";
    else if constexpr (std::is_same_v<Function, math::Maximum>) return "Max";
    else if constexpr (std::is_same_v<Function, math::Minimum>) return "Min";
    else static_assert(never<Function>, "strata: this function of an expression has no ONNX form yet");
  }();
  OnnxValue y = a.grid >= 0 ? a : b;
  y.name = graph->add(op, op, {a.name, b.name});
  return y;
}

inline OnnxGraph* graph_of(const ConstantNode<OnnxSymbol>&) { return nullptr; }
template <int C>
OnnxGraph* graph_of(const LeafNode<C, OnnxSymbol>& leaf) { return leaf.x.symbol().graph; }
template <class Function, class A>
OnnxGraph* graph_of(const UnaryNode<Function, A>& node) { return graph_of(node.a); }
template <class Function, class A, class B>
OnnxGraph* graph_of(const BinaryNode<Function, A, B>& node) {
  OnnxGraph* graph = graph_of(node.a);
  return graph != nullptr ? graph : graph_of(node.b);
}

template <class M>
inline constexpr bool is_linear = false;
template <int In, int Out, bool Bias>
inline constexpr bool is_linear<Linear<In, Out, Bias>> = true;
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
/// Kernel and stride of a pooling; kernel 0 for what is none.
template <class M>
struct OnnxPool { static constexpr int kernel = 0, stride = 0; static constexpr const char* op = ""; };
template <int Kernel, int Stride>
struct OnnxPool<MaxPool2d<Kernel, Stride>> {
  static constexpr int kernel = Kernel, stride = Stride;
  static constexpr const char* op = "MaxPool";
};
template <int Kernel, int Stride>
struct OnnxPool<AvgPool2d<Kernel, Stride>> {
  static constexpr int kernel = Kernel, stride = Stride;
  static constexpr const char* op = "AveragePool";
};
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

// ---- what the layers below call, found by the type of the symbols

/// An expression as nodes; autograd/expression.hpp calls it.
template <class E>
Var<E::channels, OnnxSymbol> symbolic_value(const E& expression) {
  return Var<E::channels, OnnxSymbol>(detail::onnx_node(detail::graph_of(expression), expression));
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
  } else if constexpr (detail::is_linear<Plain>) {
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
  } else if constexpr (detail::OnnxPool<Plain>::kernel > 0) {
    using Pool = detail::OnnxPool<Plain>;
    return detail::image(x).template node_of_other_size<C>(
        Pool::op, {}, {{"kernel_shape", detail::two(Pool::kernel)}, {"strides", detail::two(Pool::stride)}});
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

/// st::expand_as as a node.
template <int C, int D>
Var<C, OnnxSymbol> symbolic_expand_as(const Var<C, OnnxSymbol>& one_pixel, const Var<D, OnnxSymbol>& like) {
  static_assert(C == D, "strata: expand_as between images of different channels cannot be exported");
  detail::OnnxValue y = detail::as_image(like.symbol());
  const std::string shape = y.graph->add("Shape", "Shape", {y.name});
  y.name = y.graph->add("Expand", "Expand", {detail::as_image(one_pixel.symbol()).name, shape});
  return Var<C, OnnxSymbol>(std::move(y));
}

/// st::narrow as a node.
template <int Start, int Length, int C>
Var<Length, OnnxSymbol> symbolic_narrow(const Var<C, OnnxSymbol>& x) {
  static_assert(Start >= 0 && Length > 0 && Start + Length <= C, "strata::narrow<Start, Length>: the image has no such channels");
  const auto number = [&](std::int64_t value) { return x.constant({1}, std::vector<std::int64_t>{value}); };
  return x.template node<Length>("Slice", {number(Start), number(Start + Length), number(1)});  // from, to, axis
}

template <int... C>
auto symbolic_cat(const Var<C, OnnxSymbol>&... x) {
  std::vector<detail::OnnxValue> values{detail::as_image(x.symbol())...};
  std::vector<std::string> names;
  for (const detail::OnnxValue& value : values) names.push_back(value.name);
  values[0].name = values[0].graph->add("Concat", "Concat", std::move(names), {{"axis", std::int64_t{1}}});
  return Var<(C + ...), OnnxSymbol>(std::move(values[0]));
}

}  // namespace strata::inline STRATA_ABI
