// What a recorded step reads again on the way back: numbers that must by then be what they were, and parameters that
// must be where they were. Compared before the step runs, so that a change is an error and not a wrong gradient.
#pragma once

#include <cstdint>
#include <utility>

#include "strata/autograd/parameter.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

class Kept {
 public:
  Kept(const Storage& storage, const Shape& shape) : storage_(storage), version_(storage_.watch()), shape_(shape) {}
  explicit Kept(const Parameter& parameter) : Kept(storage_of(parameter.any_value()), parameter.shape()) {
    anchor_ = parameter.anchor();
    value_ = &parameter.any_value();
  }
  Kept(Kept&&) = default;  // the storage of what was moved is empty, and nothing is watched there
  Kept& operator=(Kept&&) = delete;
  ~Kept() { storage_.unwatch(); }

  /// Of a parameter its value, else nullptr.
  const AnyTensor* parameter() const { return value_; }

  /// Throws Error when something has happened to it.
  void compare() const {
    if (value_ != nullptr && anchor_.fate() != Fate::here) throw_gone();
    if (value_ != nullptr && !storage_of(*value_).same_block(storage_)) throw_changed();
    if (!storage_.unchanged_since(version_)) throw_changed();
  }

 private:
  [[noreturn]] void throw_gone() const {
    throw Error(concat("backward: a parameter of shape ", shape_.str(), " ", text_of(anchor_.fate()),
                       " between the forward pass that "
                       "used it and backward(): until then a network must stay where it is",
                       rest));
  }
  [[noreturn]] void throw_changed() const {
    if (value_ != nullptr)
      throw Error(
          concat("backward: a parameter of shape ", shape_.str(),
                 " has changed since the forward pass read it (an optimiser's "
                 "step, an assignment, load_weights, st::to, an average swapped in), and the gradient would be wrong: "
                 "change parameters after backward(), or run the forward pass again",
                 rest));
    throw Error(concat("backward: numbers of shape ", shape_.str(),
                       " have changed in place since the forward pass read them, and the "
                       "gradient would be wrong: change a copy, x.clone(), or change them after backward()",
                       rest));
  }
  static constexpr const char* rest = ". What this pass has added to gradients so far is to be forgotten: zero_grad()";

  Storage storage_;
  std::uint32_t version_;
  Shape shape_;
  AnchorHandle anchor_;
  const AnyTensor* value_ = nullptr;  ///< of a parameter
};

}}}  // namespace strata::STRATA_ABI::detail
