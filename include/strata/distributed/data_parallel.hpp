// Several ranks that train one network: each computes the gradients of its part of the batch, and all take the same step.
//
//     const st::World world = st::World::from_environment();
//     const st::DataLoader loader(data, {.batch_size = 128, .shuffle = true, .drop_last = true, .shards = 8, .world = world});
//     st::DataParallel parallel(net, world);                   // rank 0's weights to all
//     st::Adam adam(net, {.lr = 1e-3});
//     for (const auto& batch : loader.epoch(epoch)) {          // this rank's part of it
//       adam.zero_grad();
//       const double loss = parallel.step(batch, {.seed = seed, .step = step++}, [&](auto& pass, const auto& noisy, const auto& clean) {
//         return mse(net(pass, noisy), clean);
//       });
//       adam.step();
//     }
//
// The result depends on the number of shards alone, to the bit, and not on how many ranks share them. A shard is a batch of its
// own: batch norm normalises by its statistics, dropout draws its numbers. Its loss is to be a mean over its samples, as
// PyTorch's losses are; then the gradient is that of the whole batch's mean. The running statistics become the mean of what the
// shards made of them. With one shard nothing differs from pass.backward(loss), and nothing is copied or sent.
//
// Where step() does not fit, its loop can be written out:
//
//     for (const auto& [noisy, clean] : parallel.shards(batch)) {
//       st::Train pass(parallel.options_of_shard({.seed = seed, .step = step}));
//       const auto loss = mse(net(pass, noisy), clean);
//       pass.backward(loss);
//       parallel.reduce_gradients(loss.item());              // after the last of the batch's shards all ranks hold the sum
//     }
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/core/flush_denormals.hpp"
#include "strata/data/sample.hpp"
#include "strata/distributed/state.hpp"
#include "strata/distributed/tree_sum.hpp"
#include "strata/distributed/world.hpp"
#include "strata/nn/module.hpp"
#include "strata/version.hpp"

namespace strata::inline STRATA_ABI {

/// One of `parts` parts of a batch's samples, as many in each, in memory of their own. For a batch type of your own, a function
/// of this name beside it.
template <class T>
Tensor<T> samples_of(const Tensor<T>& batch, std::int64_t part, std::int64_t parts) {
  if (batch.shape().rank() == 0 || batch.shape()[0] % parts != 0)
    throw ShapeError(concat("DataParallel: a batch of shape ", batch.shape().str(), " cannot be cut into ", parts, " shards"));
  Shape shape{batch.shape()[0] / parts};
  for (int axis = 1; axis < batch.shape().rank(); ++axis) shape.push_back(batch.shape()[axis]);
  Tensor<T> samples(shape, batch.pool());
  copy_bytes(samples.data(), samples.device(), batch.data() + part * samples.size(), batch.device(),
             std::size_t(samples.size()) * sizeof(T));
  return samples;
}
template <int C, class T>
Image<C, T> samples_of(const Image<C, T>& batch, std::int64_t part, std::int64_t parts) {
  return Image<C, T>(samples_of(batch.tensor(), part, parts));
}

template <class... Ts>
std::tuple<Ts...> samples_of(const std::tuple<Ts...>& batch, std::int64_t part, std::int64_t parts)
  requires(requires(const Ts& one) { samples_of(one, part, parts); } && ...)
{
  return std::apply([&](const auto&... one) { return std::tuple<Ts...>{samples_of(one, part, parts)...}; }, batch);
}
template <class A, class B>
Pair<A, B> samples_of(const Pair<A, B>& batch, std::int64_t part, std::int64_t parts)
  requires requires { samples_of(batch.input, part, parts), samples_of(batch.target, part, parts); }
{
  auto input = samples_of(batch.input, part, parts);
  return {std::move(input), samples_of(batch.target, part, parts)};
}

class DataParallel {
 public:
  /// Gives all ranks the weights of rank 0. Throws Error where a rank is another build of the program, or has another network.
  template <class Net>
  DataParallel(Net& net, World world) : world_(std::move(world)) {
    static_assert(!std::is_const_v<Net>, "strata: DataParallel changes its network, so the network must not be const");
    static_assert(detail::holds_state<Net>,
                  "strata: DataParallel wants a network: a type with parameters and a visit() that lists its members");
    std::string listed = concat(STRATA_VERSION, " ", STRATA_ISA);
    for_each_tensor(net, [&]<class Leaf>(const std::string& name, Leaf& leaf) {
      listed += concat(" ", name, leaf.shape().str());
      if constexpr (std::is_same_v<Leaf, Parameter>)
        parameters_.push_back({who, name, leaf, leaf});
      else
        buffers_.push_back({who, name, leaf, leaf});
    });
    if (parameters_.empty()) throw ValueError("DataParallel: the network has no parameters, so there is nothing to learn");
    if (world_.size() == 1) return;
    const std::vector<std::string> all = detail::gather_texts(*world_.communicator(), listed);
    for (std::size_t rank = 1; rank < all.size(); ++rank)
      if (all[rank] != all[0])
        throw Error(concat(world_.name(int(rank)), " runs another program than rank 0, has another network, or its processor other "
                           "instructions (", all[rank].substr(0, all[rank].find(' ', all[rank].find(' ') + 1)), " and ",
                           all[0].substr(0, all[0].find(' ', all[0].find(' ') + 1)), "): all ranks need the same build"));
    broadcast(world_, net);
    check_equal(world_, "after rank 0's weights were sent to all", net);
  }
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  const World& world() const { return world_; }

  /// Forward and backward for each shard of this rank's part of a batch, and the sum over all ranks: afterwards the parameters
  /// hold the gradient of the mean over the whole batch's shards of loss = forward(pass, input, target), which is returned.
  /// backward(pass, loss) may do more than pass.backward(loss).
  template <class Input, class Target, class Forward, class Backward>
  double step(const LoadedBatch<Input, Target>& batch, const TrainOptions& options, Forward&& forward, Backward&& backward) {
    for (const auto& [input, target] : shards(batch)) {
      Train pass(options_of_shard(options));
      const auto loss = forward(pass, input, target);
      backward(pass, loss);
      reduce_gradients(double(loss.item()));
    }
    return loss_;
  }
  template <class Input, class Target, class Forward>
  double step(const LoadedBatch<Input, Target>& batch, const TrainOptions& options, Forward&& forward) {
    return step(batch, options, forward, [](auto& pass, const auto& loss) { pass.backward(loss); });
  }

  template <class Input, class Target>
  class Shards;  // below

  /// The shards of a batch that are this rank's: a range of {input, target}, to be gone through once. Throws Error where
  /// parameters hold gradients already, with several shards: they would be counted in every one of them.
  template <class Input, class Target>
  Shards<Input, Target> shards(const LoadedBatch<Input, Target>& batch) {
    begin(batch.shards);
    return {*this, batch};
  }

  /// `options` with the number of the shard that is next, in the whole batch.
  TrainOptions options_of_shard(TrainOptions options) const {
    options.shard = std::max(0, world_.rank() * own_shards_ + done_);
    return options;
  }

  /// After backward() for a shard. False where more shards of this rank's part are to come. True after the last one: then the
  /// parameters hold the mean of all shards' gradients of all ranks, and loss() that of the losses given. Where shards() was not
  /// called, a rank's part is one shard.
  bool reduce_gradients(double loss = 0) {
    if (!begun_) begin(1);
    if (own_shards_ == 1 && world_.size() == 1) {
      loss_ = loss;
      begun_ = false;
      return true;
    }
    const FlushDenormals flush;
    return doubles() ? reduce(sum64_, loss) : reduce(sum32_, loss);
  }

  /// Of the latest batch: the mean over its shards.
  double loss() const { return loss_; }

 private:
  static constexpr std::string_view who = "DataParallel";

  template <class T>
  struct Sum {
    detail::TreeSum<T> tree;
    std::vector<T> running;  // statistics of before the step
  };

  void begin(int own_shards) {
    begun_ = true;
    own_shards_ = own_shards;
    done_ = 0;
    if (own_shards == 1 && world_.size() == 1) return;
    for (const auto& parameter : parameters_)
      if (parameter->has_grad())
        throw Error(concat(who, ": '", parameter.name(), "' holds a gradient already: call the optimiser's zero_grad() before the "
                           "step, not within it"));
    if (doubles())
      begin_sum(sum64_);
    else
      begin_sum(sum32_);
  }

  bool doubles() const { return parameters_.front()->any_value().index() == 1; }

  template <class T>
  void begin_sum(Sum<T>& sum) {
    const std::int64_t first = std::int64_t{own_shards_} * world_.rank();
    sum.tree.begin(std::int64_t{own_shards_} * world_.size(), first, first + own_shards_);
    if (own_shards_ == 1) return;
    keep<T>(sum.running);
    keep<std::int64_t>(counters_);
  }

  template <class T>
  bool reduce(Sum<T>& sum, double loss) {
    std::vector<T> row = sum.tree.take_spare();
    pack(row, loss);
    sum.tree.add(std::move(row));
    if (++done_ < own_shards_) {  // the next shard starts from where this one did
      put_back<T>(sum.running);
      put_back<std::int64_t>(counters_);
      for (const auto& parameter : parameters_) parameter->zero_grad();
      return false;
    }
    row = sum.tree.over(world_.communicator());
    const T part = T(1) / T(own_shards_ * world_.size());
    parallel_ranges(std::int64_t(row.size()), 1 << 15, [numbers = row.data(), part](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) numbers[i] *= part;
    });
    unpack(row);
    sum.tree.give_spare(std::move(row));
    begun_ = false;
    return true;
  }

  /// Calls f(tensor) for the buffers that hold T.
  template <class T, class F>
  void each_buffer(F&& f) {
    for (const auto& buffer : buffers_)
      if (auto* tensor = std::get_if<Tensor<T>>(&buffer->any_value())) f(*tensor);
  }

  /// What a shard has left: gradients, running statistics, which parameters got a gradient, the loss. One row of numbers.
  template <class T>
  void pack(std::vector<T>& row, double loss) {
    std::size_t count = parameters_.size() + 1;
    for (const auto& parameter : parameters_) count += std::size_t(parameter->size());
    each_buffer<T>([&](const Tensor<T>& tensor) { count += std::size_t(tensor.size()); });
    row.resize(count);
    T* to = row.data();
    for (const auto& parameter : parameters_) {
      const std::int64_t size = parameter->size();
      if (parameter->has_grad() && size > 0) {
        const Tensor<T>& grad = parameter->template grad<T>();
        copy_bytes(to, Device::cpu(), grad.data(), grad.device(), std::size_t(size) * sizeof(T));
      } else {
        std::fill_n(to, size, T(0));
      }
      to += size;
    }
    each_buffer<T>([&](const Tensor<T>& tensor) {
      copy_bytes(to, Device::cpu(), tensor.data(), tensor.device(), std::size_t(tensor.size()) * sizeof(T));
      to += tensor.size();
    });
    for (const auto& parameter : parameters_) *to++ = T(parameter->has_grad() ? 1 : 0);
    *to = T(loss);
  }

  /// Gives the parameters and buffers what a row of sums says.
  template <class T>
  void unpack(const std::vector<T>& row) {
    const T* from = row.data();
    const T* got = row.data() + row.size() - 1 - parameters_.size();
    for (const auto& parameter : parameters_) {
      const std::int64_t size = parameter->size();
      parameter->zero_grad();
      if (*got++ > 0) {
        const auto target = parameter->template grad_target<T>();
        copy_bytes(target.data, parameter->device(), from, Device::cpu(), std::size_t(size) * sizeof(T));
      }
      from += size;
    }
    each_buffer<T>([&](Tensor<T>& tensor) {
      copy_bytes(tensor.data(), tensor.device(), from, Device::cpu(), std::size_t(tensor.size()) * sizeof(T));
      from += tensor.size();
    });
    loss_ = double(row.back());
  }

  template <class T>
  void keep(std::vector<T>& kept) {
    kept.clear();
    each_buffer<T>([&](const Tensor<T>& tensor) {
      const std::size_t at = kept.size();
      kept.resize(at + std::size_t(tensor.size()));
      copy_bytes(kept.data() + at, Device::cpu(), tensor.data(), tensor.device(), std::size_t(tensor.size()) * sizeof(T));
    });
  }
  template <class T>
  void put_back(const std::vector<T>& kept) {
    const T* from = kept.data();
    each_buffer<T>([&](Tensor<T>& tensor) {
      copy_bytes(tensor.data(), tensor.device(), from, Device::cpu(), std::size_t(tensor.size()) * sizeof(T));
      from += tensor.size();
    });
  }

  World world_;
  std::vector<detail::LeafPointer<Parameter>> parameters_;
  std::vector<detail::LeafPointer<Buffer>> buffers_;
  Sum<float> sum32_;
  Sum<double> sum64_;
  std::vector<std::int64_t> counters_;  // such as num_batches_tracked: a step counts once
  double loss_ = 0;
  int own_shards_ = 1, done_ = 0;  // of this rank's part of the batch
  bool begun_ = false;
};

/// A range of this rank's shards of a batch: for (const auto& [input, target] : parallel.shards(batch)).
template <class Input, class Target>
class DataParallel::Shards {
 public:
  class Iterator {
   public:
    using value_type = Pair<Input, Target>;
    using difference_type = std::ptrdiff_t;
    const value_type& operator*() const { return shards_->current(); }
    Iterator& operator++() {
      shards_->advance(index_++);
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return index_ == shards_->batch_.shards; }

   private:
    friend class Shards;
    explicit Iterator(Shards* shards) : shards_(shards) {}
    Shards* shards_;
    int index_ = 0;
  };
  Iterator begin() { return Iterator(this); }
  std::default_sentinel_t end() const { return {}; }

 private:
  friend class DataParallel;
  Shards(DataParallel& parallel, const LoadedBatch<Input, Target>& batch) : parallel_(parallel), batch_(batch) {}

  const Pair<Input, Target>& current() {
    if (batch_.shards == 1) return batch_;
    if (!part_) {
      if constexpr (requires { samples_of(batch_.input, 0, 1), samples_of(batch_.target, 0, 1); })
        part_ = Pair<Input, Target>{samples_of(batch_.input, parallel_.done_, batch_.shards),
                                    samples_of(batch_.target, parallel_.done_, batch_.shards)};
      else
        throw Error("DataParallel: a batch of this type cannot be cut into shards: write samples_of(batch, part, parts) for it, or "
                    "give as many shards as ranks");
    }
    return *part_;
  }
  void advance(int index) {
    if (parallel_.begun_ ? parallel_.done_ != index + 1 : index + 1 != batch_.shards)
      throw Error("DataParallel: a shard's gradient was not given: call reduce_gradients() once for each shard");
    part_.reset();
  }

  DataParallel& parallel_;
  const LoadedBatch<Input, Target>& batch_;
  std::optional<Pair<Input, Target>> part_;
};

}  // namespace strata::inline STRATA_ABI
