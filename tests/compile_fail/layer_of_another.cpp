// expect: a module derives from Layer<Other>, where Other is another module
// expect-context: Mine
#include "strata/nn/module.hpp"

namespace st = strata;

struct Other : st::Layer<Other> {
  using io = st::keeps;
  static constexpr void visit(auto&, auto&&) {}
  static auto forward(auto&, auto&, const auto& x) { return x; }
};
#ifdef FAIL
struct Mine : st::Layer<Other> {
#else
struct Mine : st::Layer<Mine> {
#endif
  using io = st::keeps;
  st::Parameter weight;
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
  static auto forward(auto&, auto&, const auto& x) { return x; }
};

int main() {
  Mine mine;
  st::zero_grad(mine);
}
