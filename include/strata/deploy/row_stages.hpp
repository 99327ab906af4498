// A network run on an image that comes in bands of rows: each layer keeps the few rows it will need again and gives the
// rows that are complete. Nothing is computed twice, and every row has the bits that a run on the whole image gives it,
// since a convolution sees the same numbers in the same order: bands end where Winograd's tiles end, and padding is
// written out as zeros.
//
//     strata::detail::RowStage<Net, 1> stage(net, h, w);
//     Image<1> out = stage.push(band, /*last=*/false);      // none, some or more rows than came in
//     ...
//     while (!stage.done()) out = stage.push(none, /*last=*/true);
//
// What layers have held back leaves in the end as it came, a band at a time, so that the end takes no more memory.
//
// tile.hpp drives it. There are stages for the deploy form of every layer that keeps rows in their order, for containers,
// and for modules of one's own of the form y = join(x, body(x)); RowStage<M, C>::possible says whether M is covered.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/deploy/layers.hpp"
#include "strata/nn/fuse.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/trace.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Rows of a result that a convolution computes together: where its rounding errors repeat. A convolution of another
/// tile height would change this.
inline constexpr std::int64_t row_step = cpu::winograd::step;
/// Every convolution gives at least so many rows and columns at a time, so that the kernel is the one that the whole image
/// gets: the choice may look at the size of small images.
inline constexpr std::int64_t least_extent = 2 * row_step;

/// Copies rows between images of the same width and batch of one.
template <int C>
void copy_rows(const Image<C>& from, std::int64_t first, std::int64_t count, Image<C>& to, std::int64_t place) {
  if (count > 0)
    std::memcpy(to.data() + place * to.w() * C, from.data() + first * from.w() * C,
                std::size_t(count * from.w() * C) * sizeof(float));
}

/// Rows that wait.
template <int C>
class RowQueue {
 public:
  std::int64_t size() const { return rows_.h(); }
  void push(const Image<C>& rows) {
    if (rows.h() == 0) return;
    Image<C> all(1, size() + rows.h(), rows.w());
    copy_rows(rows_, 0, size(), all, 0);
    copy_rows(rows, 0, rows.h(), all, size());
    rows_ = std::move(all);
  }
  /// The first `count` rows, which leave the queue.
  Image<C> take(std::int64_t count) {
    if (count == size()) return std::exchange(rows_, Image<C>());
    Image<C> taken(1, count, rows_.w()), left(1, size() - count, rows_.w());
    copy_rows(rows_, 0, count, taken, 0);
    copy_rows(rows_, count, left.h(), left, 0);
    rows_ = std::move(left);
    return taken;
  }

 private:
  Image<C> rows_;
};

/// What one layer does to extents, from its own trace.
template <class M>
constexpr Extents trace_alone(int channels) {
  Tracer<NoSink> tracer(Extents{.c = channels, .h = 240, .w = 240});
  tracer.template run<M>();
  return tracer.extents();
}

template <class M, int C>
constexpr int channels_after() {
  if constexpr (fixes_channels<M>)
    return M::io::out;
  else
    return C;
}

/// No way to run M by rows.
struct NoRowStage {
  static constexpr bool possible = false;
};

/// A layer without a window that moves: one row, or a block of them, becomes one row or several.
template <class M, int C>
class BlockStage {
  static constexpr Extents after = trace_alone<M>(C);
  static constexpr std::int64_t block = after.jump > 1 ? std::int64_t(after.jump) : 1;  // rows that become one
  static constexpr int out = channels_after<M, C>();

 public:
  static constexpr bool possible = after.field == double(block) && after.jump * double(after.h) == 240;

  BlockStage(const M& module, std::int64_t h, std::int64_t w)
      : module_(&module), out_h_(h * after.h / 240), out_w_(w * after.w / 240) {}
  std::int64_t out_h() const { return out_h_; }
  std::int64_t out_w() const { return out_w_; }
  bool regular() const { return out_h_ > 0 && out_w_ > 0; }
  std::int64_t kept_bytes() const { return 0; }
  double lag() const { return double(block - 1); }

  bool done() const { return done_; }

  Image<out> push(const Image<C>& rows, bool last) {
    done_ = last;
    if constexpr (block == 1) {
      return run(rows);
    } else {
      queue_.push(rows);
      return run(queue_.take(last ? queue_.size() : queue_.size() / block * block));
    }
  }

 private:
  Image<out> run(const Image<C>& rows) const {
    if (rows.h() == 0) return Image<out>(1, 0, out_w_);
    Infer pass;
    return call(*module_, pass, rows).value();
  }

  const M* module_;
  std::int64_t out_h_, out_w_;
  bool done_ = false;
  RowQueue<C> queue_;
};

/// A convolution of stride 1.
template <int In, int Out, int Kernel, Conv2dOptions Options>
class ConvStage {
  using Conv = Conv2d<In, Out, Kernel, Options>;
  static constexpr std::int64_t pad = Conv::padding, reach = Conv::dilation * (Kernel - 1) + 1;
  static constexpr std::int64_t step = row_step * Conv::dilation, least = least_extent * Conv::dilation;

 public:
  static constexpr bool possible = Options.stride == 1;

  ConvStage(const float* weight, const float* bias, Activation activation, std::int64_t h, std::int64_t w)
      : weight_(weight), bias_(bias), activation_(activation), w_(w), out_h_(h + 2 * pad - reach + 1) {}
  std::int64_t out_h() const { return out_h_; }
  std::int64_t out_w() const { return w_ + 2 * pad - reach + 1; }
  bool regular() const { return out_h() >= least && out_w() >= least; }
  /// Memory between two bands, and rows of the input that have come for which none of the result has gone.
  std::int64_t kept_bytes() const { return (reach + step) * (w_ + 2 * pad) * In * std::int64_t(sizeof(float)); }
  double lag() const { return double(pad + step); }

  bool done() const { return given_ == out_h_; }

  Image<Out> push(const Image<In>& rows, bool last) {
    const std::int64_t above = given_ == 0 && kept_.h() == 0 ? pad : 0, below = last && !closed_ ? pad : 0;
    closed_ = last;
    most_ = std::max(most_, (rows.h() + step - 1) / step * step);
    Image<In> all(1, kept_.h() + above + rows.h() + below, w_ + 2 * pad);
    copy_rows(kept_, 0, kept_.h(), all, 0);
    fill_rows(all, kept_.h(), above);
    for (std::int64_t y = 0; y < rows.h(); ++y) {
      float* to = all.data() + (kept_.h() + above + y) * all.w() * In;
      std::fill_n(to, pad * In, 0.0f);
      std::memcpy(to + pad * In, rows.data() + y * w_ * In, std::size_t(w_ * In) * sizeof(float));
      std::fill_n(to + (pad + w_) * In, pad * In, 0.0f);
    }
    fill_rows(all, kept_.h() + above + rows.h(), below);

    std::int64_t count = std::max<std::int64_t>(all.h() - reach + 1, 0);
    if (!last) count = std::max<std::int64_t>(std::min(given_ + count, out_h_ - least) / step * step - given_, 0);
    if (count > most_ + least) count = most_;
    if (count == 0) {
      kept_ = std::move(all);
      return Image<Out>(1, 0, out_w());
    }
    Image<Out> y(1, count, out_w());
    const Conv2dProblem problem{.n = 1, .h = count + reach - 1, .w = all.w(), .in = In, .out = Out, .kernel = Kernel,
                                .stride = 1, .padding = 0, .dilation = Conv::dilation};
    cpu::conv2d_forward_cached<float>(problem, all.data(), packed_, /*key=*/1, [&] { return weight_; }, bias_, y.data(),
                                      activation_);
    kept_ = Image<In>(1, all.h() - count, all.w());
    copy_rows(all, count, kept_.h(), kept_, 0);
    given_ += count;
    return y;
  }

 private:
  static void fill_rows(Image<In>& image, std::int64_t first, std::int64_t count) {
    std::fill_n(image.data() + first * image.w() * In, count * image.w() * In, 0.0f);
  }

  const float *weight_, *bias_;
  Activation activation_;
  cpu::PackedWeights packed_;
  std::int64_t w_, out_h_;
  std::int64_t given_ = 0;         // rows of the result
  std::int64_t most_ = step;       // rows that came at a time
  bool closed_ = false;            // the padding below is there
  Image<In> kept_;                 // rows of the padded input from row given_ of the result on
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
  std::int64_t kept_bytes() const { return body_.kept_bytes() + std::int64_t(lag()) * w_ * C * std::int64_t(sizeof(float)); }
  double lag() const { return body_.lag(); }

  bool done() const { return body_.done(); }

  Image<out> push(const Image<C>& rows, bool last) {
    waiting_.push(rows);
    const auto y = body_.push(rows, last);
    if (y.h() == 0) return Image<out>(1, 0, w_);
    return join_(waiting_.take(y.h()), y);
  }

 private:
  Body body_;
  Join join_;
  std::int64_t h_, w_;
  RowQueue<C> waiting_;
};

/// The stage of a module that gets C channels. `out` is the number it gives.
template <class M, int C>
struct RowStage;

template <class M>
concept LeafLayer = requires { M::is_leaf_layer; };

/// A user's module of the form y = join(x, body(x)): `body` is a member, and join(pass, x, y) works pixel by pixel.
template <class M, int C>
concept Joins = requires(const M& m, Infer& pass, const Var<C>& x) { m.join(pass, x, call(m.body, pass, x)); };

template <class M, int C>
constexpr auto row_stage_of() {
  if constexpr (LeafLayer<M>) {
    if constexpr (BlockStage<M, C>::possible && !is_batch_norm<M>)
      return std::type_identity<BlockStage<M, C>>{};
    else
      return std::type_identity<NoRowStage>{};
  } else {
    return std::type_identity<NoRowStage>{};
  }
}

template <class M, int C>
struct RowStage : decltype(row_stage_of<M, C>())::type {
  using Base = typename decltype(row_stage_of<M, C>())::type;
  using Base::Base;
  static constexpr int out = channels_after<M, C>();
};

template <int C, int Out, int Kernel, Conv2dOptions Options>
struct RowStage<Conv2d<C, Out, Kernel, Options>, C> : ConvStage<C, Out, Kernel, Options> {
  static constexpr int out = Out;
  RowStage(const Conv2d<C, Out, Kernel, Options>& conv, std::int64_t h, std::int64_t w, Activation activation = Activation::none)
      : ConvStage<C, Out, Kernel, Options>(conv.weight.template value<float>().data(),
                                           Options.bias ? conv.bias.template value<float>().data() : nullptr, activation, h, w) {}
};
template <int C, int Out, int Kernel, Conv2dOptions Options, Activation Act>
struct RowStage<FoldedConv2d<C, Out, Kernel, Options, Act>, C> : ConvStage<C, Out, Kernel, Options> {
  static constexpr int out = Out;
  RowStage(const FoldedConv2d<C, Out, Kernel, Options, Act>& conv, std::int64_t h, std::int64_t w)
      : ConvStage<C, Out, Kernel, Options>(conv.weight.template value<float>().data(),
                                           Options.bias ? conv.bias.template value<float>().data() : nullptr, Act, h, w) {}
};

/// The layers of a Sequential from place I on, in the groups that it runs as one step.
template <std::size_t I, int C, class List>
struct RowStages {  // behind the last
  static constexpr bool possible = true;
  static constexpr int out = C;
  RowStages(const auto&, std::int64_t h, std::int64_t w) : h_(h), w_(w) {}
  std::int64_t out_h() const { return h_; }
  std::int64_t out_w() const { return w_; }
  bool regular() const { return true; }
  std::int64_t kept_bytes() const { return 0; }
  double lag() const { return 0; }
  bool done() const { return done_; }
  Image<C> push(Image<C> rows, bool last) {
    done_ = last;
    return rows;
  }

 private:
  std::int64_t h_, w_;
  bool done_ = false;
};
template <std::size_t I, int C, class... Ms>
  requires(I < sizeof...(Ms))
struct RowStages<I, C, Sequential<Ms...>> {
  using First = std::tuple_element_t<I, std::tuple<Ms...>>;
  static constexpr std::size_t group = fused_length<false, I, Ms...>();
  static constexpr bool relu = group == 2 && is_conv2d<First> && !is_batch_norm<typename decltype(type_at<I + 1, Ms...>())::type>;
  using Head = RowStage<First, C>;
  using Tail = RowStages<I + group, Head::out, Sequential<Ms...>>;
  static constexpr bool possible = (group == 1 || relu) && Head::possible && Tail::possible;
  static constexpr int out = Tail::out;

  RowStages(const std::tuple<Ms...>& layers, std::int64_t h, std::int64_t w)
      : head(make_head(std::get<I>(layers), h, w)), tail(layers, head.out_h(), head.out_w()),
        rows_in_(double(h) / double(std::max<std::int64_t>(head.out_h(), 1))) {}
  std::int64_t out_h() const { return tail.out_h(); }
  std::int64_t out_w() const { return tail.out_w(); }
  bool regular() const { return head.regular() && tail.regular(); }
  std::int64_t kept_bytes() const { return head.kept_bytes() + tail.kept_bytes(); }
  double lag() const { return head.lag() + tail.lag() * rows_in_; }
  bool done() const { return tail.done(); }
  Image<out> push(const Image<C>& rows, bool last) {
    auto y = head.push(rows, last);
    return tail.push(std::move(y), head.done());
  }

 private:
  static Head make_head(const First& layer, std::int64_t h, std::int64_t w) {
    if constexpr (relu)
      return Head(layer, h, w, Activation::relu);
    else
      return Head(layer, h, w);
  }

  Head head;
  Tail tail;
  double rows_in_;  // per row of the head's result
};
template <class... Ms, int C>
struct RowStage<Sequential<Ms...>, C> : RowStages<0, C, Sequential<Ms...>> {
  RowStage(const Sequential<Ms...>& module, std::int64_t h, std::int64_t w)
      : RowStages<0, C, Sequential<Ms...>>(module.layers, h, w) {}
};

template <int N, class M, int C>
struct RowStage<Repeat<N, M>, C> {
  static constexpr bool possible = RowStage<M, C>::possible && RowStage<M, C>::out == C;
  static constexpr int out = C;

  RowStage(const Repeat<N, M>& module, std::int64_t h, std::int64_t w) {
    for (const M& block : module.blocks) {
      stages_.emplace_back(block, h, w);
      h = stages_.back().out_h();
      w = stages_.back().out_w();
    }
  }
  std::int64_t out_h() const { return stages_.back().out_h(); }
  std::int64_t out_w() const { return stages_.back().out_w(); }
  bool regular() const {
    return std::all_of(stages_.begin(), stages_.end(), [](const auto& stage) { return stage.regular(); });
  }
  std::int64_t kept_bytes() const {
    std::int64_t bytes = 0;
    for (const auto& stage : stages_) bytes += stage.kept_bytes();
    return bytes;
  }
  double lag() const {
    double rows = 0;
    for (const auto& stage : stages_) rows += stage.lag();
    return rows;
  }
  bool done() const { return stages_.back().done(); }
  Image<C> push(Image<C> rows, bool last) {
    for (auto& stage : stages_) {
      rows = stage.push(rows, last);
      last = stage.done();
    }
    return rows;
  }

 private:
  std::vector<RowStage<M, C>> stages_;
};

/// What Residual does with its input and its body's output.
struct SubtractRows {
  template <int C>
  Image<C> operator()(const Image<C>& x, const Image<C>& y) const {
    return var_in<Infer>(x - y).value();
  }
};
template <class M, int C>
  requires(RowStage<M, C>::possible)
struct RowStage<Residual<M>, C> : SkipStage<RowStage<M, C>, C, SubtractRows> {
  static constexpr bool possible = true;
  static constexpr int out = C;
  RowStage(const Residual<M>& module, std::int64_t h, std::int64_t w)
      : SkipStage<RowStage<M, C>, C, SubtractRows>(RowStage<M, C>(module.body, h, w), {}, h, w) {}
};

template <class M>
struct JoinRows {
  const M* module;
  template <int A, int B>
  auto operator()(const Image<A>& x, const Image<B>& y) const {
    Infer pass;
    return var_in<Infer>(module->join(pass, as_var(x), as_var(y))).value();
  }
};
template <class M, int C>
  requires(!LeafLayer<M> && Joins<M, C> && RowStage<std::remove_cvref_t<decltype(std::declval<const M&>().body)>, C>::possible)
struct RowStage<M, C> : SkipStage<RowStage<std::remove_cvref_t<decltype(std::declval<const M&>().body)>, C>, C, JoinRows<M>> {
  using Body = RowStage<std::remove_cvref_t<decltype(std::declval<const M&>().body)>, C>;
  static constexpr bool possible = true;
  static constexpr int out = M::io::out;
  RowStage(const M& module, std::int64_t h, std::int64_t w)
      : SkipStage<Body, C, JoinRows<M>>(Body(module.body, h, w), {&module}, h, w) {}
};

}  // namespace strata::inline STRATA_ABI::detail
