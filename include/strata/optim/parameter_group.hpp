// Which parameters an optimiser treats in another way than the rest: their learning rate, their weight decay, or that
// they are not learned at all.
//
//     st::AdamW adam(net, {.lr = 1e-3, .weight_decay = 0.05},
//                    {{.when = st::biases_and_norms, .weight_decay = 0},                 // no decay for these
//                     {.when = st::named("backbone"), .lr_factor = 0.1},                 // a tenth of the rate
//                     {.when = st::named("backbone.0"), .frozen = true},                 // the first stage stays
//                     {.when = [](const st::ParameterFacts& p) { return p.name.ends_with("gamma"); }, .lr = 1e-4}});
//
// Every group whose question a parameter answers with yes counts for it, one after another: the last that says
// something of its learning rate, of its decay, or of its being frozen has the word. So a bias of the backbone above
// has neither decay nor the whole rate. A group that no parameter belongs to is an error. Groups are the program's, as
// all options are: a checkpoint keeps the optimiser's state by the parameters' names, and goes on with whatever groups
// the program then has.
#pragma once

#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/autograd/visit.hpp"

namespace strata::inline STRATA_ABI {

enum class ParameterKind {
  weight,  ///< of a convolution or linear layer
  bias,    ///< of one of these
  norm,    ///< weight or bias of a normalisation
  other    ///< anything else, as an activation's slopes or a module's own parameter
};

/// What is known of a parameter.
struct ParameterFacts {
  std::string_view name;  ///< "backbone.0.weight"
  ParameterKind kind;
  const Shape& shape;
};

struct ParameterGroup {
  std::function<bool(const ParameterFacts&)> when = {};  ///< which parameters belong to it
  std::optional<double> lr = {};         ///< the learning rate; it keeps its ratio to the optimiser's under a schedule
  std::optional<double> lr_factor = {};  ///< or what the optimiser's learning rate is multiplied by
  std::optional<double> weight_decay = {};
  std::optional<bool> frozen = {};  ///< true: requires_grad becomes false, and no gradient is computed; false: true
};

/// Parameters that are usually not decayed: biases, those of normalisations, and all others of one extent or none.
inline bool biases_and_norms(const ParameterFacts& parameter) {
  return parameter.kind == ParameterKind::bias || parameter.kind == ParameterKind::norm || parameter.shape.rank() <= 1;
}

/// Those called `beginning`, or whose names begin with it and a dot: named("backbone") is all of a member.
inline auto named(std::string beginning) {
  return [beginning = std::move(beginning)](const ParameterFacts& parameter) {
    return parameter.name.starts_with(beginning) &&
           (parameter.name.size() == beginning.size() || parameter.name[beginning.size()] == '.');
  };
}

/// Those of a kind.
inline auto of_kind(ParameterKind kind) {
  return [kind](const ParameterFacts& parameter) { return parameter.kind == kind; };
}

namespace detail {

/// A layer that normalises says so: static constexpr bool is_normalisation = true.
template <class Owner>
ParameterKind kind_of(std::string_view name, const Shape& shape) {
  if constexpr (requires { Owner::is_normalisation; }) return ParameterKind::norm;
  if (name == "bias") return ParameterKind::bias;
  if constexpr (requires {
                  Owner::io::in;
                  Owner::is_leaf_layer;
                })
    if (name.starts_with("weight") && shape.rank() > 1) return ParameterKind::weight;
  return ParameterKind::other;
}

/// Calls f(name, parameter, kind) for every parameter, in the order of for_each_parameter.
template <class Owner, class Member, class F>
void walk_kinds(const std::string& name, std::string_view child, Member& member, F& f) {
  using Plain = std::remove_const_t<Member>;
  if constexpr (std::is_same_v<Plain, Parameter>) {
    f(name, member, kind_of<Owner>(child, member.shape()));
  } else if constexpr (std::is_same_v<Plain, Buffer>) {
  } else if constexpr (has_visit<Plain>) {
    Plain::visit(member, [&](const auto& part_name, auto& part) {
      if constexpr (std::is_integral_v<std::remove_cvref_t<decltype(part_name)>>)
        walk_kinds<Plain>(join(name, part_name), "", part, f);
      else
        walk_kinds<Plain>(join(name, part_name), part_name, part, f);
    });
  } else {
    each_part(name, member,
              [&](const std::string& part_name, auto& part) { walk_kinds<Owner>(part_name, "", part, f); });
  }
}

}  // namespace detail

/// Calls f(const std::string& name, Parameter&, ParameterKind) for every parameter of a network.
template <class Net, class F>
void for_each_parameter_kind(Net& net, F&& f) {
  detail::walk_kinds<Net>(std::string(), "", net, f);
}

/// Freezes the parameters that `when` chooses, or sets them free again: requires_grad of each. Returns how many there
/// were.
template <class Net>
std::int64_t freeze(Net& net, const std::function<bool(const ParameterFacts&)>& when, bool frozen = true) {
  std::int64_t count = 0;
  for_each_parameter_kind(net, [&](const std::string& name, Parameter& parameter, ParameterKind kind) {
    if (!when({name, kind, parameter.shape()})) return;
    parameter.requires_grad = !frozen;
    ++count;
  });
  return count;
}
/// All parameters of a module: st::freeze(net.backbone).
template <class Net>
std::int64_t freeze(Net& net, bool frozen = true) {
  return freeze(
      net, [](const ParameterFacts&) { return true; }, frozen);
}

}  // namespace strata::inline STRATA_ABI
