// Two steps of a block of Winograd's tiles: the products of its planes, and their way back to pixels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "strata/cpu/batch_norm.hpp"
#include "strata/cpu/bfloat16.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/pixel_maps.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/cpu/winograd_plan.hpp"
#include "strata/cpu/winograd_tiles.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu::winograd {

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
      for_each_row_block<vectors>(tiles, [&](std::int64_t t, auto rows) STRATA_INLINED {
        const Factor* const panel = u + depth * (first + column);
        const auto row = [&](int r) STRATA_INLINED { return v + (t + r) * v_stride; };
        const auto write = [&](int r, int j, V sum) STRATA_INLINED {
          simd::store(m + (t + r) * m_stride + column + j * simd::lanes<V>, sum);
        };
        if constexpr (std::is_same_v<Factor, Bfloat16>)
          multiply_pairs<rows, vectors>(depth, row, panel, write);
        else
          multiply<V, rows, vectors>(
              1, depth, [&](std::int64_t, int r) STRATA_INLINED { return row(r); }, panel, write);
      });
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
inline void start(const Window<step, float>& window, std::int64_t first, std::int64_t columns,
                  const StatisticsSink& sink) {
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

/// Transforms the products of block `index` back and writes them, through a sink: channels [group, group + columns).
/// `outside` is room for what lies outside the image.
template <class Factor, class Sink>
void write_block(const ConvolutionPlan<Factor>& plan, std::int64_t index, const Images<float>& y, std::int64_t group,
                 std::int64_t columns, const float* m, float* outside, const VectorEpilogue<float>& epilogue,
                 const Sink& sink) {
  const std::int64_t first = index * plan.block, count = plan.tiles_of(index);
  for (std::int64_t t = 0; t < count; ++t) {
    const float* const products = m + t * simd::padded<simd::Vector<float>>(columns);
    const Window<step, float> window(y, plan.tiles[first + t], plan.tiles.dilation, group, columns, outside);
    if constexpr (std::is_same_v<Sink, NoSink>) {
      write_tile(products, plan.m_plane, window, group, epilogue);
    } else if (t > 0 && window.whole()) {
      write_tile_through(products, plan.m_plane, window, group, epilogue, sink);
    } else {
      write_tile(products, plan.m_plane, window, group, epilogue);
      if (t == 0) start(window, group, columns, sink);
      pass_through(window, group, columns, sink);
    }
  }
}

}}}  // namespace strata::STRATA_ABI::cpu::winograd
