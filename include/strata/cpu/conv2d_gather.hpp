// The direct kernel for many channels: a matrix product whose rows are not copied together. A row is a pixel of the
// result; for each tap it is read where the image has it, or from a row of zeros where the tap lies in the padding, so
// that neither borders nor small images are cases of their own: any pixels of any images fill a block.
//
//     for each task: some pixels and some panels of channels
//       for each panel: for each chunk of its rows, which stays in the second-level cache
//         for each block of 6 or 8 pixels: sums += source * chunk
//
// So all weights are read once for up to 192 pixels, and few pixels with many channels still make enough tasks. A
// pixel's sum has the same terms in the same order wherever it lies, and whatever lies beside it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/pack_columns.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

/// Pixels of a grid, in blocks of any images: where their taps begin, and where their results lie.
template <class T>
struct GatherPixels {
  static constexpr std::int64_t most = 192, more = 8;  // more: the last is repeated until a block is full

  void find(const Images<const T>& x, const Images<T>& y, const TapGrid& grid, const TapReach& reach,
            std::int64_t first, std::int64_t count) {
    std::int64_t j = first % grid.columns, i = first / grid.columns % grid.rows, n = first / grid.columns / grid.rows;
    for (std::int64_t p = 0; p < count; ++p) {
      h[p] = i * grid.step, w[p] = j * grid.step;
      source[p] = ((n * x.h + h[p]) * x.w + w[p]) * x.c;
      inside[p] =
          h[p] + reach.low_h >= 0 && h[p] + reach.high_h < x.h && w[p] + reach.low_w >= 0 && w[p] + reach.high_w < x.w;
      result[p] = y.data + ((n * y.h + grid.first_h + i * grid.every) * y.w + grid.first_w + j * grid.every) * y.c;
      if (++j == grid.columns) j = 0, ++i == grid.rows ? i = 0, ++n : n;
    }
    for (std::int64_t p = count; p < count + more; ++p) {
      h[p] = h[count - 1], w[p] = w[count - 1], source[p] = source[count - 1];
      inside[p] = inside[count - 1], result[p] = result[count - 1];
    }
  }

  std::int64_t h[most + more], w[most + more];  // of the pixel of the source under tap (0, 0), which need not exist
  std::int64_t source[most + more];             // its distance from the first pixel of all
  T* result[most + more];
  bool inside[most + more];                     // whether all taps lie in the image
};

/// A run of the rows of a panel: channels [channel, end_channel) under taps [tap, end_tap). More than one tap wants all
/// channels.
struct GatherChunk {
  std::int64_t tap, end_tap, channel, end_channel;

  std::int64_t rows() const { return (end_tap - tap) * (end_channel - channel); }
};

/// A grid of one gather, with its weights in panels.
template <class T>
struct GatherPart {
  TapGrid grid;
  TapReach reach;
  const T* packed;
  std::int64_t first_task, tiles, tile_pixels;

  std::int64_t pixels(const Images<const T>& x) const { return x.n * grid.rows * grid.columns; }
};

/// sums[r] (+)= products of `Rows` pixels from `p` on with a chunk of a panel; see gather_part. The first chunk begins
/// with the bias, the last one writes the results.
template <class V, int Rows, int Vectors, class T>
[[gnu::noinline]] void gather_block(const Images<const T>& x, const TapGrid& grid, const GatherPixels<T>& pixels,
                                    std::int64_t p, const T* zeros, const GatherChunk& chunk, const T* panel, T* sums,
                                    bool first, bool last, std::int64_t count, std::int64_t column,
                                    std::int64_t channels, const VectorEpilogue<T>& epilogue) {
  constexpr std::int64_t lanes = simd::lanes<V>, width = Vectors * lanes;
  V sum[Rows][Vectors];
  if (first)
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED {
      const V bias = epilogue.bias(column + j * lanes);
      simd::unroll<Rows>([&](auto r) STRATA_INLINED { sum[r][j] = bias; });
    });
  else
    simd::unroll<Rows>([&](auto r) STRATA_INLINED {
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] = simd::load<V>(sums + r * width + j * lanes); });
    });
  bool inside = true;
  simd::unroll<Rows>([&](auto r) STRATA_INLINED { inside &= pixels.inside[p + r]; });
  for (std::int64_t t = chunk.tap; t < chunk.end_tap; ++t) {
    const Tap tap = grid.taps[t];
    const std::int64_t offset = (tap.dh * x.w + tap.dw) * x.c;
    const T* a[Rows];
    simd::unroll<Rows>([&](auto r) STRATA_INLINED {
      const bool there = inside || (std::uint64_t(pixels.h[p + r] + tap.dh) < std::uint64_t(x.h) &&
                                    std::uint64_t(pixels.w[p + r] + tap.dw) < std::uint64_t(x.w));
      a[r] = there ? x.data + (pixels.source[p + r] + offset) : zeros;
    });
    for (std::int64_t k = chunk.channel; k < chunk.end_channel; ++k) {
      V b[Vectors];
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { b[j] = simd::load<V>(panel + j * lanes); });
      simd::unroll<Rows>([&](auto r) STRATA_INLINED {
        const V value = simd::broadcast<V>(a[r][k]);
        simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] += value * b[j]; });
      });
      panel += width;
    }
  }
  if (!last) {
    simd::unroll<Rows>([&](auto r) STRATA_INLINED {
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { simd::store(sums + r * width + j * lanes, sum[r][j]); });
    });
    return;
  }
  const V floor = epilogue.floor();
  const bool whole = count == Rows && channels >= width && !epilogue.accumulate();
  simd::unroll<Rows>([&](auto r) STRATA_INLINED {
    T* const to = whole ? pixels.result[p + r] + column : sums + r * width;
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { simd::store(to + j * lanes, simd::max(floor, sum[r][j])); });
  });
  if (whole) return;
  const std::int64_t some = std::min(channels, width);
  for (std::int64_t r = 0; r < count; ++r) {
    T* const to = pixels.result[p + r] + column;
    const T* const from = sums + r * width;
    if (epilogue.accumulate())
      for (std::int64_t c = 0; c < some; ++c) to[c] += from[c];
    else
      std::copy_n(from, some, to);
  }
}

/// The panel that holds a vector of a result's channels, as for_each_even_panel cuts them. All are counted in vectors.
struct EvenPanel {
  EvenPanel(std::int64_t all, std::int64_t vector) {
    const std::int64_t panels = (all + direct_vectors - 1) / direct_vectors;
    std::int64_t panel = 0;
    while (all * (panel + 1) / panels <= vector) ++panel;
    first = all * panel / panels;
    vectors = all * (panel + 1) / panels - first;
  }
  std::int64_t first, vectors;
};

/// The pixels of one or more grids as matrix products, all of them in one loop over tasks.
template <class T>
class GatherProducts {
  using V = simd::Vector<T>;
  static constexpr std::int64_t lanes = simd::lanes<V>, most_width = direct_vectors * lanes;
  /// Rows of a full panel that take a quarter of the second-level cache.
  static constexpr std::int64_t chunk_rows = simd::register_bytes * (4 << 10) / (most_width * std::int64_t(sizeof(T)));

 public:
  GatherProducts(const Images<const T>& x, const Images<T>& y, std::int64_t most_parts)
      : x_(x), y_(y), panels_((simd::padded<V>(y.c) / lanes + direct_vectors - 1) / direct_vectors),
        parts_(std::size_t(most_parts)), zeros_(std::size_t(x.c)) {
    std::fill_n(zeros_.data(), x.c, T(0));
  }

  /// Numbers of the packed weights of so many taps in all.
  static std::int64_t packed_size(std::int64_t taps, std::int64_t from, std::int64_t to) {
    return taps * from * simd::padded<V>(to);
  }
  /// Of what run() takes for each worker.
  static constexpr std::int64_t workspace_size() {
    return (GatherPixels<T>::most + GatherPixels<T>::more) * most_width;
  }

  /// Writes the weights of a grid in the order in which they are read: panel by panel, tap by tap, channel by channel
  /// of the source, one row of a panel's columns each, zeros behind the last column.
  static void pack(const TapGrid& grid, std::int64_t from, std::int64_t to, const WeightLayout<T>& weight, T* packed) {
    constexpr std::int64_t chunk = 64;
    const std::int64_t chunks = (from + chunk - 1) / chunk, vectors = simd::padded<V>(to) / lanes;
    parallel_for(vectors * chunks, [&](std::int64_t task) {  // all taps of a few rows lie together in memory
      const std::int64_t column = task / chunks * lanes, first = task % chunks * chunk;
      const std::int64_t depth = std::min(chunk, from - first), count = std::min(lanes, to - column);
      const EvenPanel panel(vectors, task / chunks);
      for (std::int64_t t = 0; t < grid.tap_count; ++t)
        pack_columns<V>(&weight(grid.taps[t], first, column), weight.k, weight.column, depth, count,
                        packed + grid.tap_count * from * panel.first * lanes +
                            (t * from + first) * panel.vectors * lanes + column - panel.first * lanes,
                        panel.vectors * lanes);
    });
  }

  void add(const TapGrid& grid, const T* packed) {
    if (grid.rows > 0 && grid.columns > 0) parts_.data()[count_++] = {grid, TapReach(grid), packed, 0, 0, 0};
  }

  void run(const VectorEpilogue<T>& epilogue) {
    plan();
    WorkerScratch<T> sums(workspace_size());
    parallel_for(tasks_, [&](std::int64_t task, int worker) {
      std::int64_t at = count_ - 1;
      while (parts_.data()[at].first_task > task) --at;
      const GatherPart<T>& part = parts_.data()[at];
      task -= part.first_task;
      const std::int64_t tile = task / groups_, group = task % groups_, first = tile * part.tile_pixels;
      GatherPixels<T> pixels;
      const std::int64_t count = std::min(part.tile_pixels, part.pixels(x_) - first);
      pixels.find(x_, y_, part.grid, part.reach, first, count);
      const std::int64_t vectors = simd::padded<V>(y_.c) / lanes;
      for (std::int64_t panel = panels_ * group / groups_; panel < panels_ * (group + 1) / groups_; ++panel) {
        const std::int64_t begin = vectors * panel / panels_, end = vectors * (panel + 1) / panels_;
        multiply(part, pixels, count, begin * lanes, end - begin, sums[worker], epilogue);
      }
    });
  }

 private:
  /// Cuts the work into tasks, by the problem alone: up to 16 of ten microseconds or more, and more if the pixels are
  /// many.
  void plan() {
    std::int64_t work = 0;
    for (std::int64_t i = 0; i < count_; ++i)
      work +=
          parts_.data()[i].pixels(x_) * (parts_.data()[i].grid.tap_count * x_.c + 1) * simd::padded<V>(y_.c) / lanes;
    const std::int64_t wanted =
        (std::clamp<std::int64_t>(work / 32768, 1, 16) + count_ - 1) / std::max<std::int64_t>(count_, 1);
    std::int64_t least_tiles = wanted;
    for (std::int64_t i = 0; i < count_; ++i) {
      GatherPart<T>& part = parts_.data()[i];
      const std::int64_t all = part.pixels(x_), needed = (all + GatherPixels<T>::most - 1) / GatherPixels<T>::most;
      const std::int64_t tiles = std::max(needed, std::min((all + 23) / 24, (wanted + panels_ - 1) / panels_));
      part.tile_pixels = std::min<std::int64_t>(((all + tiles - 1) / tiles + 23) / 24 * 24, GatherPixels<T>::most);
      part.tiles = (all + part.tile_pixels - 1) / part.tile_pixels;
      least_tiles = std::min(least_tiles, part.tiles);
    }
    groups_ = std::clamp<std::int64_t>((wanted + least_tiles - 1) / std::max<std::int64_t>(least_tiles, 1), 1, panels_);
    tasks_ = 0;
    for (std::int64_t i = 0; i < count_; ++i) {
      parts_.data()[i].first_task = tasks_;
      tasks_ += parts_.data()[i].tiles * groups_;
    }
  }

  void multiply(const GatherPart<T>& part, const GatherPixels<T>& pixels, std::int64_t count, std::int64_t column,
                std::int64_t vectors, T* sums, const VectorEpilogue<T>& epilogue) const {
    auto* block = gather_block<V, direct_rows(direct_vectors), direct_vectors, T>;
    simd::unroll<direct_vectors - 1>([&](auto less) STRATA_INLINED {
      if (vectors == less + 1) block = gather_block<V, direct_rows(less + 1), less + 1, T>;
    });
    const std::int64_t rows = direct_rows(int(vectors)), width = vectors * lanes;
    const std::int64_t taps = part.grid.tap_count, depth = taps * x_.c;
    const T* panel = part.packed + depth * column;
    // Whole taps where several are short enough, else parts of one, as even as can be.
    const std::int64_t cuts = (x_.c + chunk_rows - 1) / chunk_rows,
                       some_taps = std::max<std::int64_t>(chunk_rows / x_.c, 1);
    const std::int64_t chunks = cuts > 1 ? taps * cuts : (taps + some_taps - 1) / some_taps;
    for (std::int64_t c = 0; c < std::max<std::int64_t>(chunks, 1); ++c) {
      const GatherChunk chunk =
          cuts > 1 ? GatherChunk{c / cuts, c / cuts + 1, x_.c * (c % cuts) / cuts, x_.c * (c % cuts + 1) / cuts}
                   : GatherChunk{c * some_taps, std::min(taps, (c + 1) * some_taps), 0, x_.c};
      for (std::int64_t p = 0; p < count; p += rows)
        block(x_, part.grid, pixels, p, zeros_.data(), chunk, panel, sums + p * width, c == 0, c + 1 >= chunks,
              std::min(rows, count - p), column, y_.c - column, epilogue);
      panel += chunk.rows() * width;
    }
  }

  const Images<const T> x_;
  const Images<T> y_;
  const std::int64_t panels_;
  Scratch<GatherPart<T>> parts_;
  Scratch<T> zeros_;
  std::int64_t count_ = 0, groups_ = 1, tasks_ = 0;
};

}  // namespace detail

}}}  // namespace strata::STRATA_ABI::cpu
