// expect: this module cannot be followed, neither for its facts nor for ONNX: its call operator must take images of any
// type expect-context: Block
#include "strata/nn/conv2d.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/summary.hpp"

namespace st = strata;

struct Block {
  using io = st::maps<2, 2>;
  st::Conv2d<2, 2> conv;
  static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); }
#ifdef FAIL
  auto operator()(auto& pass, const st::Var<2>& x) const { return conv(pass, x); }
#else
  auto operator()(auto& pass, const auto& x) const { return conv(pass, x); }
#endif
};

int main() {
  const st::Sequential<st::Conv2d<1, 2>, Block> net;
  return int(st::summary(net).size());
}
