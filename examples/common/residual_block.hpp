// A block that adds to what it gets: y = x + conv(relu(conv(x))), as in EDSR (Lim, Son, Kim, Nah and Lee, 2017). Deep
// networks of such blocks train without batch norm.
#pragma once

#include "strata/strata.hpp"

namespace blocks {

namespace st = strata;

/// y = x + body(x).
template <class Body>
struct Add {
  using io = typename Body::io;
  Body body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }

  auto join(auto&, const auto& x, const auto& y) const { return x + y; }
  auto operator()(st::Train& pass, const auto& x) { return join(pass, x, body(pass, x)); }
  auto operator()(st::Infer& pass, const auto& x) const { return join(pass, x, body(pass, x)); }
  /// The deploy form.
  auto fold() const { return Add<st::deploy_t<Body>>{.body = st::fold(body)}; }
};

template <int Width>
using ResidualBlock = Add<st::Sequential<st::Conv2d<Width, Width>, st::ReLU, st::Conv2d<Width, Width>>>;

/// Makes the block the identity: its last convolution gives zeros. Deep networks train faster from there.
template <int Width>
void start_as_identity(ResidualBlock<Width>& block) {
  block.body.template layer<2>().weight.reset();
}

}  // namespace blocks
