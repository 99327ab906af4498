// expect: this module has members that folding would change, and does not say what becomes of it
// expect-context: Block
#include "strata/deploy/fold.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/relu.hpp"

namespace st = strata;

struct Inside {
  using io = st::maps<8, 8>;
  st::Sequential<st::Conv2d<8, 8>, st::BatchNorm2d<8>, st::ReLU> body;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  auto operator()(auto& pass, const auto& x) const { return x + body(pass, x); }
};
struct Block {
  using io = st::maps<8, 8>;
  Inside body;
#ifndef FAIL
  using keeps_its_form = void;
#endif
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  auto operator()(auto& pass, const auto& x) const { return x + body(pass, x); }
};

int main() {
  const st::Sequential<st::Conv2d<1, 8>, Block> net;
  const auto folded = st::fold(net);
  return int(folded.size) - 2;
}
