// Convolution by its definition, for every kernel size, stride, padding, dilation and number of channels.
//
// Forward and the gradient for the input are both "gathers": a pixel of the result is a sum over taps of (source pixel)
// times (matrix of the tap). Two kernels do it:
//
//     any -> many       panels: 6 or 8 pixels x 1 or 2 vectors of channels at a time, sums in registers
//     many -> 1 to 4    dot products: vectors along the channels of the source, summed at the end
//
// With stride s a pixel of the input feeds only the results whose tap p fulfils (i + padding - p * dilation) mod s = 0.
// The gradient for the input therefore runs once for each of the s * s classes of pixels, each with its own taps.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_gather.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/conv2d_thin.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// The weights of a gather in the order the kernel reads them: panel by panel, tap by tap, channel by channel of the
/// source, one row of a panel's columns each, zeros behind the last column. The panel that starts at column c begins at
/// c * (all rows).
template <class T>
void pack_direct_panels(const TapGrid& grid, std::int64_t from_channels, std::int64_t columns,
                        const WeightLayout<T>& weight, T* packed) {
  using V = simd::Vector<T>;
  for_each_even_panel<V, direct_vectors>(columns, [&](std::int64_t first, auto vectors) {
    constexpr std::int64_t width = vectors * simd::lanes<V>;
    T* const panel = packed + grid.tap_count * from_channels * first;
    const std::int64_t some = std::min(width, columns - first);
    parallel_ranges(grid.tap_count, std::max<std::int64_t>(1, 4096 / from_channels / width),
                    [&](std::int64_t begin, std::int64_t end) {
                      for (std::int64_t t = begin; t < end; ++t)
                        for (std::int64_t k = 0; k < from_channels; ++k) {
                          T* const row = panel + (t * from_channels + k) * width;
                          for (std::int64_t c = 0; c < some; ++c) row[c] = weight(grid.taps[t], k, first + c);
                          std::fill(row + some, row + width, T(0));
                        }
                    });
  });
}

/// From here on results of thin convolutions are written past the caches, which do not hold them until the next layer reads
/// them. Measured with 32 MiB of third-level cache: 25 MB gain whatever memory does, 16 MB and less only on a good day.
inline constexpr std::int64_t streamed_bytes = 24 << 20;

/// results[r][0 ...] = epilogue(bias + sum over segments s and k < depth of pixels[r][offsets[s] + k] * panel[s, k]) for
/// `count` of Rows pixels and `channels` of Vectors vectors. All Rows pixels are read, and memory of the next Rows is asked
/// for: pixels and results must go on so far. With `streamed`, whole blocks are written past the caches.
template <class V, int Rows, int Vectors, class T>
[[gnu::noinline]] void panel_block(const T* const* pixels, const std::int64_t* offsets, std::int64_t segments,
                                   std::int64_t depth, const T* panel, T* const* results, std::int64_t count,
                                   std::int64_t column, std::int64_t channels, const VectorEpilogue<T>& epilogue,
                                   bool streamed) {
  constexpr std::int64_t lanes = simd::lanes<V>, line = 64 / std::int64_t(sizeof(T));
  if (segments == 1 && depth > 1)  // no pixel is read twice: the processor's own prefetching does not follow Rows streams
    for (int r = 0; r < Rows; ++r) {
      for (std::int64_t k = 0; k < depth; k += line) __builtin_prefetch(pixels[Rows + r] + k);
      for (std::int64_t k = 0; k < Vectors * lanes; k += line) __builtin_prefetch(results[Rows + r] + column + k, 1);
    }
  V sum[Rows][Vectors];
  simd::unroll<Vectors>([&](auto j) STRATA_INLINED {
    const V bias = epilogue.bias(column + j * lanes);
    simd::unroll<Rows>([&](auto r) STRATA_INLINED { sum[r][j] = bias; });
  });
  const T* a[Rows];
  simd::unroll<Rows>([&](auto r) STRATA_INLINED { a[r] = pixels[r]; });
  const auto step = [&](std::int64_t place) STRATA_INLINED {
    V b[Vectors];
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { b[j] = simd::load<V>(panel + j * lanes); });
    simd::unroll<Rows>([&](auto r) STRATA_INLINED {
      const V x = simd::broadcast<V>(a[r][place]);
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] += x * b[j]; });
    });
    panel += Vectors * lanes;
  };
  if (depth == 1) {
    std::int64_t s = 0;
    for (; s + 2 <= segments; s += 2) step(offsets[s]), step(offsets[s + 1]);
    if (s < segments) step(offsets[s]);
  } else {
    for (std::int64_t s = 0; s < segments; ++s) {
      std::int64_t place = offsets[s];
      const std::int64_t end = place + depth;
      for (; place + 2 <= end; place += 2) step(place), step(place + 1);
      if (place < end) step(place);
    }
  }
  const V floor = epilogue.floor();
  if (count == Rows && channels >= Vectors * lanes && !epilogue.accumulate()) {
    const auto write_all = [&](auto write) STRATA_INLINED {
      simd::unroll<Rows>([&](auto r) STRATA_INLINED {
        simd::unroll<Vectors>([&](auto j) STRATA_INLINED {
          write(results[r] + column + j * lanes, simd::max(floor, sum[r][j]));
        });
      });
    };
    if (streamed)
      write_all([](T* to, V value) STRATA_INLINED { simd::stream<V>(to, value); });
    else
      write_all([](T* to, V value) STRATA_INLINED { simd::store<V>(to, value); });
    return;
  }
  T finished[Rows][Vectors * lanes];
  simd::unroll<Rows>([&](auto r) STRATA_INLINED {
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { simd::store(finished[r] + j * lanes, simd::max(floor, sum[r][j])); });
  });
  const std::int64_t some = std::min(channels, Vectors * lanes);
  for (std::int64_t r = 0; r < count; ++r) {
    T* const to = results[r] + column;
    if (epilogue.accumulate())
      for (std::int64_t c = 0; c < some; ++c) to[c] += finished[r][c];
    else
      std::copy_n(finished[r], some, to);
  }
}

/// y[pixel] = epilogue(sum over taps t of x[source of t] * weight of t), for the pixels of a grid, by panels.
template <class T>
void gather_panels(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
                   const VectorEpilogue<T>& epilogue) {
  using V = simd::Vector<T>;
  const std::int64_t all_rows = grid.tap_count * x.c, weights = all_rows * simd::padded<V>(y.c);
  const GridTiles tiles(x, grid, widest_tile<T>(grid, x.c), TilePixels<T>::most, weights / simd::lanes<V>);
  SourceFinder<T> find_sources(x, grid, tiles);
  Scratch<T> packed{std::size_t(weights)};
  pack_direct_panels(grid, x.c, y.c, weight, packed.data());
  WorkerScratch<T> copies(find_sources.workspace());
  // Few weights are read again for every 24 pixels, so that y is written from end to end; many once for the tile.
  const std::int64_t strip = weights * std::int64_t(sizeof(T)) <= 16 << 10 ? 24 : TilePixels<T>::most;
  // Where a result takes few products, writing is what takes the time.
  const std::int64_t bytes = y.n * y.h * y.w * y.c * std::int64_t(sizeof(T));
  const bool streamed = x.c <= thin_channels && all_rows <= 32 && bytes >= streamed_bytes && y.c % simd::lanes<V> == 0 &&
                        reinterpret_cast<std::uintptr_t>(y.data) % sizeof(V) == 0;

  const auto compute = [&](const GridTile& tile, int worker) {
    const TileSources<T> sources = find_sources(tile, copies[worker]);
    TilePixels<T> pixels;
    pixels.find(y, grid, tile, sources);
    for (std::int64_t begin = 0; begin < tile.pixels(); begin += strip) {
      const std::int64_t end = std::min(tile.pixels(), begin + strip);
      for_each_even_panel<V, direct_vectors>(y.c, [&](std::int64_t column, auto vectors) {
        constexpr int rows = direct_rows(vectors);
        for (std::int64_t p = begin; p < end; p += rows)
          panel_block<V, rows, vectors, T>(pixels.source + p, sources.offsets, find_sources.segments, find_sources.depth,
                                           packed.data() + all_rows * column, pixels.result + p,
                                           std::min<std::int64_t>(rows, end - p), column, y.c - column, epilogue, streamed);
      });
    }
  };
  tiles.for_each(compute, [&] {
    if (streamed) simd::finish_streaming();
  });
}

template <class T>
void gather(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const WeightLayout<T>& weight,
            const Epilogue<T>& scalar_epilogue) {
  const VectorEpilogue<T> epilogue(scalar_epilogue, y.c);
  if (x.c > thin_channels && y.c == 1) return gather_dots<T, 1>(x, y, grid, weight, epilogue);
  if (x.c > thin_channels && y.c == 2) return gather_dots<T, 2>(x, y, grid, weight, epilogue);
  if (x.c > thin_channels && y.c == 3) return gather_dots<T, 3>(x, y, grid, weight, epilogue);
  if (x.c > thin_channels && y.c == 4) return gather_dots<T, 4>(x, y, grid, weight, epilogue);
  gather_panels(x, y, grid, weight, epilogue);
}

/// The one grid of a forward convolution and the images that it goes over. Where all pixels are alike they are one long row.
template <class T>
struct ForwardGather {
  ForwardGather(const Conv2dProblem& p, const T* from, T* to)
      : taps(std::size_t(p.taps())), x{from, p.n, p.h, p.w, p.in}, y{to, p.n, p.out_h(), p.out_w(), p.out} {
    write_taps(p, p.padding, p.padding_columns(), taps.data());
    if (pixels_alike(p)) x = {from, 1, 1, x.pixels(), p.in}, y = {to, 1, 1, y.pixels(), p.out};
    grid = {0, 0, 1, y.h, y.w, p.stride, taps.data(), p.taps()};
  }
  static WeightLayout<T> layout(const Conv2dProblem& p, const T* weight) {
    return {weight, p.in, 1, p.taps() * p.in};
  }

  Scratch<Tap> taps;
  Images<const T> x;
  Images<T> y;
  TapGrid grid;
};

}  // namespace detail

/// Numbers of the weights that direct_forward_packed reads, and how they are made; 0 where it reads them as they are.
template <class T>
std::int64_t direct_packed_size(const Conv2dProblem& p) {
  if (!gathers_products(p, p.in, p.out)) return 0;
  return detail::GatherProducts<T>::packed_size(p.taps(), p.in, p.out);
}
template <class T>
void direct_pack(const Conv2dProblem& p, const T* weight, T* packed) {
  using Forward = detail::ForwardGather<T>;
  detail::GatherProducts<T>::pack(Forward(p, nullptr, nullptr).grid, p.in, p.out, Forward::layout(p, weight), packed);
}

/// y = epilogue(x * packed weights), where these are not 0 in number.
template <class T>
void direct_forward_packed(const Conv2dProblem& p, const T* x, const T* packed, T* y, const Epilogue<T>& epilogue) {
  const detail::ForwardGather<T> forward(p, x, y);
  detail::GatherProducts<T> products(forward.x, forward.y, 1);
  products.add(forward.grid, packed);
  products.run(VectorEpilogue<T>(epilogue, p.out));
}

/// y = epilogue(x * weight). Shapes and layouts: Conv2dProblem.
template <class T>
void direct_forward(const Conv2dProblem& p, const T* x, const T* weight, T* y, const Epilogue<T>& epilogue) {
  if (const std::int64_t size = direct_packed_size<T>(p); size > 0) {
    Scratch<T> packed{std::size_t(size)};
    direct_pack(p, weight, packed.data());
    return direct_forward_packed<T>(p, x, packed.data(), y, epilogue);
  }
  const detail::ForwardGather<T> forward(p, x, y);
  detail::gather<T>(forward.x, forward.y, forward.grid, forward.layout(p, weight), epilogue);
}

namespace detail {

/// Calls f(grid, taps of the classes before) for the grids of the gradient for the input, one for each class of pixels that
/// have the same taps.
template <class F>
void for_each_class(const Conv2dProblem& p, F&& f) {
  const std::int64_t wide = p.kernel_columns(), taps = p.taps(), stride = p.stride;
  Scratch<Tap> all_taps{std::size_t(taps)};  // each belongs to one class
  Tap* class_taps = all_taps.data();
  const auto size = [&](std::int64_t first, std::int64_t extent) { return std::max<std::int64_t>(extent - first + stride - 1, 0) / stride; };
  for (std::int64_t a = 0; a < stride; ++a)  // also those that small images have no pixels of: weights do not depend on extents
    for (std::int64_t b = 0; b < stride; ++b) {
      std::int64_t count = 0;
      for (std::int64_t t = taps - 1; t >= 0; --t) {  // in the order of their sources in memory
        const std::int64_t h = a + p.padding - t / wide * p.dilation, w = b + p.padding_columns() - t % wide * p.dilation;
        if (h % stride == 0 && w % stride == 0) class_taps[count++] = {h / stride, w / stride, t};
      }
      f(TapGrid{a, b, stride, size(a, p.h), size(b, p.w), 1, class_taps, count}, class_taps - all_taps.data());
      class_taps += count;
    }
}
template <class T>
WeightLayout<T> backward_layout(const Conv2dProblem& p, const T* weight) {
  return {weight, p.in, p.taps() * p.in, 1};
}

}  // namespace detail

/// The same as for the forward convolution, for the gradient for the input.
template <class T>
std::int64_t direct_backward_packed_size(const Conv2dProblem& p) {
  if (!gathers_products(p, p.out, p.in)) return 0;
  return detail::GatherProducts<T>::packed_size(p.taps(), p.out, p.in);
}
template <class T>
void direct_backward_pack(const Conv2dProblem& p, const T* weight, T* packed) {
  using Products = detail::GatherProducts<T>;
  detail::for_each_class(p, [&](const TapGrid& grid, std::int64_t before) {
    Products::pack(grid, p.out, p.in, detail::backward_layout(p, weight), packed + Products::packed_size(before, p.out, p.in));
  });
}
template <class T>
void direct_backward_input_packed(const Conv2dProblem& p, const T* dy, const T* packed, T* dx, const Epilogue<T>& epilogue) {
  using Products = detail::GatherProducts<T>;
  const std::int64_t classes = std::min<std::int64_t>(p.stride, p.h) * std::min<std::int64_t>(p.stride, p.w);
  Products products({dy, p.n, p.out_h(), p.out_w(), p.out}, {dx, p.n, p.h, p.w, p.in}, classes);
  Scratch<Tap> taps{std::size_t(p.taps())};
  detail::for_each_class(p, [&](TapGrid grid, std::int64_t before) {
    std::copy_n(grid.taps, grid.tap_count, taps.data() + before);
    grid.taps = taps.data() + before;
    products.add(grid, packed + Products::packed_size(before, p.out, p.in));
  });
  products.run(VectorEpilogue<T>(epilogue, p.in));
}

/// dx = epilogue(the gradient for the input): dx[i] = sum over taps p of dy[(i + padding - p * dilation) / stride] * weight[p].
template <class T>
void direct_backward_input(const Conv2dProblem& p, const T* dy, const T* weight, T* dx, const Epilogue<T>& epilogue) {
  if (const std::int64_t size = direct_backward_packed_size<T>(p); size > 0) {
    Scratch<T> packed{std::size_t(size)};
    direct_backward_pack(p, weight, packed.data());
    return direct_backward_input_packed<T>(p, dy, packed.data(), dx, epilogue);
  }
  const WeightLayout<T> layout = detail::backward_layout(p, weight);
  if (pixels_alike(p)) {  // all pixels are alike: one long row
    const std::int64_t pixels = p.n * p.h * p.w;
    const Tap tap{0, 0, 0};
    return detail::gather<T>({dy, 1, 1, pixels, p.out}, {dx, 1, 1, pixels, p.in}, {0, 0, 1, 1, pixels, 1, &tap, 1}, layout, epilogue);
  }
  detail::for_each_class(p, [&](const TapGrid& grid, std::int64_t) {
    if (grid.rows == 0 || grid.columns == 0) return;
    detail::gather<T>({dy, p.n, p.out_h(), p.out_w(), p.out}, {dx, p.n, p.h, p.w, p.in}, grid, layout, epilogue);
  });
}

/// Bytes that one of the two takes from the pool while it runs, packed weights included. What thin ones take counts as none.
template <class T = float>
std::size_t direct_workspace_bytes(const Conv2dProblem& p, bool backward) {
  const std::int64_t weights = backward ? direct_backward_packed_size<T>(p) : direct_packed_size<T>(p);
  if (weights == 0) return 0;
  return MemoryPool::block_bytes(std::size_t(weights) * sizeof(T)) +
         WorkerScratch<T>::bytes(detail::GatherProducts<T>::workspace_size());
}

}  // namespace strata::inline STRATA_ABI::cpu
