// Dropout (Srivastava et al., 2014): a Train pass sets elements to 0 with probability P and scales the others by
// 1/(1-P); an Infer pass does nothing.
//
//     st::Dropout                                     // P = 0.5
//     st::DropoutOf<std::ratio<1, 10>>
//     st::Train pass({.seed = 1, .step = step});    // says which random numbers: the same step drops the same elements
//
// Dropouts of one pass are told apart by the order in which they run. Branches that have one each want a statement
// each: in left(pass, x) + right(pass, x) C++ leaves the order open.
#pragma once

#include <cstdint>
#include <ratio>
#include <string>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/core/parallel.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

template <class Probability>
class DropoutOf : public Layer<DropoutOf<Probability>> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr double p = double(Probability::num) / double(Probability::den);
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static constexpr bool idle_in_inference = true;
  static std::string name() { return concat("Dropout(p=", p, ")"); }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    if constexpr (!P::training) {
      return x;
    } else {
      const Rng rng = pass.next_rng("Dropout");
      Image<C, T> image(x.n(), x.h(), x.w(), x.pool());
      apply<T>(x.device(), rng, x.size(), x.data(), image.data(), false);
      auto y = pass.output(std::move(image));
      pass.tape()->record(y.id(), [rng, x_id = x.id(), size = x.size(), id = y.id(), device = x.device()](Tape& tape) {
        if (const auto dx = tape.target<T>(x_id))
          apply<T>(device, rng, size, tape.gradient<T>(id), dx.data, dx.accumulate);
      });
      return y;
    }
  }

 private:
  // The same numbers forward and backward, so that no mask is kept.
  template <class T>
  static void apply(Device device, const Rng& rng, std::int64_t size, const T* x, T* y, bool accumulate) {
    detail::dispatch<T>(
        device, [&] { apply_on_cpu(rng, size, x, y, accumulate); },
        [&](auto& gpu) { gpu.dropout(detail::stream_of(rng), p, size, x, y, accumulate); });
  }
  template <class T>
  static void apply_on_cpu(const Rng& rng, std::int64_t size, const T* x, T* y, bool accumulate) {
    constexpr auto threshold = std::uint32_t(p * 4294967296.0);
    const T scale = T(1 / (1 - p));
    parallel_ranges(size, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      Rng own = rng;
      own.seek(std::uint64_t(begin / 4));
      for (std::int64_t i = begin; i < end; ++i)
        y[i] = (accumulate ? y[i] : T(0)) + (own.bits() < threshold ? T(0) : x[i] * scale);
    });
  }

  static_assert(Probability::num >= 0 && Probability::num < Probability::den,
                "strata::DropoutOf<Probability>: Probability must be from 0 to below 1");
};
using Dropout = DropoutOf<std::ratio<1, 2>>;

}}  // namespace strata::STRATA_ABI
