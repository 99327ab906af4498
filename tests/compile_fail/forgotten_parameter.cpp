// expect: visit() does not list every member that holds parameters
// expect-context: every_member_listed<
#include "strata/autograd/visit.hpp"

namespace st = strata;

namespace {

struct Scale {
  st::Parameter weight{st::Shape{8}, 1.0f}, bias{st::Shape{8}};
  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
#ifndef FAIL
    f("bias", self.bias);
#endif
  }
};

}  // namespace

int main() {
  Scale scale;
  st::zero_grad(scale);
}
