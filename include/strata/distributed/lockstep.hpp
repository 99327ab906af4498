// Runs a network's forward on several shards at once, for layers that look at the whole batch: each step on one shard
// after another, each in a pass of its own, before the next step. The way back is stopped where such a layer is, until
// all shards have come to it.
//
//     using Together = Var<C, Lockstep<float>>;              // in a Var's place: the shards' Vars
//
// A shard's steps are those that it would take alone, with the same kernels, so that its bits do not depend on how many
// others are in this process. Modules without such a layer are run as they are. Those that hold one are followed, as
// for the facts (nn/follow.hpp), and so must not read an image's numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/channels.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/operators.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/distributed/shard_states.hpp"
#include "strata/nn/fuse.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Stands where an element's type does. As a number it is a constant of an expression.
template <class T>
struct Lockstep {
  using is_symbol = void;
  using runs_as_images = void;
  double number = 0;

  constexpr Lockstep() = default;
  template <class N>
    requires std::is_arithmetic_v<N>
  constexpr explicit Lockstep(N value) : number(double(value)) {}
};

template <int C, class T>
class Var<C, Lockstep<T>> {
 public:
  static constexpr int channels = C;
  using value_type = Lockstep<T>;

  Var() = default;
  Var(detail::LockstepShards& run, std::vector<Var<C, T>> shards) : run_(&run), shards_(std::move(shards)) {}

  detail::LockstepShards& run() const { return *run_; }
  const Var<C, T>& shard(std::size_t i) const { return shards_[i]; }
  Tape* tape() const { return nullptr; }
  std::int64_t id() const { return -1; }

  /// Of each shard.
  Shape shape() const { return shards_.front().shape(); }
  std::int64_t n() const { return shape().n(); }
  std::int64_t h() const { return shape().h(); }
  std::int64_t w() const { return shape().w(); }
  std::int64_t size() const { return shape().size(); }
  Device device() const { return shards_.front().device(); }

  // What other variables have, and what is of no single shard.
  template <class Self = Var>
  const Image<C, T>& value() const {
    return refused<Self, Image<C, T>>();
  }
  template <class Self = Var>
  const T* data() const {
    return &refused<Self, T>();
  }

 private:
  template <class Self, class U>
  static const U& refused() {
    static_assert(detail::never<Self>,
                  "strata: a module that holds a layer which looks at the whole batch (SyncBatchNorm2d) runs on all "
                  "shards at once, and so its own forward cannot read an image's numbers: put what reads them into a "
                  "module of its own");
    return *static_cast<const U*>(nullptr);
  }

  detail::LockstepShards* run_ = nullptr;
  std::vector<Var<C, T>> shards_;
};

namespace detail {

/// What f(shard) gives for each shard, Vars all, as one.
template <class F>
auto each_shard(LockstepShards& run, F&& f) {
  using One = std::remove_cvref_t<decltype(f(std::size_t{}))>;
  std::vector<One> results;
  results.reserve(run.size());
  for (std::size_t i = 0; i < run.size(); ++i) results.push_back(f(i));
  return Var<One::channels, Lockstep<typename One::value_type>>(run, std::move(results));
}

// ---- an expression over one shard

template <class T>
auto of_shard(const ConstantNode<Lockstep<T>>& node, std::size_t) {
  return ConstantNode<T>{{}, T(node.number.number)};
}
template <int C, class T>
auto of_shard(const LeafNode<C, Lockstep<T>>& node, std::size_t shard) {
  return LeafNode<C, T>(node.x.shard(shard));
}
template <int C, class T>
auto of_shard(const RepeatedNode<C, Lockstep<T>>& node, std::size_t shard) {
  return RepeatedNode<C, T>(node.x.shard(shard));
}
template <class Function, class A>
auto of_shard(const UnaryNode<Function, A>& node, std::size_t shard) {
  auto a = of_shard(node.a, shard);
  return UnaryNode<Function, decltype(a)>(std::move(a), node.function);
}
template <class Function, class A, class B>
auto of_shard(const BinaryNode<Function, A, B>& node, std::size_t shard) {
  const auto with = [](auto a, auto b) {
    return BinaryNode<Function, decltype(a), decltype(b)>(std::move(a), std::move(b));
  };
  // The network is trained, so its parameters are not const.
  if constexpr (is_numbers_node<A>) {
    auto b = of_shard(node.b, shard);
    auto a = numbers_node<typename decltype(b)::value_type>(const_cast<Parameter&>(*node.a.numbers), b);
    return with(std::move(a), std::move(b));
  } else if constexpr (is_numbers_node<B>) {
    auto a = of_shard(node.a, shard);
    auto b = numbers_node<typename decltype(a)::value_type>(const_cast<Parameter&>(*node.b.numbers), a);
    return with(std::move(a), std::move(b));
  } else {
    auto a = of_shard(node.a, shard);
    return with(std::move(a), of_shard(node.b, shard));
  }
}

template <class Node>
LockstepShards* shards_of(const Node& node) {
  LockstepShards* run = nullptr;
  if constexpr (requires { node.x.run(); }) {
    run = &node.x.run();
  } else if constexpr (requires { node.a; }) {
    run = shards_of(node.a);
    if constexpr (requires { node.b; })
      if (run == nullptr) run = shards_of(node.b);
  }
  return run;
}

/// Of Conv2d, ReLU, SyncBatchNorm2d, ReLU in a Sequential: what stands before the normalisation.
struct NothingBefore {};

}  // namespace detail

/// What each step of a forward does to all shards.
template <class T>
struct SymbolicRun<Lockstep<T>> {
  template <int C>
  using All = Var<C, Lockstep<T>>;

  /// A module without a layer that looks at the whole batch.
  template <class M, class P, int C>
    requires(!detail::holds_batch_layer<std::remove_const_t<M>>())
  static auto module(M& module, P&, const All<C>& x) {
    return detail::each_shard(x.run(), [&](std::size_t i) {
      const detail::ShardStates::Buffers buffers(x.run().states, i, module);
      return detail::call(module, x.run().passes[i], x.shard(i));
    });
  }

  template <class M, class P, int C>
  static auto layer(M& module, P& pass, const All<C>& x) {
    using Plain = std::remove_const_t<M>;
    if constexpr (!detail::holds_batch_layer<Plain>())
      return SymbolicRun::module(module, pass, x);
    else if constexpr (detail::LooksAtBatch<Plain>)
      return normalised(detail::NothingBefore(), module, x, Activation::none, Activation::none);
    else
      return Plain::forward(module, pass, x);
  }

  /// Layers of a Sequential, from I on, that run as one step.
  template <std::size_t I, detail::FusedRun Run, class Layers, int C>
  static auto fused(Layers& layers, const All<C>& x) {
    auto& first = std::get<I>(layers);
    constexpr std::size_t norm = I + (Run.affines == 0 ? 0 : 1 + (Run.between != Activation::none));
    if constexpr (detail::LooksAtBatch<std::tuple_element_t<norm, Layers>>) {
      if constexpr (norm == I)
        return normalised(detail::NothingBefore(), first, x, Activation::none, Run.behind);
      else
        return normalised(first, std::get<norm>(layers), x, Run.between, Run.behind);
    } else {
      return [&]<std::size_t... K>(std::index_sequence<K...>) {
        return detail::each_shard(x.run(), [&](std::size_t i) {
          const detail::ShardStates::Buffers buffers(x.run().states, i, std::get<I + K>(layers)...);
          Train& pass = x.run().passes[i];
          return detail::run_or_forget(
              pass, x.shard(i), [&] { return detail::fused_forward<I, Run>(layers, pass, x.shard(i)); },
              std::get<I + K>(layers)...);
        });
      }(std::make_index_sequence<Run.length>{});
    }
  }

  template <class E>
  static auto value(const E& expression) {
    detail::LockstepShards& run = *detail::shards_of(expression);
    return detail::each_shard(
        run, [&](std::size_t i) { return detail::var_in(run.passes[i], detail::of_shard(expression, i)); });
  }
  template <int... C>
  static auto cat(const All<C>&... x) {
    return several([](auto& pass, const auto&... one) { return strata::cat(pass, one...); }, x...);
  }
  template <int Start, int Length, int C>
  static auto narrow(const All<C>& x) {
    return several([](auto& pass, const auto& one) { return strata::narrow<Start, Length>(pass, one); }, x);
  }
  template <int C, int D>
  static auto expand_as(const All<C>& one_pixel, const All<D>& like) {
    return several([](auto& pass, const auto& s, const auto& x) { return strata::expand_as(pass, s, x); }, one_pixel,
                   like);
  }
  template <int Out, class Op, int... C>
  static auto op(const Op& which, const All<C>&... x) {
    return several(
        [&](auto& pass, const auto&... one) {
          if constexpr (sizeof...(C) == 1)
            return detail::apply_operator<Out>(pass, which, one...);
          else
            return which.run(pass, one...);
        },
        x...);
  }

 private:
  template <class F, int First, int... C>
  static auto several(F&& f, const All<First>& first, const All<C>&... x) {
    detail::LockstepShards& run = first.run();
    return detail::each_shard(run, [&](std::size_t i) { return f(run.passes[i], first.shard(i), x.shard(i)...); });
  }

  /// `conv`, if there is one, an activation, `norm` and another activation: all shards up to the statistics, then all
  /// from there.
  template <class Conv, class Norm, int C>
  static auto normalised(Conv&& conv, Norm& norm, const All<C>& x, Activation between, Activation behind) {
    using Before = std::remove_cvref_t<Conv>;
    constexpr bool alone = std::is_same_v<Before, detail::NothingBefore>;
    constexpr int channels = Norm::io::in;
    detail::LockstepShards& run = x.run();
    if constexpr (!alone) {
      if constexpr (Before::io::in != C) {
        static_assert(sizeof(detail::image_fits<Before, C, Before::io::in>) > 0);
        return All<channels>();
      } else {
        return normalised_shards<channels>(
            run, norm, x, between, behind,
            [&](std::size_t i, auto statistics) {
              return Before::forward(conv, run.passes[i], x.shard(i), between, statistics);
            },
            conv, norm);
      }
    } else if constexpr (channels != C) {
      static_assert(sizeof(detail::image_fits<Norm, C, channels>) > 0);
      return All<channels>();
    } else {
      return normalised_shards<channels>(
          run, norm, x, between, behind,
          [&](std::size_t i, auto statistics) {
            const Var<C, T>& one = x.shard(i);
            cpu::batch_norm_statistics(one.size() / C, C, one.data(), statistics.mean, statistics.variance);
            return one;
          },
          norm);
    }
  }

  template <int C, class Norm, class X, class Statistics, class... Learns>
  static All<C> normalised_shards(detail::LockstepShards& run, Norm& norm, const X& x, Activation between,
                                  Activation behind, Statistics&& up_to_statistics, Learns&... learn) {
    const auto all_learn = [&] { return (detail::learns(learn) || ...); };
    std::vector<std::unique_ptr<detail::ForgetSteps>> forgets;
    if (x.shard(0).id() < 0 && !all_learn())
      for (Train& pass : run.passes) forgets.push_back(std::make_unique<detail::ForgetSteps>(*pass.tape()));
    const bool constant = !forgets.empty();

    const std::size_t count = Norm::part_numbers;
    Scratch<double> memory(2 * std::size_t(C) * run.size());
    const auto statistics = [&](std::size_t i) {
      double* const mean = memory.data() + 2 * std::size_t(C) * i;
      return ChannelStatistics{mean, mean + C};
    };
    std::vector<double> own(run.size() * count);
    std::vector<Var<C, T>> inputs, results;
    for (std::size_t i = 0; i < run.size(); ++i) {
      Norm::check_together(norm, x.shard(i).device());
      inputs.push_back(up_to_statistics(i, statistics(i)));
      Norm::describe(inputs[i], statistics(i), own.data() + i * count);
    }
    const bool rectified = between == Activation::relu;
    const bool by_itself = Norm::alone(norm, run.passes.front());
    const std::vector<double> all = by_itself ? std::vector<double>() : run.group.gather(own);
    const auto meeting = by_itself ? nullptr : Norm::meeting(run.group);
    for (std::size_t i = 0; i < run.size(); ++i) {
      const detail::ShardStates::Buffers buffers(run.states, i, norm);
      Train& pass = run.passes[i];
      Var<C, T> y = by_itself ? Norm::forward_with(norm, pass, inputs[i], statistics(i), behind, rectified)
                              : Norm::forward_in_batch(norm, pass, inputs[i], all, meeting, int(i), behind, rectified);
      results.push_back(constant ? y.on(nullptr) : y);
    }
    return All<C>(run, std::move(results));
  }
};

}}  // namespace strata::STRATA_ABI
