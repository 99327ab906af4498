// A module whose inner images are not kept for the way back: a training pass keeps M's input alone and runs M again
// when the gradient comes back to it (Chen et al., 2016, "Training deep nets with sublinear memory cost"). A step then
// takes about a third more time and, in a network of N such blocks, the memory of one block and N inputs.
//
//     st::Repeat<16, st::Checkpoint<Block>>                       // in a list of layers
//     st::Checkpoint<st::Sequential<...>> stage;                  // or as a member of a module, called as any other
//
// Results, gradients and running statistics have the same bits as with M in its place: random numbers are counted, so a
// dropout drops the same elements again, and batch norm moves its running statistics the first time alone. Parameters
// are called as M's, so files fit with and without; fold, ONNX, tiles, summary and training_bytes look through it.
//
// What it wraps must be a step of the network with one input: a module that reads an image of the pass from elsewhere
// is an Error. A single layer is not joined with its neighbours as in a Sequential (nn/fuse.hpp): wrap blocks. A module
// of your own that changes itself in a training pass asks pass.recomputing() first.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/flush_denormals.hpp"
#include "strata/nn/module.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/tensor/pool_allocator.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// For Tape::record: all parameters of a module, which the step reads again.
template <class M>
struct ParametersOf {
  M& module;
};
template <class M>
void keep_for_backward(KeptList& list, const ParametersOf<M>& parameters) {
  auto keep = [&](auto& leaf) {
    if constexpr (requires { leaf.requires_grad; }) list.emplace_back(leaf);
  };
  each_leaf(parameters.module, keep);
}

}  // namespace detail

template <class M>
class Checkpoint : public Layer<Checkpoint<M>> {
 public:
  using io = typename detail::IoOrKeeps<M>::type;
  using wraps = M;  ///< to all passes but a training one it is its body
  static constexpr bool has_state = detail::holds_state<M>;

  M body;

  static constexpr void visit(auto& self, auto&& f) { f("", self.body); }

  template <Pass P, int C, class T>
  static constexpr auto forward(auto& self, P& pass, Var<C, T> x) {
    if constexpr (Symbolic<Var<C, T>> && P::training && requires { x.symbol().run().checkpoint(0); }) {
      x.symbol().run().checkpoint(x.symbol().id());
      auto y = detail::call(self.body, pass, x);
      x.symbol().run().checkpoint(x.symbol().id(), y.symbol().id());
      return y;
    } else if constexpr (Symbolic<Var<C, T>> || !P::training) {
      return detail::call(self.body, pass, x);
    } else {
      return train(self, pass, x);
    }
  }

 private:
  template <int C, class T>
  static auto train(auto& self, Train& pass, const Var<C, T>& x) {
    if (pass.tape()->forgets()) return detail::call(self.body, pass, x);  // the one around it runs all again
    Train::Place place = pass.place();
    using Notes = std::vector<Tensor<double>>;
    if (place.notes == nullptr) {
      place.notes = std::allocate_shared<Notes>(PoolAllocator<Notes>());
      place.note = 0;
    }
    auto y = [&] {
      Train first = Train::from(place);
      first.tape()->forget_steps();
      const auto from = x.on(x.id() >= 0 ? first.tape() : nullptr);
      auto result = detail::call(self.body, first, from);
      pass.skip_to(first);
      if (result.id() < 0) return result;  // of no parameter and not of x
      if (result.tape() != first.tape()) detail::throw_of_another_pass("Checkpoint");
      if constexpr (std::is_same_v<decltype(result), Var<C, T>>)
        if (result.id() == from.id()) return x;  // M does nothing
      return result.on(pass.tape());
    }();
    if (y.id() < 0 || y.id() == x.id()) return y;
    place.recomputing = true;
    pass.tape()->record(
        y.id(),
        [&self, x, id = y.id(), place, flush = FlushDenormals::on()](Tape& tape) {
          Train again = Train::from(place);
          Tape& own = *again.tape();
          const auto from = x.on(x.id() >= 0 ? &own : nullptr);
          const std::int64_t result = [&] {
            const FlushDenormals as_before(flush);
            return detail::call(self.body, again, from).id();
          }();
          // The gradients as they are, so that what adds to them rounds as without a Checkpoint.
          own.take_gradient(tape, id, result);
          if (x.id() >= 0) own.take_gradient(tape, x.id(), from.id());
          own.backward();
          if (x.id() >= 0) tape.take_gradient(own, from.id(), x.id());
        },
        x, detail::ParametersOf<M>{self.body});
    return y;
  }

  static_assert(detail::check_module<M>::listed);
};

}  // namespace strata::inline STRATA_ABI
