// What the shards of a batch, run in turns on one network, make of it: buffers and gradients of each; and which modules
// look at the whole batch (nn/protocol.hpp), so that they must be run so.
//
//     ShardStates states(parameters, buffers, 4);
//     { const ShardStates::Buffers of_one(states, 2, layer); layer(pass, x); }    // with shard 2's running statistics
//     { const ShardStates::Gradients of_one(states, 2); pass.backward(loss); }
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/batch_group.hpp"
#include "strata/autograd/parameter.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/nn/protocol.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

// ---- whether a module holds a layer that looks at the whole batch

template <class M>
constexpr bool holds_batch_layer();
template <class Part>
struct HoldsBatchLayer {
  static constexpr bool value = LooksAtBatch<Part> || holds_batch_layer<Part>();
};
template <class Part>
  requires is_leaf<Part>
struct HoldsBatchLayer<Part> : std::false_type {};
template <class Part>
  requires(sequence<Part> || associative<Part>)
struct HoldsBatchLayer<Part> : HoldsBatchLayer<std::remove_cv_t<typename Part::value_type>> {};
template <owner Part>
struct HoldsBatchLayer<Part> : HoldsBatchLayer<std::remove_cv_t<typename Part::element_type>> {};
template <class Part, std::size_t N>
struct HoldsBatchLayer<Part[N]> : HoldsBatchLayer<Part> {};
template <class Part>
struct HoldsBatchLayer<std::optional<Part>> : HoldsBatchLayer<Part> {};
template <class... Parts>
struct HoldsBatchLayer<std::tuple<Parts...>> : std::bool_constant<(HoldsBatchLayer<Parts>::value || ...)> {};
template <class A, class B>
struct HoldsBatchLayer<std::pair<A, B>> : std::bool_constant<HoldsBatchLayer<A>::value || HoldsBatchLayer<B>::value> {};

struct AskForBatchLayer {
  bool found = false;
  template <class Part>
  constexpr void operator()(auto&&, Part&) {
    found = found || HoldsBatchLayer<std::remove_const_t<Part>>::value;
  }
};
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wundefined-var-template"
#endif
template <class M>
constexpr bool members_hold_batch_layer() {
  AskForBatchLayer ask;
  M::visit(Somewhere<M>::place.object, ask);
  return ask.found;
}
#if defined(__clang__)
#pragma clang diagnostic pop
#endif
/// A module whose list the compiler cannot read counts as one that holds none; where it does, the layer itself says
/// that it has been called for one shard alone.
template <class M>
constexpr bool holds_batch_layer() {
  if constexpr (LooksAtBatch<M>)
    return true;
  else if constexpr (!has_visit<M> || LeafLayer<M>)
    return false;
  else if constexpr (requires { typename std::bool_constant<members_hold_batch_layer<M>()>; })
    return members_hold_batch_layer<M>();
  else
    return false;
}

/// How many such layers there are below a module.
template <class M>
int count_batch_layers(M& module) {
  using Plain = std::remove_const_t<M>;
  int count = 0;
  const auto below = [&](const auto&, auto& part) { count += count_batch_layers(part); };
  if constexpr (LooksAtBatch<Plain>)
    ++count;
  else if constexpr (has_visit<Plain>)
    Plain::visit(module, below);
  else if constexpr (!is_leaf<Plain>)
    each_part(std::string(), module, below);
  return count;
}

// ---- what is of each shard

/// What shards that run in turns have made of a network's buffers and gradients. The network itself stays as it is.
class ShardStates {
 public:
  ShardStates(std::vector<Parameter*> parameters, std::vector<Buffer*> buffers, std::size_t shards)
      : parameters_(std::move(parameters)), buffers_(std::move(buffers)), of_shard_(shards) {
    for (std::size_t i = 0; i < buffers_.size(); ++i) place_[buffers_[i]] = i;
    for (OfShard& state : of_shard_) {
      state.gradients.resize(parameters_.size());
      for (const Buffer* buffer : buffers_) state.buffers.push_back(clone(buffer->any_value()));
    }
  }

  /// While it lives, the buffers of these modules are those of one shard.
  template <class... Ms>
  class Buffers {
   public:
    Buffers(ShardStates& states, std::size_t shard, Ms&... modules)
        : states_(states), shard_(shard), modules_(modules...) {
      exchange();
    }
    Buffers(const Buffers&) = delete;
    ~Buffers() { exchange(); }

   private:
    void exchange() {
      const auto one = [&]<class Leaf>(Leaf& leaf) {
        if constexpr (std::is_same_v<Leaf, Buffer>) states_.exchange(leaf, shard_);
      };
      std::apply([&](auto&... module) { (each_leaf(module, one), ...); }, modules_);
    }
    ShardStates& states_;
    std::size_t shard_;
    std::tuple<Ms&...> modules_;
  };

  /// While it lives, the gradients of the parameters, and where `with_buffers` all buffers, are those of one shard.
  class Gradients {
   public:
    Gradients(ShardStates& states, std::size_t shard, bool with_buffers = false)
        : states_(states), shard_(shard), with_buffers_(with_buffers) {
      exchange();
    }
    Gradients(const Gradients&) = delete;
    ~Gradients() { exchange(); }

   private:
    void exchange() {
      std::vector<Gradient>& gradients = states_.of_shard_[shard_].gradients;
      for (std::size_t i = 0; i < gradients.size(); ++i)
        states_.parameters_[i]->swap_grad(gradients[i].numbers, gradients[i].there);
      if (with_buffers_)
        for (Buffer* buffer : states_.buffers_) states_.exchange(*buffer, shard_);
    }
    ShardStates& states_;
    std::size_t shard_;
    bool with_buffers_;
  };

  /// The network's buffers become those of a shard.
  void keep_buffers_of(std::size_t shard) {
    for (std::size_t i = 0; i < buffers_.size(); ++i)
      std::visit([&]<class T>(Tensor<T>& to) { copy_numbers(to, std::get<Tensor<T>>(of_shard_[shard].buffers[i])); },
                 buffers_[i]->any_value());
  }

 private:
  struct Gradient {
    AnyTensor numbers;
    bool there = false;
  };
  struct OfShard {
    std::vector<Gradient> gradients;
    std::vector<AnyTensor> buffers;
  };
  void exchange(Buffer& buffer, std::size_t shard) {
    const auto found = place_.find(&buffer);
    if (found != place_.end()) std::swap(buffer.any_value(), of_shard_[shard].buffers[found->second]);
  }

  std::vector<Parameter*> parameters_;
  std::vector<Buffer*> buffers_;
  std::unordered_map<const Buffer*, std::size_t> place_;
  std::vector<OfShard> of_shard_;
};

/// The shards of one step: their passes, and what they make of the network.
struct LockstepShards {
  BatchGroup& group;
  ShardStates& states;
  std::vector<Train> passes;

  std::size_t size() const { return passes.size(); }
};

}}}  // namespace strata::STRATA_ABI::detail
