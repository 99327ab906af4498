// expect: Start + Length must not exceed its number of channels
#include "strata/autograd/custom_op.hpp"

namespace st = strata;

int main() {
  st::Infer pass;
  const st::Image<4> x(1, 2, 2);
#ifdef FAIL
  (void)st::narrow<2, 3>(pass, x);
#else
  (void)st::narrow<2, 2>(pass, x);
#endif
}
