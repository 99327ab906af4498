// expect: a pointer into the numbers of a temporary: give what holds them a name first
#include "strata/tensor/image.hpp"

namespace st = strata;

int main() {
#ifdef FAIL
  const float* numbers = st::Image<1>::full(1, 8, 8, 0.5f).data();
#else
  const auto image = st::Image<1>::full(1, 8, 8, 0.5f);
  const float* numbers = image.data();
#endif
  return numbers[3] == 0.5f ? 0 : 1;
}
