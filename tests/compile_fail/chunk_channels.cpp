// expect: strata::chunk<N>: the number of channels must be a multiple of N
#include "strata/autograd/custom_op.hpp"

namespace st = strata;

int main() {
  st::Infer pass;
  const st::Image<4> x(1, 2, 2);
#ifdef FAIL
  (void)st::chunk<3>(pass, x);
#else
  (void)st::chunk<2>(pass, x);
#endif
}
