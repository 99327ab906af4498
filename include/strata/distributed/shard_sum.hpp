// What the shards of a step leave at a network, summed over all of all ranks: gradients, running statistics, the loss.
//
//     ShardSum sum("DataParallel");
//     sum.list(net);
//     sum.begin(world, own_shards);
//     ... sum.add(loss); sum.start_anew(); ... sum.add(loss);            // one shard after another
//     const double mean = sum.finish();                                  // the network then holds the means
//
// Between ranks gradients of the last shard may leave while its backward() runs: the network's
// parameters are cut into buckets, the last ones first, as a backward pass comes to them. Which numbers are added
// to which, and in what order, is the same.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/batch_group.hpp"
#include "strata/autograd/parameter.hpp"
#include "strata/autograd/tape.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/core/parallel.hpp"
#include "strata/distributed/device_sum.hpp"
#include "strata/distributed/tree_sum.hpp"
#include "strata/distributed/world.hpp"
#include "strata/kernels/transfer.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// The shards of a step, of all ranks, for layers that look at the whole batch.
class ShardGroup : public BatchGroup {
 public:
  ShardGroup(World world, int own_shards) : world_(std::move(world)), own_shards_(own_shards) {}
  int parts() const override { return own_shards_ * world_.size(); }
  int own_parts() const override { return own_shards_; }
  std::vector<double> gather(std::span<const double> own) override {
    std::vector<double> all(own.size() * std::size_t(world_.size()));
    std::copy(own.begin(), own.end(), all.begin() + std::ptrdiff_t(own.size()) * world_.rank());
    if (world_.size() > 1) all_gather(*world_.communicator(), std::as_writable_bytes(std::span(all)));
    return all;
  }

 private:
  World world_;
  int own_shards_;
};

/// A parameter's gradient that has left: it must stay what it is.
class LeftGradient {
 public:
  explicit LeftGradient(Parameter& parameter) : there_(parameter.has_grad()) {
    if (there_) storage_ = storage_of_gradient(parameter), version_ = storage_.watch();
  }
  LeftGradient(LeftGradient&&) = default;  // the storage of what was moved is empty, and nothing is watched there
  LeftGradient& operator=(LeftGradient&&) = delete;
  ~LeftGradient() { storage_.unwatch(); }
  bool unchanged(const Parameter& parameter) const {
    return parameter.has_grad() == there_ && storage_.unchanged_since(version_);
  }

 private:
  static Storage storage_of_gradient(Parameter& parameter) {
    if (parameter.any_value().index() == 1) return std::as_const(parameter.grad<double>()).storage();
    return std::as_const(parameter.grad<float>()).storage();
  }
  bool there_;
  Storage storage_;
  std::uint32_t version_ = 0;
};

class ShardSum : private GradientListener {
 public:
  explicit ShardSum(std::string_view who) : who_(who) {}

  /// Takes the network's tensors. Returns their names and shapes, in one line.
  template <class Net>
  std::string list(Net& net) {
    std::string listed;
    for_each_tensor(net, [&]<class Leaf>(const std::string& name, Leaf& leaf) {
      listed += concat(" ", name, leaf.shape().str());
      if constexpr (std::is_same_v<Leaf, Parameter>)
        parameters_.push_back({who_, name, leaf, leaf});
      else
        buffers_.push_back({who_, name, leaf, leaf});
    });
    return listed;
  }
  const std::vector<LeafPointer<Parameter>>& parameters() const { return parameters_; }
  const std::vector<LeafPointer<Buffer>>& buffers() const { return buffers_; }

  /// Sums in the memory of the network's device from now on, where it can.
  void set_device(std::unique_ptr<DeviceSum> device) { device_ = std::move(device); }
  /// The least bytes of a bucket.
  void set_bucket_bytes(std::size_t bytes) { bucket_bytes_ = bytes; }

  /// Of as many shards on each rank.
  void begin(const World& world, int own_shards) {
    for (const auto& parameter : parameters_)
      if (parameter->has_grad())
        throw Error(concat(who_, ": '", parameter.name(),
                           "' holds a gradient already: call the optimiser's zero_grad() before the "
                           "step, not within it"));
    world_ = world;
    own_shards_ = own_shards;
    left_.clear();
    sum32_.under_way.clear();
    sum64_.under_way.clear();
    leaves_ = false;
    early_bytes_ = 0;
    if (const Communicator* ranks = world_.communicator()) bytes_before_ = ranks->bytes_sent();
    on_device_ = device_ != nullptr && parameters_.front()->device() == device_->device() && device_->sums(own_shards);
    if (on_device_) device_->begin();
    if (doubles())
      begin(sum64_);
    else
      begin(sum32_);
  }
  /// Who is to listen to the backward() of the next shard, so that gradients leave while it runs; nullptr where they
  /// cannot. Once a shard: throws Error where there was one.
  GradientListener* listener() {
    if (leaves_)
      throw Error(concat(who_,
                         ": a second backward() for one shard, whose gradients have left with the first: add the "
                         "losses, and call backward() once, or pass.backward(loss)"));
    if (on_device_) return nullptr;
    const bool can = doubles() ? sum64_.tree.folds(world_.communicator()) : sum32_.tree.folds(world_.communicator());
    return can ? this : nullptr;
  }
  /// Of the bytes that this rank has sent for the latest step, the share that was on its way before backward() ended.
  double early_share() const { return sent_bytes_ > 0 ? double(early_bytes_) / double(sent_bytes_) : 0; }

  /// What a shard has left.
  void add(double loss) {
    if (on_device_)
      add_on_device(loss);
    else if (doubles())
      add(sum64_, loss);
    else
      add(sum32_, loss);
  }
  /// The next shard starts from where this one did.
  void start_anew() {
    if (doubles())
      put_back<double>(sum64_.running);
    else
      put_back<float>(sum32_.running);
    put_back<std::int64_t>(counters_);
    for (const auto& parameter : parameters_) parameter->zero_grad();
  }
  /// The mean over all shards of all ranks, to the network. Returns that of the loss.
  double finish() { return on_device_ ? finish_on_device() : doubles() ? finish(sum64_) : finish(sum32_); }

 private:
  template <class T>
  struct Sum {
    TreeSum<T> tree;
    std::vector<T> running;  // statistics of before the step
    std::vector<T> row;      // of the last shard, where parts of it leave before all is known
    std::vector<ButterflySum<T>> under_way;
    std::vector<std::vector<T>> memory;  // to be used again
  };
  /// Neighbouring parameters, which leave together.
  struct Bucket {
    std::size_t first, last;   // of parameters_
    std::size_t place, count;  // of their numbers in a row
    std::size_t whole = 0;     // how many of the parameters are
  };

  bool doubles() const { return parameters_.front()->any_value().index() == 1; }

  template <class T>
  void begin(Sum<T>& sum) {
    const std::int64_t first = std::int64_t{own_shards_} * world_.rank();
    sum.tree.begin(std::int64_t{own_shards_} * world_.size(), first, first + own_shards_);
    if (own_shards_ == 1) return;
    keep<T>(sum.running);
    keep<std::int64_t>(counters_);
  }
  template <class T>
  void add(Sum<T>& sum, double loss) {
    if (leaves_) return leave_rest(sum, loss);
    std::vector<T> row = sum.tree.take_spare();
    row.resize(row_count<T>());
    pack_front(row.data(), loss);
    pack(row.data() + front_count<T>(), 0, parameters_.size());
    sum.tree.add(std::move(row));
  }
  template <class T>
  double finish(Sum<T>& sum) {
    std::vector<T> row = leaves_ ? wait(sum) : sum.tree.over(world_.communicator());
    if (const Communicator* ranks = world_.communicator()) sent_bytes_ = ranks->bytes_sent() - bytes_before_;
    const T part = T(1) / T(own_shards_ * world_.size());
    parallel_ranges(std::int64_t(row.size()), 1 << 15,
                    [numbers = row.data(), part](std::int64_t first, std::int64_t last) {
                      for (std::int64_t i = first; i < last; ++i) numbers[i] *= part;
                    });
    const double loss = unpack(row);
    sum.tree.give_spare(std::move(row));
    return loss;
  }

  /// Calls f(tensor) for the buffers that hold T.
  template <class T, class F>
  void each_buffer(F&& f) {
    for (const auto& buffer : buffers_)
      if (auto* tensor = std::get_if<Tensor<T>>(&buffer->any_value())) f(*tensor);
  }

  // A row of numbers is what a shard has left: the loss, which parameters got a gradient, running statistics, and the
  // gradients.
  template <class T>
  std::size_t front_count() {
    std::size_t count = 1 + parameters_.size();
    each_buffer<T>([&](const Tensor<T>& tensor) { count += std::size_t(tensor.size()); });
    return count;
  }
  template <class T>
  std::size_t row_count() {
    std::size_t count = front_count<T>();
    for (const auto& parameter : parameters_) count += std::size_t(parameter->size());
    return count;
  }
  template <class T>
  void pack_front(T* to, double loss) {
    *to++ = T(loss);
    for (const auto& parameter : parameters_) *to++ = T(parameter->has_grad() ? 1 : 0);
    each_buffer<T>([&](const Tensor<T>& tensor) {
      copy_bytes(to, Device::cpu(), tensor.data(), tensor.device(), std::size_t(tensor.size()) * sizeof(T));
      to += tensor.size();
    });
  }
  template <class T>
  void pack(T* to, std::size_t first, std::size_t last) {
    for (std::size_t i = first; i < last; ++i) {
      Parameter& parameter = *parameters_[i];
      const std::int64_t size = parameter.size();
      if (parameter.has_grad() && size > 0) {
        const Tensor<T>& grad = parameter.template grad<T>();
        copy_bytes(to, Device::cpu(), grad.data(), grad.device(), std::size_t(size) * sizeof(T));
      } else {
        std::fill_n(to, size, T(0));
      }
      to += size;
    }
  }

  /// Gives the parameters and buffers what a row of sums says. Returns the loss.
  template <class T>
  double unpack(const std::vector<T>& row) {
    const T* got = row.data() + 1;
    const T* from = got + parameters_.size();
    each_buffer<T>([&](Tensor<T>& tensor) {
      copy_bytes(tensor.data(), tensor.device(), from, Device::cpu(), std::size_t(tensor.size()) * sizeof(T));
      from += tensor.size();
    });
    for (const auto& parameter : parameters_) {
      const std::int64_t size = parameter->size();
      parameter->zero_grad();
      if (*got++ > 0) {
        const auto target = parameter->template grad_target<T>();
        copy_bytes(target.data, parameter->device(), from, Device::cpu(), std::size_t(size) * sizeof(T));
      }
      from += size;
    }
    return double(row.front());
  }

  // ---- rows in a device's memory

  void add_on_device(double loss) {
    std::vector<float> front{float(loss)};
    std::vector<DevicePiece> pieces;
    for (const auto& parameter : parameters_) front.push_back(parameter->has_grad() ? 1.0f : 0.0f);
    each_buffer<float>([&](const Tensor<float>& tensor) { pieces.push_back({tensor.data(), tensor.size()}); });
    for (const auto& parameter : parameters_)
      pieces.push_back(
          {parameter->has_grad() ? std::as_const(parameter->grad<float>()).data() : nullptr, parameter->size()});
    device_->add(front, pieces);
  }
  double finish_on_device() {
    std::vector<float> front(1 + parameters_.size());
    const Device device = parameters_.front()->device();
    const float* from = device_->over(1.0f / float(own_shards_ * world_.size()), front) + front.size();
    const auto give = [&](float* to, std::int64_t size) {
      copy_bytes(to, device, from, device, std::size_t(size) * sizeof(float));
      from += size;
    };
    each_buffer<float>([&](Tensor<float>& tensor) { give(tensor.data(), tensor.size()); });
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      Parameter& parameter = *parameters_[i];
      parameter.zero_grad();
      if (front[1 + i] > 0)
        give(parameter.grad_target<float>().data, parameter.size());
      else
        from += parameter.size();
    }
    return double(front[0]);
  }

  // ---- gradients that leave while backward() runs

  void begin(std::span<const AnyTensor* const> parameters) override {
    if (doubles())
      begin_to_leave(sum64_);
    else
      begin_to_leave(sum32_);
    left_.clear();
    leaves_ = true;
    next_bucket_ = 0;
    std::unordered_map<const AnyTensor*, bool> used;
    for (const AnyTensor* parameter : parameters) used[parameter] = true;
    for (const auto& parameter : parameters_)
      if (!used.contains(&parameter->any_value())) whole(&parameter->any_value());
    step_done();
  }
  void whole(const AnyTensor* parameter) override {
    const auto found = bucket_of_.find(parameter);
    if (found != bucket_of_.end()) ++buckets_[found->second].whole;
  }
  /// In the order of the buckets, so that all ranks send in the same one.
  void step_done() override {
    while (next_bucket_ < buckets_.size()) {
      const Bucket& bucket = buckets_[next_bucket_];
      if (bucket.whole < bucket.last - bucket.first) break;
      for (std::size_t i = bucket.first; i < bucket.last; ++i) left_.emplace_back(i, LeftGradient(*parameters_[i]));
      if (doubles())
        leave(sum64_, bucket);
      else
        leave(sum32_, bucket);
      ++next_bucket_;
    }
    for (auto& sum : sum32_.under_way) sum.advance();
    for (auto& sum : sum64_.under_way) sum.advance();
  }

  /// Cuts the parameters into buckets. The first ones, whose gradients are the last, belong to none: they go with the
  /// row's front.
  template <class T>
  void begin_to_leave(Sum<T>& sum) {
    buckets_.clear();
    bucket_of_.clear();
    std::size_t place = row_count<T>(), last = parameters_.size(), count = 0;
    for (std::size_t i = parameters_.size(); i-- > 0;) {
      count += std::size_t(parameters_[i]->size());
      if (count * sizeof(T) < bucket_bytes_ || i == 0 || buckets_.size() == most_buckets) continue;
      place -= count;
      for (std::size_t k = i; k < last; ++k) bucket_of_[&parameters_[k]->any_value()] = buckets_.size();
      buckets_.push_back({i, last, place, count});
      last = i;
      count = 0;
    }
    sum.row = sum.tree.take_spare();
    sum.row.resize(row_count<T>());
    sum.under_way.clear();
  }
  template <class T>
  void leave(Sum<T>& sum, const Bucket& bucket) {
    pack(sum.row.data() + bucket.place, bucket.first, bucket.last);
    leave(sum, 1 + int(sum.under_way.size()), bucket.place, bucket.count);
  }
  template <class T>
  void leave(Sum<T>& sum, int channel, std::size_t place, std::size_t count) {
    std::vector<T> memory;
    if (!sum.memory.empty()) {
      memory = std::move(sum.memory.back());
      sum.memory.pop_back();
    }
    sum.under_way.emplace_back(*world_.communicator(), channel, sum.tree.fold(sum.row, place, count),
                               std::move(memory));
  }
  /// After backward(): what has not left.
  template <class T>
  void leave_rest(Sum<T>& sum, double loss) {
    early_bytes_ = world_.communicator()->bytes_sent() - bytes_before_;
    if (next_bucket_ != buckets_.size())
      throw Error(concat(who_, ": backward() has ended before its last step, and the step cannot go on"));
    for (const auto& [i, gradient] : left_)
      if (!gradient.unchanged(*parameters_[i]))
        throw Error(concat(who_, ": the gradient of '", parameters_[i].name(),
                           "' has changed after it was sent to the other ranks: nothing may change gradients between "
                           "backward() and reduce_gradients(), and a step of a tape has to name, behind record(...), "
                           "the parameters whose gradients it writes"));
    left_.clear();
    const std::size_t front = front_count<T>(), last = buckets_.empty() ? parameters_.size() : buckets_.back().first;
    const std::size_t end = buckets_.empty() ? sum.row.size() : buckets_.back().place;
    pack_front(sum.row.data(), loss);
    pack(sum.row.data() + front, 0, last);
    leave(sum, 0, 0, end);
  }
  template <class T>
  std::vector<T> wait(Sum<T>& sum) {
    // The last one first: it is small, and on the channel where a rank is noticed that does something else.
    for (std::size_t i = sum.under_way.size(); i-- > 0;)
      while (!sum.under_way[i].complete()) {
        for (ButterflySum<T>& each : sum.under_way) each.advance();
        if (!sum.under_way[i].complete()) sum.under_way[i].wait_for_message();
      }
    for (ButterflySum<T>& done : sum.under_way) sum.memory.push_back(done.take_memory());
    sum.under_way.clear();
    leaves_ = false;
    return sum.tree.folded(std::move(sum.row));
  }

  template <class T>
  void keep(std::vector<T>& kept) {
    kept.clear();
    each_buffer<T>([&](const Tensor<T>& tensor) {
      const std::size_t at = kept.size();
      kept.resize(at + std::size_t(tensor.size()));
      copy_bytes(kept.data() + at, Device::cpu(), tensor.data(), tensor.device(),
                 std::size_t(tensor.size()) * sizeof(T));
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

  std::string_view who_;
  World world_;
  int own_shards_ = 1;
  std::vector<LeafPointer<Parameter>> parameters_;
  std::vector<LeafPointer<Buffer>> buffers_;
  Sum<float> sum32_;
  Sum<double> sum64_;
  std::vector<std::int64_t> counters_;  // such as num_batches_tracked: a step counts once

  static constexpr std::size_t most_buckets = 16000;  // as many as a communicator has channels
  std::size_t bucket_bytes_ = std::size_t{1} << 20, next_bucket_ = 0;
  std::vector<Bucket> buckets_;
  std::unordered_map<const AnyTensor*, std::size_t> bucket_of_;
  std::vector<std::pair<std::size_t, LeftGradient>> left_;
  bool leaves_ = false, on_device_ = false;
  std::unique_ptr<DeviceSum> device_;
  std::int64_t bytes_before_ = 0, early_bytes_ = 0, sent_bytes_ = 0;
};

}}}  // namespace strata::STRATA_ABI::detail
