// expect: the size of a Parameter and the length of a std::vector cannot be told from the type
#include "strata/nn/summary.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

struct Scale {
  using io = st::maps<8, 8>;
  st::Conv2d<8, 8> conv;
  st::Parameter factor{st::Shape{8}, 1.0f};

  static constexpr void visit(auto& self, auto&& f) {
    f("conv", self.conv);
    f("factor", self.factor);
  }
#ifndef FAIL
  static constexpr void trace(auto& t) {
    t.template child<st::Conv2d<8, 8>>("conv");
    t.parameters(8);
  }
#endif
  auto operator()(auto& pass, const auto& x) { return conv(pass, x); }
};

int main() { return int(st::parameter_count<st::Sequential<st::Conv2d<1, 8>, Scale>>); }
