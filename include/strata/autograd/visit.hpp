// Walks a module's parameters and buffers by name, from the one list each module gives:
//
//     static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); f("scale", self.scale); }
//
// A member is a Parameter, a Buffer, a module, or a std::array, std::vector, std::optional or std::tuple of modules. Names
// join with dots as in PyTorch: "conv.weight", "blocks.3.conv.weight".
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/fields.hpp"
#include "strata/autograd/parameter.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

// A named type and no lambda: nvcc 13.0 calls a concept false when its requires-expression holds a lambda.
struct AcceptAll {
  constexpr void operator()(auto&&, auto&&) const {}
};

template <class M>
concept has_visit = requires(M& module, AcceptAll probe) { M::visit(module, probe); };

template <class T>
inline constexpr bool is_leaf = std::is_same_v<T, Parameter> || std::is_same_v<T, Buffer>;

template <class T>
struct Elements : std::false_type {};
template <class T, std::size_t N>
struct Elements<std::array<T, N>> : std::true_type { using type = T; };
template <class T, class A>
struct Elements<std::vector<T, A>> : std::true_type { using type = T; };

/// Whether a member of this type may hold parameters or buffers. A module that says has_state = false does not.
template <class T>
struct HoldsState : std::bool_constant<is_leaf<T> || has_visit<T>> {};
template <class T>
  requires requires { T::has_state; }
struct HoldsState<T> : std::bool_constant<T::has_state> {};
template <class T, std::size_t N>
struct HoldsState<std::array<T, N>> : HoldsState<T> {};
template <class T, class A>
struct HoldsState<std::vector<T, A>> : HoldsState<T> {};
template <class T>
struct HoldsState<std::optional<T>> : HoldsState<T> {};
template <class... Ts>
struct HoldsState<std::tuple<Ts...>> : std::bool_constant<(HoldsState<Ts>::value || ...)> {};
template <class T>
inline constexpr bool holds_state = HoldsState<std::remove_cvref_t<T>>::value;

inline std::string join(const std::string& prefix, std::string_view name) {
  return prefix.empty() ? std::string(name) : prefix + "." + std::string(name);
}
inline std::string join(const std::string& prefix, std::integral auto index) {
  return join(prefix, std::string_view(std::to_string(index)));
}

// ---- a forgotten member: the sizes of what visit lists must add up to those of the members that hold state

template <class... Fields>
constexpr std::size_t state_bytes(Types<Fields...>) {
  return (std::size_t{0} + ... + (holds_state<Fields> ? sizeof(Fields) : 0));
}

/// An object that is never made: the addresses of its members are formed, at compile time only.
template <class T>
union NeverMade {
  char nothing = 0;
  T object;
  constexpr NeverMade() {}
  constexpr ~NeverMade() {}
};
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wundefined-var-template"
#endif
template <class T>
struct Somewhere {
  static NeverMade<T> place;  // never defined: only its address is used, so that nothing is left to be done at start-up
};

struct CountBytes {
  std::size_t bytes = 0;
  template <class Part>
  constexpr void operator()(auto&&, Part&) {
    if constexpr (holds_state<Part>) bytes += sizeof(Part);
  }
};

template <class M>
constexpr std::size_t listed_bytes() {
  CountBytes count;
  M::visit(Somewhere<M>::place.object, count);
  return count.bytes;
}
#if defined(__clang__)
#pragma clang diagnostic pop
#endif
template <class M>
concept visit_is_constexpr = requires { typename std::integral_constant<std::size_t, listed_bytes<M>()>; };

/// Whether the members can be told and compared with the list. The library's own modules vouch for theirs.
template <class M>
constexpr bool members_comparable() {
  if constexpr (requires { M::has_state; } || requires { M::is_leaf_layer; })
    return false;
  else
    return !std::is_same_v<fields_of<M>, Unknown>;
}

/// One error for a module whose list is short.
template <class M>
struct every_member_listed {
  static constexpr bool holds = [] {
    if constexpr (members_comparable<M>()) {
      if constexpr (visit_is_constexpr<M>) return listed_bytes<M>() == state_bytes(fields_of<M>{});
    }
    return true;
  }();
  static_assert(holds,
                "strata: visit() does not list every member that holds parameters: a forgotten one would never be "
                "trained or saved; add f(\"name\", self.name) for it (read every_member_listed<Module> beside this message)");
};

// The same for a visit() that is not constexpr, when it runs.
template <class M>
void check_listed(std::size_t bytes) {
  if constexpr (members_comparable<M>()) {
    if constexpr (!visit_is_constexpr<M>) {
      if (bytes != state_bytes(fields_of<M>{}))
        throw Error("a module's visit() does not list every member that holds parameters: a forgotten one would never be "
                    "trained or saved; add f(\"name\", self.name) for it, and write 'static constexpr void visit' to have "
                    "the compiler find the module");
    }
  }
}

// Calls f(name, leaf) for every Parameter and Buffer below `member`.
template <class Member, class F>
void walk(const std::string& name, Member& member, F& f) {
  using Plain = std::remove_const_t<Member>;
  if constexpr (is_leaf<Plain>) {
    f(name, member);
  } else if constexpr (has_visit<Plain>) {
    static_assert(sizeof(every_member_listed<Plain>) > 0);
    CountBytes listed;
    Plain::visit(member, [&](const auto& child, auto& part) {
      listed(child, part);
      walk(join(name, child), part, f);
    });
    check_listed<Plain>(listed.bytes);
  } else if constexpr (Elements<Plain>::value) {
    if constexpr (holds_state<Plain>)
      for (std::size_t i = 0; i < member.size(); ++i) walk(join(name, i), member[i], f);
  } else if constexpr (requires { member.has_value(); *member; }) {
    if constexpr (holds_state<Plain>)
      if (member.has_value()) walk(name, *member, f);
  } else if constexpr (holds_state<Plain>) {  // a tuple
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (walk(join(name, I), std::get<I>(member), f), ...);
    }(std::make_index_sequence<std::tuple_size_v<Plain>>{});
  }  // anything else is an ordinary member, as a scale factor: listing it does nothing
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

/// Moves a network to a device: st::to(net, st::Device::cuda()). Gradients are dropped; an optimiser that was made before
/// takes its state along at its next step. Throws DeviceError, with the reason, where there is no such device; the network
/// is then where it was.
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
    throw DeviceError(concat(what, ": the network is on ", device.str(), "; bring it to the host first, with st::to(net, st::Device::cpu())"));
}

/// Forgets all gradients.
template <class M>
void zero_grad(M& module) {
  for_each_parameter(module, [](const std::string&, Parameter& parameter) { parameter.zero_grad(); });
}

}  // namespace strata::inline STRATA_ABI
