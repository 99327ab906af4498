// expect: visit() does not list every member that holds parameters
// expect-context: member_not_listed<
// expect-context: Block
#include "strata/autograd/visit.hpp"

namespace st = strata;

struct Block {  // more members than a dozen, and one of them copied and pasted: the sizes add up
  st::Parameter a, b, c, d, e, f, g, h, i, j, k, l, first, second;
  static constexpr void visit(auto& self, auto&& f) {
    f("a", self.a), f("b", self.b), f("c", self.c), f("d", self.d), f("e", self.e), f("f", self.f), f("g", self.g);
    f("h", self.h), f("i", self.i), f("j", self.j), f("k", self.k), f("l", self.l), f("first", self.first);
#ifdef FAIL
    f("second", self.first);
#else
    f("second", self.second);
#endif
  }
};

int main() {
  Block block;
  st::zero_grad(block);
}
