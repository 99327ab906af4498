// The largest values of parts that divide the image. AdaptiveAvgPool2d is in nn/pooling.hpp.
//
//     st::AdaptiveMaxPool2d<3, 2>  // 3 x 2 values of each channel, whatever the image's size
//     st::AdaptiveMaxPool2d<1>     // the largest of each channel
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "strata/nn/pooling.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The largest value of each of H x W parts, as torch.nn.AdaptiveMaxPool2d((H, W)): of rows i*h/H, rounded down, to
/// (i+1)*h/H, rounded up.
template <int H, int W = H>
class AdaptiveMaxPool2d : public Layer<AdaptiveMaxPool2d<H, W>> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) { t.whole_image(H, W); }
  static LayerMemory memory(const Shape& x) {
    return {.kept = detail::max_pool_bytes(problem(x)), .keeps_input = false};
  }
  static std::string name() { return concat("AdaptiveMaxPool2d(output_size=(", H, ", ", W, "))"); }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    if (x.h() * x.w() == 0) throw ShapeError(concat(name(), ": the image has no pixels"));
    return detail::max_windows(pass, problem(x.shape()), x);
  }

  /// For io/onnx_export.hpp. ONNX has this for one pixel alone: otherwise the maxima of slices, of rows and then of
  /// columns, whose ends the graph computes from the image's size.
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& input) {
    const auto x = input.as_image();
    if constexpr (H == 1 && W == 1)
      return x.template node_of_other_size<C>("GlobalMaxPool");
    else
      return maxima<C>(maxima<C>(x, 2, H), 3, W);
  }

 private:
  static PoolProblem problem(const Shape& x) {
    return {.n = x.n(),
            .h = x.h(),
            .w = x.w(),
            .channels = int(x.c()),
            .kernel = int((x.w() + W - 1) / W + 1),  // at least a part's columns: devices count places in them
            .parts_h = H,
            .parts_w = W};
  }
  template <int C>
  static auto maxima(const auto& x, std::int64_t axis, std::int64_t parts) {
    const auto number = [&](std::int64_t value) { return x.constant({1}, std::vector<std::int64_t>{value}); };
    const std::string size = x.operation("Gather", {x.operation("Shape", {x.symbol().name}), number(axis)});
    std::vector<std::string> all;
    for (std::int64_t i = 0; i < parts; ++i) {
      const std::string from = x.operation("Mul", {size, number(i)}), to = x.operation("Mul", {size, number(i + 1)});
      const std::string begin = x.operation("Div", {from, number(parts)});
      const std::string end = x.operation("Div", {x.operation("Add", {to, number(parts - 1)}), number(parts)});
      const std::string part = x.operation("Slice", {x.symbol().name, begin, end, number(axis)});
      all.push_back(x.operation("ReduceMax", {part}, {{"axes", std::vector<std::int64_t>{axis}}}));
    }
    return x.template result<C>(x.operation("Concat", all, {{"axis", axis}}));
  }

  static_assert(H > 0 && W > 0, "strata::AdaptiveMaxPool2d<H, W>: both must be positive");
};

}}  // namespace strata::STRATA_ABI
