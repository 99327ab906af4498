// expect: a const network holds a module whose call operator is not const
#include "strata/nn/conv2d.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

struct Twice {
  using io = st::keeps;
  static constexpr void visit(auto&, auto&&) {}
#ifdef FAIL
  auto operator()(auto&, const auto& x) { return 2 * x; }
#else
  auto operator()(auto&, const auto& x) const { return 2 * x; }
#endif
};

int main() {
  const st::Sequential<st::Conv2d<1, 1>, Twice> net;
  st::Infer pass;
  return int(net(pass, st::Image<1>::full(1, 8, 8, 0.5f)).n());
}
