// A block that adds to what it gets: y = x + conv(relu(conv(x))), as in EDSR (Lim, Son, Kim, Nah and Lee, 2017). Deep
// networks of such blocks train without batch norm.
#pragma once

#include "strata/strata.hpp"

namespace blocks {

namespace st = strata;

template <int Width>
struct ResidualBlock {
  using io = st::maps<Width, Width>;
  st::Sequential<st::Conv2d<Width, Width>, st::ReLU, st::Conv2d<Width, Width>> body;

  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }

  auto operator()(st::Train& pass, const auto& x) { return x + body(pass, x); }
  auto operator()(st::Infer& pass, const auto& x) const { return x + body(pass, x); }

  /// Starts as the identity: the second convolution gives zeros.
  void start_as_identity() { body.template layer<2>().weight.reset(); }
};

}  // namespace blocks
