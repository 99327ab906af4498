// One layer run on an image that comes in bands of rows: it keeps the few rows it will need again and gives the rows
// that are complete. Every row has the bits that a run on the whole image gives it, since a convolution sees the same
// numbers in the same order: bands end where Winograd's tiles end, and padding is written out as zeros.
//
//     strata::detail::ConvStage<Conv2d<1, 64>> stage(layer, h, w, strata::Activation::relu);
//     Image<64> out = stage.push(std::move(band), /*last=*/false);      // none, some or more rows than came in
//     ...
//     while (!stage.done()) out = stage.push(none, /*last=*/true);
//
// What has been held back leaves in the end as it came, a band at a time, so that the end takes no more memory. Bands
// are taken by value and let go when they have been used: a chain of layers holds two or three of them, not one for
// each layer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "strata/core/parallel.hpp"
#include "strata/deploy/layers.hpp"
#include "strata/nn/facts.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Rows of a result that a convolution computes together: where its rounding errors repeat. A convolution of another
/// tile height would change this.
inline constexpr std::int64_t row_step = cpu::winograd::step;

/// What a block of the pool takes of the system's memory, whose pages may be large.
constexpr std::int64_t held_bytes(std::int64_t bytes) {
  constexpr std::int64_t page = std::int64_t{1} << 21;
  if (bytes == 0) return 0;
  const auto block = std::int64_t(MemoryPool::block_bytes(std::size_t(bytes)));
  return block < page ? block : (block + page - 1) / page * page;
}

/// Copies on all threads: what one copies, others would wait for.
inline void copy_floats(const float* from, std::int64_t count, float* to) {
  parallel_ranges(count, std::int64_t{1} << 16, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(to + begin, from + begin, std::size_t(end - begin) * sizeof(float));
  });
}

/// Copies rows between images of the same width and batch of one.
template <int C>
void copy_rows(const Image<C>& from, std::int64_t first, std::int64_t count, Image<C>& to, std::int64_t place) {
  if (count > 0) copy_floats(from.data() + first * from.w() * C, count * from.w() * C, to.data() + place * to.w() * C);
}

/// Rows that wait between two bands, in memory that stays.
template <int C>
class WaitingRows {
 public:
  std::int64_t size() const { return size_; }

  /// Copies all of them to the first rows of `to`.
  void copy_to(Image<C>& to) const {
    if (size_ > 0) copy_floats(data(), size_ * row_, to.data());
  }
  /// Keeps the rows from `first` on of an image, and no others.
  void assign(const Image<C>& image, std::int64_t first) {
    size_ = 0;
    append(image, first);
  }
  /// Of the rows that wait followed by `rows`, gives the first `count`. The others wait.
  Image<C> exchange(Image<C> rows, std::int64_t count) {
    if (size_ == 0 && count == rows.h()) return rows;
    Image<C> taken(1, count, rows.w());
    const std::int64_t mine = std::min(count, size_), theirs = count - mine;
    if (mine > 0) {
      copy_floats(data(), mine * row_, taken.data());
      std::memmove(data(), data() + mine * row_, std::size_t((size_ - mine) * row_) * sizeof(float));
      size_ -= mine;
    }
    copy_rows(rows, 0, theirs, taken, mine);
    append(rows, theirs);
    return taken;
  }

 private:
  float* data() { return static_cast<float*>(memory_.data()); }
  const float* data() const { return static_cast<const float*>(memory_.data()); }

  void append(const Image<C>& image, std::int64_t first) {
    const std::int64_t count = image.h() - first;
    if (count == 0) return;
    row_ = image.w() * C;
    const auto bytes = std::size_t((size_ + count) * row_) * sizeof(float);
    if (room_ < bytes) {
      const std::size_t room = MemoryPool::block_bytes(bytes);  // all of the block: a row more need not be a new one
      Storage larger = cpu_pool().take(room, /*for_long=*/true);
      if (size_ > 0) std::memcpy(larger.data(), memory_.data(), std::size_t(size_ * row_) * sizeof(float));
      memory_ = std::move(larger);
      room_ = room;
    }
    copy_floats(image.data() + first * row_, count * row_, data() + size_ * row_);
    size_ += count;
  }

  Storage memory_;
  std::size_t room_ = 0;             // bytes
  std::int64_t size_ = 0, row_ = 0;  // rows, and floats of one
};

/// What one layer does to rows, from its own trace.
struct RowsOfLayer {
  std::int64_t up, down;  // rows of the result for rows of the image
  bool in_blocks;         // so many rows of the image, one after another, become one, or one becomes several
};
template <class M>
constexpr RowsOfLayer rows_of_layer(int channels) {
  constexpr std::int64_t size = 240;
  Following run(1);
  LayerFacts facts(run, run.add_image({.c = channels, .h = size, .w = size}), &layer_text<M>);
  M::trace(facts);
  const int result = facts.finish();
  const FollowedImage& y = run.image(result);
  const Rows first = run.rows_of(result, {0, 0}, true);
  const std::int64_t block = std::max<std::int64_t>(y.down / y.up, 1);
  return {y.up, y.down, !y.one && y.h * y.down == size * y.up && first.first == 0 && field_of(run, result) == block};
}

/// No way to run a module by rows.
struct NoRowStage {
  static constexpr bool possible = false;
};

/// A layer without a window that moves: one row, or a block of them, becomes one row or several.
template <class M, int C>
class BlockStage {
  static constexpr RowsOfLayer layer = rows_of_layer<M>(C);
  static constexpr std::int64_t block = std::max<std::int64_t>(layer.down / layer.up, 1);  // rows that become one
  static constexpr int out = channels_after<M, C>();

 public:
  static constexpr bool possible = layer.in_blocks;

  BlockStage(const M& module, std::int64_t h, std::int64_t w)
      : module_(&module), out_h_(h * layer.up / layer.down), out_w_(w * layer.up / layer.down) {}
  std::int64_t out_h() const { return out_h_; }
  std::int64_t out_w() const { return out_w_; }
  bool regular() const { return out_h_ > 0 && out_w_ > 0; }
  std::int64_t kept_bytes() const { return 0; }
  double lag() const { return double(block - 1); }

  bool done() const { return done_; }

  Image<out> push(Image<C> rows, bool last) {
    done_ = last;
    const std::int64_t there = waiting_.size() + rows.h();
    rows = waiting_.exchange(std::move(rows), last ? there : there / block * block);
    if (rows.h() == 0) return Image<out>(1, 0, out_w_);
    Infer pass;
    return call(*module_, pass, rows).value();
  }

 private:
  const M* module_;
  std::int64_t out_h_, out_w_;
  bool done_ = false;
  WaitingRows<C> waiting_;
};

/// A layer with a window of stride 1: what it says of itself is in nn/protocol.hpp.
template <class Conv>
class ConvStage {
  static constexpr int In = Conv::io::in, Out = Conv::io::out;
  static constexpr std::int64_t pad = Conv::window.padding, reach = Conv::window.reach();
  static constexpr std::int64_t step = Conv::bands.together, least_size = Conv::bands.least;
  static constexpr std::int64_t most_kept = reach - 1 + step - 1;  // rows, but at the image's end

 public:
  static constexpr bool possible = Conv::bands.possible;
  static constexpr int out = Out;

  ConvStage(const Conv& layer, std::int64_t h, std::int64_t w, Activation activation = Activation::none)
      : weight_(layer.weight.template value<float>().data()),
        activation_(activation),
        w_(w),
        out_h_(h + 2 * pad - reach + 1) {
    if constexpr (Conv::has_bias) bias_ = layer.bias.template value<float>().data();
  }
  std::int64_t out_h() const { return out_h_; }
  std::int64_t out_w() const { return w_ + 2 * pad - reach + 1; }
  bool regular() const { return out_h() >= least_size && out_w() >= least_size; }
  /// Memory between two bands, with that of the weights in the form that the kernel reads, and rows of the input that
  /// have come for which none of the result has gone.
  std::int64_t kept_bytes() const {
    return held_bytes(most_kept * (w_ + 2 * pad) * In * std::int64_t(sizeof(float))) + Conv::band_weight_bytes;
  }
  double lag() const { return double(most_kept - pad); }

  bool done() const { return given_ == out_h_; }

  Image<Out> push(Image<In> rows, bool last) {
    const std::int64_t above = given_ == 0 && waiting_.size() == 0 ? pad : 0, below = last && !closed_ ? pad : 0;
    closed_ = last;
    if (!last || above > 0) most_ = std::max(most_, (rows.h() + step - 1) / step * step);
    Image<In> all(1, waiting_.size() + above + rows.h() + below, w_ + 2 * pad);
    waiting_.copy_to(all);
    fill_rows(all, waiting_.size(), above);
    parallel_ranges(rows.h(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t y = begin; y < end; ++y) {
        float* to = all.data() + (waiting_.size() + above + y) * all.w() * In;
        std::fill_n(to, pad * In, 0.0f);
        std::memcpy(to + pad * In, rows.data() + y * w_ * In, std::size_t(w_ * In) * sizeof(float));
        std::fill_n(to + (pad + w_) * In, pad * In, 0.0f);
      }
    });
    fill_rows(all, waiting_.size() + above + rows.h(), below);
    rows = {};

    std::int64_t count = std::max<std::int64_t>(all.h() - reach + 1, 0);
    const std::int64_t least = out_h_ % step == 0 ? step : least_size;
    if (!last) count = std::max<std::int64_t>(std::min(given_ + count, out_h_ - least) / step * step - given_, 0);
    // What was held back in all layers would come out as one thick band: it is cut into such as came in.
    if (count > most_ && count >= least + step) count = std::min(most_, (count - least) / step * step);
    Image<Out> y(1, count, out_w());
    if (count > 0) Conv::convolve_padded(all, packed_, weight_, bias_, activation_, y);
    waiting_.assign(all, count);
    given_ += count;
    return y;
  }

 private:
  static void fill_rows(Image<In>& image, std::int64_t first, std::int64_t count) {
    std::fill_n(image.data() + first * image.w() * In, count * image.w() * In, 0.0f);
  }

  const float *weight_, *bias_ = nullptr;
  Activation activation_;
  cpu::PackedWeights packed_;
  std::int64_t w_, out_h_;
  std::int64_t given_ = 0;         // rows of the result
  std::int64_t most_ = step;       // rows that came at a time, before the end
  bool closed_ = false;            // the padding below is there
  WaitingRows<In> waiting_;        // of the padded input, from row given_ of the result on
};

/// y = join(x, body(x)), row by row.
template <class Body, int C, class Join>
class SkipStage {
  static constexpr int out = std::remove_cvref_t<decltype(std::declval<const Join&>()(
      std::declval<Image<C>>(), std::declval<Image<Body::out>>()))>::channels;

 public:
  SkipStage(Body body, Join join, std::int64_t h, std::int64_t w) : body_(std::move(body)), join_(join), h_(h), w_(w) {}
  std::int64_t out_h() const { return h_; }
  std::int64_t out_w() const { return w_; }
  bool regular() const { return body_.regular() && body_.out_h() == h_ && body_.out_w() == w_; }
  std::int64_t kept_bytes() const {
    return body_.kept_bytes() + held_bytes(std::int64_t(lag()) * w_ * C * std::int64_t(sizeof(float)));
  }
  double lag() const { return body_.lag(); }

  bool done() const { return body_.done(); }

  Image<out> push(Image<C> rows, bool last) {
    const auto y = body_.push(rows, last);
    const Image<C> x = waiting_.exchange(std::move(rows), y.h());
    if (y.h() == 0) return Image<out>(1, 0, w_);
    return join_(x, y);
  }

 private:
  Body body_;
  Join join_;
  std::int64_t h_, w_;
  WaitingRows<C> waiting_;
};

}  // namespace strata::inline STRATA_ABI::detail
