// needs: Eigen/Core
// expect: strata::plane: a view of a temporary's numbers: give the image a name first
#include "strata/interop/eigen.hpp"

namespace st = strata;

int main() {
#ifdef FAIL
  const auto red = st::plane(st::Image<3>::full(1, 8, 8, 0.5f), 0, 0);
#else
  const auto image = st::Image<3>::full(1, 8, 8, 0.5f);
  const auto red = st::plane(image, 0, 0);
#endif
  return red.rows() == 8 ? 0 : 1;
}
