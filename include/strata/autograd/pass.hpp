// The two ways to run a network. Train records what backward needs and lets BatchNorm use the batch's statistics; Infer
// does neither and takes a const network. There is no hidden mode to forget.
//
//     st::Train pass;
//     auto loss = mse(net(pass, noisy), clean);
//     pass.backward(loss);
#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "strata/autograd/batch_group.hpp"
#include "strata/autograd/tape.hpp"
#include "strata/autograd/variable.hpp"
#include "strata/core/error.hpp"
#include "strata/core/flush_denormals.hpp"
#include "strata/core/random.hpp"
#include "strata/kernels/transfer.hpp"
#include "strata/math/precision.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Options of a training pass. (seed, step) key the random numbers of layers such as Dropout: give the step's number,
/// so that every step draws its own and a resumed run draws the same. Networks without such layers need neither.
struct TrainOptions {
  std::uint64_t seed = 0;
  std::int64_t step = -1;
  /// What convolutions multiply in. fp16 wants the loss scaled. The CPU knows fp32 and, where the program is compiled
  /// for AVX512-BF16, bf16: Winograd's products, forward and for the input; the weights' gradients and all else stay
  /// fp32.
  Precision precision = Precision::fp32;
  /// Where a step has several passes, over parts of its batch: the number of the part, 0 to 1023, which keys random
  /// numbers too.
  int shard = 0;
  /// and what such passes have in common, for layers that look at the whole batch. It must outlive the pass.
  BatchGroup* batch = nullptr;
  PassObserver* observer = nullptr;  ///< is told of each layer, forward and back: train/profile.hpp
  /// Whether the pass is written down to be done again (train/recorded_step.hpp): who draws random numbers, which would
  /// be the same each time, throws.
  bool recorded = false;
};

struct InferOptions {
  Precision precision = Precision::fp32;  ///< what convolutions multiply in: see TrainOptions
  PassObserver* observer = nullptr;       ///< is told of each layer: train/profile.hpp
  /// Which random numbers st::randn_like draws: see TrainOptions. Layers such as Dropout draw none.
  std::uint64_t seed = 0;
  std::int64_t step = -1;
};

namespace detail {
/// Of number `operation` of a pass, named `who` in the error when the pass was given no step.
inline Rng rng_of(const char* who, const char* pass, std::uint64_t seed, std::int64_t step, std::uint32_t operation) {
  if (step < 0)
    throw ValueError(concat(who,
                            " draws random numbers, and this pass does not say which: make it with the step's "
                            "number, as in st::",
                            pass, " pass({.seed = 1, .step = step})"));
  return Rng(seed, std::uint32_t(step), 0x80000000u | operation);
}
}  // namespace detail

class Train {
 public:
  static constexpr bool training = true;

  explicit Train(TrainOptions options = {}) : options_(options), operation_(first_operation(options.shard)) {
    tape_->set_observer(options_.observer);
  }

  /// A new result of this pass.
  template <int C, class T>
  Var<C, T> output(Image<C, T> image) {
    return Var<C, T>(std::move(image), tape());
  }

  /// Marks an input whose gradient the caller wants: read it with gradient() after backward().
  template <int C, class T>
  Var<C, T> watch(const Image<C, T>& image) {
    Var<C, T> x(image, tape());
    tape_->keep_gradient(x.id());
    return x;
  }
  /// The gradient of a watched input: zeros when the loss does not depend on it. Throws Error for any other value.
  template <int C, class T>
  Image<C, T> gradient(const Var<C, T>& watched) {
    if (watched.tape() != tape() || !tape_->keeps_gradient(watched.id()))
      throw Error("Train::gradient: not a watched input of this pass; make it with pass.watch(image)");
    Image<C, T> out(watched.n(), watched.h(), watched.w(), watched.pool());
    if (const T* from = tape_->gradient<T>(watched.id()))
      copy_bytes(out.data(), out.device(), from, out.device(), std::size_t(out.size()) * sizeof(T));
    else
      fill(out.tensor(), T(0));
    return out;
  }

  /// Computes the gradient of `loss` for every parameter it depends on, and adds it to what parameters already hold.
  /// The record is used up. Throws NumericError when the loss is not finite, before any gradient is changed; of a loss
  /// on an accelerator, which is not waited for, loss.item() says so. A listener hears meanwhile which gradients are
  /// whole.
  template <class T>
  void backward(const Scalar<T>& loss, GradientListener* listener = nullptr) {
    if (loss.tape() == nullptr)
      throw Error(
          "Train::backward: the loss was not computed in this pass, or nothing that it depends on wants a gradient, as "
          "where all parameters are frozen; compute it from net(pass, input)");
    if (loss.tape() != tape())
      throw Error("Train::backward: the loss was not computed in this pass; compute it from net(pass, input)");
    if (!tape_->has_steps() || !tape_->holds(loss.id()))
      throw Error(
          "Train::backward: this loss has gone back already or is of an earlier pass; make a new pass for each step");
    if (const auto& there = loss.there()) {
      there->must_be_finite("Train::backward: the loss is ", "; its gradients are not to be used");
      there->gpu().fill(tape_->target<float>(loss.id()).data, 1, 1.0f);
    } else if (std::isfinite(loss.item())) {
      *tape_->target<T>(loss.id()).data = T(1);
    } else {
      throw NumericError(concat("Train::backward: the loss is ", loss.item(), "; no gradient was changed"));
    }
    const FlushDenormals flush;
    tape_->backward(listener);
  }
  /// Goes on with a backward() that has stopped where passes over other parts of the batch have to come too.
  void go_on_backward() {
    const FlushDenormals flush;
    tape_->backward();
  }

  Tape* tape() { return tape_.get(); }
  Precision precision() const { return options_.precision; }
  PassObserver* observer() const { return options_.observer; }
  /// Whom this pass shares its batch with, or nullptr.
  BatchGroup* batch() const { return options_.batch; }

  // ---- modules that run twice (nn/checkpoint.hpp)

  /// Where this pass stands. One that goes on from there draws the random numbers that this one would draw next.
  struct Place {
    TrainOptions options;
    std::uint32_t operation = 0;
    bool recomputing = false;
    /// of once(), where the pass runs something a first or second time
    std::shared_ptr<std::vector<Tensor<double>>> notes = nullptr;
    std::size_t note = 0;                                          ///< how many it has come to
  };
  Place place() const { return {options_, operation_, recomputing_, notes_, note_}; }
  static Train from(const Place& place) { return Train(place, 0); }
  /// This pass has drawn what `other` has.
  void skip_to(const Train& other) {
    operation_ = other.operation_;
    if (notes_ == other.notes_) note_ = other.note_;
  }
  /// Whether this pass runs a module again, on the way back: what the module changes of itself in a step, as batch
  /// norm's running statistics, it has changed already. A module of your own that does so asks.
  bool recomputing() const { return recomputing_; }
  /// What make() gives; where the pass runs a module again, what it gave the first time.
  template <class Make>
  Tensor<double> once(Make&& make) {
    if (notes_ == nullptr) return make();
    if (recomputing_) return notes_->at(note_++);
    notes_->push_back(make());
    return (*notes_)[note_++];
  }

  /// Random numbers for the next operation of this pass, named `who` in the error when the pass was given no step.
  Rng next_rng(const char* who) {
    if (options_.recorded)
      throw Error(concat(who, " draws random numbers, which a recorded step would draw again in every replay: train a "
                              "network with such a layer by calls"));
    const Rng rng = detail::rng_of(who, "Train", options_.seed, options_.step, operation_);
    ++operation_;
    return rng;
  }

 private:
  static constexpr std::uint32_t operations_of_shard = 1u << 21;
  static std::uint32_t first_operation(int shard) {
    if (shard < 0 || shard > 1023) throw ValueError(concat("Train: got .shard = ", shard, ", wanted 0 to 1023"));
    return std::uint32_t(shard) * operations_of_shard;
  }
  Train(const Place& place, int)
      : options_(place.options),
        operation_(place.operation),
        recomputing_(place.recomputing),
        notes_(place.notes),
        note_(place.note) {
    tape_->set_observer(options_.observer);
  }

  detail::TapeLease tape_;
  TrainOptions options_;
  std::uint32_t operation_ = 0;
  bool recomputing_ = false;
  std::shared_ptr<std::vector<Tensor<double>>> notes_;
  std::size_t note_ = 0;
};

class Infer {
 public:
  static constexpr bool training = false;

  constexpr explicit Infer(InferOptions options = {}) : options_(options) {}

  template <int C, class T>
  Var<C, T> output(Image<C, T> image) {
    return Var<C, T>::of_inference_pass(std::move(image));
  }
  constexpr Tape* tape() { return nullptr; }
  constexpr Precision precision() const { return options_.precision; }
  constexpr PassObserver* observer() const { return options_.observer; }
  /// Random numbers for the next operation of this pass: those that a training pass of this seed and step draws.
  Rng next_rng(const char* who) {
    const Rng rng = detail::rng_of(who, "Infer", options_.seed, options_.step, operation_);
    ++operation_;
    return rng;
  }

 private:
  InferOptions options_;
  std::uint32_t operation_ = 0;
};

template <class P>
concept Pass = std::same_as<P, Train> || std::same_as<P, Infer>;

namespace detail {
[[noreturn]] inline void throw_of_another_pass(const char* who) {
  throw Error(concat(who, ": the input was computed in another pass, or before this one went back, and gradients do "
                          "not flow from pass to pass: give x.value() to take it as a constant"));
}
}  // namespace detail

/// Throws Error when x was computed in another pass, or in this one before it went back: no gradient would reach it.
template <Pass P, class X>
constexpr void check_pass([[maybe_unused]] P& pass, const X& x, const char* who) {
  if constexpr (P::training) {
    if (x.tape() != nullptr && (x.tape() != pass.tape() || !x.tape()->holds(x.id())))
      detail::throw_of_another_pass(who);
  } else {
    if (x.tape() != nullptr) detail::throw_of_another_pass(who);
  }
}

}}  // namespace strata::STRATA_ABI
