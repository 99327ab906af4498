// expect: this module does not list its members: add 'static constexpr void visit(auto& self, auto&& f)
// expect-context: check_module
// expect-context: Scale
#include "strata/nn/conv2d.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

struct Scale {
  using io = st::maps<1, 1>;
#ifndef FAIL
  static constexpr void visit(auto&, auto&&) {}
#endif
  auto operator()(auto&, const auto& x) const { return 2 * x; }
};
st::Sequential<st::Conv2d<1, 1>, Scale> net;

int main() {
  st::Infer pass;
  return int(net(pass, st::Image<1>::full(1, 8, 8, 0.5f)).n());
}
