// expect: a module whose forward reads an image's numbers cannot be followed for its facts
// expect-context: Block
#include "strata/nn/summary.hpp"

namespace st = strata;

struct Block {
  using io = st::maps<2, 2>;
  static constexpr void visit(auto&, auto&&) {}
#ifndef FAIL
  static constexpr void trace(auto&) {}
#endif
  auto operator()(auto&, const auto& x) const {
    const bool bright = x.data()[0] > 0.5f;
    return bright ? st::as_var(2 * x) : st::as_var(x);
  }
};

int main() { return int(st::summary(Block()).size()); }
