// expect: arithmetic on images of different types: convert float and double first
#include "strata/autograd/expression.hpp"

namespace st = strata;

int main() {
  const st::Image<4> a(1, 8, 8);
#ifdef FAIL
  const st::Image<4, double> b(1, 8, 8);
#else
  const st::Image<4> b(1, 8, 8);
#endif
  return int(mean(a - b).item());
}
