// expect: this module cannot be followed, neither for its facts nor for ONNX: its call operator must take images of any
// type expect-context: Block
#include "strata/io/onnx_export.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"

namespace st = strata;

struct Block {
  using io = st::maps<2, 2>;
  st::Conv2d<2, 2> conv;
  static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); }
#ifdef FAIL
  template <st::Pass P>
  auto operator()(P& pass, const st::Var<2>& x) const { return conv(pass, x); }
#else
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const { return conv(pass, x); }
#endif
};

int main() {
  st::Sequential<Block, st::ReLU> net;
  st::export_onnx("net.onnx", net);
}
