// Images of another size: larger or smaller by a rational factor in the type, as large as another image, or of given
// extents. As torch.nn.functional.interpolate (antialias=False), forward and back.
//
//     st::Resize<std::ratio<3, 2>>                                             // nearest pixels, 3/2 times as large
//     st::Resize<std::ratio<1, 2>, st::InterpolateMode::bicubic>               // half the size
//     auto y = st::resize_like(pass, x, skip, {.mode = st::InterpolateMode::bilinear, .align_corners = true});
//     auto z = st::interpolate(pass, x, 224, 224, {.mode = st::InterpolateMode::bicubic});
//
// Whole factors upwards have st::Upsample.
#pragma once

#include <cstdint>
#include <ratio>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/operators.hpp"
#include "strata/cpu/resize.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

struct InterpolateOptions {
  InterpolateMode mode = InterpolateMode::nearest;
  bool align_corners = false;  ///< the corners' pixels keep their values; not for nearest
};

namespace detail {

inline const char* mode_text(InterpolateMode mode) {
  return mode == InterpolateMode::nearest ? "nearest" : mode == InterpolateMode::bilinear ? "bilinear" : "bicubic";
}

/// The node "Resize": by factors or, where they are empty, to sizes.
template <int Out>
auto onnx_resize(const auto& x, const std::string& factors, const std::string& sizes,
                 const InterpolateOptions& options) {
  const std::string none;
  std::vector<std::string> tensors{none, factors};
  if (!sizes.empty()) tensors.push_back(sizes);
  const bool nearest = options.mode == InterpolateMode::nearest;
  return x.template node_of_other_size<Out>(
      "Resize", std::move(tensors),
      {{"mode", std::string(nearest                                     ? "nearest"
                            : options.mode == InterpolateMode::bilinear ? "linear"
                                                                        : "cubic")},
       {"coordinate_transformation_mode", std::string(nearest                 ? "asymmetric"
                                                      : options.align_corners ? "align_corners"
                                                                              : "half_pixel")},
       {"nearest_mode", std::string("floor")},
       {"cubic_coeff_a", -0.75f}});
}
/// The first two extents of x and the last two of `extents`, a name.
std::string onnx_extents(const auto& x, const std::string& extents) {
  const auto one = [&](std::int64_t number) { return x.constant({1}, std::vector<std::int64_t>{number}); };
  return x.operation("Concat",
                     {x.operation("Slice", {x.operation("Shape", {x.symbol().name}), one(0), one(2)}), extents},
                     {{"axis", std::int64_t{0}}});
}

template <class Self>
struct ResizeKernels {
  static constexpr bool keeps_input = false, keeps_output = false;
  template <class T>
  void forward(const Shape& from, const T* x, T* y) const {
    cpu::resize_forward(self().problem(from), x, y);
  }
  template <class T>
  void backward(const Shape& from, const T*, const T*, const T* dy, T* dx, bool accumulate) const {
    cpu::resize_backward(self().problem(from), dy, dx, accumulate);
  }
  void forward_on(Accelerator& gpu, const Shape& from, const float* x, float* y) const {
    gpu.resize_forward(self().problem(from), x, y);
  }
  void backward_on(Accelerator& gpu, const Shape& from, const float* dy, float* dx, bool accumulate) const {
    gpu.resize_backward(self().problem(from), dy, dx, accumulate);
  }
  Shape result(const Shape& x) const {
    const ResizeProblem p = self().problem(x);
    if (x.h() < 1 || x.w() < 1 || p.rows.result < 1 || p.columns.result < 1)
      throw ShapeError(concat(Self::name(), ": an image of ", x.h(), " x ", x.w(), " pixels would become one of ",
                              p.rows.result, " x ", p.columns.result));
    return {x.n(), x.c(), p.rows.result, p.columns.result};
  }

 private:
  const Self& self() const { return static_cast<const Self&>(*this); }
};

/// To given extents.
struct InterpolateOperator : ResizeKernels<InterpolateOperator> {
  std::int64_t height, width;
  InterpolateOptions options;
  constexpr InterpolateOperator(std::int64_t h, std::int64_t w, const InterpolateOptions& o)
      : height(h), width(w), options(o) {}
  static std::string name() { return "interpolate"; }
  ResizeProblem problem(const Shape& x) const {
    return {.n = x.n(),
            .channels = int(x.c()),
            .rows = ResizeAxis::to(x.h(), height),
            .columns = ResizeAxis::to(x.w(), width),
            .mode = options.mode,
            .align_corners = options.align_corners};
  }
  constexpr void trace(auto& t) const {
    if (height < 1 || width < 1) t.fails([&] { return concat("interpolate to ", height, " x ", width, " pixels"); });
    t.whole_image(height, width);
  }
  template <int Out>
  auto onnx(const auto& x) const {
    return onnx_resize<Out>(x, "", onnx_extents(x, x.constant({2}, std::vector<std::int64_t>{height, width})), options);
  }
};

/// The symbols' resize_like.
struct ResizeLikeOperator {
  InterpolateOptions options;
  static std::string name() { return "resize_like"; }
  static constexpr bool keeps_input = false, keeps_output = false;
  constexpr void trace(auto& t, const auto& like) const { t.whole_image(like.h, like.w); }
  auto run(auto& pass, const auto& x, const auto& like) const {
    return interpolate(pass, x, like.h(), like.w(), options);
  }
  template <int Out>
  auto onnx(const auto& x, const auto& like) const {
    const auto one = [&](std::int64_t number) { return x.constant({1}, std::vector<std::int64_t>{number}); };
    const std::string extents = x.operation("Slice", {x.operation("Shape", {like.symbol().name}), one(2), one(4)});
    return onnx_resize<Out>(x, "", onnx_extents(x, extents), options);
  }
};

constexpr void check_interpolation(const InterpolateOptions& options) {
  if (options.align_corners && options.mode == InterpolateMode::nearest)
    throw ValueError("interpolate: .align_corners is for bilinear and bicubic; nearest has no corners to align");
}

}  // namespace detail

/// x as an image of `height` x `width` pixels. Every pixel counts as made of all of x, so that the network is not cut
/// into tiles.
template <Pass P, class X>
constexpr auto interpolate(P& pass, const X& x, std::int64_t height, std::int64_t width,
                           const InterpolateOptions& options = {}) {
  detail::check_interpolation(options);
  return detail::apply_operator<X::channels>(pass, detail::InterpolateOperator(height, width, options), x);
}

/// x as an image of the height and width of `like`: F.interpolate(x, size=like.shape[2:]).
template <Pass P, class X, class L>
constexpr auto resize_like(P& pass, const X& x, const L& like, const InterpolateOptions& options = {}) {
  if constexpr (Symbolic<X>) {
    return SymbolicRun<typename X::value_type>::template op<X::channels>(
        detail::ResizeLikeOperator{options}, detail::var_in<P>(x), detail::var_in<P>(like));
  } else {
    return interpolate(pass, x, like.h(), like.w(), options);
  }
}

/// Images Factor times as large, a std::ratio; extents are rounded down. Where new pixels lie is told by the factor, as
/// with torch.nn.Upsample(scale_factor=Factor), and with AlignCorners by the images' corners.
template <class Factor, InterpolateMode Mode = InterpolateMode::nearest, bool AlignCorners = false>
class Resize : public Layer<Resize<Factor, Mode, AlignCorners>> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr std::int64_t up = Factor::num, down = Factor::den;  // in lowest terms
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) {
    if constexpr (AlignCorners)
      t.whole_image(t.extents().h * up / down, t.extents().w * up / down);
    else
      t.resampled(up, down, Mode == InterpolateMode::nearest ? 1 : Mode == InterpolateMode::bilinear ? 2 : 4);
  }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() {
    return concat("Resize(scale_factor=", up, down > 1 ? concat("/", down) : "", ", mode=", detail::mode_text(Mode),
                  AlignCorners ? ", align_corners=True" : "", ")");
  }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    return detail::apply_operator<C>(pass, Operator{}, x);
  }
  /// For io/onnx_export.hpp.
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& input) {
    const auto x = input.as_image();
    const float factor = float(double(up) / double(down));
    return detail::onnx_resize<C>(x, x.constant({4}, std::vector<float>{1, 1, factor, factor}), "",
                                  {Mode, AlignCorners});
  }

 private:
  struct Operator : detail::ResizeKernels<Operator> {
    static std::string name() { return Resize::name(); }
    static ResizeProblem problem(const Shape& x) {
      return {.n = x.n(),
              .channels = int(x.c()),
              .rows = ResizeAxis::by(x.h(), up, down),
              .columns = ResizeAxis::by(x.w(), up, down),
              .mode = Mode,
              .align_corners = AlignCorners};
    }
  };

  static_assert(Factor::num > 0, "strata::Resize<Factor>: Factor must be a positive std::ratio");
  static_assert(!AlignCorners || Mode != InterpolateMode::nearest,
                "strata::Resize: corners are aligned by bilinear and bicubic; nearest has none to align");
};

}}  // namespace strata::STRATA_ABI
