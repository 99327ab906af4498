// expect: visit() does not list every member that holds parameters
// expect-context: every_member_listed<
// expect-context: Block
#include "strata/nn/conv2d.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

struct Block {
  using io = st::maps<8, 8>;
  st::Conv2d<8, 8> first, second;
  float scale = 0.1f;

  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
#ifndef FAIL
    f("second", self.second);
#endif
  }
  auto operator()(auto& pass, const auto& x) { return x + scale * second(pass, first(pass, x)); }
};
st::Sequential<st::Conv2d<1, 8>, Block> net;

int main() {
  st::Train pass;
  const auto y = net(pass, st::Image<1>::full(1, 8, 8, 0.5f));
  return int(y.n());
}
