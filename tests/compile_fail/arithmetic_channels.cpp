// expect: arithmetic on images of different channel counts
// expect-context: channels_of<4, 2>
#include "strata/autograd/expression.hpp"
#include "strata/autograd/pass.hpp"

namespace st = strata;

int main() {
  const st::Image<4> a(1, 8, 8);
#ifdef FAIL
  const st::Image<2> b(1, 8, 8);
#else
  const st::Image<4> b(1, 8, 8);
#endif
  st::Train pass;
  const auto x = pass.watch(a);
  const auto y = mean(square(x + 0.5f * b) - maximum(x, 0.0f));
  return int(y.item());
}
