// What the tensors of a network are called in files.
//
//     st::Names::nested       // Sequential<Conv2d, Repeat<2, Sequential<Conv2d, ReLU>>>:
//     0.weight, 1.0.0.weight, 1.1.0.weight st::Names::spliced      // the same: 0.weight, 1.weight, 3.weight
//
// Both are those of a PyTorch network. The first is one whose author put an nn.Sequential into an nn.Sequential; the
// second is one whose author made a list of all layers and gave that to one nn.Sequential, where layers without weights
// count too.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/visit.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI {

enum class Names {
  nested,   ///< as the network's type is nested
  spliced,  ///< a Sequential or Repeat inside a Sequential or Repeat is spliced into it
};

/// Turns names that begin with `from` into ones that begin with `to`. `from` ends before a dot or where the name ends,
/// so "model.1" is of "model.1.weight" and not of "model.10.weight"; empty, it is of every name. An empty `to` takes
/// the beginning away: {"model", ""} makes "0.weight" of "model.0.weight", and {"", "body"} makes "body.0.weight" of
/// "0.weight".
struct Rename {
  std::string from, to;
};

namespace detail {

inline constexpr std::string_view checkpoint_format = "strata.checkpoint";  // metadata key; its value is the version
inline constexpr std::string_view network_prefix = "net.";

template <class M>
inline constexpr bool is_chain = false;
template <class... Ms>
inline constexpr bool is_chain<Sequential<Ms...>> = true;
template <int N, class M>
inline constexpr bool is_chain<Repeat<N, M>> = true;

/// Calls f(name, leaf) as detail::walk does (autograd/visit.hpp), in the same order, with spliced names.
template <class Member, class F>
void walk_spliced(const std::string& name, Member& member, F& f);

/// A part of a chain: `next` is its number, unless it is a chain itself.
template <class Part, class F>
void walk_part(const std::string& chain, std::size_t& next, Part& part, F& f) {
  if constexpr (requires { typename Part::wraps; })
    walk_part(chain, next, part.body, f);
  else if constexpr (is_chain<std::remove_const_t<Part>>)
    std::remove_const_t<Part>::visit(part, [&](auto, auto& inner) { walk_part(chain, next, inner, f); });
  else
    walk_spliced(join(chain, next++), part, f);
}

template <class Member, class F>
void walk_spliced(const std::string& name, Member& member, F& f) {
  using Plain = std::remove_const_t<Member>;
  if constexpr (is_leaf<Plain>) {
    f(name, member);
  } else if constexpr (is_chain<Plain>) {
    std::size_t next = 0;
    walk_part(name, next, member, f);
  } else if constexpr (has_visit<Plain>) {
    Plain::visit(member, [&](const auto& child, auto& part) { walk_spliced(join(name, child), part, f); });
  } else {
    each_part(name, member, [&](const std::string& part_name, auto& part) { walk_spliced(part_name, part, f); });
  }
}

/// The tensors of a network, in the order of its lists.
template <class Net>
std::vector<NamedTensor> tensors_of(const Net& net, const std::string& prefix = "", Names names = Names::nested) {
  std::vector<NamedTensor> tensors;
  auto add = [&](const std::string& name, auto& leaf) {
    tensors.push_back({prefix + name, &std::as_const(leaf).any_value()});
  };
  if (names == Names::nested)
    for_each_tensor(net, add);
  else
    walk_spliced(std::string(), net, add);
  return tensors;
}

/// Whether `name` is `beginning`, or begins with it and a dot.
bool begins(std::string_view name, std::string_view beginning);

/// Applies the first rule that fits to each name. `count[i]` is raised for every name that rule i fitted.
std::string renamed(const std::string& name, const std::vector<Rename>& rules, std::vector<std::size_t>& count);

/// Throws ValueError for a rule that no name was of: most likely it is misspelt.
void check_used(const std::filesystem::path& path, std::string_view option, std::string_view rule, std::size_t count);

}  // namespace detail

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/names_impl.hpp"
#endif
