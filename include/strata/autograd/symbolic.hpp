// Images without numbers. A network's forward that takes images of any type also runs on Var<C, Symbol>, where Symbol
// stands in an element's place: so it is followed for its facts (nn/follow.hpp, Followed) and written as an ONNX graph
// (io/onnx_export.hpp, OnnxSymbol). Whoever brings a symbol of his own says here what each step becomes, and the layers
// below call it:
//
//     template <>
//     struct SymbolicRun<Mine> {
//       static auto value(const auto& expression);                       // arithmetic: Var<E::channels, Mine>
//       static auto cat(const auto&... x);                               // autograd/channels.hpp: as the functions of
//       template <int Start, int Length> static auto narrow(const auto& x); // the same names
//       static auto expand_as(const auto& one_pixel, const auto& like);
//       template <int Out> static auto op(const auto& op, const auto&... x); // one of autograd/operators.hpp
//       static auto layer(auto& layer, auto& pass, auto x);              // a module derived from Layer
//       static auto module(auto& module, auto& pass, const auto& x);     // optional: modules that are not to be run
//       template <std::size_t I, detail::FusedRun Run>                   // where Symbol::runs_as_images is a type: what
//       static auto fused(auto& layers, const auto& x);                  // a Sequential runs as one step
//     };
#pragma once

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

template <class Symbol>
struct SymbolicRun;

/// A variable or expression without numbers.
template <class X>
concept Symbolic = requires { typename X::value_type::is_symbol; };

}}  // namespace strata::STRATA_ABI
