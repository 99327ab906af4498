// Convolution with stride 1 by Winograd's F(4x4, 3x3), forward and gradient for the input (winograd.hpp has the
// formulas). A block of tiles goes through all three steps before the next one is taken,
//
//     transform the tiles  ->  36 matrix products (tiles x in) * (in x out)  ->  transform back, bias, ReLU, write
//
// on a workspace that stays in the second-level cache of the core that works on it. Nothing but x, the weights and y
// passes through memory. Padding is handled where tiles are read, the ends of the image where they are written.
//
// A filter of more than 3 x 3 taps is a sum of parts of 3 x 3, each on the image moved by the part's place. The parts
// are added up in the products, whose depth is then parts * in: 5 x 5 takes 4 * 36 products for sixteen pixels instead
// of 400.
//
// The products' factors, transformed tiles and weights, are float or Bfloat16; all else is float.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/core/parallel.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/cpu/bfloat16.hpp"
#include "strata/cpu/conv2d_winograd_deep.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/pixel_maps.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/cpu/winograd_block.hpp"
#include "strata/cpu/winograd_plan.hpp"
#include "strata/cpu/winograd_tiles.hpp"
#include "strata/cpu/winograd_weights.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/channel_affine.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace winograd {

/// The weights of a convolution: transformed ones, or for deep plans as they are, with packed = nullptr.
template <class Factor>
struct Weights {
  const Factor* packed;
  WeightLayout<float> plain = {};
};

/// y = epilogue(convolution of x, read through `map`, with the weights). make_sink(b) is the sink of what block b
/// writes.
template <class Factor, class Map, class MakeSink>
void convolution(const ConvolutionPlan<Factor>& plan, const Images<const float>& x, const Map& map,
                 std::int64_t padding, const Weights<Factor>& weights, const Images<float>& y,
                 const Epilogue<float>& scalar_epilogue, const MakeSink& make_sink) {
  if constexpr (std::is_same_v<Factor, float>)
    if (plan.deep)
      return deep_convolution(plan, x, map, padding, {weights.packed, weights.plain, x.c, y.c}, y, scalar_epilogue,
                              make_sink);
  const VectorEpilogue<float> epilogue(scalar_epilogue, y.c);
  const Tiles& tiles = plan.tiles;
  const std::int64_t v_stride = plan.v_stride, v_plane = plan.v_plane, m_plane = plan.m_plane;
  const std::int64_t u_plane = weights_plane<Factor>(plan.depth, y.c);
  WorkerScratch<float> workspace(plan.workspace_size());
  const TileReader reader(x, plan.parts, padding, tiles.dilation);

  parallel_for(plan.blocks, [&](std::int64_t task, int worker) {
    auto* const v = reinterpret_cast<Factor*>(workspace[worker]);
    float* const m = workspace[worker] + plan.v_size();
    float* const outside = m + planes * m_plane;
    std::fill_n(outside, plan.m_stride, 0.0f);
    const std::int64_t first = task * plan.block, count = plan.tiles_of(task);
    const std::int64_t rows = (count + block_rows - 1) / block_rows * block_rows;
    for (std::int64_t t = 0; t < count; ++t)
      reader.transform(map, tiles[first + t], 0, plan.parts.count, 0, x.c, v + t * v_stride, v_plane);
    for (int p = 0; p < planes; ++p)
      std::fill_n(v + p * v_plane + count * v_stride, (rows - count) * v_stride, Factor{});

    const auto sink = make_sink(task);
    for (std::int64_t group = 0; group < y.c; group += group_columns) {
      const std::int64_t columns = std::min(group_columns, y.c - group);
      multiply_planes(rows, plan.depth, group, columns, v, v_stride, v_plane, weights.packed, u_plane, m, m_plane);
      write_block(plan, task, y, group, columns, m, outside, epilogue, sink);
    }
  });
}

/// Mean and variance from what the blocks have gathered.
template <class Factor>
void merge_statistics(const ConvolutionPlan<Factor>& plan, const Images<float>& y, const float* partial,
                             const ChannelStatistics& statistics) {
  Scratch<double> counts(std::size_t(plan.blocks));
  for (std::int64_t b = 0; b < plan.blocks; ++b) {
    std::int64_t pixels = 0;
    for (std::int64_t t = b * plan.block; t < std::min(plan.tiles.count, (b + 1) * plan.block); ++t) {
      const Tiles::Place place = plan.tiles[t];
      const auto inside = [&](std::int64_t left) {
        return std::clamp<std::int64_t>((left + plan.tiles.dilation - 1) / plan.tiles.dilation, 0, step);
      };
      pixels += inside(y.h - place.h) * inside(y.w - place.w);
    }
    counts[std::size_t(b)] = double(pixels);
  }
  cpu::detail::merge_statistics(plan.blocks, int(y.c), statistics, [&](std::int64_t b, int c) {
    const float* from = partial + b * StatisticsSink::rows * y.c + c;
    if (counts[std::size_t(b)] == 0) return cpu::detail::PartialStatistics{};
    const double count = counts[std::size_t(b)], sum = double(from[0]), squares = double(from[y.c]);
    return cpu::detail::PartialStatistics{count, double(from[2 * y.c]) + sum / count, squares - sum * sum / count};
  });
}

}  // namespace winograd

/// Whether a problem has the form that Winograd's algorithm computes: stride 1, at least 3 x 3. (It could crop more
/// padding than the kernel reaches too, but results that see nothing but padding would have its rounding errors where 0
/// is exact.)
constexpr bool has_winograd_form(const Conv2dProblem& p) {
  return p.square() && p.kernel >= 3 && p.stride == 1 && p.padding <= p.dilation * (p.kernel - 1);
}

/// Floats of the weights that winograd_forward_packed reads, and how they are made.
template <class Factor = float>
std::int64_t winograd_packed_size(const Conv2dProblem& p) {
  return winograd::weights_size<Factor>(winograd::FilterParts(p.kernel).count * p.in, p.out);
}
template <class Factor>
void winograd_pack(const Conv2dProblem& p, const float* weight, Factor* packed) {
  const std::int64_t taps = std::int64_t{p.kernel} * p.kernel;
  winograd::transform_weights({weight, p.in, 1, taps * p.in}, winograd::FilterParts(p.kernel), p.in, p.out, packed);
}

namespace detail {

template <class Factor>
winograd::ConvolutionPlan<Factor> winograd_plan(const Conv2dProblem& p, bool backward) {
  const Images<const float> image{nullptr, p.n, p.h, p.w, p.in};
  const Images<const float> result{nullptr, p.n, p.out_h(), p.out_w(), p.out};
  return {backward ? result : image, backward ? image : result, p.kernel, p.dilation};
}

template <class Factor>
void winograd_forward(const Conv2dProblem& p, const float* x, const winograd::Weights<Factor>& weights, float* y,
                      const Epilogue<float>& epilogue, const ChannelAffine<float>& input,
                      const ChannelStatistics& statistics) {
  using namespace winograd;
  const Images<const float> from{x, p.n, p.h, p.w, p.in};
  const Images<float> to{y, p.n, p.out_h(), p.out_w(), p.out};
  const auto plan = winograd_plan<Factor>(p, false);
  const auto run = [&](const auto& make_sink) {
    if (input)
      convolution<Factor>(plan, from, AffineMap(input), p.padding, weights, to, epilogue, make_sink);
    else
      convolution<Factor>(plan, from, Unchanged(), p.padding, weights, to, epilogue, make_sink);
  };
  if (!statistics) return run([](std::int64_t) { return NoSink(); });
  const std::int64_t block_size = StatisticsSink::rows * p.out;
  Scratch<float> partial(std::size_t(plan.blocks * block_size));
  run([&](std::int64_t b) { return StatisticsSink{partial.data() + b * block_size, p.out}; });
  merge_statistics(plan, to, partial.data(), statistics);
}

}  // namespace detail

/// y = epilogue(convolution of input(x) with packed weights), for problems of Winograd's form. Statistics of y on
/// request.
template <class Factor>
void winograd_forward_packed(const Conv2dProblem& p, const float* x, const Factor* packed, float* y,
                             const Epilogue<float>& epilogue, const ChannelAffine<float>& input = {},
                             const ChannelStatistics& statistics = {}) {
  detail::winograd_forward<Factor>(p, x, {packed}, y, epilogue, input, statistics);
}

/// The same from the weights themselves.
template <class Factor = float>
void winograd_forward(const Conv2dProblem& p, const float* x, const float* weight, float* y,
                      const Epilogue<float>& epilogue, const ChannelAffine<float>& input = {},
                      const ChannelStatistics& statistics = {}) {
  const std::int64_t taps = std::int64_t{p.kernel} * p.kernel;
  if (detail::winograd_plan<Factor>(p, false).transforms_in_place())
    return detail::winograd_forward<Factor>(p, x, {nullptr, {weight, p.in, 1, taps * p.in}}, y, epilogue, input,
                                            statistics);
  Scratch<float> memory(std::size_t(winograd_packed_size<Factor>(p)));
  auto* const packed = reinterpret_cast<Factor*>(memory.data());
  winograd_pack(p, weight, packed);
  winograd_forward_packed<Factor>(p, x, packed, y, epilogue, input, statistics);
}

/// dx = epilogue(the gradient for the input): the convolution of dy with the filters turned by 180 degrees and the rest
/// of the padding. With `sums`, dx is the gradient behind a batch norm and its activation.
template <class Factor = float>
void winograd_backward_input(const Conv2dProblem& p, const float* dy, const float* weight, float* dx,
                             const Epilogue<float>& epilogue, const NormGradientSums<float>& sums = {}) {
  using namespace winograd;
  const Images<const float> from{dy, p.n, p.out_h(), p.out_w(), p.out};
  const Images<float> to{dx, p.n, p.h, p.w, p.in};
  const auto plan = detail::winograd_plan<Factor>(p, true);
  const std::int64_t taps = std::int64_t{p.kernel} * p.kernel;
  const WeightLayout<float> turned{weight + (taps - 1) * p.in, -p.in, taps * p.in, 1};
  const bool in_place = plan.transforms_in_place();
  Scratch<float> memory(std::size_t(in_place ? 0 : weights_size<Factor>(plan.depth, p.in)));
  auto* const u = in_place ? nullptr : reinterpret_cast<Factor*>(memory.data());
  if (!in_place) transform_weights(turned, plan.parts, p.out, p.in, u);
  const auto run = [&](const auto& make_sink) {
    convolution<Factor>(plan, from, Unchanged(), p.dilation * (p.kernel - 1) - p.padding, {u, turned}, to,
                        epilogue, make_sink);
  };
  if (!sums) return run([](std::int64_t) { return NoSink(); });
  const std::int64_t block_size = NormSumsSink::rows * p.in;
  Scratch<float> partial(std::size_t(plan.blocks * block_size));
  run([&](std::int64_t b) { return NormSumsSink{partial.data() + b * block_size, p.in, sums, dx}; });
  Scratch<double> both(std::size_t(2 * p.in));
  detail::sum_rows(partial.data(), plan.blocks, 2 * p.in, both.data());
  std::copy_n(both.data(), p.in, sums.sum_g);
  std::copy_n(both.data() + p.in, p.in, sums.sum_gx);
}

/// Bytes that one of the two takes from the pool while it runs, sums included, with factors of float; unless the weights
/// are packed before, those too.
inline std::size_t winograd_workspace_bytes(const Conv2dProblem& p, bool backward, bool packed = false) {
  const auto plan = detail::winograd_plan<float>(p, backward);
  const std::int64_t columns = backward ? p.in : p.out, sums = StatisticsSink::rows * columns * plan.blocks;
  const std::int64_t weights = winograd::weights_size<float>(plan.depth, columns);
  return (packed || plan.transforms_in_place() ? 0 : MemoryPool::block_bytes(std::size_t(weights) * sizeof(float))) +
         (plan.deep ? winograd::deep_workspace_bytes(plan, columns)
                    : WorkerScratch<float>::bytes(plan.workspace_size())) +
         MemoryPool::block_bytes(std::size_t(sums) * sizeof(float));
}

}}}  // namespace strata::STRATA_ABI::cpu
