// Flatten, which makes a vector of an image, and Unflatten, which makes an image of a vector.
//
//     st::Sequential<st::Conv2d<1, 8>, st::ReLU, st::Flatten<8, 7, 7>, st::Linear<392, 10>>
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

namespace detail {

/// to[b, column, row] = or += from[b, row, column].
template <class T>
void transpose(Device device, std::int64_t batch, std::int64_t rows, std::int64_t columns, const T* from, T* to,
               bool accumulate) {
  dispatch<T>(
      device,
      [&] {
        for (std::int64_t b = 0; b < batch; ++b, from += rows * columns, to += rows * columns)
          for (std::int64_t row = 0; row < rows; ++row)
            for (std::int64_t column = 0; column < columns; ++column) {
              T& place = to[column * rows + row];
              place = (accumulate ? place : T(0)) + from[row * columns + column];
            }
      },
      [&](auto& gpu) { gpu.transpose(batch, rows, columns, from, to, accumulate); });
}

/// Images of h x w pixels that have the numbers of x, rows x columns for each image, column by column.
template <int Out, Pass P, int In, class T>
auto transposed(P& pass, const Var<In, T>& x, std::int64_t h, std::int64_t w, std::int64_t rows, std::int64_t columns) {
  Image<Out, T> image(x.n(), h, w, x.pool());
  transpose(x.device(), x.n(), rows, columns, x.data(), image.data(), false);
  auto y = pass.output(std::move(image));
  if constexpr (P::training)
    pass.tape()->record(
        y.id(), [n = x.n(), rows, columns, x_id = x.id(), id = y.id(), device = x.device()](Tape& tape) {
          if (const auto dx = tape.target<T>(x_id))
            transpose<T>(device, n, columns, rows, tape.gradient<T>(id), dx.data, dx.accumulate);
        });
  return y;
}

}  // namespace detail

/// Images of C x H x W become images of C*H*W channels and one pixel, in PyTorch's order (channel by channel).
template <int C, int H, int W>
class Flatten : public Layer<Flatten<C, H, W>> {
 public:
  using io = maps<C, C * H * W>;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) {
    t.wants(H, W);
    t.whole_image();
    t.channels(C * H * W);
  }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return concat("Flatten(", C, "x", H, "x", W, ")"); }
  static auto onnx(auto&, const auto& x) { return x.template flat<C * H * W>(); }

  template <Pass P, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    if (x.h() != H || x.w() != W)
      throw ShapeError(concat(name(), ": got images of ", x.h(), " x ", x.w(), " pixels, wanted ", H, " x ", W));
    return detail::transposed<C * H * W>(pass, x, 1, 1, H * W, C);
  }

  static_assert(C > 0 && H > 0 && W > 0, "strata::Flatten<C, H, W>: extents must be positive");
};

/// Images of C*H*W channels and one pixel become images of C x H x W: torch.nn.Unflatten(1, (C, H, W)).
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
  static auto onnx(auto&, const auto& x) {
    return x.as_image().template node_of_other_size<C>("Reshape",
                                                       {x.constant({4}, std::vector<std::int64_t>{0, C, H, W})});
  }

  template <Pass P, class T>
  static auto forward(auto&, P& pass, const Var<C * H * W, T>& x) {
    if (x.h() != 1 || x.w() != 1)
      throw ShapeError(concat(name(), ": got images of ", x.h(), " x ", x.w(), " pixels, wanted 1 x 1"));
    return detail::transposed<C>(pass, x, H, W, C, H * W);
  }

  static_assert(C > 0 && H > 0 && W > 0, "strata::Unflatten<C, H, W>: extents must be positive");
};

}}  // namespace strata::STRATA_ABI
