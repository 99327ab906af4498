// Runs a network's forward on an image without numbers, to learn what it does: Var<C, Followed> stands where Var<C>
// does, each layer says what it does to it (nn/following.hpp), and branches, loops, shared layers and layers made on
// the spot come out as they are. The compiler can do it too, where the module's call operator is constexpr.
//
// A forward that cannot be followed (it reads an image's numbers, uses custom_op, or takes Var<C> alone) is an error,
// in one sentence. Its module says what it does by itself, as a layer does: `static constexpr void trace(auto& t)`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/channels.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Stands where an element's type does. As a number it is a constant of an expression, whatever it is.
struct Followed {
  using is_symbol = void;
  constexpr Followed() = default;
  template <class T>
    requires std::is_arithmetic_v<T>
  constexpr explicit Followed(T) {}
};

namespace detail {

/// A handle on an image of a run.
class FollowedValue {
 public:
  constexpr FollowedValue() = default;
  constexpr FollowedValue(Following* run, int id) : run_(run), id_(id) { run_->retain(id_); }
  constexpr FollowedValue(const FollowedValue& other) : run_(other.run_), id_(other.id_) {
    if (run_ != nullptr) run_->retain(id_);
  }
  constexpr FollowedValue(FollowedValue&& other) noexcept : run_(std::exchange(other.run_, nullptr)), id_(other.id_) {}
  constexpr FollowedValue& operator=(FollowedValue other) noexcept {
    std::swap(run_, other.run_);
    std::swap(id_, other.id_);
    return *this;
  }
  constexpr ~FollowedValue() {
    if (run_ != nullptr) run_->release(id_);
  }

  constexpr Following& run() const { return *run_; }
  constexpr int id() const { return id_; }
  constexpr const FollowedImage& image() const { return run_->image(id_); }

 private:
  Following* run_ = nullptr;
  int id_ = -1;
};

}  // namespace detail

template <int C>
class Var<C, Followed> {
 public:
  static constexpr int channels = C;
  using value_type = Followed;

  constexpr Var() = default;
  constexpr explicit Var(detail::FollowedValue symbol) : symbol_(std::move(symbol)) {}
  constexpr const detail::FollowedValue& symbol() const { return symbol_; }
  constexpr Tape* tape() const { return nullptr; }
  constexpr std::int64_t id() const { return -1; }

  constexpr std::int64_t n() const { return symbol_.run().n(); }
  constexpr std::int64_t h() const { return extent(symbol_.image().h); }
  constexpr std::int64_t w() const { return extent(symbol_.image().w); }
  constexpr std::int64_t size() const { return n() * C * h() * w(); }
  constexpr Shape shape() const { return {n(), C, h(), w()}; }

  // A module that says what it is as an ONNX operator, and nothing else, can be run, but nothing is known of what it
  // does.
  template <int Out, class... Rest>
  constexpr Var<Out, Followed> node(const std::string&, Rest&&...) const {
    detail::Following& run = symbol_.run();
    run.meet_the_unknown();
    const int id = symbol_.id();
    return Var<Out, Followed>(detail::FollowedValue(&run, run.join({&id, 1}, Out, "", true)));
  }
  template <int Out, class... Rest>
  constexpr Var<Out, Followed> node_of_other_size(const std::string& op, Rest&&...) const {
    symbol_.run().fail(
        [&] { return concat("a module is the ONNX operator ", op, ", of which the extents are not known"); });
    return node<Out>(op);
  }
  template <class Leaf>
  constexpr std::string tensor(const Leaf&, std::vector<std::int64_t> = {}) const { return {}; }
  template <class T>
  constexpr std::string constant(std::vector<std::int64_t>, std::vector<T>) const { return {}; }

  // What ordinary variables have and an image without numbers has not.
  template <class Self = Var>
  const Image<C>& value() const { return refused<Self, Image<C>>(); }
  template <class Self = Var>
  const float* data() const { return &refused<Self, float>(); }
  template <class Self = Var>
  MemoryPool& pool() const { return const_cast<MemoryPool&>(refused<Self, MemoryPool>()); }
  template <class Self = Var>
  Device device() const { return refused<Self, Device>(); }

 private:
  constexpr std::int64_t extent(std::int64_t extent) const {
    symbol_.run().ask_for_extents();
    return extent;
  }
  template <class Self, class T>
  static const T& refused() {
    static_assert(detail::never<Self>,
                  "strata: a module whose forward reads an image's numbers cannot be followed for its facts (summary, "
                  "receptive_field, multiply_adds, memory, tiles): have it say what it does, in "
                  "'static constexpr void trace(auto& t)' (nn/following.hpp)");
    return *static_cast<const T*>(nullptr);
  }

  detail::FollowedValue symbol_;
};

namespace detail {

/// The images an expression is of.
template <class Node>
constexpr void collect_leaves(const Node& node, std::vector<FollowedValue>& leaves) {
  if constexpr (requires { node.x; }) {
    leaves.push_back(node.x.symbol());
  } else if constexpr (requires { node.a; }) {
    collect_leaves(node.a, leaves);
    if constexpr (requires { node.b; }) collect_leaves(node.b, leaves);
  }
}
template <int C>
constexpr Var<C, Followed> join_followed(const std::vector<FollowedValue>& leaves, const char* what,
                                         bool keeps_inputs) {
  std::vector<int> ids;
  for (const FollowedValue& leaf : leaves) ids.push_back(leaf.id());
  Following& run = leaves.front().run();
  return Var<C, Followed>(FollowedValue(&run, run.join(ids, C, what, keeps_inputs)));
}

/// A module that says what it does, instead of being followed.
template <class M>
concept states_facts = requires(LayerFacts& t) { M::trace(t); };

template <class M, int C>
constexpr int channels_after() {
  if constexpr (fixes_channels<M>)
    return M::io::out;
  else
    return C;
}

template <class M, int C>
constexpr Var<channels_after<M, C>(), Followed> followed_layer(const M& module, const Var<C, Followed>& x) {
  Following& run = x.symbol().run();
  LayerFacts facts(run, x.symbol().id(), &layer_text<M>);
  M::trace(facts);
  constexpr int out = channels_after<M, C>();
  facts.channels(out);
  const int input = x.symbol().id(), output = facts.finish();
  const auto [in_training, fused] = run.take_next();
  if (run.is_told()) {
    FollowedStep step{.module = &module,
                      .type = &type_mark<M>,
                      .name = &layer_text<M>,
                      .inputs = {&input, 1},
                      .output = output,
                      .multiply_adds = facts.cost(),
                      .in_training = in_training,
                      .fused = fused};
    if constexpr (requires { M::memory(run.shape(input)); }) step.memory = M::memory(run.shape(input));
    if constexpr (IdleInInference<M>) step.memory.gives_its_input = true;
    run.tell(step);
  }
  return Var<out, Followed>(FollowedValue(&run, output));
}

}  // namespace detail

/// What each step of a forward does to an image without numbers.
template <>
struct SymbolicRun<Followed> {
  /// A module that states its facts.
  template <class M, class P, int C>
    requires detail::states_facts<std::remove_const_t<M>>
  static constexpr auto module(M& module, P&, const Var<C, Followed>& x) {
    using Plain = std::remove_const_t<M>;
    if constexpr (detail::fixes_channels<Plain>) {
      if constexpr (Plain::io::in != C) {
        static_assert(sizeof(detail::image_fits<Plain, C, Plain::io::in>) > 0);
        return Var<Plain::io::out, Followed>();
      } else {
        return detail::followed_layer(module, x);
      }
    } else {
      return detail::followed_layer(module, x);
    }
  }

  /// A layer, or a container, which is followed.
  template <class M, class P, int C>
  static constexpr auto layer(M& module, P& pass, Var<C, Followed> x) {
    using Plain = std::remove_const_t<M>;
    if constexpr (detail::states_facts<Plain>) {
      return detail::followed_layer(module, x);
    } else {
      static_assert(!detail::LeafLayer<Plain>,
                    "strata: this layer does not say what it does: give it 'static constexpr void trace(auto& t)' "
                    "(nn/following.hpp)");
      return Plain::forward(module, pass, std::move(x));
    }
  }

  template <class E>
  static constexpr Var<E::channels, Followed> value(const E& expression) {
    std::vector<detail::FollowedValue> leaves;
    detail::collect_leaves(expression, leaves);
    return detail::join_followed<E::channels>(leaves, "arithmetic", true);
  }

  template <int... C>
  static constexpr auto cat(const Var<C, Followed>&... x) {
    return detail::join_followed<(C + ...)>({x.symbol()...}, "cat", false);
  }

  template <int Start, int Length, int C>
  static constexpr Var<Length, Followed> narrow(const Var<C, Followed>& x) {
    static_assert(Start >= 0 && Length > 0 && Start + Length <= C,
                  "strata::narrow<Start, Length>: the image has no such channels");
    return detail::join_followed<Length>({x.symbol()}, "narrow", false);
  }

  template <int C, int D>
  static constexpr Var<C, Followed> expand_as(const Var<C, Followed>& one_pixel, const Var<D, Followed>& like) {
    using detail::Reads;
    detail::Following& run = like.symbol().run();
    const detail::FollowedImage& s = one_pixel.symbol().image();
    if (s.h != 1 || s.w != 1)
      run.fail([&] { return concat("expand_as: an image of ", s.h, " x ", s.w, " pixels; wanted 1 x 1"); });
    detail::FollowedImage y = like.symbol().image();
    y.c = C;
    const int out = run.add_image(y);
    run.add_link(one_pixel.symbol().id(), out, {.way = Reads::Way::all});
    const std::array<int, 2> inputs{one_pixel.symbol().id(), like.symbol().id()};
    run.tell({.inputs = inputs, .output = out, .memory = {.keeps_input = false}});
    return Var<C, Followed>(detail::FollowedValue(&run, out));
  }

  /// Of its first image, whose facts it states as a layer does; of the others it takes the
  /// extents alone.
  template <int Out, class Op, int C, int... Others>
  static constexpr auto op(const Op& which, const Var<C, Followed>& x, const Var<Others, Followed>&... others) {
    detail::Following& run = x.symbol().run();
    detail::LayerFacts facts(run, x.symbol().id(), &Op::name);
    if constexpr (sizeof...(Others) > 0)
      which.trace(facts, others.symbol().image()...);
    else
      which.trace(facts);
    facts.channels(Out);
    const int output = facts.finish();
    (run.add_link(others.symbol().id(), output, {}), ...);  // as long as they are there, so is the result
    const std::array<int, 1 + sizeof...(Others)> inputs{x.symbol().id(), others.symbol().id()...};
    run.tell({.inputs = inputs,
              .output = output,
              .memory = {.keeps_input = Op::keeps_input, .keeps_output = Op::keeps_output}});
    return Var<Out, Followed>(detail::FollowedValue(&run, output));
  }
};

namespace detail {

template <class Net>
constexpr int input_channels() {
  if constexpr (requires { Net::io::in; })
    return Net::io::in;
  else
    return 1;
}

/// Follows a network on an image of h x w pixels. Gives the number of its result.
template <class Net, class P>
constexpr int follow(Following& run, Net& net, P& pass, std::int64_t h, std::int64_t w) {
  constexpr int in = input_channels<std::remove_const_t<Net>>();
  const Var<in, Followed> x(FollowedValue(&run, run.add_image({.c = in, .h = h, .w = w})));
  return call(net, pass, x).symbol().id();
}

}  // namespace detail

}}  // namespace strata::STRATA_ABI
