// expect: visit() lists a module in a pointer that copies share
// expect-context: can_be_listed<
#include <memory>

#include "strata/autograd/visit.hpp"

namespace st = strata;

struct Part {
  st::Parameter weight;
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
};
struct Block {
#ifdef FAIL
  std::shared_ptr<Part> part;
#else
  std::unique_ptr<Part> part;
#endif
  static constexpr void visit(auto& self, auto&& f) { f("part", self.part); }
};

int main() {
  Block block;
  st::zero_grad(block);
}
