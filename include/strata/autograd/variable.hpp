// Var<C>: a batch of images inside a pass, and Scalar: a single number such as a loss. Both remember the tape that made
// them, if one did. An Image converts to a Var that is a constant. What a batch norm gives is not computed before
// somebody asks for it: the convolution behind it does not, and normalises where it reads.
//
//     st::Var<1> prediction = net(pass, noisy);
//     st::Scalar<> loss = mean(square(prediction - clean));
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "strata/autograd/device_number.hpp"
#include "strata/autograd/normalised_image.hpp"
#include "strata/autograd/symbolic.hpp"
#include "strata/autograd/tape.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

template <int C, class T = float>
class Var {
 public:
  static constexpr int channels = C;
  using value_type = T;

  Var() = default;
  /// A constant: nothing flows back into it.
  Var(Image<C, T> image) : image_(std::move(image)) {}
  /// A value of `tape`. With record = true it gets a number, so that steps can ask for its gradient.
  Var(Image<C, T> image, Tape* tape) : image_(std::move(image)), tape_(tape) {
    if (tape_ != nullptr) id_ = tape_->add_value(std::size_t(image_.size()) * sizeof(T), image_.pool());
  }
  /// A value of `tape` that is computed when somebody asks for it. A layer that can apply the normalisation where it
  /// reads asks for normalised() instead.
  Var(std::shared_ptr<const NormalisedImage<C, T>> normalised, Tape* tape)
      : normalised_(std::move(normalised)), tape_(tape) {
    if (tape_ != nullptr) id_ = tape_->add_value(std::size_t(size()) * sizeof(T));
  }

  /// A result of an inference pass: a constant known to be nobody's to learn from.
  static Var of_inference_pass(Image<C, T> image) {
    Var x(std::move(image));
    x.id_ = inference;
    return x;
  }
  bool of_inference() const { return id_ == inference; }
  /// The same numbers as a value of another tape, or as a constant.
  Var on(Tape* tape) const {
    if (tape == nullptr || !normalised_) {
      Var y(image_, tape);
      y.normalised_ = normalised_;
      return y;
    }
    return Var(normalised_, tape);
  }

  const Image<C, T>& value() const& { return normalised_ ? normalised_->value() : image_; }
  Image<C, T> value() const&& { return value(); }
  operator Image<C, T>() const { return value(); }
  const Shape& shape() const& { return normalised_ ? normalised_->input().shape() : image_.shape(); }
  Shape shape() const&& { return shape(); }
  std::int64_t n() const { return shape().n(); }
  std::int64_t h() const { return shape().h(); }
  std::int64_t w() const { return shape().w(); }
  std::int64_t size() const { return shape().size(); }
  Device device() const { return normalised_ ? Device::cpu() : image_.device(); }
  /// Where its memory is from: the pool for results that belong beside it.
  MemoryPool& pool() const { return normalised_ ? cpu_pool() : image_.pool(); }
  const T* data() const& { return value().data(); }
  HeldNumbers<const T> data() const&& { return {value().tensor().storage(), data(), std::size_t(size())}; }
  /// What the value is to be computed from, as long as nobody has asked for it; nullptr for all other values.
  const NormalisedImage<C, T>* normalised() const {
    return normalised_ && !normalised_->computed() ? normalised_.get() : nullptr;
  }

  Tape* tape() const { return tape_; }
  /// The number of the value on its tape; negative for a constant.
  std::int64_t id() const { return id_; }

 private:
  static constexpr std::int64_t inference = -2;

  Image<C, T> image_;
  std::shared_ptr<const NormalisedImage<C, T>> normalised_;
  Tape* tape_ = nullptr;
  std::int64_t id_ = -1;
};

/// For Tape::record: what is to be read again of a value.
template <int C, class T>
void keep_for_backward(KeptList& list, const Var<C, T>& x) {
  keep_for_backward(list, x.normalised() != nullptr ? x.normalised()->input() : x.value());
}

/// One number computed in a pass. Where an accelerator computed it, it stays there until item() asks for it.
template <class T = float>
class Scalar {
 public:
  Scalar() = default;
  explicit Scalar(T value, Tape* tape = nullptr) : value_(value), tape_(tape) {
    if (tape_ != nullptr) id_ = tape_->add_value(sizeof(T));
  }
  /// A float32 in an accelerator's memory. Its gradient will lie there too.
  explicit Scalar(Storage place, Tape* tape = nullptr)
      : there_(std::make_shared<detail::DeviceNumber>(std::move(place))), tape_(tape) {
    if (tape_ != nullptr) id_ = tape_->add_value(sizeof(float), there_->pool());
  }

  /// The number. On an accelerator the first call waits until it is computed. Throws NumericError where it is a loss
  /// that went back there and is not finite: on the CPU backward() says so.
  T item() const { return there_ == nullptr ? value_ : T(there_->read()); }
  /// Where it is on an accelerator; nullptr for a number of the host.
  const std::shared_ptr<detail::DeviceNumber>& there() const { return there_; }
  Tape* tape() const { return tape_; }
  std::int64_t id() const { return id_; }

 private:
  T value_{};
  std::shared_ptr<detail::DeviceNumber> there_;  // of float32 alone
  Tape* tape_ = nullptr;
  std::int64_t id_ = -1;
};

namespace detail {
template <class X>
struct IsVar : std::false_type {};
template <int C, class T>
struct IsVar<Var<C, T>> : std::true_type {};
template <class X>
struct IsImage : std::false_type {};
template <int C, class T>
struct IsImage<Image<C, T>> : std::true_type {};
template <class X>
struct IsTensor : std::false_type {};
template <class T>
struct IsTensor<Tensor<T>> : std::true_type {};
}  // namespace detail

template <int C, class T>
constexpr const Var<C, T>& as_var(const Var<C, T>& x) {
  return x;
}
template <int C, class T>
Var<C, T> as_var(Var<C, T>&& x) {
  return std::move(x);
}
template <int C, class T>
Var<C, T> as_var(const Image<C, T>& x) {
  return Var<C, T>(x);
}

/// The tape of the arguments that have one, or nullptr. Throws Error when they were computed in different passes.
template <class... Xs>
constexpr Tape* common_tape(const Xs&... xs) {
  Tape* tape = nullptr;
  const auto join = [&](Tape* other) {
    if (tape != nullptr && other != nullptr && tape != other)
      throw Error("arithmetic on values of different passes: gradients do not flow from pass to pass; give x.value() "
                  "where one is meant as a constant");
    tape = tape != nullptr ? tape : other;
  };
  (join(xs.tape()), ...);
  return tape;
}

}}  // namespace strata::STRATA_ABI
