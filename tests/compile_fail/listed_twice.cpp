// expect: visit() lists a member twice, which would be trained twice in a step and saved under two names
// expect-context: member_listed_twice<
// expect-context: Block
#include "strata/autograd/visit.hpp"

namespace st = strata;

struct Block {
  st::Parameter first{st::Shape{2}};
  float scale = 0.1f;
  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
#ifdef FAIL
    f("second", self.first);
#endif
  }
};

int main() {
  Block block;
  st::zero_grad(block);
}
