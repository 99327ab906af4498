// What the shards of a step leave at a network, summed over all of all ranks: gradients, running statistics, the loss.
//
//     ShardSum sum("DataParallel");
//     sum.list(net);
//     sum.begin(world, own_shards);
//     ... sum.add(loss); sum.start_anew(); ... sum.add(loss);            // one shard after another
//     const double mean = sum.finish();                                  // the network then holds the means
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/batch_group.hpp"
#include "strata/autograd/parameter.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/core/parallel.hpp"
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

class ShardSum {
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

  /// Of as many shards on each rank.
  void begin(const World& world, int own_shards) {
    for (const auto& parameter : parameters_)
      if (parameter->has_grad())
        throw Error(concat(who_, ": '", parameter.name(),
                           "' holds a gradient already: call the optimiser's zero_grad() before the "
                           "step, not within it"));
    world_ = world;
    own_shards_ = own_shards;
    if (doubles())
      begin(sum64_);
    else
      begin(sum32_);
  }
  /// What a shard has left.
  void add(double loss) {
    if (doubles())
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
  double finish() { return doubles() ? finish(sum64_) : finish(sum32_); }

 private:
  template <class T>
  struct Sum {
    TreeSum<T> tree;
    std::vector<T> running;  // statistics of before the step
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
    std::vector<T> row = sum.tree.take_spare();
    pack(row, loss);
    sum.tree.add(std::move(row));
  }
  template <class T>
  double finish(Sum<T>& sum) {
    std::vector<T> row = sum.tree.over(world_.communicator());
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

  /// What a shard has left: gradients, running statistics, which parameters got a gradient, the loss. One row of
  /// numbers.
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

  /// Gives the parameters and buffers what a row of sums says. Returns the loss.
  template <class T>
  double unpack(const std::vector<T>& row) {
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
    return double(row.back());
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
};

}}}  // namespace strata::STRATA_ABI::detail
