// Arithmetic on variables. An expression is a type that remembers its operands; it is computed when a loss or a layer
// needs its value, in one pass over memory whatever its length, and one pass back.
//
//     auto charbonnier = mean(sqrt(square(prediction - target) + 1e-6f));
//     st::Var<3> y = x + 0.1f * body(pass, x);
//
// Operands are variables, images and numbers: + - * / negate square sqrt abs exp log sigmoid tanh erf clamp maximum minimum
// mean sum.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/autograd/device_expression.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/variable.hpp"
#include "strata/core/error.hpp"
#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/math/functions.hpp"

namespace strata::inline STRATA_ABI {

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
// the gradient of this node at element i, down to the leaves, computing the values it needs again. keep(list, needed) names
// the leaves whose values these are; `needed` says whether the gradient depends on this node's value.

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
  constexpr const Shape* shape_or_null() const { return nullptr; }
  constexpr MemoryPool* pool_or_null() const { return nullptr; }
  void describe(DeviceExpression& e) const { e.program.push_constant(float(number)); }
  void bind(Tape&) {}
  void keep(KeptList&, bool) const {}
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t) const { return V{} + number; }
  template <class V>
  [[gnu::always_inline]] void backward(std::int64_t, V) const {}
};

template <int C, class T>
struct LeafNode : ExpressionTag {
  using value_type = T;
  static constexpr int channels = C;
  Var<C, T> x;
  const T* values;
  Tape::Target<T> target{};

  explicit LeafNode(Var<C, T> variable) : x(std::move(variable)), values(x.data()) {}
  Tape* tape() const { return x.tape(); }
  const Shape* shape_or_null() const { return &x.shape(); }
  MemoryPool* pool_or_null() const { return &x.pool(); }
  void describe(DeviceExpression& e) const { e.push_leaf(values, x.id()); }
  void bind(Tape& tape) { target = tape.target<T>(x.id()); }
  void keep(KeptList& list, bool needed) const {
    if (needed) keep_for_backward(list, x);
  }
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t i) const { return simd::load<V>(values + i); }
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
  constexpr const Shape* shape_or_null() const { return a.shape_or_null(); }
  constexpr MemoryPool* pool_or_null() const { return a.pool_or_null(); }
  void describe(DeviceExpression& e) const {
    a.describe(e);
    e.push(function);
  }
  void bind(Tape& tape) { a.bind(tape); }
  void keep(KeptList& list, bool needed) const { a.keep(list, needed || !is_linear<Function>); }
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t i) const { return function.value(a.template eval<V>(i)); }
  template <class V>
  [[gnu::always_inline]] void backward(std::int64_t i, V g) const {
    const V value = a.template eval<V>(i);
    a.template backward<V>(i, g * function.derivative(value, function.value(value)));
  }
};

template <class Function, class A, class B>
struct BinaryNode : ExpressionBase<BinaryNode<Function, A, B>, std::max(A::channels, B::channels),
                                   typename A::value_type> {
  A a;
  B b;

  constexpr BinaryNode(A left, B right) : a(std::move(left)), b(std::move(right)) {
    const Shape *p = a.shape_or_null(), *q = b.shape_or_null();
    if (p != nullptr && q != nullptr && *p != *q)
      throw ShapeError(concat("arithmetic on images of different shapes: ", p->str(), " and ", q->str(),
                              " (N x C x H x W); nothing is repeated to fit by itself: st::expand_as(pass, a, b) repeats "
                              "one pixel over an image"));
    if (const MemoryPool *l = a.pool_or_null(), *r = b.pool_or_null(); l != nullptr && r != nullptr && l->device() != r->device())
      throw DeviceError(concat("arithmetic on images of different devices: ", l->device().str(), " and ", r->device().str(),
                               ": move one with x.to(device)"));
    common_tape(a, b);
  }
  constexpr Tape* tape() const { return a.tape() != nullptr ? a.tape() : b.tape(); }
  constexpr const Shape* shape_or_null() const { return a.shape_or_null() != nullptr ? a.shape_or_null() : b.shape_or_null(); }
  constexpr MemoryPool* pool_or_null() const { return a.pool_or_null() != nullptr ? a.pool_or_null() : b.pool_or_null(); }
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
    constexpr bool by_number = B::channels == 0 && (std::is_same_v<Function, math::Multiply> || std::is_same_v<Function, math::Divide>);
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
concept variable_operand = is_expression<X> || IsVar<std::remove_cvref_t<X>>::value ||
                           IsImage<std::remove_cvref_t<X>>::value;
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
struct CommonType { using type = typename A::value_type; };
template <class A, class B>
  requires std::is_arithmetic_v<A>
struct CommonType<A, B> { using type = typename B::value_type; };

template <class Function, class A>
constexpr auto unary(const A& a, Function function = {}) {
  using Node = decltype(node<typename A::value_type>(a));
  return UnaryNode<Function, Node>(node<typename A::value_type>(a), function);
}

template <class A, class B>
inline constexpr bool channels_agree = [] {
  if constexpr (std::is_arithmetic_v<A> || std::is_arithmetic_v<B>)
    return true;
  else
    return A::channels == B::channels;
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
    auto left = node<T>(a);
    auto right = node<T>(b);
    return BinaryNode<Function, decltype(left), decltype(right)>(std::move(left), std::move(right));
  }
}

/// The value of an expression, computed over all cores.
template <class E>
auto compute(const E& expression) {
  using T = typename E::value_type;
  const Shape& shape = *expression.shape_or_null();
  if (on_accelerator(expression.pool_or_null()->device())) return compute_on_accelerator(expression);
  Image<E::channels, T> out(shape.n(), shape.h(), shape.w());
  T* y = out.data();
  parallel_ranges(shape.size(), expression_grain, [&](std::int64_t begin, std::int64_t end) {
    sweep<T>(begin, end, [&]<class V>(std::int64_t i) { simd::store<V>(y + i, expression.template eval<V>(i)); });
  });
  return out;
}

/// The same, recorded when an operand is on a tape.
template <class E>
constexpr auto evaluate(const E& expression) {
  using T = typename E::value_type;
  if constexpr (Symbolic<E>) {
    return SymbolicRun<T>::value(expression);
  } else {
    Tape* tape = expression.tape();
    Var<E::channels, T> result(compute(expression), tape);
    if (tape != nullptr && on_accelerator(result.device())) {
      record_on_accelerator(expression, result);
      return result;
    }
    if (tape != nullptr)
      tape->record(result.id(), [bound = expression, id = result.id(), size = result.size()](Tape& t) mutable {
        bound.bind(t);
        const T* gy = t.gradient<T>(id);
        parallel_ranges(size, expression_grain, [&](std::int64_t begin, std::int64_t end) {
          sweep<T>(begin, end, [&]<class V>(std::int64_t i) { bound.template backward<V>(i, simd::load<V>(gy + i)); });
        });
      }, expression);
    return result;
  }
}

/// factor * (sum of all elements): double accumulation, in an order that depends on the size alone.
template <class E>
auto reduce(const E& expression, double factor) {
  using T = typename E::value_type;
  static_assert(!Symbolic<E>, "strata: a module whose forward takes the sum or mean of an image as a number cannot be followed or exported");
  const std::int64_t size = expression.shape_or_null()->size();
  if (on_accelerator(expression.pool_or_null()->device())) return reduce_on_accelerator(expression, factor);
  const std::int64_t tasks = (size + expression_grain - 1) / expression_grain;
  Scratch<double> partial(std::size_t(std::max<std::int64_t>(tasks, 1)));
  parallel_for(tasks, [&](std::int64_t task) {
    const std::int64_t begin = task * expression_grain, end = std::min(size, begin + expression_grain);
    double total = 0;
    for (std::int64_t low = begin; low < end; low += 512) {  // short runs in T, their sums in double
      simd::Vector<T> lanes_sum{};
      T rest = 0;
      sweep<T>(low, std::min(end, low + 512), [&]<class V>(std::int64_t i) {
        if constexpr (std::is_same_v<V, T>)
          rest += expression.template eval<V>(i);
        else
          lanes_sum += expression.template eval<V>(i);
      });
      total += double(rest);
      for (int lane = 0; lane < simd::lanes<simd::Vector<T>>; ++lane) total += double(lanes_sum[lane]);
    }
    partial[std::size_t(task)] = total;
  });
  double total = 0;
  for (std::int64_t task = 0; task < tasks; ++task) total += partial[std::size_t(task)];

  Tape* tape = expression.tape();
  Scalar<T> result(T(total * factor), tape);
  if (tape != nullptr)
    tape->record(result.id(), [bound = expression, id = result.id(), size, factor](Tape& t) mutable {
      bound.bind(t);
      const T g = T(double(*t.gradient<T>(id)) * factor);
      parallel_ranges(size, expression_grain, [&](std::int64_t begin, std::int64_t end) {
        sweep<T>(begin, end, [&]<class V>(std::int64_t i) { bound.template backward<V>(i, V{} + g); });
      });
    }, expression);
  return result;
}

}  // namespace detail

/// For Tape::record.
template <class E>
  requires detail::is_expression<E>
void keep_for_backward(KeptList& list, const E& expression) {
  expression.keep(list, false);
}

template <class E>
  requires detail::is_expression<E>
constexpr auto as_var(const E& expression) {
  return detail::evaluate(expression);
}

namespace detail {

/// x as a variable of a pass of type P. For an Infer pass an expression is computed without a tape, so that a program that
/// only infers holds no code of the way back.
template <Pass P, class X>
constexpr decltype(auto) var_in(const X& x) {
  if constexpr (!P::training && is_expression<X> && !Symbolic<X>) {
    if (x.tape() != nullptr) throw_of_another_pass("an inference pass");
    return Var<X::channels, typename X::value_type>(compute(x));
  } else {
    return as_var(x);
  }
}

}  // namespace detail

template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto operator+(const A& a, const B& b) { return detail::binary<math::Add>(a, b); }
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto operator-(const A& a, const B& b) { return detail::binary<math::Subtract>(a, b); }
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto operator*(const A& a, const B& b) { return detail::binary<math::Multiply>(a, b); }
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto operator/(const A& a, const B& b) { return detail::binary<math::Divide>(a, b); }
/// The larger of a and b, element by element.
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto maximum(const A& a, const B& b) { return detail::binary<math::Maximum>(a, b); }
template <class A, class B>
  requires(detail::operand<A> && detail::operand<B> && (detail::variable_operand<A> || detail::variable_operand<B>))
constexpr auto minimum(const A& a, const B& b) { return detail::binary<math::Minimum>(a, b); }

template <detail::variable_operand A>
constexpr auto operator-(const A& a) { return detail::unary<math::Negate>(a); }
template <detail::variable_operand A>
constexpr auto square(const A& a) { return detail::unary<math::Square>(a); }
template <detail::variable_operand A>
constexpr auto sqrt(const A& a) { return detail::unary<math::Sqrt>(a); }
template <detail::variable_operand A>
constexpr auto abs(const A& a) { return detail::unary<math::Abs>(a); }
template <detail::variable_operand A>
constexpr auto exp(const A& a) { return detail::unary<math::Exp>(a); }
template <detail::variable_operand A>
constexpr auto log(const A& a) { return detail::unary<math::Log>(a); }
template <detail::variable_operand A>
constexpr auto sigmoid(const A& a) { return detail::unary<math::Sigmoid>(a); }
template <detail::variable_operand A>
constexpr auto tanh(const A& a) { return detail::unary<math::Tanh>(a); }
template <detail::variable_operand A>
constexpr auto erf(const A& a) { return detail::unary<math::Erf>(a); }
/// Values below low become low, above high become high; there the gradient is 0. Throws ValueError for low > high. (Of an
/// image it is an image: tensor/image.hpp.)
template <detail::variable_operand A>
  requires(!detail::IsImage<A>::value)
constexpr auto clamp(const A& a, double low, double high) {
  if (!(low <= high)) throw ValueError(concat("clamp: low ", low, " must not be above high ", high));
  return detail::unary(a, math::Clamp{low, high});
}

/// The sum of all elements.
template <detail::variable_operand A>
auto sum(const A& a) { return detail::reduce(detail::node<typename A::value_type>(a), 1.0); }
/// The mean of all elements. Throws ShapeError for an empty image.
template <detail::variable_operand A>
auto mean(const A& a) {
  const auto node = detail::node<typename A::value_type>(a);
  const std::int64_t size = node.shape_or_null()->size();
  if (size == 0) throw ShapeError("mean: the image is empty");
  return detail::reduce(node, 1.0 / double(size));
}

}  // namespace strata::inline STRATA_ABI
