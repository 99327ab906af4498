// A second set of weights that follows the network's slowly: average = decay * average + (1 - decay) * weight. It often
// tests better than the weights themselves. As torch.optim.swa_utils.AveragedModel with get_ema_multi_avg_fn.
//
//     st::ExponentialMovingAverage ema(net, {.decay = 0.999});
//     sgd.step();
//     ema.update();
//     { auto swapped = ema.swap(); test(net); }      // the network holds the averages until the brace
//
// The network must outlive the average and must not move: an Error when the average is used next.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/cpu/optimizer.hpp"
#include "strata/optim/optimizer.hpp"

namespace strata { inline namespace STRATA_ABI {

struct ExponentialMovingAverageOptions {
  double decay = 0.999;  ///< in [0, 1]
  /// Whether the decay begins small and grows, min(decay, (1 + n) / (10 + n)) at update n, so that an average of a
  /// short run does not remember the weights it began with. As num_updates of TensorFlow's ExponentialMovingAverage.
  bool warmup = false;
  /// Whether buffers of floats (BatchNorm's running statistics) are averaged too, and whole numbers copied. By default,
  /// as PyTorch's, the average uses the network's own buffers.
  bool use_buffers = false;
};

class ExponentialMovingAverage {
 public:
  /// Begins with a copy of the network's weights. Throws ValueError for a decay out of range or a network without
  /// parameters.
  template <class Net>
  explicit ExponentialMovingAverage(Net& net, const ExponentialMovingAverageOptions& options = {}) : options_(options) {
    static_assert(detail::holds_state<Net> && !std::is_const_v<Net>,
                  "strata: ExponentialMovingAverage wants a network that is not const");
    detail::check_option(options.decay >= 0 && options.decay <= 1, "ExponentialMovingAverage", "decay", options.decay,
                         "[0, 1]");
    for_each_averaged(net, [&](const std::string& name, auto& leaf) {
      averages_.push_back(
          {name, {"ExponentialMovingAverage", name, leaf, leaf.any_value()}, detail::clone(leaf.any_value())});
    });
    if (averages_.empty()) throw ValueError("ExponentialMovingAverage: the network has no parameters");
  }
  ExponentialMovingAverage(const ExponentialMovingAverage&) = delete;
  ExponentialMovingAverage& operator=(const ExponentialMovingAverage&) = delete;

  /// Moves the averages towards the present weights; the first update copies them.
  void update() {
    if (swapped_) throw Error("ExponentialMovingAverage::update: the network holds the averages; end the swap first");
    const double decay = this->decay();
    for (const Average& average : averages_) check_average(average, *average.value);
    for (Average& average : averages_)
      std::visit(
          [&]<class T>(Tensor<T>& mean) {
            const Tensor<T>& value = std::get<Tensor<T>>(*average.value);
            if (mean.device() != value.device()) mean = mean.to(value.device());
            if constexpr (std::is_floating_point_v<T>)
              if (updates_ > 0)
                return detail::dispatch<T>(
                    value.device(), [&] { cpu::average_update(value.size(), mean.data(), value.data(), decay); },
                    [&](auto& gpu) {
                      on_device_.add(gpu.device(),
                                     {.size = value.size(), .value = mean.data(), .gradient = value.data()});
                    });
            copy_numbers(mean, value);
          },
          average.average);
    on_device_.flush(
        [&](Accelerator& gpu, std::span<const TensorUpdate> tensors) { gpu.average_update(tensors, decay); });
    ++updates_;
  }

  /// Writes the averages into another network of the same kind. Throws Error for a tensor that does not fit.
  template <class Net>
  void copy_to(Net& net) const {
    std::vector<std::pair<std::string, AnyTensor*>> targets;
    for_each_averaged(net, [&](const std::string& name, auto& leaf) { targets.emplace_back(name, &leaf.any_value()); });
    if (targets.size() != averages_.size())
      throw Error(concat("ExponentialMovingAverage::copy_to: the network has ", targets.size(),
                         " tensors, the average ", averages_.size()));
    for (std::size_t i = 0; i < targets.size(); ++i) {
      if (targets[i].first != averages_[i].name)
        throw Error(concat("ExponentialMovingAverage::copy_to: '", targets[i].first, "' of the network meets '",
                           averages_[i].name, "' of the average"));
      check_average(averages_[i], *targets[i].second);
    }
    for (std::size_t i = 0; i < targets.size(); ++i)
      std::visit(
          [&]<class T>(const Tensor<T>& mean) { copy_numbers(std::get<Tensor<T>>(*targets[i].second), mean); },
          averages_[i].average);
  }

  /// Exchanges weights and averages while it lives.
  class Swap {
   public:
    explicit Swap(ExponentialMovingAverage& average) : average_(&average) { average_->exchange(true); }
    ~Swap() { average_->exchange(false); }
    Swap(const Swap&) = delete;
    Swap& operator=(const Swap&) = delete;

   private:
    ExponentialMovingAverage* average_;
  };

  /// The network holds the averages until the returned scope ends.
  [[nodiscard]] Swap swap() {
    if (swapped_) throw Error("ExponentialMovingAverage::swap: the network holds the averages already");
    for (const Average& average : averages_) check_average(average, *average.value);
    return Swap(*this);
  }

  std::int64_t updates() const { return updates_; }
  /// Of the next update.
  double decay() const {
    return options_.warmup ? std::min(options_.decay, double(1 + updates_) / double(10 + updates_)) : options_.decay;
  }

  static constexpr std::string_view state_name = "ema";
  static void state(auto& self, auto&& f) {
    if (self.swapped_) throw Error("ExponentialMovingAverage: end the swap before a checkpoint is saved or loaded");
    f("updates", self.updates_);
    for (auto& average : self.averages_) f(average.name, average.average, *average.value);
  }

 private:
  struct Average {
    std::string name;
    detail::LeafPointer<AnyTensor> value;
    AnyTensor average;
  };

  template <class Net, class F>
  void for_each_averaged(Net& net, F&& f) const {
    for_each_tensor(net, [&](const std::string& name, auto& leaf) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(leaf)>, Buffer>)
        if (!options_.use_buffers) return;
      f(name, leaf);
    });
  }

  static void check_average(const Average& average, const AnyTensor& value) {
    if (value.index() != average.average.index() || detail::shape_of(value) != detail::shape_of(average.average))
      throw Error(concat("ExponentialMovingAverage: '", average.name, "' has another type or shape than its average: ",
                         detail::shape_of(value).str(), " and ", detail::shape_of(average.average).str()));
  }

  void exchange(bool swapped) {
    for (Average& average : averages_) {
      if (!average.value.there()) continue;  // at the end of a swap, whose network is gone
      const Device device = detail::tensor_device(*average.value);  // the average may be where the network was before
      if (detail::tensor_device(average.average) != device) average.average = detail::move_to(average.average, device);
      std::swap(*average.value, average.average);
    }
    swapped_ = swapped;
  }

  ExponentialMovingAverageOptions options_;
  detail::DeviceBatch<TensorUpdate> on_device_;
  std::vector<Average> averages_;
  std::int64_t updates_ = 0;
  bool swapped_ = false;
};

}}  // namespace strata::STRATA_ABI
