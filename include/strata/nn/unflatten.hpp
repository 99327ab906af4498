// Unflatten: what Flatten or Linear gives becomes an image again.
//
//     st::Sequential<st::Linear<100, 512 * 4 * 4>, st::Unflatten<512, 4, 4>, st::ConvTranspose2d<512, 256, 4>>
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Images of C*H*W channels and one pixel become images of C x H x W, in PyTorch's order (channel by channel):
/// torch.nn.Unflatten(1, (C, H, W)).
template <int C, int H, int W>
class Unflatten : public Layer<Unflatten<C, H, W>> {
 public:
  using io = maps<C * H * W, C>;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) {
    t.wants(1, 1);
    t.whole_image(H, W);
    t.channels(C);
  }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return concat("Unflatten(", C, "x", H, "x", W, ")"); }

  template <Pass P, class T>
  static auto forward(auto&, P& pass, const Var<C * H * W, T>& x) {
    if (x.h() != 1 || x.w() != 1)
      throw ShapeError(concat(name(), ": got images of ", x.h(), " x ", x.w(), " pixels, wanted 1 x 1"));
    Image<C, T> image(x.n(), H, W, x.pool());
    T* const out = image.data();
    detail::dispatch<T>(
        x.device(),
        [&] { permute(x.n(), [&](std::int64_t pixel, std::int64_t flat) { out[pixel] = x.data()[flat]; }); },
        [&](auto& gpu) { gpu.transpose(x.n(), C, H * W, x.data(), out, false); });
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [n = x.n(), x_id = x.id(), id = y.id(), device = x.device()](Tape& tape) {
        const T* dy = tape.gradient<T>(id);
        const auto dx = tape.target<T>(x_id);
        if (!dx) return;
        detail::dispatch<T>(
            device,
            [&] {
              permute(n, [&](std::int64_t pixel, std::int64_t flat) {
                dx.data[flat] = (dx.accumulate ? dx.data[flat] : T(0)) + dy[pixel];
              });
            },
            [&](auto& gpu) { gpu.transpose(n, H * W, C, dy, dx.data, dx.accumulate); });
      });
    return y;
  }
  /// For io/onnx_export.hpp.
  static auto onnx(auto&, const auto& x) {
    return x.as_image().template node_of_other_size<C>("Reshape",
                                                       {x.constant({4}, std::vector<std::int64_t>{0, C, H, W})});
  }

 private:
  static void permute(std::int64_t n, auto&& f) {
    for (std::int64_t image = 0; image < n; ++image)
      for (std::int64_t pixel = 0; pixel < H * W; ++pixel)
        for (std::int64_t c = 0; c < C; ++c) f((image * H * W + pixel) * C + c, (image * C + c) * H * W + pixel);
  }

  static_assert(C > 0 && H > 0 && W > 0, "strata::Unflatten<C, H, W>: extents must be positive");
};

}}  // namespace strata::STRATA_ABI
