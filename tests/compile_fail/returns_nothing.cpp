// expect: this module's call operator must return its result, an st::Var<C> or an expression
// expect-context: Twice
#include "strata/nn/repeat.hpp"

namespace st = strata;

struct Twice {
  using io = st::keeps;
  static constexpr void visit(auto&, auto&&) {}
#ifdef FAIL
  void operator()(auto&, const auto& x) { (void)(2 * x); }
#else
  auto operator()(auto&, const auto& x) { return 2 * x; }
#endif
};

int main() {
  st::Repeat<2, Twice> net;
  st::Infer pass;
  return int(net(pass, st::Image<1>::full(1, 8, 8, 0.5f)).n());
}
