// expect: a module that uses custom_op cannot be followed
// expect-context: Block
#include "strata/autograd/custom_op.hpp"
#include "strata/nn/facts.hpp"

namespace st = strata;

struct Block {
  using io = st::maps<2, 2>;
  static constexpr void visit(auto&, auto&&) {}
#ifndef FAIL
  static constexpr void trace(auto&) {}
#endif
  auto operator()(auto& pass, const auto& x) const {
    return st::custom_op(
        pass, [](const st::Image<2>& y) { return y.clone(); },
        [](const auto& gy, const auto&, const auto&) { return gy.clone(); }, x);
  }
};

int main() {
  const Block net;
  return int(st::multiply_adds(net, 8, 8));
}
