// Random numbers inside a forward, as torch.randn_like and torch.rand_like: constants, for which no gradient is asked.
//
//     auto z = mean + exp(0.5 * log_variance) * st::randn_like(pass, mean);      // a VAE's
//     st::Train pass({.seed = 1, .step = step});      // says which: the same step draws the same numbers
//     st::Infer again({.seed = 1, .step = t});        // inference too, as a diffusion's steps
//
// They do not depend on the number of threads, and a device draws the CPU's normal numbers. Those of one pass are told
// apart by the order in which they are drawn: give each a statement of its own.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/symbolic.hpp"
#include "strata/core/parallel.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// The first x.size() numbers of a stream: normal, or uniform in [0, 1).
template <bool Normal, class T>
void draw_numbers(const Rng& rng, std::int64_t size, T* out) {
  parallel_ranges(size, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    Rng own = rng;
    own.seek(std::uint64_t(begin / 4));
    if constexpr (Normal && std::is_same_v<T, float>)
      own.fill_normal(std::span(out + begin, std::size_t(end - begin)), 0, 1);
    else
      for (std::int64_t i = begin; i < end; ++i) out[i] = T(Normal ? own.normal() : own.uniform());
  });
}

template <bool Normal>
struct RandomLike {
  static std::string name() { return Normal ? "randn_like" : "rand_like"; }
  static constexpr bool keeps_input = false, keeps_output = false;

  template <Pass P, int C, class T, class L>
  auto run(P& pass, const Var<C, T>& x, const L&) const {
    const Rng rng = pass.next_rng(Normal ? "randn_like" : "rand_like");
    Image<C, T> image(x.n(), x.h(), x.w(), x.pool());
    dispatch<T>(
        x.device(), [&] { draw_numbers<Normal>(rng, image.size(), image.data()); },
        [&](auto& gpu) {
          if constexpr (std::is_same_v<T, float>) {
            if constexpr (Normal) {
              gpu.add_normal(stream_of(rng), 1.0f, image.size(), nullptr, image.data());
            } else {
              Image<C, T> here(x.n(), x.h(), x.w());
              draw_numbers<false>(rng, here.size(), here.data());
              copy_bytes(image.data(), image.device(), here.data(), here.device(),
                         std::size_t(here.size()) * sizeof(T));
            }
          }
        });
    if constexpr (P::training)
      return Var<C, T>(std::move(image));
    else
      return pass.output(std::move(image));
  }
  constexpr void trace(auto& t, const auto&) const { t.draws_random_numbers(); }
  /// Others than this program's.
  template <int Out>
  auto onnx(const auto& x, const auto&) const {
    return x.template node<Out>(Normal ? "RandomNormalLike" : "RandomUniformLike");
  }
};

template <bool Normal, Pass P, class X>
constexpr auto random_like(P& pass, const X& input) {
  const auto x = var_in(pass, input);
  if constexpr (Symbolic<X>)
    return SymbolicRun<typename X::value_type>::template op<X::channels>(RandomLike<Normal>{}, x, x);
  else
    return RandomLike<Normal>{}.run(pass, x, x);
}

}  // namespace detail

/// Standard normal numbers, an image of them as large as x. Throws ValueError in a pass that was given no step.
template <Pass P, class X>
constexpr auto randn_like(P& pass, const X& x) {
  return detail::random_like<true>(pass, x);
}
/// Uniform numbers in [0, 1).
template <Pass P, class X>
constexpr auto rand_like(P& pass, const X& x) {
  return detail::random_like<false>(pass, x);
}

}}  // namespace strata::STRATA_ABI
