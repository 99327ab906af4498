// The stage of any module that runs on an image in bands of rows (deploy/row_layers.hpp has those of single layers):
// containers, and modules of the form y = join(x, body(x)), as Add and Subtract are.
//
//     strata::detail::RowStage<Net, 1> stage(net, h, w);
//     Image<1> out = stage.push(std::move(band), /*last=*/false);      // none, some or more rows than came in
//     ...
//     while (!stage.done()) out = stage.push(none, /*last=*/true);
//
// RowStage<M, C>::possible says whether M is covered. tile.hpp drives it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/deploy/row_layers.hpp"
#include "strata/nn/fuse.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::detail {

/// The stage of a module that gets C channels. `out` is the number it gives.
template <class M, int C>
struct RowStage;

/// Whether M has a body, and one for images of C channels: another module may have one in the middle.
template <class M, int C>
constexpr bool body_takes() {
  if constexpr (requires(const M& m) { std::remove_cvref_t<decltype(m.body)>::io::in; })
    return std::remove_cvref_t<decltype(std::declval<const M&>().body)>::io::in == C;
  else
    return requires(const M& m) { m.body; };
}
/// A module of the form y = join(x, body(x)): `body` is a member, and join(pass, x, y) works pixel by pixel.
template <class M, int C>
concept Joins = body_takes<M, C>() &&
                requires(const M& m, Infer& pass, const Var<C>& x) { m.join(pass, x, call(m.body, pass, x)); };

template <class M, int C>
constexpr bool channels_fit() {
  if constexpr (fixes_channels<M>) return M::io::in == C;
  return true;
}

template <class M, int C>
constexpr auto row_stage_of() {
  if constexpr (LeafLayer<M>) {
    if constexpr (RunsByBands<M> && channels_fit<M, C>())
      return std::type_identity<ConvStage<M>>{};
    else if constexpr (BlockStage<M, C>::possible && !Affine<M>)  // fold it first: it goes into a convolution
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
  static constexpr FusedRun run = fused_runs<false, Ms...>[I];
  static constexpr std::size_t group = run.length;
  static constexpr bool ends =
      RunsByBands<First> && run.affines == 0 && run.behind != Activation::none;  // with an activation
  using Head = RowStage<First, C>;
  using Tail = RowStages<I + group, Head::out, Sequential<Ms...>>;
  static constexpr bool possible = (group == 1 || ends) && Head::possible && Tail::possible;
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
  Image<out> push(Image<C> rows, bool last) {
    auto y = head.push(std::move(rows), last);
    return tail.push(std::move(y), head.done());
  }

 private:
  static Head make_head(const First& layer, std::int64_t h, std::int64_t w) {
    if constexpr (ends)
      return Head(layer, h, w, run.behind);
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

template <class M, int C>
  requires requires { typename M::wraps; }
struct RowStage<M, C> : RowStage<typename M::wraps, C> {
  RowStage(const M& module, std::int64_t h, std::int64_t w) : RowStage<typename M::wraps, C>(module.body, h, w) {}
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
      rows = stage.push(std::move(rows), last);
      last = stage.done();
    }
    return rows;
  }

 private:
  std::vector<RowStage<M, C>> stages_;
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
/// Whether a module's forward is join(x, body(x)), with a join that works pixel by pixel: both are followed.
template <int C, class M>
bool is_join(const M& module, std::int64_t h, std::int64_t w) {
  if constexpr (requires(Infer& pass, const Var<C, Followed>& x) { module.join(pass, x, call(module.body, pass, x)); }) {
    Infer pass;
    const auto input = [&](Following& run) {
      return Var<C, Followed>(FollowedValue(&run, run.add_image({.c = C, .h = h, .w = w})));
    };
    Following whole(1), parts(1);
    const Var<C, Followed> x = input(whole);
    const auto y = call(module, pass, x);
    const Var<C, Followed> same_x = input(parts);
    const auto body = call(module.body, pass, same_x);
    const std::size_t of_body = parts.links().size();
    const auto joined = var_in<Infer>(module.join(pass, same_x, body));
    const auto& links = parts.links();
    return whole.same_steps(parts) && y.symbol().id() == joined.symbol().id() &&
           std::all_of(links.begin() + std::ptrdiff_t(of_body), links.end(), [](const FollowedLink& link) { return link.reads == Reads{}; });
  } else {
    return false;
  }
}
template <class M, int C>
  requires(!LeafLayer<M> && Joins<M, C> && RowStage<std::remove_cvref_t<decltype(std::declval<const M&>().body)>, C>::possible)
struct RowStage<M, C> : SkipStage<RowStage<std::remove_cvref_t<decltype(std::declval<const M&>().body)>, C>, C, JoinRows<M>> {
  using Body = RowStage<std::remove_cvref_t<decltype(std::declval<const M&>().body)>, C>;
  static constexpr bool possible = true;
  static constexpr int out = M::io::out;
  RowStage(const M& module, std::int64_t h, std::int64_t w)
      : SkipStage<Body, C, JoinRows<M>>(Body(module.body, h, w), {&module}, h, w), as_it_says_(is_join<C>(module, h, w)) {}
  bool regular() const { return as_it_says_ && SkipStage<Body, C, JoinRows<M>>::regular(); }

 private:
  bool as_it_says_;
};

}  // namespace strata::inline STRATA_ABI::detail
