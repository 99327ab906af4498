// expect: strata::gradient_check: cannot be called as f(pass, x...) with images of double
#include "strata/autograd/gradient_check.hpp"
#include "strata/nn/conv2d.hpp"

namespace st = strata;

struct Block {
  using io = st::maps<2, 2>;
  st::Conv2d<2, 2> conv;
  static constexpr void visit(auto& self, auto&& f) { f("conv", self.conv); }
#ifdef FAIL
  auto operator()(auto& pass, const st::Var<2>& x) { return conv(pass, x); }
#else
  auto operator()(auto& pass, const auto& x) { return conv(pass, x); }
#endif
};

int main() { return st::gradient_check(Block{}, st::Image<2>::full(1, 4, 4, 0.5f)).ok() ? 0 : 1; }
