// Convolution with stride 1 by Winograd's F(4x4, 3x3), forward and gradient for the input (winograd.hpp has the formulas).
// A block of tiles goes through all three steps before the next one is taken,
//
//     transform the tiles  ->  36 matrix products (tiles x in) * (in x out)  ->  transform back, bias, ReLU, write
//
// on a workspace that stays in the second-level cache of the core that works on it. Nothing but x, the weights and y
// passes through memory. Padding is handled where tiles are read, the ends of the image where they are written.
//
// A filter of more than 3 x 3 taps is a sum of parts of 3 x 3, each on the image moved by the part's place. The parts are
// added up in the products, whose depth is then parts * in: 5 x 5 takes 4 * 36 products for sixteen pixels instead of 400.
//
// The products' factors, transformed tiles and weights, are float or Bfloat16; all else is float.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/core/parallel.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/cpu/bfloat16.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/pixel_maps.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/cpu/winograd_tiles.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/channel_affine.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace winograd {

/// Bytes that the tiles of one block may take: under half of the second-level cache, which has 512 KiB or more where
/// there is AVX2 and 1 MiB or more where there is AVX-512. The other half is for the weights.
inline constexpr std::int64_t workspace_bytes = simd::register_bytes * (7 << 10);

/// Output channels whose products are held before they are transformed back: whole panels.
inline constexpr std::int64_t group_columns = 64;

/// The distance of planes of `size` numbers, an odd number of cache lines. At a distance of a power of two all 36 planes
/// would compete for the same few places in the cache.
template <class Number = float>
constexpr std::int64_t plane_distance(std::int64_t size) {
  constexpr std::int64_t line = 64 / std::int64_t(sizeof(Number));
  return ((size + line - 1) / line | 1) * line;
}

/// The distance of planes of transformed weights, and their size in floats.
template <class Factor>
constexpr std::int64_t weights_plane(std::int64_t depth, std::int64_t columns) {
  return plane_distance<Factor>(packed_size<simd::Vector<float>>(grouped<Factor>(depth), columns));
}
template <class Factor>
constexpr std::int64_t weights_size(std::int64_t depth, std::int64_t columns) {
  return planes * weights_plane<Factor>(depth, columns) * std::int64_t(sizeof(Factor)) / std::int64_t(sizeof(float));
}

/// u[plane] = (G g G^T)[plane] for every part g of the filters of every pair of channels, each plane a matrix of
/// (part, channel) x columns in panels.
template <class Factor>
void transform_weights(const WeightLayout<float>& weight, const FilterParts& parts, std::int64_t channels,
                       std::int64_t columns, Factor* u) {
  using V = simd::Vector<float>;
  constexpr std::int64_t lanes = simd::lanes<V>, panel_columns = panel_vectors * lanes, chunk = 16;
  constexpr std::int64_t group = factor_group<Factor>;
  const std::int64_t depth = parts.count * channels, plane = weights_plane<Factor>(depth, columns);
  const std::int64_t chunks = (depth + chunk - 1) / chunk;
  parallel_for(simd::padded<V>(columns) / lanes * chunks, [&](std::int64_t task) {
    const std::int64_t column = task / chunks * lanes, first = task % chunks * chunk;
    const std::int64_t count = std::min(lanes, columns - column);
    const std::int64_t panel = column / panel_columns * panel_columns;
    const std::int64_t width = std::min(panel_columns, simd::padded<V>(columns) - panel);
    for (std::int64_t k = first; k < std::min(depth, first + chunk); k += group) {
      V values[group * planes];
      for (std::int64_t member = 0; member < group; ++member) {
        V g[9]{}, half[tile * 3];
        const std::int64_t part = (k + member) / channels, channel = (k + member) % channels;
        for (std::int64_t t = 0; t < 9 && part < parts.count; ++t) {
          const std::int64_t tap = parts.tap(part, t);
          if (tap < 0) continue;
          for (std::int64_t lane = 0; lane < count; ++lane)
            g[t][lane] = weight.first[channel * weight.k + (column + lane) * weight.column + tap * weight.tap];
        }
        simd::unroll<3>([&](auto j) STRATA_INLINED { weight_1d<3, 3>(g + j, half + j); });
        simd::unroll<tile>([&](auto i)
                               STRATA_INLINED { weight_1d<1, 1>(half + i * 3, values + member * planes + i * tile); });
      }
      Factor* to = u + grouped<Factor>(depth) * panel + k * width + (column - panel) * group;
      simd::unroll<planes>([&](auto p) STRATA_INLINED { store_group(to + p * plane, values + p, planes); });
    }
  });
}

/// Tiles in a block: as many as the workspace holds, but enough to be worth reading all weights for, and fewer if that
/// leaves fewer than 16 blocks; a multiple of block_rows.
inline std::int64_t block_tiles(std::int64_t tiles, std::int64_t depth, std::int64_t columns, std::int64_t factor_bytes) {
  const std::int64_t tile_bytes =
      planes * (depth * factor_bytes + std::min(columns, group_columns) * std::int64_t(sizeof(float)));
  const std::int64_t wanted = std::min(std::clamp<std::int64_t>(workspace_bytes / tile_bytes, 18, 48), tiles / 16);
  return std::max<std::int64_t>(wanted / block_rows, 2) * block_rows;
}

/// m[plane] = v[plane] * u[plane] for `columns` columns from `first` on and `tiles` rows, a multiple of block_rows, of
/// `count` planes.
template <class Factor>
void multiply_planes(std::int64_t tiles, std::int64_t depth, std::int64_t first, std::int64_t columns, const Factor* v,
                     std::int64_t v_stride, std::int64_t v_plane, const Factor* u, std::int64_t u_plane, float* m,
                     std::int64_t m_plane, int count = planes) {
  using V = simd::Vector<float>;
  const std::int64_t m_stride = simd::padded<V>(columns);
  for (int p = 0; p < count; ++p, v += v_plane, u += u_plane, m += m_plane)
    for_each_panel<V>(columns, [&](std::int64_t column, auto vectors) {
      const auto multiply_rows = [&](std::int64_t t, auto rows) STRATA_INLINED {
        const Factor* const panel = u + depth * (first + column);
        const auto row = [&](int r) STRATA_INLINED { return v + (t + r) * v_stride; };
        const auto write = [&](int r, int j, V sum)
            STRATA_INLINED { simd::store(m + (t + r) * m_stride + column + j * simd::lanes<V>, sum); };
        if constexpr (std::is_same_v<Factor, Bfloat16>)
          multiply_pairs<rows, vectors>(depth, row, panel, write);
        else
          multiply<V, rows, vectors>(1, depth, [&](std::int64_t, int r) STRATA_INLINED { return row(r); }, panel, write);
      };
      constexpr std::integral_constant<int, panel_rows(vectors)> most;
      constexpr std::integral_constant<int, block_rows> least;
      std::int64_t t = 0;
      for (; t + most <= tiles; t += most) multiply_rows(t, most);
      if constexpr (most > least)
        if (t < tiles) multiply_rows(t, least);
    });
}

/// How a vector of results is written.
struct AddTo {
  [[gnu::always_inline]] void operator()(simd::Vector<float> sum, float* to) const {
    simd::store(to, simd::load<simd::Vector<float>>(to) + sum);
  }
  [[gnu::always_inline]] void prefetch(std::uintptr_t address) const { cpu::detail::prefetch_to_write(address); }
};
template <class Sink>
struct Finish {
  simd::Vector<float> bias, floor;
  Sink& sink;
  [[gnu::always_inline]] void operator()(simd::Vector<float> sum, float* to) const {
    simd::store(to, sink(simd::max(floor, sum + bias), to));
  }
  [[gnu::always_inline]] void prefetch(std::uintptr_t address) const { sink.prefetch(address); }
};

/// Transforms the products of one tile back and writes what lies inside the image: channels [first, first + columns).
template <class T = float>
inline void write_tile(const float* m, std::int64_t plane, const Window<step, float>& window, std::int64_t first,
                       const VectorEpilogue<float>& epilogue) {
  if (epilogue.accumulate())
    window.write([&](const auto& pixel, std::int64_t c) { transform_output(m + c, plane, pixel, AddTo()); });
  else
    window.write([&](const auto& pixel, std::int64_t c) {
      NoSink::At sink;
      transform_output(m + c, plane, pixel, Finish<NoSink::At>{epilogue.bias(first + c), epilogue.floor(), sink});
    });
}

/// The same for a tile that lies inside the image with whole vectors of channels, through a sink.
template <class Sink>
void write_tile_through(const float* m, std::int64_t plane, const Window<step, float>& window, std::int64_t first,
                        const VectorEpilogue<float>& epilogue, const Sink& sink) {
  window.write([&](const auto& pixel, std::int64_t c) {
    auto at = sink.template at<simd::Vector<float>>(first + c);
    transform_output(m + c, plane, pixel, Finish<decltype(at)>{epilogue.bias(first + c), epilogue.floor(), at});
    sink.keep(first + c, at);
  });
}

/// Calls f.template operator()<V>(c) for every channel below `count`, whole vectors first, then single ones.
template <class F>
void over_channels(std::int64_t count, F&& f) {
  using V = simd::Vector<float>;
  std::int64_t c = 0;
  for (; c + simd::lanes<V> <= count; c += simd::lanes<V>) f.template operator()<V>(c);
  for (; c < count; ++c) f.template operator()<float>(c);
}

/// Sends what has been written of any tile through a sink.
template <class Sink>
void pass_through(const Window<step, float>& window, std::int64_t first, std::int64_t columns, const Sink& sink) {
  over_channels(columns, [&]<class W>(std::int64_t c) {
    auto at = sink.template at<W>(first + c);
    window.for_each_pixel([&](float* pixel) { simd::store<W>(pixel + c, at(simd::load<W>(pixel + c), pixel + c)); });
    sink.keep(first + c, at);
  });
}

/// Makes the mean of a tile's pixels the pivot of its channels, and the sums zero.
inline void start(const Window<step, float>& window, std::int64_t first, std::int64_t columns, const StatisticsSink& sink) {
  over_channels(columns, [&]<class W>(std::int64_t c) {
    W total{};
    float count = 0;
    window.for_each_pixel([&](const float* pixel) { total += simd::load<W>(pixel + c), count += 1; });
    simd::store<W>(sink.numbers + 2 * sink.channels + first + c, total / (W{} + std::max(count, 1.0f)));
    simd::store<W>(sink.numbers + first + c, W{});
    simd::store<W>(sink.numbers + sink.channels + first + c, W{});
  });
}
inline void start(const Window<step, float>&, std::int64_t first, std::int64_t columns, const NormSumsSink& sink) {
  std::fill_n(sink.numbers + first, columns, 0.0f);
  std::fill_n(sink.numbers + sink.channels + first, columns, 0.0f);
}

/// How a convolution's tiles are cut into blocks, by the problem alone, and the workspace of a block: transformed tiles v
/// and products m, 36 planes of each, and room for pixels outside the image.
template <class Factor>
struct ConvolutionPlan {
  using V = simd::Vector<float>;

  ConvolutionPlan(const Images<const float>& x, const Images<float>& y, std::int64_t kernel, std::int64_t dilation)
      : parts(kernel),
        depth(grouped<Factor>(parts.count * x.c)),
        tiles(y.n, y.h, y.w, dilation),
        block(block_tiles(tiles.count, depth, y.c, sizeof(Factor))),
        blocks((tiles.count + block - 1) / block),
        v_stride(TileReader::stride(parts.count, x.c)),
        m_stride(simd::padded<V>(std::min(y.c, group_columns))),
        v_plane(plane_distance<Factor>(block * v_stride)),
        m_plane(plane_distance(block * m_stride)) {}

  /// In floats: of the tiles alone, and of all.
  std::int64_t v_size() const { return planes * v_plane * std::int64_t(sizeof(Factor)) / std::int64_t(sizeof(float)); }
  std::int64_t workspace_size() const { return v_size() + planes * m_plane + m_stride; }

  FilterParts parts;
  std::int64_t depth;  ///< of the products
  Tiles tiles;
  std::int64_t block, blocks, v_stride, m_stride, v_plane, m_plane;
};

/// y = epilogue(convolution of x, read through `map`, with the transformed weights u). make_sink(b) is the sink of what
/// block b writes.
template <class Factor, class Map, class MakeSink>
void convolution(const ConvolutionPlan<Factor>& plan, const Images<const float>& x, const Map& map, std::int64_t padding,
                 const Factor* u, const Images<float>& y, const Epilogue<float>& scalar_epilogue, const MakeSink& make_sink) {
  using V = simd::Vector<float>;
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
    const std::int64_t first = task * plan.block, count = std::min(plan.block, tiles.count - first);
    const std::int64_t rows = (count + block_rows - 1) / block_rows * block_rows;
    for (std::int64_t t = 0; t < count; ++t)
      reader.transform(map, tiles[first + t], 0, plan.parts.count, 0, x.c, v + t * v_stride, v_plane);
    for (int p = 0; p < planes; ++p) std::fill_n(v + p * v_plane + count * v_stride, (rows - count) * v_stride, Factor{});

    const auto sink = make_sink(task);
    for (std::int64_t group = 0; group < y.c; group += group_columns) {
      const std::int64_t columns = std::min(group_columns, y.c - group);
      multiply_planes(rows, plan.depth, group, columns, v, v_stride, v_plane, u, u_plane, m, m_plane);
      for (std::int64_t t = 0; t < count; ++t) {
        const float* const products = m + t * simd::padded<V>(columns);
        const Window<step, float> window(y, tiles[first + t], tiles.dilation, group, columns, outside);
        if constexpr (std::is_same_v<decltype(sink), const NoSink>) {
          write_tile(products, m_plane, window, group, epilogue);
        } else if (t > 0 && window.whole()) {
          write_tile_through(products, m_plane, window, group, epilogue, sink);
        } else {
          write_tile(products, m_plane, window, group, epilogue);
          if (t == 0) start(window, group, columns, sink);
          pass_through(window, group, columns, sink);
        }
      }
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

/// Whether a problem has the form that Winograd's algorithm computes: stride 1, at least 3 x 3. (It could crop more padding
/// than the kernel reaches too, but results that see nothing but padding would have its rounding errors where 0 is exact.)
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

/// y = epilogue(convolution of input(x) with packed weights), for problems of Winograd's form. Statistics of y on request.
template <class Factor>
void winograd_forward_packed(const Conv2dProblem& p, const float* x, const Factor* packed, float* y,
                             const Epilogue<float>& epilogue, const ChannelAffine<float>& input = {},
                             const ChannelStatistics& statistics = {}) {
  using namespace winograd;
  const Images<const float> from{x, p.n, p.h, p.w, p.in};
  const Images<float> to{y, p.n, p.out_h(), p.out_w(), p.out};
  const ConvolutionPlan<Factor> plan(from, to, p.kernel, p.dilation);
  const auto run = [&](const auto& make_sink) {
    if (input)
      convolution<Factor>(plan, from, AffineMap(input), p.padding, packed, to, epilogue, make_sink);
    else
      convolution<Factor>(plan, from, Unchanged(), p.padding, packed, to, epilogue, make_sink);
  };
  if (!statistics) return run([](std::int64_t) { return NoSink(); });
  const std::int64_t block_size = StatisticsSink::rows * p.out;
  Scratch<float> partial(std::size_t(plan.blocks * block_size));
  run([&](std::int64_t b) { return StatisticsSink{partial.data() + b * block_size, p.out}; });
  merge_statistics(plan, to, partial.data(), statistics);
}

/// The same from the weights themselves.
template <class Factor = float>
void winograd_forward(const Conv2dProblem& p, const float* x, const float* weight, float* y, const Epilogue<float>& epilogue,
                      const ChannelAffine<float>& input = {}, const ChannelStatistics& statistics = {}) {
  Scratch<float> memory(std::size_t(winograd_packed_size<Factor>(p)));
  auto* const packed = reinterpret_cast<Factor*>(memory.data());
  winograd_pack(p, weight, packed);
  winograd_forward_packed<Factor>(p, x, packed, y, epilogue, input, statistics);
}

/// dx = epilogue(the gradient for the input): the convolution of dy with the filters turned by 180 degrees and the rest of the
/// padding. With `sums`, dx is the gradient behind a batch norm and its activation.
template <class Factor = float>
void winograd_backward_input(const Conv2dProblem& p, const float* dy, const float* weight, float* dx,
                             const Epilogue<float>& epilogue, const NormGradientSums<float>& sums = {}) {
  using namespace winograd;
  const Images<const float> from{dy, p.n, p.out_h(), p.out_w(), p.out};
  const Images<float> to{dx, p.n, p.h, p.w, p.in};
  const ConvolutionPlan<Factor> plan(from, to, p.kernel, p.dilation);
  const std::int64_t taps = std::int64_t{p.kernel} * p.kernel;
  Scratch<float> memory(std::size_t(weights_size<Factor>(plan.depth, p.in)));
  auto* const u = reinterpret_cast<Factor*>(memory.data());
  transform_weights({weight + (taps - 1) * p.in, -p.in, taps * p.in, 1}, plan.parts, p.out, p.in, u);
  const auto run = [&](const auto& make_sink) {
    convolution<Factor>(plan, from, Unchanged(), p.dilation * (p.kernel - 1) - p.padding, u, to, epilogue, make_sink);
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

/// Bytes that one of the two takes from the pool while it runs, packed weights and sums included, with factors of float.
inline std::size_t winograd_workspace_bytes(const Conv2dProblem& p, bool backward) {
  const Images<const float> from{nullptr, p.n, backward ? p.out_h() : p.h, backward ? p.out_w() : p.w, backward ? p.out : p.in};
  const Images<float> to{nullptr, p.n, backward ? p.h : p.out_h(), backward ? p.w : p.out_w(), backward ? p.in : p.out};
  const winograd::ConvolutionPlan<float> plan(from, to, p.kernel, p.dilation);
  const std::int64_t sums = StatisticsSink::rows * to.c * plan.blocks;
  return MemoryPool::block_bytes(std::size_t(winograd::weights_size<float>(plan.depth, to.c)) * sizeof(float)) +
         WorkerScratch<float>::bytes(plan.workspace_size()) + MemoryPool::block_bytes(std::size_t(sums) * sizeof(float));
}

}  // namespace strata::inline STRATA_ABI::cpu
