// expect: visit() gives two members one name
// expect-context: members_of_one_name<
#include "strata/autograd/visit.hpp"

namespace st = strata;

struct Block {
  st::Parameter first, second;
  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
#ifdef FAIL
    f("first", self.second);
#else
    f("second", self.second);
#endif
  }
};

int main() {
  Block block;
  st::zero_grad(block);
}
