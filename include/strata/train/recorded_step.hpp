// A training step as one launch: on an accelerator the host then no longer queues each kernel, which is what small
// networks and fast devices wait for.
//
//     st::RecordedStep step(net, adam, [&](auto& pass, const auto& noisy, const auto& clean) {
//       return mse(net(pass, noisy), clean);
//     });
//     for (const auto& batch : loader.epoch(epoch)) loss = step(batch);     // an st::Scalar: nobody waits for it
//     scheduler.step();                                                     // replays learn at the new rate
//     std::printf("%f", loss.item());                                       // now the device is waited for
//
// A step is zero_grad, the function, backward, what the options say, and optimizer.step(). Two are made by calls, as if
// it were written out; the third is recorded, and from then on it is replayed, with the same bits. What the optimiser's
// step() takes from the host, as learning rates and Adam's corrections, is given to each replay. On the CPU every step
// is made by calls.
//
// - The function is called while the step is made by calls or recorded, and no more: what it computes from numbers that
//   change on the host, as a weight that depends on the epoch, stays what it was. Such a number goes in as one of the
//   images or tensors of the batch.
// - What waits for the device, or reads the host's memory, cannot be recorded: a module or loss that decides by what it
//   has computed (item(), grad_norm), or runs on the CPU. Layers that draw random numbers (Dropout) are refused.
// - A batch of another shape is done by calls; the second of one shape in a row is recorded in the old one's place.
// - Where weights or an optimiser's state lie elsewhere than before (a checkpoint was loaded, the network moved) it is
//   recorded anew. requires_grad may change; another layer's options may not.
// - A step whose loss, or gradients' norm where it is looked at, is not finite changes no weight. Who reads the loss that
//   it gave is told (NumericError), and the step itself looks every `check_every` times, as it does in steps by calls.
//   Without a scaler nobody waits to see it, and a replay counts such a step in Adam's corrections: do not go on.
// - Whatever the function throws while it is recorded becomes an Error that says so.
#pragma once

#include <any>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/numbers_node.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/scalar.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/data/sample.hpp"
#include "strata/kernels/transfer.hpp"
#include "strata/optim/clip_grad.hpp"
#include "strata/optim/grad_scaler.hpp"
#include "strata/optim/optimizer.hpp"

namespace strata { inline namespace STRATA_ABI {

struct RecordedStepOptions {
  std::uint64_t seed = 0;  ///< of random numbers, as TrainOptions has it; on the CPU alone
  std::int64_t step = 0;   ///< and the number of the first step
  Precision precision = Precision::fp32;
  double clip_grad_norm = 0;       ///< limits the gradients' norm, as clip_grad_norm_; 0: does not
  GradScaler* scaler = nullptr;    ///< scales the loss. The device is then waited for once in every step.
  std::int64_t check_every = 100;  ///< steps after which the loss is read even where the caller does not
};

namespace detail {

template <class X>
concept pair_of_batches = requires(const X& x) {
  x.input;
  x.target;
};

/// The numbers of one part of a batch.
template <class X>
auto& numbers_of(X& part) {
  if constexpr (IsTensor<std::remove_const_t<X>>::value)
    return part;
  else
    return part.tensor();
}

/// A part of a batch in memory of its own on a device.
template <class X>
X own_copy(const X& part, Device device) {
  const auto& numbers = numbers_of(part);
  return X(numbers.device() == device ? copy_of(numbers) : numbers.to(device));
}

}  // namespace detail

template <class Net, class AnOptimizer, class Forward>
class RecordedStep {
 public:
  /// forward(pass, input, target) gives the loss, an st::Scalar. All three must outlive it. Throws ValueError for
  /// options out of their range.
  RecordedStep(Net& net, AnOptimizer& optimizer, const RecordedStepOptions& options, Forward forward)
      : net_(&net), optimizer_(&optimizer), options_(options), forward_(std::move(forward)) {
    detail::check_option(detail::finite_and_not_negative(options.clip_grad_norm), who, "clip_grad_norm",
                         options.clip_grad_norm, "a number of at least 0");
    detail::check_option(options.check_every > 0, who, "check_every", double(options.check_every), "at least 1");
  }
  RecordedStep(Net& net, AnOptimizer& optimizer, Forward forward)
      : RecordedStep(net, optimizer, RecordedStepOptions{}, std::move(forward)) {}
  RecordedStep(const RecordedStep&) = delete;
  RecordedStep& operator=(const RecordedStep&) = delete;

  /// One step on a batch; its loss, on the device. Throws Error where it cannot be recorded.
  template <class... Inputs>
    requires(!detail::pair_of_batches<Inputs> && ...)
  auto operator()(const Inputs&... inputs) {
    static_assert(
        ((detail::IsImage<Inputs>::value || detail::IsTensor<Inputs>::value) && ...),
        "strata: a recorded step takes batches of images and tensors, st::Image<C> and st::Tensor<T>: another "
        "argument would be recorded as it is. Give the parts of a tuple one by one");
    using Loss = std::remove_cvref_t<decltype(forward_(std::declval<Train&>(), inputs...))>;
    static_assert(detail::IsScalar<Loss>::value,
                  "strata: the function of a recorded step gives the loss, an st::Scalar, as a loss or mean(...) does");
    const std::int64_t number = options_.step++;
    const Device device = device_of(*net_);
    if (!on_accelerator(device)) return on_host<Loss>(number, inputs...);
    if constexpr (std::is_same_v<Loss, Scalar<float>>) {
      Loss loss = step(accelerator(device), number, inputs...);
      if (++since_check_ >= options_.check_every) {
        since_check_ = 0;
        (void)loss.item();
      }
      return loss;
    } else {
      detail::throw_not_float(device);
      return Loss();
    }
  }
  /// The same for {input, target}, as a DataLoader gives it.
  template <class Input, class Target>
  auto operator()(const Pair<Input, Target>& batch) {
    return (*this)(batch.input, batch.target);
  }

  /// How many steps were replays. All others were calls.
  std::int64_t replays() const { return replays_; }

 private:
  static constexpr const char* who = "RecordedStep";
  static constexpr int calls_before = 2;  // memory, plans of libraries, an optimiser's state

  GradScaler* scaler() const {
    return options_.scaler != nullptr && options_.scaler->enabled() ? options_.scaler : nullptr;
  }

  template <class Loss, class... Inputs>
  Loss on_host(std::int64_t number, const Inputs&... inputs) {
    Train pass({.seed = options_.seed, .step = number, .precision = options_.precision});
    optimizer_->zero_grad();
    const Loss loss = forward_(pass, inputs...);
    GradScaler none({.enabled = false}), *const scaling = scaler() != nullptr ? scaler() : &none;
    pass.backward(scaling->scale(loss));
    if (options_.clip_grad_norm > 0 && scaling->unscale_(*optimizer_)) clip_grad_norm_(*net_, options_.clip_grad_norm);
    scaling->step(*optimizer_);
    scaling->update();
    return Loss(loss.item());
  }

  // ---- a step on an accelerator

  /// What a step leaves on the device: two floats, the loss and the squared norm of the gradients (0 where nobody looks
  /// at it).
  static constexpr std::size_t found_bytes = 2 * sizeof(float);

  template <class... Inputs>
  Scalar<float> step(Accelerator& gpu, std::int64_t number, const Inputs&... inputs) {
    if (!found_ || found_.device() != gpu.device()) {
      forget();
      found_ = gpu.pool().take(found_bytes);
      scale_ = gpu.pool().take(sizeof(float));
      calls_ = 0;
    }
    if (scaler() != nullptr) {
      const auto scale = float(scaler()->scale());
      gpu.upload(scale_.data(), &scale, sizeof scale);
    }
    using Batch = std::tuple<Inputs...>;
    const auto* const recorded = std::any_cast<Batch>(&batch_);
    if (work_ != nullptr && places() != places_) {  // the network or the optimiser's state moved
      forget();
      calls_ = calls_before - 1;
    }
    if (work_ != nullptr && recorded != nullptr && same_shapes(*recorded, inputs...)) {
      others_ = 0;
      other_shapes_.clear();
      return replay(gpu, number, std::any_cast<Batch>(batch_), inputs...);
    }
    if (calls_ < calls_before || (work_ != nullptr && !again(inputs...))) return call(gpu, number, inputs...);
    return record(gpu, number, inputs...);
  }

  /// Whether a batch of these shapes, which are not the recorded ones, came before too.
  template <class... Inputs>
  bool again(const Inputs&... inputs) {
    const std::vector<Shape> shapes{detail::numbers_of(inputs).shape()...};
    others_ = shapes == other_shapes_ ? others_ + 1 : 0;
    other_shapes_ = shapes;
    return others_ > 0;
  }

  template <class... Inputs>
  static bool same_shapes(const std::tuple<Inputs...>& batch, const Inputs&... inputs) {
    return std::apply(
        [&](const Inputs&... own) {
          return ((detail::numbers_of(own).shape() == detail::numbers_of(inputs).shape()) && ...);
        },
        batch);
  }

  template <class... Inputs>
  Scalar<float> call(Accelerator& gpu, std::int64_t number, const Inputs&... inputs) {
    queue_gradients(gpu, number, inputs.to(gpu.device())...);
    const bool finite = look(gpu);
    if (finite) {
      queue_update(gpu);
      ++calls_;  // others have not made the optimiser's state
    }
    if (scaler() != nullptr) scaler()->found(finite);
    return result(gpu);
  }

  /// zero_grad, forward, backward; the gradients without the scale, and their norm where somebody looks at it.
  template <class... Inputs>
  void queue_gradients(Accelerator& gpu, std::int64_t number, const Inputs&... inputs) {
    Train pass({.seed = options_.seed, .step = number, .precision = options_.precision, .recorded = true});
    optimizer_->zero_grad();
    const Scalar<float> loss = forward_(pass, inputs...);
    if (loss.there() == nullptr)
      throw Error(concat(who, ": the loss is a number of the host, and the network is on ", gpu.device().str(),
                         ": compute it from the network's result"));
    pass.backward(scaler() != nullptr ? loss * Scalar<float>(scale_) : loss);
    auto* const found = static_cast<float*>(found_.data());
    gpu.copy(found, loss.there()->data(), sizeof(float));
    if (scaler() != nullptr) gpu.rescale(gradients(), 1 / scaler()->scale());
    if (looks_at_norm())
      gpu.queue_sum_of_squares(gradients(), found + 1);
    else
      gpu.fill(found + 1, 1, 0);
  }
  bool looks_at_norm() const { return scaler() != nullptr || options_.clip_grad_norm > 0; }

  void queue_update(Accelerator& gpu) {
    if (options_.clip_grad_norm > 0)
      gpu.limit_norm(gradients(), static_cast<const float*>(found_.data()) + 1, options_.clip_grad_norm);
    optimizer_->step();
  }

  std::vector<TensorSpan> gradients() const {
    std::vector<TensorSpan> all;
    optimizer_->each_parameter([&](const std::string&, Parameter& parameter) {
      if (parameter.has_grad()) all.push_back({parameter.size(), parameter.grad().data()});
    });
    return all;
  }

  template <class... Inputs>
  Scalar<float> record(Accelerator& gpu, std::int64_t number, const Inputs&... inputs) {
    forget();
    std::tuple<Inputs...> batch{detail::own_copy(inputs, gpu.device())...};
    const std::vector<std::int64_t> counts = step_counts();
    const std::vector<const void*> before = places();
    std::unique_ptr<RecordedWork> work;
    gpu.begin_recording();
    try {
      std::apply([&](const Inputs&... own) { queue_gradients(gpu, number, own...); }, batch);
      ExpressionProgram both;  // not finite where one of the two is not
      both.push_leaf(static_cast<const float*>(found_.data()));
      both.push_leaf(static_cast<const float*>(found_.data()) + 1);
      both.push(Operation::add);
      const Storage condition = gpu.pool().take(sizeof(float));
      gpu.expression_forward(both, 1, static_cast<float*>(condition.data()));
      gpu.update_where_finite(static_cast<const float*>(condition.data()));
      queue_update(gpu);
      if (places() != before)
        throw Error("a parameter got its first gradient in it, so that the optimiser's state for it began");
      work = gpu.end_recording();
    } catch (const std::exception& error) {
      if (work == nullptr) {
        try {
          (void)gpu.end_recording();
        } catch (const std::exception&) {  // what was recorded so far is no whole work
        }
      }
      set_step_counts(counts);
      throw Error(concat(who, ": this step cannot be recorded, make it by calls: ", error.what()));
    }
    work_ = std::move(work);
    batch_ = batch;
    reached_.clear();
    optimizer_->each_parameter(
        [&](const std::string&, Parameter& parameter) { reached_.push_back(parameter.has_grad()); });
    places_ = places();
    hold_memory();
    return launch(gpu, counts);
  }

  template <class... Inputs>
  Scalar<float> replay(Accelerator& gpu, std::int64_t number, std::tuple<Inputs...> batch, const Inputs&... inputs) {
    std::apply([&](Inputs&... own) { (copy_numbers(detail::numbers_of(own), detail::numbers_of(inputs)), ...); },
               batch);
    std::size_t next = 0;
    optimizer_->each_parameter([&](const std::string&, Parameter& parameter) {  // as the replay will leave it
      parameter.zero_grad();
      if (reached_[next++]) (void)parameter.template grad_target<float>();
    });
    const std::vector<std::int64_t> counts = step_counts();
    try {
      work_->renew([&] {
        if (scaler() != nullptr) gpu.rescale(gradients(), 1 / scaler()->scale());
        optimizer_->step();
      });
    } catch (const Error&) {  // other tensors are to be updated: a gradient lies elsewhere
      set_step_counts(counts);
      return record(gpu, number, inputs...);
    }
    return launch(gpu, counts);
  }

  /// The recorded step. `counts` are those before it.
  Scalar<float> launch(Accelerator& gpu, const std::vector<std::int64_t>& counts) {
    work_->replay();
    ++replays_;
    if (scaler() != nullptr) {
      bool finite = false;
      try {
        finite = look(gpu);
      } catch (const NumericError&) {
        set_step_counts(counts);
        throw;
      }
      if (!finite) set_step_counts(counts);
      scaler()->found(finite);
    }
    return result(gpu);
  }

  /// Waits for the step's gradients, and says whether they are finite. Throws NumericError where the loss is not, or
  /// where nothing but a scale explains it.
  bool look(Accelerator& gpu) {
    float found[2];
    gpu.download(found, found_.data(), found_bytes);
    if (!std::isfinite(found[0])) throw NumericError(concat(loss_is, found[0], no_weight));
    if (!std::isfinite(found[1]) && scaler() == nullptr) throw NumericError(concat(norm_is, found[1], no_weight));
    return std::isfinite(found[1]);
  }

  /// The loss of the step that was queued last, in a place of its own.
  Scalar<float> result(Accelerator& gpu) {
    const auto number = [&](std::size_t i, const char* what) {
      Storage place = gpu.pool().take(sizeof(float));
      gpu.copy(place.data(), static_cast<const float*>(found_.data()) + i, sizeof(float));
      Scalar<float> made(std::move(place));
      made.there()->must_be_finite(what, no_weight);
      return made;
    };
    const Scalar<float> loss = number(0, loss_is);
    if (options_.clip_grad_norm > 0 && scaler() == nullptr) loss.there()->goes_with(number(1, norm_is).there());
    return loss;
  }
  static constexpr const char *loss_is = "RecordedStep: the loss is ",
                              *norm_is = "RecordedStep: the square of the gradients' norm is ",
                              *no_weight = "; the step changed no weight";

  // ---- what the recording stands on

  /// Where everything lies that a replay reads and writes, and what is learned.
  std::vector<const void*> places() const {
    std::vector<const void*> all;
    each_state([&](const AnyTensor& tensor) { all.push_back(detail::storage_of(tensor).data()); });
    for_each_parameter(*net_, [&](const std::string&, Parameter& parameter) {
      all.push_back(parameter.requires_grad ? &parameter : nullptr);
    });
    return all;
  }
  /// A replay's memory must not become somebody else's, whatever becomes of the network.
  void hold_memory() {
    held_.clear();
    each_state([&](const AnyTensor& tensor) { held_.push_back(detail::storage_of(tensor)); });
    for_each_parameter(*net_, [&](const std::string&, Parameter& parameter) {
      if (parameter.has_grad()) held_.push_back(parameter.grad().storage());
    });
  }
  template <class F>
  void each_state(F&& f) const {
    for_each_tensor(*net_, [&](const std::string&, auto& leaf) { f(std::as_const(leaf).any_value()); });
    AnOptimizer::state(*optimizer_, [&](const auto&, auto& entry, const auto&...) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(entry)>, AnyTensor>) f(std::as_const(entry));
    });
  }
  /// The optimiser's counts, which a step that was left out must not change.
  std::vector<std::int64_t> step_counts() const {
    std::vector<std::int64_t> all;
    each_count([&](std::int64_t& count) { all.push_back(count); });
    return all;
  }
  void set_step_counts(const std::vector<std::int64_t>& counts) {
    std::size_t next = 0;
    each_count([&](std::int64_t& count) { count = counts[next++]; });
  }
  template <class F>
  void each_count(F&& f) const {
    AnOptimizer::state(*optimizer_, [&](const auto&, auto& entry, const auto&...) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(entry)>, std::int64_t>) f(entry);
    });
  }

  void forget() {
    work_.reset();  // waits for its last replay
    batch_.reset();
    held_.clear();
  }

  Net* net_;
  AnOptimizer* optimizer_;
  RecordedStepOptions options_;
  Forward forward_;
  std::unique_ptr<RecordedWork> work_;
  std::any batch_;  // a std::tuple: where the recording reads
  Storage found_, scale_;
  std::vector<bool> reached_;  // whether a parameter gets a gradient
  std::vector<const void*> places_;
  std::vector<Storage> held_;
  std::vector<Shape> other_shapes_;  // of the batch that was done by calls last
  int others_ = 0, calls_ = 0;
  std::int64_t replays_ = 0, since_check_ = 0;
};

}}  // namespace strata::STRATA_ABI
