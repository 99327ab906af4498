// Makes an ONNX graph of a network: its forward is run with an Infer pass on symbols in place of images, and each
// layer, which says in onnx() what it is, and each operation of an expression becomes a node. A custom module written
// for images of any type is followed like any other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/channels.hpp"
#include "strata/io/detail/onnx_graph.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Stands where an element's type does: Var<C, OnnxSymbol> is an image of C channels of which only the name is known.
/// As a number it is a constant of an expression.
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

/// The name of a parameter or buffer, whose numbers become part of the graph.
inline std::string onnx_tensor(OnnxGraph& graph, const auto& leaf, std::vector<std::int64_t> shape) {
  const auto found = graph.names.find(&leaf.any_value());
  if (found == graph.names.end())
    throw ValueError("export_onnx: a module gave a parameter that its visit does not list");
  if (shape.empty())
    for (int axis = 0; axis < leaf.shape().rank(); ++axis) shape.push_back(leaf.shape()[axis]);
  graph.tensors[found->second] = {std::move(shape), to_nchw(leaf.template value<float>())};
  return found->second;
}

/// A value as the image (N, C, 1, 1) where it is flat.
inline OnnxValue as_image(const OnnxValue& x) {
  if (!x.flat) return x;
  const std::string shape = x.graph->unused("image_shape");
  x.graph->tensors[shape] = {{4}, std::vector<std::int64_t>{0, -1, 1, 1}};  // 0 keeps, -1 takes the rest
  return {x.graph, x.graph->add("Reshape", "Reshape", {x.name, shape}), x.grid, false};
}

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

  /// The output, of Out channels, of an operator whose inputs are this image and `tensors`: what tensor() and
  /// constant() returned. Its height and width are this image's.
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

  using Attributes = std::vector<OnnxAttribute>;

  /// It as (N, Out), Out numbers for each image.
  template <int Out>
  Var<Out, OnnxSymbol> flat() const {
    if (symbol_.flat) return Var<Out, OnnxSymbol>(symbol_);
    detail::OnnxValue y = node_of_other_size<Out>("Flatten").symbol();
    y.flat = true;
    return Var<Out, OnnxSymbol>(std::move(y));
  }

  /// The name of what an operator gives that does not take this image itself, as its size or a matrix.
  std::string operation(const std::string& op, std::vector<std::string> inputs,
                        std::vector<OnnxAttribute> attributes = {}) const {
    return symbol_.graph->add(op, op, std::move(inputs), std::move(attributes));
  }
  /// The image, of another height or width than this one, that operation() gave.
  template <int Out>
  Var<Out, OnnxSymbol> result(std::string name) const {
    return Var<Out, OnnxSymbol>(detail::OnnxValue{symbol_.graph, std::move(name), ++symbol_.graph->grids, false});
  }
  /// As an image of one pixel where it is a vector, which Linear gives.
  Var as_image() const { return Var(detail::as_image(symbol_)); }

  /// The name of a parameter or buffer of the network, whose numbers become part of the graph. `shape` may be another
  /// one of the same size. Throws ValueError when no visit lists it.
  std::string tensor(const auto& leaf, std::vector<std::int64_t> shape = {}) const {
    return detail::onnx_tensor(*symbol_.graph, leaf, std::move(shape));
  }
  /// From here on `leaf`, which no visit lists, is a tensor called as `listed` is, or `part` in its place; until
  /// forget().
  void name_as(const auto& leaf, const auto& listed, const std::string& part = "") const {
    std::string name = symbol_.graph->names.at(&listed.any_value());
    if (!part.empty()) name = name.substr(0, name.rfind('.') + 1) + part;
    symbol_.graph->names.insert_or_assign(&leaf.any_value(), std::move(name));
  }
  void forget(const auto& leaf) const { symbol_.graph->names.erase(&leaf.any_value()); }
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
    static_assert(
        detail::never<Self>,
        "strata: a module that asks for an image's extents or numbers cannot be exported by itself, since an ONNX "
        "graph is for images of any size: give it a second call operator, "
        "'auto operator()(st::Infer& pass, const st::Symbolic auto& x) const' (io/onnx_export.hpp)");
    static const T none{};
    return none;
  }

  detail::OnnxValue symbol_;
};

namespace detail {

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
template <int C>
OnnxValue onnx_node(OnnxGraph*, const RepeatedNode<C, OnnxSymbol>& leaf) {
  return leaf.x.symbol();  // ONNX repeats one channel by itself
}

template <int C>
OnnxValue onnx_node(OnnxGraph* graph, const NumbersNode<C, OnnxSymbol>& node) {
  const std::int64_t size = node.numbers->size();
  return {graph,
          onnx_tensor(*graph, *node.numbers,
                      size == 1 ? std::vector<std::int64_t>{1} : std::vector<std::int64_t>{size, 1, 1}),
          -1, false};
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
  } else if constexpr (std::is_same_v<Function, math::LeakyRelu>) {
    const double slope = node.function.slope;
    x.name = slope == 0 ? graph->add("Relu", "Relu", {x.name})
                        : graph->add("LeakyRelu", "LeakyRelu", {x.name}, {{"alpha", float(slope)}});
  } else if constexpr (std::is_same_v<Function, math::Power>) {
    x.name = graph->add("Pow", "Pow", {x.name, onnx_constant(graph, node.function.exponent).name});
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
  if ((a.flat != b.flat && a.grid >= 0 && b.grid >= 0) || is_numbers_node<A> || is_numbers_node<B>)
    a = as_image(a), b = as_image(b);
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
OnnxGraph* graph_of(const NumbersNode<C, OnnxSymbol>&) { return nullptr; }
template <int C>
OnnxGraph* graph_of(const LeafNode<C, OnnxSymbol>& leaf) { return leaf.x.symbol().graph; }
template <int C>
OnnxGraph* graph_of(const RepeatedNode<C, OnnxSymbol>& leaf) {
  return leaf.x.symbol().graph;
}
template <class Function, class A>
OnnxGraph* graph_of(const UnaryNode<Function, A>& node) { return graph_of(node.a); }
template <class Function, class A, class B>
OnnxGraph* graph_of(const BinaryNode<Function, A, B>& node) {
  OnnxGraph* graph = graph_of(node.a);
  return graph != nullptr ? graph : graph_of(node.b);
}

}  // namespace detail

/// What each step of a forward is as nodes.
template <>
struct SymbolicRun<OnnxSymbol> {
  /// A layer says itself what it is; containers are followed.
  template <class M, class P, int C>
  static auto layer(M& module, P& pass, const Var<C, OnnxSymbol>& x) {
    using Plain = std::remove_const_t<M>;
    if constexpr (detail::IdleInInference<Plain>) {
      return x;
    } else if constexpr (requires { Plain::onnx(module, x); }) {
      const auto y = Plain::onnx(module, x);
      if constexpr (detail::TakesAffine<Plain>) y.symbol().graph->nodes.back().takes_affine = true;
      if constexpr (detail::Affine<Plain>) {
        const auto affine = Plain::template affine<float>(module, Device::cpu());
        for (int c = 0; c < C; ++c) y.symbol().graph->nodes.back().affine.push_back(affine(c));
      }
      return y;
    } else {
      static_assert(!detail::LeafLayer<Plain>,
                    "strata: this layer has no ONNX form yet: give it "
                    "'static auto onnx(auto& self, const auto& x) { return x.template node<Out>(\"Operator\"); }'");
      return Plain::forward(module, pass, x);
    }
  }

  template <class E>
  static Var<E::channels, OnnxSymbol> value(const E& expression) {
    return Var<E::channels, OnnxSymbol>(detail::onnx_node(detail::graph_of(expression), expression));
  }

  template <int C, int D>
  static Var<C, OnnxSymbol> expand_as(const Var<C, OnnxSymbol>& one_pixel, const Var<D, OnnxSymbol>& like) {
    static_assert(C == D, "strata: expand_as between images of different channels cannot be exported");
    detail::OnnxValue y = detail::as_image(like.symbol());
    const std::string shape = y.graph->add("Shape", "Shape", {y.name});
    y.name = y.graph->add("Expand", "Expand", {detail::as_image(one_pixel.symbol()).name, shape});
    return Var<C, OnnxSymbol>(std::move(y));
  }

  template <int Start, int Length, int C>
  static Var<Length, OnnxSymbol> narrow(const Var<C, OnnxSymbol>& x) {
    static_assert(Start >= 0 && Length > 0 && Start + Length <= C,
                  "strata::narrow<Start, Length>: the image has no such channels");
    const auto number = [&](std::int64_t value) { return x.constant({1}, std::vector<std::int64_t>{value}); };
    return x.template node<Length>("Slice", {number(Start), number(Start + Length), number(1)});  // from, to, axis
  }

  template <int... C>
  static auto cat(const Var<C, OnnxSymbol>&... x) {
    std::vector<detail::OnnxValue> values{detail::as_image(x.symbol())...};
    std::vector<std::string> names;
    for (const detail::OnnxValue& value : values) names.push_back(value.name);
    values[0].name = values[0].graph->add("Concat", "Concat", std::move(names), {{"axis", std::int64_t{1}}});
    return Var<(C + ...), OnnxSymbol>(std::move(values[0]));
  }

  template <int Out, class Op, int... C>
  static auto op(const Op& which, const Var<C, OnnxSymbol>&... x) {
    return which.template onnx<Out>(x.as_image()...);
  }
};

}}  // namespace strata::STRATA_ABI
