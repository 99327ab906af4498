// DropPath, or stochastic depth (Huang et al., 2016): a Train pass sets whole images of a batch to 0 with probability P
// and scales the others by 1/(1-P); an Infer pass does nothing. It stands at the end of a residual branch.
//
//     st::DropPathOf<std::ratio<1, 10>>                // in x + drop(pass, body(pass, x)): goes around with P = 0.1
//     st::Train pass({.seed = 1, .step = step});       // says which random numbers: the same step, the same images
//
// On the CPU; a Train pass on an accelerator is a DeviceError.
#pragma once

#include <cstdint>
#include <ratio>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/core/parallel.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

template <class Probability>
class DropPathOf : public Layer<DropPathOf<Probability>> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr double p = double(Probability::num) / double(Probability::den);
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static constexpr bool idle_in_inference = true;
  static std::string name() { return concat("DropPath(drop_prob=", p, ")"); }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    if constexpr (!P::training) {
      return x;
    } else {
      check_on_cpu(x.device(), x.device(), name);
      const Rng rng = pass.next_rng("DropPath");
      Image<C, T> image(x.n(), x.h(), x.w(), x.pool());
      apply(rng, x.shape(), x.data(), image.data(), false);
      auto y = pass.output(std::move(image));
      pass.tape()->record(y.id(), [rng, shape = x.shape(), x_id = x.id(), id = y.id()](Tape& tape) {
        if (const auto dx = tape.target<T>(x_id)) apply(rng, shape, tape.gradient<T>(id), dx.data, dx.accumulate);
      });
      return y;
    }
  }
  /// For io/onnx_export.hpp.
  static auto onnx(auto&, const auto& x) { return x; }

 private:
  // The same numbers forward and backward, so that none is kept.
  template <class T>
  static void apply(Rng rng, const Shape& s, const T* x, T* y, bool accumulate) {
    constexpr auto threshold = std::uint32_t(p * 4294967296.0);
    const std::int64_t size = s.c() * s.h() * s.w();
    std::vector<T> factors;
    for (std::int64_t n = 0; n < s.n(); ++n) factors.push_back(rng.bits() < threshold ? T(0) : T(1 / (1 - p)));
    parallel_ranges(s.n() * size, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T factor = factors[std::size_t(i / size)];
        y[i] = (accumulate ? y[i] : T(0)) + (factor == 0 ? T(0) : x[i] * factor);
      }
    });
  }

  static_assert(Probability::num >= 0 && Probability::num < Probability::den,
                "strata::DropPathOf<Probability>: Probability must be from 0 to below 1");
};

}}  // namespace strata::STRATA_ABI
