// The gradients for the weights and the bias of a convolution with stride 1, by Winograd's algorithm:
//
//     dweight = G^T [ sum over tiles of (A dy A^T) * (B^T d B) ] G          36 sums of outer products, (in) x (out)
//
// Sixteen pixels of the output cost 36 multiplications for each pair of channels instead of 144. Larger filters are cut
// into parts of 3 x 3. The channels under the parts are cut into chunks and the tiles into ranges; a task adds up one
// chunk over one range, a block of tiles at a time. At the end the ranges are added in order and transformed to the
// taps of their part.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_direct_weight.hpp"
#include "strata/cpu/conv2d_winograd.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/cpu/winograd_tiles.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace winograd {

/// How the work is cut: by the problem alone, so that the order of the sums is too.
struct WeightGradientPlan {
  static constexpr std::int64_t chunk = 64;  ///< channels, of the input and of the output
  static constexpr std::int64_t block = 48;  ///< tiles
  static constexpr std::int64_t strip = 8;   ///< rows of sums that are transformed together

  WeightGradientPlan(const Conv2dProblem& p)
      : tiles(p.n, p.out_h(), p.out_w(), p.dilation),
        parts(p.kernel),
        in(p.in),
        out(p.out),
        part_chunks((in + chunk - 1) / chunk),
        chunk_parts(std::clamp<std::int64_t>(chunk / in, 1, parts.count)),
        in_chunks((parts.count + chunk_parts - 1) / chunk_parts * part_chunks),
        out_chunks((out + chunk - 1) / chunk),
        ranges(std::clamp<std::int64_t>(16 / (in_chunks * out_chunks), 1, most_ranges(tiles.count))),
        plane(plane_distance(rows(0) * columns(0))) {}

  /// Enough for four threads where a range has half a block at least; more only of four blocks each.
  static std::int64_t most_ranges(std::int64_t tiles) {
    return std::max({std::int64_t{1}, std::min<std::int64_t>(4, 2 * tiles / block), tiles / (4 * block)});
  }
  std::int64_t tasks() const { return ranges * in_chunks * out_chunks; }
  /// A chunk of the input: `width` channels from `channel` on under `count` parts of the filters from `part` on.
  struct InChunk {
    std::int64_t part, count, channel, width;
  };
  InChunk in_chunk(std::int64_t index) const {
    const std::int64_t part = index / part_chunks * chunk_parts, channel = index % part_chunks * chunk;
    return {part, std::min(chunk_parts, parts.count - part), channel, std::min(chunk, in - channel)};
  }
  std::int64_t rows(std::int64_t index) const {
    const InChunk c = in_chunk(index);
    return c.count * c.width;
  }
  /// Output channels of a chunk, padded to whole vectors.
  std::int64_t columns(std::int64_t out_chunk) const {
    return simd::padded<simd::Vector<float>>(std::min(chunk, out - out_chunk * chunk));
  }

  /// Of the sums of all tasks; where there is one range, a task transforms its own while they are in the cache.
  std::int64_t sums_size() const { return ranges == 1 ? 0 : tasks() * planes * plane; }
  std::int64_t bias_sums_size() const { return ranges * out_chunks * chunk; }
  /// Distance of the 36 planes of transformed tiles, of the input and of the gradient.
  std::int64_t v_stride() const { return TileReader::stride(in_chunk(0).count, in_chunk(0).width); }
  std::int64_t v_plane() const { return plane_distance(block * v_stride()); }
  std::int64_t q_plane() const { return plane_distance(block * columns(0)); }
  std::int64_t workspace_size() const {
    return planes * (v_plane() + q_plane()) + (ranges == 1 ? planes * plane : 0);
  }

  Tiles tiles;
  FilterParts parts;
  std::int64_t in, out;
  std::int64_t part_chunks, chunk_parts;  // chunks that the channels of a part make, or parts in a chunk
  std::int64_t in_chunks, out_chunks, ranges;
  std::int64_t plane;  ///< distance of the 36 sums of a task
};

/// dweight[o, tap, c] = or += (G^T s G)[tap of the part] for rows [first, end) of a chunk of the input and one of the
/// output, first a multiple of 8 and end at most 8 more; s is the sum over ranges of sums[range][plane][c][o], which lie
/// `distance` apart.
template <class T = float>
inline void transform_weight_gradient_rows(const WeightGradientPlan& plan, std::int64_t chunk, std::int64_t first,
                                           std::int64_t end, const float* sums, std::int64_t distance, float* dweight,
                                           bool accumulate) {
  using V = simd::Vector<float>;
  constexpr std::int64_t lanes = simd::lanes<V>, strip = WeightGradientPlan::strip;
  const std::int64_t out_chunk = chunk % plan.out_chunks;
  const auto in_chunk = plan.in_chunk(chunk / plan.out_chunks);
  const std::int64_t stride = plan.columns(out_chunk);
  std::array<float, lanes * 9 * strip> result;  // [o][tap][c]
  for (std::int64_t o = 0; o < stride; o += lanes) {
    for (std::int64_t c = first; c < end; ++c) {
      V du[planes], half[3 * tile], dg[9];
      for (int p = 0; p < planes; ++p) {
        const float* from = sums + p * plan.plane + c * stride + o;
        du[p] = simd::load<V>(from);
        for (std::int64_t range = 1; range < plan.ranges; ++range)
          du[p] += simd::load<V>(from + range * distance);
      }
      simd::unroll<tile>([&](auto j) STRATA_INLINED { weight_gradient_1d<tile, tile>(du + j, half + j); });
      simd::unroll<3>([&](auto i) STRATA_INLINED { weight_gradient_1d<1, 1>(half + i * tile, dg + i * 3); });
      for (int t = 0; t < 9; ++t)
        for (std::int64_t lane = 0; lane < lanes; ++lane)
          result[std::size_t((lane * 9 + t) * strip + c - first)] = dg[t][lane];
    }
    const std::int64_t o_first = out_chunk * WeightGradientPlan::chunk + o;
    for (std::int64_t lane = 0; lane < std::min(lanes, plan.out - o_first); ++lane)
      for (std::int64_t begin = first, stop; begin < end; begin = stop) {  // what lies under the same part
        const std::int64_t part = begin / in_chunk.width;
        stop = std::min(end, (part + 1) * in_chunk.width);
        for (std::int64_t t = 0; t < 9; ++t) {
          const std::int64_t tap = plan.parts.tap(in_chunk.part + part, t);
          if (tap < 0) continue;
          const float* from = result.data() + (lane * 9 + t) * strip + begin - first;
          float* to = dweight + ((o_first + lane) * plan.parts.kernel * plan.parts.kernel + tap) * plan.in +
                      in_chunk.channel + begin - part * in_chunk.width;
          for (std::int64_t c = 0; c < stop - begin; ++c) to[c] = accumulate ? to[c] + from[c] : from[c];
        }
      }
  }
}

/// The same for all of them: sums[range][chunk][plane][c][o].
template <class T = float>
inline void transform_weight_gradient(const WeightGradientPlan& plan, const float* sums, float* dweight,
                                      bool accumulate) {
  constexpr std::int64_t strip = WeightGradientPlan::strip, strips = WeightGradientPlan::chunk / strip;
  const std::int64_t chunks = plan.in_chunks * plan.out_chunks, size = planes * plan.plane;
  parallel_for(chunks * strips, [&](std::int64_t task) {
    const std::int64_t chunk = task / strips, first = task % strips * strip;
    transform_weight_gradient_rows(plan, chunk, first, std::min(first + strip, plan.rows(chunk / plan.out_chunks)),
                                   sums + chunk * size, chunks * size, dweight, accumulate);
  });
}

/// The sums of a plan's tasks and those of the bias, of x and dy as their maps give them; of a plan with one range the
/// gradient itself. Each pixel of dy is read once if there is one chunk of input channels.
template <class Map, class GradientMap>
void weight_gradient_sums(const WeightGradientPlan& plan, const Images<const float>& x, const Map& map,
                          std::int64_t padding, const Images<float>& dy, const GradientMap& gradient_map, float* sums,
                          float* bias_sums, float* dweight, bool accumulate) {
  using V = simd::Vector<float>;
  using Plan = WeightGradientPlan;
  const std::int64_t v_plane = plan.v_plane(), q_plane = plan.q_plane();
  WorkerScratch<float> workspace(plan.workspace_size());
  const TileReader reader(x, plan.parts, padding, plan.tiles.dilation);

  parallel_for(plan.tasks(), [&](std::int64_t task, int worker) {
    float* const v = workspace[worker];
    float* const q = v + planes * v_plane;
    float* const sum = plan.ranges == 1 ? q + planes * q_plane : sums + task * planes * plan.plane;
    const std::int64_t range = task / (plan.in_chunks * plan.out_chunks);
    const std::int64_t in_chunk = task / plan.out_chunks % plan.in_chunks, out_chunk = task % plan.out_chunks;
    const Plan::InChunk in = plan.in_chunk(in_chunk);
    const std::int64_t rows = in.count * in.width, columns = plan.columns(out_chunk), v_stride = plan.v_stride();
    const std::int64_t o_first = out_chunk * Plan::chunk, out = std::min(Plan::chunk, plan.out - o_first);
    std::array<float, std::size_t(Plan::chunk)> bias_sum{}, outside{};

    const std::int64_t begin = plan.tiles.count * range / plan.ranges;
    const std::int64_t end = plan.tiles.count * (range + 1) / plan.ranges;
    for (std::int64_t first = begin; first < end; first += Plan::block) {
      const std::int64_t count = std::min(Plan::block, end - first);
      for (std::int64_t t = 0; t < count; ++t) {
        const Tiles::Place place = plan.tiles[first + t];
        Window<step, float>(dy, place, plan.tiles.dilation, o_first, out, outside.data())
            .read(gradient_map, [&](const auto& pixel, std::int64_t o) {
              const V sixteen = transform_output_gradient(pixel, q + t * columns + o, q_plane);
              simd::store(bias_sum.data() + o, simd::load<V>(bias_sum.data() + o) + sixteen);
            });
        reader.transform(map, place, in.part, in.count, in.channel, in.width, v + t * v_stride, v_plane);
      }
      for (int plane = 0; plane < planes; ++plane)
        add_outer_products<V>(count, rows, columns, v + plane * v_plane, v_stride, q + plane * q_plane, columns,
                              sum + plane * plan.plane, columns, first > begin);
    }
    if (plan.ranges == 1)
      for (std::int64_t strip = 0; strip < rows; strip += Plan::strip)
        transform_weight_gradient_rows(plan, task, strip, std::min(strip + Plan::strip, rows), sum, 0, dweight,
                                       accumulate);
    if (in_chunk == 0)
      std::copy_n(bias_sum.data(), Plan::chunk, bias_sums + (range * plan.out_chunks + out_chunk) * Plan::chunk);
  });
}

}  // namespace winograd

/// Whether the gradients for the weights read each pixel of dy once, so that it can be replaced where it is read.
constexpr bool reads_gradient_once(const Conv2dProblem& p) {
  return p.kernel == 3 && p.in <= winograd::WeightGradientPlan::chunk;
}

/// dweight = or += the gradient for the weights, dbias (unless nullptr) = or += that for the bias, of the convolution
/// of input(x), for problems of Winograd's form. With `norm`, which asks for reads_gradient_once(p), dy is the gradient
/// for the result of a batch norm behind the convolution, and becomes that for the convolution's. A template, so that
/// only programs that use it compile it.
template <class T = float>
inline void winograd_backward_weight(const Conv2dProblem& p, const float* x, float* dy, float* dweight, float* dbias,
                                     bool accumulate, const ChannelAffine<float>& input = {},
                                     const NormGradient<float>& norm = {}) {
  using namespace winograd;
  const WeightGradientPlan plan(p);
  Scratch<float> sums(std::size_t(plan.sums_size())), bias_sums(std::size_t(plan.bias_sums_size()));
  const Images<const float> from{x, p.n, p.h, p.w, p.in};
  const Images<float> gradient{dy, p.n, p.out_h(), p.out_w(), p.out};
  const auto run = [&](const auto& map) {
    if (norm)
      weight_gradient_sums(plan, from, map, p.padding, gradient, NormGradientMap(norm, dy), sums.data(),
                           bias_sums.data(), dweight, accumulate);
    else
      weight_gradient_sums(plan, from, map, p.padding, gradient, Unchanged(), sums.data(), bias_sums.data(),
                           dweight, accumulate);
  };
  if (input)
    run(AffineMap(input));
  else
    run(Unchanged());
  if (plan.ranges > 1) transform_weight_gradient(plan, sums.data(), dweight, accumulate);
  if (dbias)
    detail::sum_ranges(bias_sums.data(), plan.ranges, plan.out_chunks * WeightGradientPlan::chunk, p.out, dbias,
                       accumulate);
}

/// Bytes that it takes from the pool while it runs.
inline std::size_t winograd_weight_workspace_bytes(const Conv2dProblem& p) {
  const winograd::WeightGradientPlan plan(p);
  return MemoryPool::block_bytes(std::size_t(plan.sums_size()) * sizeof(float)) +
         MemoryPool::block_bytes(std::size_t(plan.bias_sums_size()) * sizeof(float)) +
         WorkerScratch<float>::bytes(plan.workspace_size());
}

}}}  // namespace strata::STRATA_ABI::cpu
