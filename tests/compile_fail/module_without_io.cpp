// expect: this module has no channel signature: add 'using io = strata::maps<In, Out>;'
// expect-context: check_module
// expect-context: Scale
#include "strata/nn/conv2d.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

struct Scale {
#ifndef FAIL
  using io = st::keeps;
#endif
  static constexpr void visit(auto&, auto&&) {}
  auto operator()(auto&, const auto& x) const { return 2 * x; }
};
st::Sequential<st::Conv2d<1, 1>, Scale> net;

int main() {
  st::Infer pass;
  return int(net(pass, st::Image<1>::full(1, 8, 8, 0.5f)).n());
}
