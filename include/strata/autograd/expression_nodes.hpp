// The nodes of expressions: each a type that remembers its operands. autograd/expression.hpp has the operators that
// make them, and computes them.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/autograd/device_expression.hpp"
#include "strata/autograd/variable.hpp"
#include "strata/core/error.hpp"
#include "strata/core/simd.hpp"
#include "strata/math/functions.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The base of all expressions. It stands here so that the functions below are found for them without naming strata.
struct ExpressionTag {};

namespace detail {

inline constexpr std::int64_t expression_grain = 1 << 14;  // elements of one task; fixes the order of sums

template <class X>
concept is_expression = std::is_base_of_v<ExpressionTag, std::remove_cvref_t<X>>;

/// Calls f.template operator()<V>(i) for the elements [begin, end): whole vectors first, then single numbers.
template <class T, class F>
[[gnu::always_inline]] inline void sweep(std::int64_t begin, std::int64_t end, F&& f) {
  using V = simd::Vector<T>;
  std::int64_t i = begin;
  for (; i + simd::lanes<V> <= end; i += simd::lanes<V>) f.template operator()<V>(i);
  for (; i < end; ++i) f.template operator()<T>(i);
}
// ---- the nodes. eval<V>(i) is the value at element i; bind(tape) asks where gradients go; backward<V>(i, g) hands g,
// the gradient of this node at element i, down to the leaves, computing the values it needs again. keep(list, needed)
// names the leaves whose values these are; `needed` says whether the gradient depends on this node's value.
// of_inference() says whether an image was computed in an inference pass.

/// Whether the gradient of Function does not depend on its arguments.
template <class Function>
inline constexpr bool is_linear = std::is_same_v<Function, math::Negate> || std::is_same_v<Function, math::Add> ||
                                  std::is_same_v<Function, math::Subtract>;

template <class T>
struct ConstantNode : ExpressionTag {
  using value_type = T;
  static constexpr int channels = 0;  // any
  T number;

  constexpr Tape* tape() const { return nullptr; }
  constexpr bool of_inference() const { return false; }
  constexpr const Shape* shape_or_null() const { return nullptr; }
  constexpr MemoryPool* pool_or_null() const { return nullptr; }
  void describe(DeviceExpression& e) const { e.program.push_constant(float(number)); }
  void bind(Tape&) {}
  void keep(KeptList&, bool) const {}
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t) const {
    return V{} + number;
  }
  template <class V>
  [[gnu::always_inline]] void backward(std::int64_t, V) const {}
};

template <int C, class T>
struct LeafNode : ExpressionTag {
  using value_type = T;
  static constexpr int channels = C;
  Var<C, T> x;
  const T* values;
  GradientTarget<T> target{};

  explicit LeafNode(Var<C, T> variable) : x(std::move(variable)), values(x.data()) {}
  Tape* tape() const { return x.tape(); }
  bool of_inference() const { return x.of_inference(); }
  const Shape* shape_or_null() const { return &x.shape(); }
  MemoryPool* pool_or_null() const { return &x.pool(); }
  void describe(DeviceExpression& e) const { e.push_leaf(values, x.id()); }
  void bind(Tape& tape) { target = tape.target<T>(x.id()); }
  void keep(KeptList& list, bool needed) const {
    if (needed) keep_for_backward(list, x);
  }
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t i) const {
    return simd::load<V>(values + i);
  }
  template <class V>
  [[gnu::always_inline]] void backward(std::int64_t i, V g) const {
    if (!target) return;
    simd::store<V>(target.data + i, target.accumulate ? simd::load<V>(target.data + i) + g : g);
  }
};

/// An image without numbers: nothing is evaluated.
template <int C, class T>
  requires requires { typename T::is_symbol; }
struct LeafNode<C, T> : ExpressionTag {
  using value_type = T;
  static constexpr int channels = C;
  Var<C, T> x;

  constexpr explicit LeafNode(Var<C, T> variable) : x(std::move(variable)) {}
  constexpr Tape* tape() const { return nullptr; }
  constexpr bool of_inference() const { return false; }
  constexpr const Shape* shape_or_null() const { return nullptr; }
  constexpr MemoryPool* pool_or_null() const { return nullptr; }
};

template <class Self, int C, class T>
struct ExpressionBase : ExpressionTag {
  using value_type = T;
  static constexpr int channels = C;
  constexpr operator Var<C, T>() const { return evaluate(static_cast<const Self&>(*this)); }
  constexpr decltype(auto) shape() const& {
    if constexpr (requires { typename T::is_symbol; })
      return evaluate(static_cast<const Self&>(*this)).shape();
    else
      return static_cast<const Shape&>(*static_cast<const Self&>(*this).shape_or_null());
  }
  constexpr Shape shape() const&& { return shape(); }
  constexpr std::int64_t n() const { return shape().n(); }
  constexpr std::int64_t h() const { return shape().h(); }
  constexpr std::int64_t w() const { return shape().w(); }
  /// Computes it. Each call computes anew: keep the result, or convert to Var<C>.
  Image<C, T> value() const { return evaluate(static_cast<const Self&>(*this)).value(); }
};

template <class Function, class A>
struct UnaryNode : ExpressionBase<UnaryNode<Function, A>, A::channels, typename A::value_type> {
  A a;
  [[no_unique_address]] Function function;

  constexpr explicit UnaryNode(A operand, Function f = {}) : a(std::move(operand)), function(f) {}
  constexpr Tape* tape() const { return a.tape(); }
  constexpr bool of_inference() const { return a.of_inference(); }
  constexpr const Shape* shape_or_null() const { return a.shape_or_null(); }
  constexpr MemoryPool* pool_or_null() const { return a.pool_or_null(); }
  void describe(DeviceExpression& e) const {
    a.describe(e);
    e.push(function);
  }
  void bind(Tape& tape) { a.bind(tape); }
  void keep(KeptList& list, bool needed) const { a.keep(list, needed || !is_linear<Function>); }
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t i) const {
    return function.value(a.template eval<V>(i));
  }
  template <class V>
  [[gnu::always_inline]] void backward(std::int64_t i, V g) const {
    const V value = a.template eval<V>(i);
    a.template backward<V>(i, g * function.derivative(value, function.value(value)));
  }
};

template <class Function, class A, class B>
struct BinaryNode
    : ExpressionBase<BinaryNode<Function, A, B>, std::max(A::channels, B::channels), typename A::value_type> {
  A a;
  B b;

  constexpr BinaryNode(A left, B right) : a(std::move(left)), b(std::move(right)) {
    const Shape *p = a.shape_or_null(), *q = b.shape_or_null();
    if (p != nullptr && q != nullptr && *p != *q)
      throw ShapeError(
          concat("arithmetic on images of different shapes: ", p->str(), " and ", q->str(),
                 " (N x C x H x W); nothing is repeated to fit by itself: st::expand_as(pass, a, b) repeats "
                 "one pixel over an image"));
    if (const MemoryPool *l = a.pool_or_null(), *r = b.pool_or_null();
        l != nullptr && r != nullptr && l->device() != r->device())
      throw DeviceError(concat("arithmetic on images of different devices: ", l->device().str(), " and ",
                               r->device().str(), ": move one with x.to(device)"));
    common_tape(a, b);
  }
  constexpr Tape* tape() const { return a.tape() != nullptr ? a.tape() : b.tape(); }
  constexpr bool of_inference() const { return a.of_inference() || b.of_inference(); }
  constexpr const Shape* shape_or_null() const {
    return a.shape_or_null() != nullptr ? a.shape_or_null() : b.shape_or_null();
  }
  constexpr MemoryPool* pool_or_null() const {
    return a.pool_or_null() != nullptr ? a.pool_or_null() : b.pool_or_null();
  }
  void describe(DeviceExpression& e) const {
    a.describe(e);
    b.describe(e);
    e.push(Function());
  }
  void bind(Tape& tape) {
    a.bind(tape);
    b.bind(tape);
  }
  void keep(KeptList& list, bool needed) const {
    constexpr bool by_number =
        B::channels == 0 && (std::is_same_v<Function, math::Multiply> || std::is_same_v<Function, math::Divide>);
    constexpr bool number_by = A::channels == 0 && std::is_same_v<Function, math::Multiply>;
    constexpr bool independent = is_linear<Function> || by_number || number_by;
    a.keep(list, needed || !independent);
    b.keep(list, needed || !independent);
  }
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t i) const {
    return Function::value(a.template eval<V>(i), b.template eval<V>(i));
  }
  template <class V>
  [[gnu::always_inline]] void backward(std::int64_t i, V g) const {
    const V left = a.template eval<V>(i), right = b.template eval<V>(i);
    V ga, gb;
    Function::backward(left, right, Function::value(left, right), g, ga, gb);
    a.template backward<V>(i, ga);
    b.template backward<V>(i, gb);
  }
};

// ---- operands: what stands in an expression becomes a node

template <class X>
concept variable_operand =
    is_expression<X> || IsVar<std::remove_cvref_t<X>>::value || IsImage<std::remove_cvref_t<X>>::value;
template <class X>
concept operand = variable_operand<X> || std::is_arithmetic_v<std::remove_cvref_t<X>>;

template <class T, class X>
constexpr auto node(const X& x) {
  if constexpr (is_expression<X>)
    return x;
  else if constexpr (std::is_arithmetic_v<X>)
    return ConstantNode<T>{{}, T(x)};
  else
    return LeafNode<X::channels, typename X::value_type>(as_var(x));
}

template <class A, class B>
struct CommonType {
  using type = typename A::value_type;
};
template <class A, class B>
  requires std::is_arithmetic_v<A>
struct CommonType<A, B> {
  using type = typename B::value_type;
};

template <class Function, class A>
constexpr auto unary(const A& a, Function function = {}) {
  using Node = decltype(node<typename A::value_type>(a));
  return UnaryNode<Function, Node>(node<typename A::value_type>(a), function);
}

/// Whether the channels of two operands fit: they are equal, or those of one are repeated for the other's.
template <class A, class B>
inline constexpr bool channels_agree = [] {
  if constexpr (std::is_arithmetic_v<A> || std::is_arithmetic_v<B>)
    return true;
  else
    return A::channels == B::channels || A::channels == 1 || B::channels == 1;
}();
template <class A, class B>
inline constexpr bool types_agree = [] {
  if constexpr (std::is_arithmetic_v<A> || std::is_arithmetic_v<B>)
    return true;
  else
    return std::is_same_v<typename A::value_type, typename B::value_type>;
}();

/// Read "channels_of<A, B>" in the compiler's text: A and B are the channel counts.
template <int A, int B>
struct channels_of {
  static_assert(A == B,
                "strata: arithmetic on images of different channel counts: read channels_of<A, B> beside this message: "
                "the left side has A channels, the right side B");
};

/// An image of one channel beside images of C: autograd/repeated_node.hpp.
template <int C, class T>
struct RepeatedNode;

/// x as an operand beside `Other`.
template <class T, class Other, class X>
constexpr auto node_beside(const X& x) {
  if constexpr (std::is_arithmetic_v<X> || std::is_arithmetic_v<Other>)
    return node<T>(x);
  else if constexpr (X::channels == 1 && Other::channels > 1)
    return RepeatedNode<Other::channels, T>(as_var(x));
  else
    return node<T>(x);
}

template <class Function, class A, class B>
constexpr auto binary(const A& a, const B& b) {
  using T = typename CommonType<A, B>::type;
  if constexpr (!channels_agree<A, B>) {
    static_assert(sizeof(channels_of<A::channels, B::channels>) > 0);
    return unary<math::Negate>(a);  // any right type: nothing else fails after the sentence above
  } else if constexpr (!types_agree<A, B>) {
    static_assert(types_agree<A, B>, "strata: arithmetic on images of different types: convert float and double first");
    return unary<math::Negate>(a);
  } else {
    auto left = node_beside<T, B>(a);
    auto right = node_beside<T, A>(b);
    return BinaryNode<Function, decltype(left), decltype(right)>(std::move(left), std::move(right));
  }
}

}  // namespace detail
}}  // namespace strata::STRATA_ABI
