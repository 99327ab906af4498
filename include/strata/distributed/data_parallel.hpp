// Several ranks that train one network: each computes the gradients of its part of the batch, and all take the same
// step.
//
//     const st::World world = st::World::from_environment();
//     const st::DataLoader loader(data, {.batch_size = 128, .drop_last = true, .shards = 8, .world = world});
//     st::DataParallel parallel(net, world);                   // rank 0's weights to all
//     st::Adam adam(net, {.lr = 1e-3});
//     for (const auto& batch : loader.epoch(epoch)) {          // this rank's part of it
//       adam.zero_grad();
//       const auto forward = [&](auto& pass, const auto& x, const auto& y) { return mse(net(pass, x), y); };
//       const double loss = parallel.step(batch, {.seed = seed, .step = step++}, forward);
//       adam.step();
//     }
//
// The result depends on the number of shards alone, to the bit, and not on how many ranks share them. A shard is a
// batch of its own: batch norm normalises by its statistics, dropout draws its numbers. Its loss is to be a mean over
// its samples, as PyTorch's losses are; then the gradient is that of the whole batch's mean. The running statistics
// become the mean of what the shards made of them. With one shard nothing differs from pass.backward(loss), and nothing
// is copied or sent.
//
// Where step() does not fit, its loop can be written out:
//
//     for (const auto& [noisy, clean] : parallel.shards(batch)) {
//       st::Train pass(parallel.options_of_shard({.seed = seed, .step = step}));
//       const auto loss = mse(net(pass, noisy), clean);
//       pass.backward(loss);
//       parallel.reduce_gradients(loss.item());              // after the last shard all ranks hold the sum
//     }
//
// A network with layers that look at the whole batch (nn/sync_batch_norm.hpp) needs all shards at once; so does no
// other, and for all of them
//
//     const double loss = parallel.step(batch, {.seed = seed, .step = step++}, net, mse);
//
// will do, wherever the network is. Gradients leave for other ranks while backward() runs, in buckets of a MiB or more,
// where it is parallel.backward(pass, loss), as in step().
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/core/flush_denormals.hpp"
#include "strata/data/sample.hpp"
#include "strata/distributed/lockstep.hpp"
#include "strata/distributed/samples.hpp"
#include "strata/distributed/shard_sum.hpp"
#include "strata/distributed/state.hpp"
#include "strata/distributed/world.hpp"
#include "strata/nn/module.hpp"
#include "strata/version.hpp"

namespace strata { inline namespace STRATA_ABI {

struct DataParallelOptions {
  /// Gradients leave together from so many bytes on, in the order in which a backward pass comes to them.
  std::size_t bucket_bytes = std::size_t{1} << 20;
  /// A network on GPUs: its gradients go from device to device over NCCL, where all ranks have it, and only after
  /// backward(). Otherwise, or without this, by way of the host's memory. The bits are the same.
  bool device_memory = true;
};

class DataParallel {
 public:
  /// Gives all ranks the weights of rank 0. Throws Error where a rank is another build of the program, or has another
  /// network.
  template <class Net>
  DataParallel(Net& net, World world, const DataParallelOptions& options = {}) : world_(std::move(world)) {
    static_assert(!std::is_const_v<Net>, "strata: DataParallel changes its network, so the network must not be const");
    static_assert(detail::holds_state<Net>,
                  "strata: DataParallel wants a network: a type with parameters and a visit() that lists its members");
    const std::string listed = concat(STRATA_VERSION, " ", STRATA_ISA, sum_.list(net));
    sum_.set_bucket_bytes(options.bucket_bytes);
    looks_at_batch_ = detail::count_batch_layers(net) > 0;
    if (sum_.parameters().empty())
      throw ValueError("DataParallel: the network has no parameters, so there is nothing to learn");
    if (world_.size() == 1) return;
    const std::vector<std::string> all = detail::gather_texts(*world_.communicator(), listed);
    for (std::size_t rank = 1; rank < all.size(); ++rank)
      if (all[rank] != all[0])
        throw Error(concat(world_.name(int(rank)),
                           " runs another program than rank 0, has another network, or its processor other "
                           "instructions (",
                           all[rank].substr(0, all[rank].find(' ', all[rank].find(' ') + 1)), " and ",
                           all[0].substr(0, all[0].find(' ', all[0].find(' ') + 1)),
                           "): all ranks need the same build"));
    if (options.device_memory) meet_on_devices();
    broadcast(world_, net);
    check_equal(world_, "after rank 0's weights were sent to all", net);
  }
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;

  const World& world() const { return world_; }
  /// What carries the gradients, and why it is not NCCL where they are on devices: "NCCL", "the host's memory".
  const std::string& carrier() const { return carrier_; }

  /// Forward and backward for each shard of this rank's part of a batch, and the sum over all ranks: afterwards the
  /// parameters hold the gradient of the mean over the whole batch's shards of loss = forward(pass, input, target),
  /// which is returned. backward(pass, loss) may do more than pass.backward(loss).
  template <class Input, class Target, class Forward, class Backward>
    requires(!Module<std::remove_cvref_t<Forward>>)
  double step(const LoadedBatch<Input, Target>& batch, const TrainOptions& options, Forward&& forward,
              Backward&& backward) {
    for (const auto& [input, target] : shards(batch)) {
      Train pass(options_of_shard(options));
      const auto loss = forward(pass, input, target);
      backward(pass, loss);
      reduce_gradients(double(loss.item()));
    }
    return loss_;
  }
  template <class Input, class Target, class Forward>
    requires(!Module<std::remove_cvref_t<Forward>>)
  double step(const LoadedBatch<Input, Target>& batch, const TrainOptions& options, Forward&& forward) {
    return step(batch, options, forward, [this](Train& pass, const auto& loss) { this->backward(pass, loss); });
  }
  /// The same for the network's result alone, loss(net(pass, input), target), with images moved to the network's
  /// device. So a rank runs all its shards at once where the network holds layers that look at the whole batch,
  /// with the same bits for any number of ranks (distributed/lockstep.hpp). It takes the memory of all of them.
  template <class Input, class Target, Module Net, class Loss, class Backward>
  double step(const LoadedBatch<Input, Target>& batch, const TrainOptions& options, Net& net, const Loss& loss,
              Backward&& backward) {
    if constexpr (detail::holds_batch_layer<Net>()) {
      static_assert(detail::IsImage<Input>::value,
                    "strata: DataParallel runs a network with a layer that looks at the whole batch (SyncBatchNorm2d) "
                    "on batches of images, st::Image<C>, and the data gives others");
      if constexpr (detail::IsImage<Input>::value)
        if (batch.shards * world_.size() > 1) return step_together(batch, options, net, loss, backward);
    }
    const Device device = sum_.parameters().front()->device();
    return step(
        batch, options,
        [&](auto& pass, const auto& input, const auto& target) {
          return loss(net(pass, at(device, input)), at(device, target));
        },
        backward);
  }
  template <class Input, class Target, Module Net, class Loss>
  double step(const LoadedBatch<Input, Target>& batch, const TrainOptions& options, Net& net, const Loss& loss) {
    return step(batch, options, net, loss,
                [this](Train& pass, const auto& of_shard) { this->backward(pass, of_shard); });
  }

  /// pass.backward(loss), for one shard. Gradients leave for the other ranks while it runs: until reduce_gradients()
  /// nothing else may change them, or it throws Error. Where something has to, as clipping by shard, take
  /// pass.backward(loss).
  template <class T>
  void backward(Train& pass, const Scalar<T>& loss) {
    if (world_.size() == 1 || together_) return pass.backward(loss);
    if (!begun_) begin(1);
    pass.backward(loss, sum_.listener());
  }
  /// Of the bytes that this rank sent for the latest step, the share that was on its way before backward() ended.
  double early_share() const { return sum_.early_share(); }

  template <class Input, class Target>
  class Shards;  // below

  /// The shards of a batch that are this rank's: a range of {input, target}, to be gone through once. Throws Error
  /// where parameters hold gradients already, with several shards: they would be counted in every one of them.
  template <class Input, class Target>
  Shards<Input, Target> shards(const LoadedBatch<Input, Target>& batch) {
    begin(batch.shards);
    return {*this, batch};
  }

  /// `options` with the number of the shard that is next, in the whole batch.
  TrainOptions options_of_shard(TrainOptions options) {
    options.shard = std::max(0, world_.rank() * own_shards_ + done_);
    options.batch = group();
    told_ = true;
    return options;
  }

  /// After backward() for a shard. False where more shards of this rank's part are to come. True after the last one:
  /// then the parameters hold the mean of all shards' gradients of all ranks, and loss() that of the losses given.
  /// Where shards() was not called, a rank's part is one shard.
  bool reduce_gradients(double loss = 0) {
    const bool told = std::exchange(told_, false);
    if (!begun_) begin(1);
    if (looks_at_batch_ && !told && own_shards_ * world_.size() > 1)
      throw Error(concat(who,
                         ": the network looks at the whole batch, and its pass was not told of it: make it with "
                         "parallel.options_of_shard(...), or call step()"));
    if (own_shards_ == 1 && world_.size() == 1) {
      loss_ = loss;
      begun_ = false;
      return true;
    }
    const FlushDenormals flush;
    sum_.add(loss);
    if (++done_ < own_shards_) {
      sum_.start_anew();
      return false;
    }
    loss_ = sum_.finish();
    begun_ = false;
    return true;
  }

  /// Of the latest batch: the mean over its shards.
  double loss() const { return loss_; }

 private:
  static constexpr std::string_view who = "DataParallel";

  /// Shared by the passes of a step, where layers ask for it.
  BatchGroup* group() {
    if (!looks_at_batch_ || own_shards_ * world_.size() == 1) return nullptr;
    if (!group_ || group_->own_parts() != own_shards_) group_.emplace(world_, own_shards_);
    return &*group_;
  }

  /// Where all ranks are on devices that can.
  void meet_on_devices() {
    const Device device = sum_.parameters().front()->device();
    const DeviceRanksProvider* provider = detail::device_ranks_provider.load(std::memory_order_acquire);
    const bool can = provider != nullptr && device.kind != DeviceKind::cpu;
    if (world_.any(!can)) return;
    Communicator& ranks = *world_.communicator();
    const std::string host = carrier_;
    bool failed = false;
    try {
      sum_.set_device(std::make_unique<detail::DeviceSum>(ranks, provider->make(device, ranks), accelerator(device)));
      carrier_ = provider->name;
    } catch (const DeviceError& error) {
      carrier_ = concat("the host's memory: ", error.what());
      failed = true;
    }
    if (!world_.any(failed)) return;
    sum_.set_device(nullptr);  // all of them, or none
    if (!failed) carrier_ = concat(host, ": another rank could not join");
  }

  void begin(int own_shards) {
    begun_ = true;
    told_ = false;
    own_shards_ = own_shards;
    done_ = 0;
    if (own_shards == 1 && world_.size() == 1) return;
    sum_.begin(world_, own_shards);
  }

  template <class T>
  static const T& at(Device, const T& value) {
    return value;
  }
  template <class T>
  static T at(Device, T&& value)
    requires(!std::is_reference_v<T> && !detail::IsImage<std::remove_cv_t<T>>::value)
  {
    return std::move(value);
  }
  template <int C, class T>
  static Image<C, T> at(Device device, const Image<C, T>& image) {
    return image.to(device);
  }

  template <int C, class T, class Target, class Net, class Loss, class Backward>
  double step_together(const LoadedBatch<Image<C, T>, Target>& batch, const TrainOptions& options, Net& net,
                       const Loss& loss, Backward&& backward) {
    begin(batch.shards);
    const struct Together {
      bool& now;
      ~Together() { now = false; }
    } together{together_ = true};
    std::vector<Parameter*> parameters;
    std::vector<Buffer*> buffers;
    for (const auto& parameter : sum_.parameters()) parameters.push_back(&*parameter);
    for (const auto& buffer : sum_.buffers()) buffers.push_back(&*buffer);
    const auto own = std::size_t(own_shards_);
    const Device device = parameters.front()->device();
    detail::ShardStates states(std::move(parameters), std::move(buffers), own);
    detail::LockstepShards run{*group(), states, {}};
    std::vector<Var<C, T>> inputs;
    for (std::size_t i = 0; i < own; ++i) {
      TrainOptions of_shard = options_of_shard(options);
      of_shard.shard += int(i);
      run.passes.emplace_back(of_shard);
      inputs.push_back(at(device, own == 1 ? batch.input : samples_of(batch.input, std::int64_t(i), batch.shards)));
    }
    const auto losses = [&] {
      Train pass;  // draws nothing: each shard's own does
      const auto y = detail::call(net, pass, Var<C, Lockstep<T>>(run, std::move(inputs)));
      std::vector<std::remove_cvref_t<decltype(loss(y.shard(0), batch.target))>> of_shards;
      for (std::size_t i = 0; i < own; ++i)
        of_shards.push_back(
            own == 1 ? loss(y.shard(i), at(device, batch.target))
                     : loss(y.shard(i), at(device, samples_of(batch.target, std::int64_t(i), batch.shards))));
      return of_shards;
    }();
    for (std::size_t i = 0; i < own; ++i) {
      const detail::ShardStates::Gradients gradients(states, i);
      backward(run.passes[i], losses[i]);
    }
    const auto paused = [](Train& pass) { return pass.tape()->paused(); };
    while (std::any_of(run.passes.begin(), run.passes.end(), paused))
      for (std::size_t i = 0; i < own; ++i) {
        const detail::ShardStates::Gradients gradients(states, i);
        if (paused(run.passes[i])) run.passes[i].go_on_backward();
      }
    const FlushDenormals flush;
    for (std::size_t i = 0; i < own; ++i) {
      const detail::ShardStates::Gradients gradients(states, i, true);
      sum_.add(double(losses[i].item()));
    }
    states.keep_buffers_of(own - 1);  // counters are not summed
    begun_ = told_ = false;
    return loss_ = sum_.finish();
  }

  World world_;
  detail::ShardSum sum_{who};
  double loss_ = 0;
  int own_shards_ = 1, done_ = 0;  // of this rank's part of the batch
  bool begun_ = false;
  bool looks_at_batch_ = false, told_ = false;  // whether layers do, and whether the shard's pass knows its group
  std::string carrier_ = "the host's memory";
  bool together_ = false;  // whether all shards are run at once
  std::optional<detail::ShardGroup> group_;
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
        throw Error(
            "DataParallel: a batch of this type cannot be cut into shards: write samples_of(batch, part, parts) for "
            "it, or "
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

}}  // namespace strata::STRATA_ABI
