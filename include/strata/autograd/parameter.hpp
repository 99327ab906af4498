// What a module owns: parameters, which an optimiser changes, and buffers, which it does not.
//
//     struct Scale { st::Parameter weight{st::Shape{64}, 1.0f}; ... };
//
// Copying a Parameter or a Buffer copies its numbers, so a copied network is a network of its own. Both hold float32;
// st::to<double>(net) turns a whole network to float64, for gradient checks.
#pragma once

#include <cstdint>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "strata/autograd/anchor.hpp"
#include "strata/core/at_run_time.hpp"
#include "strata/core/error.hpp"
#include "strata/kernels/transfer.hpp"
#include "strata/math/gradient_target.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata { inline namespace STRATA_ABI {

using AnyTensor = std::variant<Tensor<float>, Tensor<double>, Tensor<std::int64_t>>;

template <class T>
constexpr std::string_view type_name() {
  if constexpr (std::is_same_v<T, float>)
    return "float32";
  else if constexpr (std::is_same_v<T, double>)
    return "float64";
  else
    return "int64";
}

namespace detail {

/// The tensor of a Parameter or Buffer. While the compiler runs a network's forward there is its shape alone.
using HeldTensor = AtRunTime<AnyTensor, Shape>;

inline const Shape& shape_of(const AnyTensor& tensor) {
  return std::visit([](const auto& t) -> const Shape& { return t.shape(); }, tensor);
}
inline Device tensor_device(const AnyTensor& tensor) {
  return std::visit([](const auto& t) { return t.device(); }, tensor);
}
inline const Storage& storage_of(const AnyTensor& tensor) {
  return std::visit([](const auto& t) -> const Storage& { return t.storage(); }, tensor);
}
inline MemoryPool& pool_of(const AnyTensor& tensor) {
  return std::visit([](const auto& t) -> MemoryPool& { return t.pool(); }, tensor);
}
inline AnyTensor clone(const AnyTensor& tensor) {
  return std::visit([](const auto& t) -> AnyTensor { return copy_of(t); }, tensor);
}
constexpr const Shape& shape_of(const HeldTensor& tensor) {
  return std::is_constant_evaluated() ? tensor.plan() : shape_of(*tensor);
}
constexpr HeldTensor no_tensor() { return HeldTensor(Shape{0}, [] { return AnyTensor(); }); }
constexpr HeldTensor clone(const HeldTensor& tensor) {
  return HeldTensor(std::is_constant_evaluated() ? tensor.plan() : Shape{}, [&] { return clone(*tensor); });
}
inline AnyTensor move_to(const AnyTensor& tensor, Device device) {
  return std::visit([&](const auto& t) -> AnyTensor { return t.to(device); }, tensor);
}
template <class To, class From>
Tensor<To> convert(const Tensor<From>& from) {
  from.require_host("converting to another type");
  Tensor<To> to(from.shape());
  for (std::int64_t i = 0; i < from.size(); ++i) to.data()[i] = static_cast<To>(from.data()[i]);
  return to;
}
/// The tensor as T. Throws when it holds another type.
template <class T, class Any>
auto& get(Any& tensor, const char* what) {
  if (auto* typed = std::get_if<Tensor<T>>(&tensor)) return *typed;
  const std::string_view held = std::visit(
      [](const auto& t) { return type_name<typename std::remove_cvref_t<decltype(t)>::value_type>(); }, tensor);
  throw Error(concat(what, ": holds ", held, ", was used as ", type_name<T>(),
                     ": give the network images of its own type, or convert it with st::to<T>(net)"));
}

}  // namespace detail

/// A tensor that is learned, with its gradient.
class Parameter : public detail::Anchored {
 public:
  constexpr Parameter() = default;
  /// Weights: zeros until they are drawn (nn/init.hpp).
  constexpr explicit Parameter(const Shape& shape)
      : Anchored(shape.size() != 0), value_(shape, [&] { return Tensor<float>::zeros(shape); }) {}
  /// Numbers that start with this value, whoever draws the weights.
  constexpr Parameter(const Shape& shape, float value)
      : Anchored(shape.size() != 0), starts_at_a_number_(true), initial_(value),
        value_(shape, [&] { return Tensor<float>::full(shape, value); }) {}

  constexpr Parameter(const Parameter& other)
      : Anchored(other),
        requires_grad(other.requires_grad),
        starts_at_a_number_(other.starts_at_a_number_),
        initial_(other.initial_),
        value_(detail::clone(other.value_)),
        grad_(detail::clone(other.grad_)),
        has_grad_(other.has_grad_) {}
  Parameter(Parameter&&) = default;
  constexpr Parameter& operator=(Parameter other) noexcept {
    Anchored::operator=(other);
    requires_grad = other.requires_grad;
    starts_at_a_number_ = other.starts_at_a_number_;
    initial_ = other.initial_;
    value_ = std::move(other.value_);
    grad_ = std::move(other.grad_);
    has_grad_ = other.has_grad_;
    return *this;
  }

  /// Whether backward computes a gradient for it and optimisers change it. False freezes it.
  bool requires_grad = true;

  constexpr const Shape& shape() const& { return detail::shape_of(value_); }
  constexpr Shape shape() const&& { return detail::shape_of(value_); }
  constexpr std::int64_t size() const { return shape().size(); }
  Device device() const { return detail::tensor_device(*value_); }

  template <class T = float>
  Tensor<T>& value() & { return detail::get<T>(*value_, "Parameter"); }
  template <class T = float>
  const Tensor<T>& value() const& { return detail::get<T>(*value_, "Parameter"); }
  template <class T = float>
  Tensor<T> value() const&& { return detail::get<T>(*value_, "Parameter"); }

  /// Whether a backward pass has reached it since the last zero_grad.
  bool has_grad() const { return has_grad_; }

  /// The gradient, same shape as the value. Throws Error when there is none.
  template <class T = float>
  Tensor<T>& grad() & {
    if (!has_grad_) throw Error("Parameter::grad: no backward pass has reached this parameter since zero_grad");
    return detail::get<T>(*grad_, "Parameter");
  }
  template <class T = float>
  Tensor<T> grad() && { return grad<T>(); }

  /// Forgets the gradient; its memory stays for the next one.
  void zero_grad() { has_grad_ = false; }

  template <class T>
  using GradTarget = GradientTarget<T>;  ///< the old name
  /// Where a backward pass writes.
  template <class T>
  GradientTarget<T> grad_target() {
    if (auto* held = std::get_if<Tensor<T>>(&*grad_);
        held == nullptr || held->shape() != shape() || held->device() != device())
      *grad_ = Tensor<T>(shape(), detail::pool_of(*value_));
    const bool accumulate = has_grad_;
    has_grad_ = true;
    return {std::get<Tensor<T>>(*grad_).data(), accumulate};
  }

  /// Exchanges the gradient with one that is kept elsewhere, where several passes go back through it in turns.
  void swap_grad(AnyTensor& kept, bool& there) {
    std::swap(*grad_, kept);
    std::swap(has_grad_, there);
  }

  /// Converts the value to T and drops the gradient.
  template <class T>
  void to() {
    *value_ = std::visit([](const auto& t) -> AnyTensor { return detail::convert<T>(t); }, *value_);
    *grad_ = Tensor<float>();
    has_grad_ = false;
  }

  /// Moves the value to a device and drops the gradient.
  void to(Device device) {
    *value_ = detail::move_to(*value_, device);
    *grad_ = Tensor<float>();
    has_grad_ = false;
  }

  /// Whether it was constructed with the number it starts with.
  constexpr bool starts_at_a_number() const { return starts_at_a_number_; }
  /// Sets every element back to the number it was constructed with.
  void reset() {
    std::visit([&](auto& t) { fill(t, static_cast<typename std::remove_cvref_t<decltype(t)>::value_type>(initial_)); },
               *value_);
  }

  AnyTensor& any_value() & { return *value_; }
  const AnyTensor& any_value() const& { return *value_; }

 private:
  bool starts_at_a_number_ = false;
  float initial_ = 0;
  detail::HeldTensor value_ = detail::no_tensor(), grad_ = detail::no_tensor();
  bool has_grad_ = false;
};

/// A tensor that belongs to a module's state and is not learned, as BatchNorm's running mean.
class Buffer : public detail::Anchored {
 public:
  constexpr Buffer() = default;
  constexpr explicit Buffer(const Shape& shape, float value = 0)
      : Buffer(detail::HeldTensor(shape, [&] { return Tensor<float>::full(shape, value); })) {}
  /// A buffer of whole numbers; converting the network leaves it as it is.
  static constexpr Buffer integers(const Shape& shape, std::int64_t value = 0) {
    return Buffer(detail::HeldTensor(shape, [&] { return Tensor<std::int64_t>::full(shape, value); }));
  }

  constexpr Buffer(const Buffer& other) : Anchored(other), value_(detail::clone(other.value_)) {}
  Buffer(Buffer&&) = default;
  constexpr Buffer& operator=(Buffer other) noexcept {
    Anchored::operator=(other);
    value_ = std::move(other.value_);
    return *this;
  }

  constexpr const Shape& shape() const& { return detail::shape_of(value_); }
  constexpr Shape shape() const&& { return detail::shape_of(value_); }
  template <class T = float>
  Tensor<T>& value() & { return detail::get<T>(*value_, "Buffer"); }
  template <class T = float>
  const Tensor<T>& value() const& { return detail::get<T>(*value_, "Buffer"); }
  template <class T = float>
  Tensor<T> value() const&& { return detail::get<T>(*value_, "Buffer"); }

  template <class T>
  void to() {
    if (!std::holds_alternative<Tensor<std::int64_t>>(*value_))
      *value_ = std::visit([](const auto& t) -> AnyTensor { return detail::convert<T>(t); }, *value_);
  }

  /// Moves it to a device.
  void to(Device device) { *value_ = detail::move_to(*value_, device); }
  Device device() const { return detail::tensor_device(*value_); }

  AnyTensor& any_value() & { return *value_; }
  const AnyTensor& any_value() const& { return *value_; }

 private:
  constexpr explicit Buffer(detail::HeldTensor value)
      : Anchored(detail::shape_of(value).size() != 0), value_(std::move(value)) {}

  detail::HeldTensor value_ = detail::no_tensor();
};

}}  // namespace strata::STRATA_ABI
