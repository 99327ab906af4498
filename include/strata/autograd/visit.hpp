// Walks a module's parameters and buffers by name, from the one list each module gives:
//
//     static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); f("scale", self.scale); }
//
// A member is a Parameter, a Buffer, a module, or an array, std::array, std::vector, std::deque, std::list,
// std::optional, std::unique_ptr, std::pair or std::tuple of them. Names join with dots as in PyTorch: "conv.weight",
// "blocks.3.conv.weight". A list that forgets a member, or names one twice, is an error of the compiler's for an
// aggregate of at most 32 members whose visit() is constexpr, and an Error when the list runs for other modules
// (autograd/listed.hpp says what is found).
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/listed.hpp"
#include "strata/autograd/parameter.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

// A named type and no lambda: nvcc 13.0 calls a concept false when its requires-expression holds a lambda.
struct AcceptAll {
  constexpr void operator()(auto&&, auto&&) const {}
};

template <class M>
concept has_visit = requires(M& module, AcceptAll probe) { M::visit(module, probe); };

template <class T>
inline constexpr bool is_leaf = std::is_same_v<T, Parameter> || std::is_same_v<T, Buffer>;

/// A sequence of things that are all alike: std::array, std::vector, std::deque, std::list and what else is like them.
template <class T>
concept sequence = !has_visit<T> && requires(T& t) {
  typename T::value_type;
  t.begin() != t.end();
  t.size();
} && !requires { typename T::key_type; } && !std::is_same_v<T, std::remove_cv_t<typename T::value_type>>;
template <class T>
concept associative = !has_visit<T> && requires { typename T::key_type; } && !std::is_same_v<T, typename T::value_type>;
/// A smart pointer.
template <class T>
concept owner = !has_visit<T> && requires(T& t) { typename T::element_type; t.get(); *t; };

// The type that a module gives to Layer<Self>; void for another type.
template <class Self>
Self layer_self(const LayerOf<Self>&);
void layer_self(...);
template <class M>
using LayerSelf = decltype(layer_self(std::declval<const M&>()));

/// Whether a module itself says what it holds, and has not inherited the words of one that it extends.
template <class M>
concept says_has_state =
    requires { M::has_state; } && (std::is_void_v<LayerSelf<M>> || std::is_same_v<LayerSelf<M>, M>);

/// Whether a member of this type may hold parameters or buffers. A module that says has_state = false does not.
template <class T>
struct HoldsState : std::bool_constant<is_leaf<T> || has_visit<T>> {};
template <says_has_state T>
struct HoldsState<T> : std::bool_constant<T::has_state> {};
template <class T>
  requires(sequence<T> || associative<T>)
struct HoldsState<T> : HoldsState<std::remove_cv_t<typename T::value_type>> {};
template <owner T>
struct HoldsState<T> : HoldsState<std::remove_cv_t<typename T::element_type>> {};
template <class T, std::size_t N>
struct HoldsState<T[N]> : HoldsState<T> {};
template <class T>
struct HoldsState<std::optional<T>> : HoldsState<T> {};
template <class... Ts>
struct HoldsState<std::tuple<Ts...>> : std::bool_constant<(HoldsState<std::remove_cvref_t<Ts>>::value || ...)> {};
template <class A, class B>
struct HoldsState<std::pair<A, B>>
    : std::bool_constant<HoldsState<std::remove_cvref_t<A>>::value || HoldsState<std::remove_cvref_t<B>>::value> {};
template <class... Ts>
struct HoldsState<std::variant<Ts...>> : std::bool_constant<(HoldsState<Ts>::value || ...)> {};
template <class T>
inline constexpr bool holds_state = HoldsState<std::remove_cvref_t<T>>::value;

/// A member of no name lends its members its module's: Checkpoint<M>'s are called as M's are.
inline std::string join(const std::string& prefix, std::string_view name) {
  if (name.empty()) return prefix;
  return prefix.empty() ? std::string(name) : prefix + "." + std::string(name);
}
inline std::string join(const std::string& prefix, std::integral auto index) {
  return join(prefix, std::string_view(std::to_string(index)));
}

/// One error for a module whose list is wrong.
template <class M>
struct every_member_listed : decltype(list_error<M, HoldsState>())::type {
  static_assert(std::is_void_v<LayerSelf<M>> || std::is_base_of_v<LayerSelf<M>, M>,
                "strata: a module derives from Layer<Other>, where Other is another module: write 'struct Module : "
                "Layer<Module>' "
                "(read every_member_listed<Module> beside this message)");
};

/// Whether a list may name this: read Member in the compiler's text.
template <class Member>
struct can_be_listed {
  static_assert(
      !std::is_pointer_v<Member> && !associative<Member>,
      "strata: visit() lists a pointer or a map to modules, whose parameters would not be found: list the modules "
      "themselves, held by value, or by std::unique_ptr, std::optional or std::vector (read can_be_listed<Member>)");
  static_assert(
      !owner<Member> || !std::is_copy_constructible_v<Member>,
      "strata: visit() lists a module in a pointer that copies share: a copy of the network would train the original "
      "too; hold it by value or in a std::unique_ptr (read can_be_listed<Member>)");
};

template <class T>
constexpr bool points_to_state() {
  if constexpr (std::is_pointer_v<T>)
    return holds_state<std::remove_pointer_t<T>>;
  else
    return false;
}

/// Calls f(name, part) for what a member that is no module holds: the elements of a sequence, what an owner owns.
/// Nothing for an ordinary member, as a scale factor.
template <class Member, class F>
void each_part(const std::string& name, Member& member, F&& f) {
  using Plain = std::remove_const_t<Member>;
  if constexpr (points_to_state<Plain>()) {
    static_assert(sizeof(can_be_listed<Plain>) > 0);
  } else if constexpr (!holds_state<Plain>) {
  } else if constexpr (associative<Plain>) {
    static_assert(sizeof(can_be_listed<Plain>) > 0);
  } else if constexpr (sequence<Plain> || std::is_array_v<Plain>) {
    std::size_t i = 0;
    for (auto& element : member) f(join(name, i++), element);
  } else if constexpr (owner<Plain>) {
    static_assert(sizeof(can_be_listed<Plain>) > 0);
    using Element = typename Plain::element_type;  // of a const network const too
    if (member != nullptr)
      f(name, static_cast<std::conditional_t<std::is_const_v<Member>, const Element, Element>&>(*member));
  } else if constexpr (requires { member.has_value(); *member; }) {
    if (member.has_value()) f(name, *member);
  } else if constexpr (requires { std::tuple_size<Plain>::value; }) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (f(join(name, I), std::get<I>(member)), ...);
    }(std::make_index_sequence<std::tuple_size_v<Plain>>{});
  } else {
    static_assert(!holds_state<Plain>,
                  "strata: visit() lists a member of one of several types (a std::variant), whose parameters "
                  "would not be found: list what it holds");
  }
}

// Calls f(name, leaf) for every Parameter and Buffer below `member`.
template <class Member, class F>
void walk(const std::string& name, Member& member, F& f) {
  using Plain = std::remove_const_t<Member>;
  const auto part_of = [&](const auto& child, auto& part) { walk(join(name, child), part, f); };
  if constexpr (is_leaf<Plain>) {
    f(name, member);
  } else if constexpr (has_visit<Plain>) {
    static_assert(sizeof(every_member_listed<Plain>) > 0);
    if constexpr (!compared_by_compiler<Plain, HoldsState>() && !says_has_state<Plain>) {
      ListedParts listed;
      Plain::visit(member, AddToList<HoldsState>{listed});
      check_listed(listed, std::addressof(member), sizeof(Plain), type_text<Plain>());
    }
    Plain::visit(member, part_of);
  } else {
    each_part(name, member, [&](const std::string& part_name, auto& part) { walk(part_name, part, f); });
  }
}

// Calls f(leaf) for every Parameter and Buffer below `member`. Makes no names, which takes memory.
template <class Member, class F>
void each_leaf(Member& member, F& f) {
  using Plain = std::remove_const_t<Member>;
  if constexpr (is_leaf<Plain>)
    f(member);
  else if constexpr (has_visit<Plain>)
    Plain::visit(member, [&](const auto&, auto& part) { each_leaf(part, f); });
  else
    each_part(std::string(), member, [&](const std::string&, auto& part) { each_leaf(part, f); });
}

}  // namespace detail

/// Calls f(const std::string& name, Parameter or Buffer&) for everything the module holds, in the order of its lists.
template <class M, class F>
void for_each_tensor(M& module, F&& f) {
  detail::walk(std::string(), module, f);
}

/// Calls f(const std::string& name, Parameter&) for every parameter.
template <class M, class F>
void for_each_parameter(M& module, F&& f) {
  for_each_tensor(module, [&](const std::string& name, auto& leaf) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(leaf)>, Parameter>) f(name, leaf);
  });
}

/// Calls f(const std::string& name, Buffer&) for every buffer.
template <class M, class F>
void for_each_buffer(M& module, F&& f) {
  for_each_tensor(module, [&](const std::string& name, auto& leaf) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(leaf)>, Buffer>) f(name, leaf);
  });
}

/// Converts a network's parameters and buffers to T: st::to<double>(net) before a gradient check.
template <class T, class M>
void to(M& module) {
  for_each_tensor(module, [](const std::string&, auto& leaf) { leaf.template to<T>(); });
}

/// Moves a network to a device: st::to(net, st::Device::cuda()). Gradients are dropped; an optimiser that was made
/// before takes its state along at its next step. Throws DeviceError, with the reason, where there is no such device;
/// the network is then where it was.
template <class M>
void to(M& module, Device device) {
  pool_of(device);  // throws before anything is moved
  for_each_tensor(module, [&](const std::string&, auto& leaf) { leaf.to(device); });
}

/// Where a network's tensors are; the CPU for one without.
template <class M>
Device device_of(M& module) {
  Device device = Device::cpu();
  bool first = true;
  for_each_tensor(module, [&](const std::string&, auto& leaf) {
    if (std::exchange(first, false)) device = leaf.device();
  });
  return device;
}

/// Throws DeviceError where a module's tensors are on an accelerator. `what` names the function that reads them.
template <class M>
void require_host(M& module, const char* what) {
  if (const Device device = device_of(module); device.kind != DeviceKind::cpu)
    throw DeviceError(concat(what, ": the network is on ", device.str(),
                             "; bring it to the host first, with st::to(net, st::Device::cpu())"));
}

/// Forgets all gradients.
template <class M>
void zero_grad(M& module) {
  for_each_parameter(module, [](const std::string&, Parameter& parameter) { parameter.zero_grad(); });
}

}}  // namespace strata::STRATA_ABI
