// Learned numbers, and scalars, as operands of expressions: one number, or one for each channel.
//
//     struct Block {
//       st::Parameter beta{st::Shape{1, 64, 1, 1}, 0.0f};      // starts with 0; or {64, 1, 1}; one for all: {1}
//       auto operator()(auto& pass, const auto& x) { return x + body(pass, x) * beta; }
//
//     auto y = x * scalar;                                           // an st::Scalar, as mean(x) is
//
// The gradient for the numbers is summed in the pass over memory that computes all others of the expression.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/expression_nodes.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/repeated_node.hpp"
#include "strata/autograd/scalar.hpp"
#include "strata/core/parallel.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

template <class X>
struct IsScalar : std::false_type {};
template <class T>
struct IsScalar<Scalar<T>> : std::true_type {};

/// What stands in an expression as numbers: a parameter that somebody holds, or a scalar.
template <class N>
concept numbers_operand = (std::is_lvalue_reference_v<N> && std::same_as<std::remove_cvref_t<N>, Parameter>) ||
                          IsScalar<std::remove_cvref_t<N>>::value;

/// Numbers for the C channels of an image.
template <int C, class T>
struct NumbersNode : ExpressionTag {
  using value_type = T;
  static constexpr int channels = C;
  static constexpr int lanes = simd::lanes<simd::Vector<T>>;
  static constexpr int row_length = C + lanes - 1;  ///< the channels from any on, as long as a vector

  Parameter* learned = nullptr;  ///< where the gradient goes,
  Scalar<T> scalar;              ///< or to whom
  Tensor<T> row;                 ///< on the CPU: the numbers of `row_length` channels, the first ones again in the end
  Image<C, T> repeated;          ///< on an accelerator: of every pixel
  const T* values = nullptr;
  // On the way back, for each task: sums of its last run of elements, and, in double, of all before.
  Storage run_storage, sum_storage;
  T* runs = nullptr;
  double* sums = nullptr;

  template <class Other>
  NumbersNode(const Parameter& parameter, Parameter* learns, const Other& image) : learned(learns) {
    check_shape(parameter.shape());
    check_same_device(image.pool_or_null()->device(), parameter.device(),
                      [] { return "arithmetic with learned numbers"; });
    const Tensor<T>& numbers = parameter.template value<T>();
    fill(numbers.data(), numbers.size() == 1, image);
  }
  template <class Other>
  NumbersNode(const Scalar<T>& number, const Other& image) : scalar(number) {
    MemoryPool& pool = *image.pool_or_null();
    if (const auto& there = number.there(); there != nullptr && there->pool().device() == pool.device()) {
      if constexpr (std::is_same_v<T, float>) fill(there->data(), true, image);
      return;
    }
    const T value = number.item();
    if (on_accelerator(pool.device())) {
      Tensor<T> numbers(Shape{1}, pool);
      copy_bytes(numbers.data(), numbers.device(), &value, Device::cpu(), sizeof(T));
      fill(std::as_const(numbers).data(), true, image);
    } else {
      fill(&value, true, image);
    }
  }

  Tape* tape() const { return scalar.tape(); }
  bool of_inference() const { return false; }
  const Shape* shape_or_null() const { return nullptr; }
  MemoryPool* pool_or_null() const { return nullptr; }
  bool takes_gradient() const { return learned != nullptr || scalar.id() >= 0; }
  void keep(KeptList& list, bool) const {
    if (learned != nullptr) keep_for_backward(list, *learned);
  }
  void bind(Tape&) {}
  void describe(DeviceExpression& e) const {
    if constexpr (std::is_same_v<T, float>) {
      if (takes_gradient())
        e.push_leaf(repeated.data(),
                    [node = *this](Tape& tape, const float* g) { node.take_gradient_of_device(tape, g); });
      else
        e.push_leaf(repeated.data(), -1);
    } else {
      throw_not_float(repeated.device());
    }
  }
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t i) const {
    return simd::load<V>(values + std::uint64_t(i) % C);
  }
  template <class V>
  [[gnu::always_inline]] void backward(std::int64_t i, V g) const {
    if (runs == nullptr) return;
    T* const sum = runs + std::uint64_t(i) / expression_grain * row_length + std::uint64_t(i) % C;
    simd::store<V>(sum, simd::load<V>(sum) + g);
  }

  // ---- the sums: tasks are of expression_grain elements

  void begin_sums(Tape&, std::int64_t tasks) {
    if (!takes_gradient()) return;
    run_storage = cpu_pool().take(std::size_t(tasks * row_length) * sizeof(T));
    sum_storage = cpu_pool().take(std::size_t(tasks * C) * sizeof(double));
    runs = static_cast<T*>(run_storage.data());
    sums = static_cast<double*>(sum_storage.data());
    std::fill_n(runs, tasks * row_length, T(0));
    std::fill_n(sums, tasks * C, 0.0);
  }
  void end_run(std::int64_t task) const {
    if (runs == nullptr) return;
    T* const run = runs + task * row_length;
    double* const sum = sums + task * C;
    for (int c = 0; c < C; ++c) sum[c] += double(run[c]);
    for (int k = C; k < row_length; ++k) sum[k % C] += double(run[k]);
    std::fill_n(run, row_length, T(0));
  }
  void end_sums(Tape& tape, std::int64_t tasks) {
    if (runs == nullptr) return;
    for (std::int64_t task = 1; task < tasks; ++task)
      for (int c = 0; c < C; ++c) sums[c] += sums[task * C + c];
    if (one_number())
      for (int c = 1; c < C; ++c) sums[0] += sums[c];
    const auto write = [&](auto target) {
      for (std::int64_t k = 0; k < (one_number() ? 1 : C); ++k)
        target.data[k] = (target.accumulate ? target.data[k] : T(0)) + T(sums[k]);
    };
    if (learned != nullptr)
      write(learned->template grad_target<T>());
    else if (scalar.there() == nullptr)
      write(tape.target<T>(scalar.id()));
    else
      add_gradient(tape, scalar, T(sums[0]));
    runs = nullptr;
  }

 private:
  bool one_number() const { return learned == nullptr || learned->size() == 1; }
  static void check_shape(const Shape& s) {
    const bool of_channels = (s.rank() == 3 && s[0] == C && s[1] == 1 && s[2] == 1) ||
                             (s.rank() == 4 && s[0] == 1 && s[1] == C && s[2] == 1 && s[3] == 1);
    if (s.size() != 1 && !of_channels)
      throw ShapeError(concat("arithmetic of an image of ", C, " channels and a parameter of shape (", s.str(),
                              "): wanted one number, (1), or one for "
                              "each channel, (",
                              C, ", 1, 1) or (1, ", C, ", 1, 1)"));
  }
  template <class Other>
  void fill(const T* numbers, bool one, const Other& image) {
    MemoryPool& pool = *image.pool_or_null();
    if (!on_accelerator(pool.device())) {
      row = Tensor<T>(Shape{row_length});
      T* const to = row.data();
      for (int k = 0; k < row_length; ++k) to[k] = numbers[one ? 0 : k % C];
      values = to;
      return;
    }
    const Shape& s = *image.shape_or_null();
    repeated = Image<C, T>(s.n(), s.h(), s.w(), pool);
    dispatch<T>(
        pool.device(), [] {},
        [&](auto& gpu) {
          if (one)
            gpu.copy_channels(repeated.size(), 1, numbers, 0, 0, repeated.data(), 1, 0, false);
          else
            gpu.copy_channels(repeated.size() / C, C, numbers, 0, 0, repeated.data(), C, 0, false);
        });
  }
  void take_gradient_of_device(Tape& tape, const float* g) const {
    Accelerator& gpu = accelerator(repeated.device());
    const int count = one_number() ? 1 : C;
    const std::int64_t pixels = repeated.size() / count;
    Tensor<float> sum(Shape{count}, repeated.pool());
    gpu.global_avg_pool_forward(1, pixels, count, g, sum.data());
    const TensorSpan all{count, sum.data()};
    gpu.scale({&all, 1}, double(pixels));
    if (learned != nullptr) {
      const auto target = learned->template grad_target<float>();
      gpu.copy_channels(1, count, sum.data(), count, 0, target.data, count, 0, target.accumulate);
    } else if (scalar.there() != nullptr && scalar.there()->pool().device() == gpu.device()) {
      if (const auto target = tape.target<float>(scalar.id()))
        gpu.copy_channels(1, 1, sum.data(), 1, 0, target.data, 1, 0, target.accumulate);
    } else if (scalar.id() >= 0) {
      float value = 0;
      gpu.download(&value, sum.data(), sizeof value);
      add_gradient(tape, scalar, T(value));
    }
  }
};

/// Where a forward is followed.
template <int C, class Symbol>
  requires requires { typename Symbol::is_symbol; }
struct NumbersNode<C, Symbol> : ExpressionTag {
  using value_type = Symbol;
  static constexpr int channels = C;
  const Parameter* numbers;

  constexpr explicit NumbersNode(const Parameter& parameter) : numbers(&parameter) {}
  constexpr Tape* tape() const { return nullptr; }
  constexpr const Shape* shape_or_null() const { return nullptr; }
  constexpr MemoryPool* pool_or_null() const { return nullptr; }
};

template <class Node>
inline constexpr bool is_numbers_node = false;
template <int C, class T>
inline constexpr bool is_numbers_node<NumbersNode<C, T>> = true;

/// Calls f(node) for the operands of an expression whose gradient is a sum of more than one element's: numbers, and
/// images of one channel that are repeated. From left to right.
template <class Node, class F>
void for_each_sum(Node& node, F&& f) {
  if constexpr (requires { node.a; }) {
    for_each_sum(node.a, f);
    if constexpr (requires { node.b; }) for_each_sum(node.b, f);
  } else if constexpr (is_numbers_node<std::remove_const_t<Node>> || holds_repeated<std::remove_const_t<Node>>) {
    f(node);
  }
}

template <class Node>
inline constexpr bool holds_numbers = is_numbers_node<Node>;
template <class Function, class A>
inline constexpr bool holds_numbers<UnaryNode<Function, A>> = holds_numbers<A>;
template <class Function, class A, class B>
inline constexpr bool holds_numbers<BinaryNode<Function, A, B>> = holds_numbers<A> || holds_numbers<B>;

/// Whether a gradient of the expression is a sum over elements.
template <class E>
inline constexpr bool holds_sums = holds_numbers<E> || holds_repeated<E>;

/// Runs run(begin, end) over all elements, and sums the gradients for numbers: short runs in T, their sums in double.
template <class E, class Run>
void go_back_with_sums(Tape& tape, E& expression, std::int64_t size, Run&& run) {
  const std::int64_t tasks = (size + expression_grain - 1) / expression_grain;
  constexpr std::int64_t length = std::min<std::int64_t>(expression_grain, std::max(512, 32 * E::channels));
  for_each_sum(expression, [&](auto& node) { node.begin_sums(tape, tasks); });
  parallel_for(tasks, [&](std::int64_t task) {
    const std::int64_t begin = task * expression_grain, end = std::min(size, begin + expression_grain);
    for (std::int64_t low = begin; low < end; low += length) {
      run(low, std::min(end, low + length));
      for_each_sum(expression, [&](auto& node) { node.end_run(task); });
    }
  });
  for_each_sum(expression, [&](auto& node) { node.end_sums(tape, tasks); });
}

/// Throws where an expression that no pass records holds numbers to be learned.
template <class E>
void check_nothing_is_lost(const E& expression) {
  if (expression.of_inference()) return;
  bool lost = false;
  for_each_sum(expression, [&](const auto& node) {
    if constexpr (requires { node.learned; }) lost = lost || node.learned != nullptr;
  });
  if (lost)
    throw Error(
        "arithmetic of a parameter and an image that no pass has made: the parameter would get no gradient from it: "
        "compute "
        "it in the pass, as st::as_var(pass, x * parameter)");
}

template <class P, class E>
void check_pass_of_expression(P& pass, const E& expression) {
  if (expression.tape() != nullptr && expression.tape() != pass.tape())
    throw_of_another_pass("arithmetic with a parameter");
}

template <class T, class N, class Other>
constexpr auto numbers_node(N&& numbers, const Other& image) {
  constexpr int C = Other::channels;
  if constexpr (requires { typename T::is_symbol; }) {
    return NumbersNode<C, T>(numbers);
  } else if constexpr (std::same_as<std::remove_cvref_t<N>, Parameter>) {
    if constexpr (std::is_const_v<std::remove_reference_t<N>>) {
      if (image.tape() != nullptr && numbers.requires_grad)
        throw Error(
            "arithmetic with a const parameter in a training pass, which could not learn it: give the module a call "
            "operator that "
            "is not const for st::Train, or set requires_grad to false");
      return NumbersNode<C, T>(numbers, nullptr, image);
    } else {
      return NumbersNode<C, T>(numbers, numbers.requires_grad ? &numbers : nullptr, image);
    }
  } else {
    return NumbersNode<C, T>(Scalar<T>(numbers), image);
  }
}

template <class Function, class A, class N>
constexpr auto binary_with(const A& a, N&& numbers) {
  using T = typename A::value_type;
  auto left = node<T>(a);
  auto right = numbers_node<T>(std::forward<N>(numbers), left);
  return BinaryNode<Function, decltype(left), decltype(right)>(std::move(left), std::move(right));
}
template <class Function, class N, class B>
constexpr auto binary_after(N&& numbers, const B& b) {
  using T = typename B::value_type;
  auto right = node<T>(b);
  auto left = numbers_node<T>(std::forward<N>(numbers), right);
  return BinaryNode<Function, decltype(left), decltype(right)>(std::move(left), std::move(right));
}

}  // namespace detail

template <detail::variable_operand A, detail::numbers_operand N>
constexpr auto operator+(const A& a, N&& n) {
  return detail::binary_with<math::Add>(a, std::forward<N>(n));
}
template <detail::variable_operand A, detail::numbers_operand N>
constexpr auto operator-(const A& a, N&& n) {
  return detail::binary_with<math::Subtract>(a, std::forward<N>(n));
}
template <detail::variable_operand A, detail::numbers_operand N>
constexpr auto operator*(const A& a, N&& n) {
  return detail::binary_with<math::Multiply>(a, std::forward<N>(n));
}
template <detail::variable_operand A, detail::numbers_operand N>
constexpr auto operator/(const A& a, N&& n) {
  return detail::binary_with<math::Divide>(a, std::forward<N>(n));
}
template <detail::numbers_operand N, detail::variable_operand B>
constexpr auto operator+(N&& n, const B& b) {
  return detail::binary_after<math::Add>(std::forward<N>(n), b);
}
template <detail::numbers_operand N, detail::variable_operand B>
constexpr auto operator-(N&& n, const B& b) {
  return detail::binary_after<math::Subtract>(std::forward<N>(n), b);
}
template <detail::numbers_operand N, detail::variable_operand B>
constexpr auto operator*(N&& n, const B& b) {
  return detail::binary_after<math::Multiply>(std::forward<N>(n), b);
}
template <detail::numbers_operand N, detail::variable_operand B>
constexpr auto operator/(N&& n, const B& b) {
  return detail::binary_after<math::Divide>(std::forward<N>(n), b);
}

}}  // namespace strata::STRATA_ABI
