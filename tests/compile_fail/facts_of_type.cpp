// expect: a network without a default constructor cannot be made from its type alone: ask the object
// expect-context: Block
#include "strata/nn/facts.hpp"

namespace st = strata;

struct Block {
  using io = st::maps<2, 2>;
  int times;
  explicit Block(int n) : times(n) {}
  static constexpr void visit(auto&, auto&&) {}
  auto operator()(auto&, const auto& x) const { return times * x; }
};

int main() {
#ifdef FAIL
  return int(st::multiply_adds<Block>(8, 8));
#else
  return int(st::multiply_adds(Block(3), 8, 8));
#endif
}
