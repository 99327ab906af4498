// expect: a module that asks for an image's extents or numbers cannot be exported by itself
#include "strata/io/onnx_export.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"

namespace st = strata;

struct Block {
  using io = st::maps<2, 2>;
  st::Conv2d<2, 2> conv;
  static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const {
#ifdef FAIL
    if (x.h() < 8) return st::as_var(x);
#endif
    return st::as_var(conv(pass, x));
  }
};

int main() {
  st::Sequential<Block, st::ReLU> net;
  st::export_onnx("net.onnx", net);
}
