// Expressions on an accelerator: the nodes of autograd/expression.hpp describe themselves as a program, which one
// kernel runs, forward and back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/tape.hpp"
#include "strata/autograd/variable.hpp"
#include "strata/kernels/accelerator.hpp"
#include "strata/math/functions.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

template <class Function>
inline constexpr Operation operation_of = [] {
  if constexpr (std::is_same_v<Function, math::Negate>)
    return Operation::negate;
  else if constexpr (std::is_same_v<Function, math::Square>)
    return Operation::square;
  else if constexpr (std::is_same_v<Function, math::Sqrt>)
    return Operation::sqrt;
  else if constexpr (std::is_same_v<Function, math::Abs>)
    return Operation::abs;
  else if constexpr (std::is_same_v<Function, math::Exp>)
    return Operation::exp;
  else if constexpr (std::is_same_v<Function, math::Log>)
    return Operation::log;
  else if constexpr (std::is_same_v<Function, math::Sigmoid>)
    return Operation::sigmoid;
  else if constexpr (std::is_same_v<Function, math::Tanh>)
    return Operation::tanh;
  else if constexpr (std::is_same_v<Function, math::Erf>)
    return Operation::erf;
  else if constexpr (std::is_same_v<Function, math::Add>)
    return Operation::add;
  else if constexpr (std::is_same_v<Function, math::Subtract>)
    return Operation::subtract;
  else if constexpr (std::is_same_v<Function, math::Multiply>)
    return Operation::multiply;
  else if constexpr (std::is_same_v<Function, math::Divide>)
    return Operation::divide;
  else if constexpr (std::is_same_v<Function, math::Maximum>)
    return Operation::maximum;
  else if constexpr (std::is_same_v<Function, math::Minimum>)
    return Operation::minimum;
  else
    static_assert(!sizeof(Function), "strata: accelerators do not know this function");
}();

/// An expression as a program, and the value on the tape that each of its arrays is.
class DeviceExpression {
 public:
  DeviceExpression(Accelerator& device, std::int64_t elements) : gpu(&device), size(elements) {}

  Accelerator* gpu;
  std::int64_t size;
  ExpressionProgram program;

  /// An array that is value `id` of the tape. A program knows an array by its address; where one is two values at once,
  /// as in x * x.value(), the second is a copy, so that each keeps its own gradient.
  void push_leaf(const float* data, std::int64_t id) {
    for (int leaf = 0; leaf < program.leaves(); ++leaf)
      if (ids_[std::size_t(leaf)] == id && sources_[std::size_t(leaf)] == data) {
        program.push_leaf(program.leaf(leaf));
        return;
      }
    const float* used = data;
    for (int leaf = 0; leaf < program.leaves(); ++leaf)
      if (program.leaf(leaf) == data) {
        copies_.push_back(gpu->pool().take(std::size_t(size) * sizeof(float)));
        gpu->copy(copies_.back().data(), data, std::size_t(size) * sizeof(float));
        used = static_cast<const float*>(copies_.back().data());
        break;
      }
    const auto leaf = std::size_t(program.push_leaf(used));
    ids_[leaf] = id;
    sources_[leaf] = data;
  }
  void push_leaf(const double*, std::int64_t) { throw_not_float(gpu->device()); }
  /// An array that is none of the tape's values: its gradient goes to `sink`, in memory that is free afterwards.
  void push_leaf(const float* data, std::function<void(Tape&, const float*)> sink) {
    const auto leaf = std::size_t(program.push_leaf(data));
    ids_[leaf] = -1;
    sources_[leaf] = data;
    sinks_[leaf].take = std::move(sink);
  }
  template <class Function>
  void push(const Function&) {
    program.push(operation_of<Function>);
  }
  void push(const math::LeakyRelu& relu) { program.push(Operation::leaky_relu, float(relu.slope)); }
  void push(const math::Power& power) { program.push(Operation::power, float(power.exponent)); }
  void push(const math::Clamp& clamp) { program.push_clamp(float(clamp.low), float(clamp.high)); }

  void backward(Tape& tape, const UpstreamGradient& upstream) const {
    std::array<GradientTarget<>, ExpressionProgram::max_leaves> targets{};
    std::vector<Storage> sums;
    for (std::size_t leaf = 0; leaf < std::size_t(program.leaves()); ++leaf) {
      targets[leaf] = tape.target<float>(ids_[leaf]);
      if (sinks_[leaf].take == nullptr) continue;
      sums.push_back(gpu->pool().take(std::size_t(size) * sizeof(float)));
      targets[leaf] = {static_cast<float*>(sums.back().data()), false};
    }
    gpu->expression_backward(program, size, upstream, std::span(targets.data(), std::size_t(program.leaves())));
    for (std::size_t leaf = 0; leaf < std::size_t(program.leaves()); ++leaf)
      if (sinks_[leaf].take != nullptr) sinks_[leaf].take(tape, targets[leaf].data);
  }

 private:
  std::array<std::int64_t, ExpressionProgram::max_leaves> ids_{};
  std::array<const float*, ExpressionProgram::max_leaves> sources_{};
  struct Sink {  // a struct, so that no symbol of a deployed program, which has none of them, names the tape
    std::function<void(Tape&, const float*)> take;
  };
  std::array<Sink, ExpressionProgram::max_leaves> sinks_;
  std::vector<Storage> copies_;
};

template <class E>
DeviceExpression describe(const E& expression) {
  DeviceExpression made(accelerator(expression.pool_or_null()->device()), expression.shape_or_null()->size());
  expression.describe(made);
  return made;
}

/// The value of an expression on the accelerator of its images.
template <class E>
auto compute_on_accelerator(const E& expression) {
  using T = typename E::value_type;
  const Shape& shape = *expression.shape_or_null();
  Image<E::channels, T> out(shape.n(), shape.h(), shape.w(), *expression.pool_or_null());
  const DeviceExpression made = describe(expression);
  if constexpr (std::is_same_v<T, float>) made.gpu->expression_forward(made.program, made.size, out.data());
  return out;
}

/// Records the way back from `value`, the expression's. The expression keeps its images.
template <class E, int C, class T>
void record_on_accelerator(const E& expression, const Var<C, T>& value) {
  value.tape()->record(value.id(), [kept = expression, made = describe(expression), id = value.id()](Tape& tape) {
    made.backward(tape, {.values = tape.gradient<float>(id)});
  }, expression);
}

/// factor * (sum of all elements) of an expression, on the accelerator of its images.
template <class E>
auto reduce_on_accelerator(const E& expression, double factor) {
  using T = typename E::value_type;
  DeviceExpression made = describe(expression);
  const Storage place = made.gpu->pool().take(sizeof(float));
  made.gpu->expression_sum(made.program, made.size, factor, static_cast<float*>(place.data()));
  Tape* tape = expression.tape();
  Scalar<T> result(place, tape);
  if (tape != nullptr)
    tape->record(result.id(), [kept = expression, made = std::move(made), id = result.id(), factor](Tape& t) {
      made.backward(t, {.values = t.gradient<float>(id), .uniform = true, .factor = float(factor)});
    }, expression);
  return result;
}

}}}  // namespace strata::STRATA_ABI::detail
