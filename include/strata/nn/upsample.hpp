// Upsample: images a whole number of times as large.
//
//     st::Upsample<2>                                        // every pixel becomes 2 x 2
//     st::Upsample<4, st::UpsampleMode::bilinear>           // linear in between, as PyTorch's with align_corners=False
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

template <int Factor, UpsampleMode Mode = UpsampleMode::nearest>
class Upsample : public Layer<Upsample<Factor, Mode>> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) {
    if constexpr (Mode == UpsampleMode::nearest)
      t.upscale(Factor);
    else
      t.transposed_window(2 * Factor - Factor % 2, Factor, Factor / 2);
  }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() {
    return concat("Upsample(scale_factor=", Factor, ", mode=", Mode == UpsampleMode::nearest ? "nearest" : "bilinear",
                  ")");
  }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    const UpsampleProblem problem{.n = x.n(), .h = x.h(), .w = x.w(), .channels = C, .factor = Factor, .mode = Mode};
    Image<C, T> image(x.n(), x.h() * Factor, x.w() * Factor, x.pool());
    detail::dispatch<T>(
        x.device(), [&] { cpu::upsample_forward(problem, x.data(), image.data()); },
        [&](auto& gpu) { gpu.resize_forward(as_resize(problem), x.data(), image.data()); });
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [problem, device = x.device(), x_id = x.id(), id = y.id()](Tape& tape) {
        const auto dx = tape.target<T>(x_id);
        if (!dx) return;
        const T* const dy = tape.gradient<T>(id);
        detail::dispatch<T>(
            device, [&] { cpu::upsample_backward<T>(problem, dy, dx.data, dx.accumulate); },
            [&](auto& gpu) { gpu.resize_backward(as_resize(problem), dy, dx.data, dx.accumulate); });
      });
    return y;
  }

  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& input) {
    const auto x = input.as_image();
    const std::string no_region;
    return x.template node_of_other_size<C>(
        "Resize", {no_region, x.constant({4}, std::vector<float>{1, 1, float(Factor), float(Factor)})},
        {{"mode", Mode == UpsampleMode::nearest ? "nearest" : "linear"},
         {"coordinate_transformation_mode", Mode == UpsampleMode::nearest ? "asymmetric" : "half_pixel"},
         {"nearest_mode", "floor"}});
  }

 private:
  /// As accelerators take it.
  static ResizeProblem as_resize(const UpsampleProblem& p) {
    return {.n = p.n,
            .channels = p.channels,
            .rows = ResizeAxis::by(p.h, Factor, 1),
            .columns = ResizeAxis::by(p.w, Factor, 1),
            .mode = Mode == UpsampleMode::nearest ? InterpolateMode::nearest : InterpolateMode::bilinear};
  }

  static_assert(Factor > 0, "strata::Upsample<Factor>: Factor must be positive");
};

}}  // namespace strata::STRATA_ABI
