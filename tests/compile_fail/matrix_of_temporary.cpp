// needs: Eigen/Core
// expect: strata::as_matrix: a view of a temporary's numbers: give the image a name first
#include "strata/interop/eigen.hpp"

namespace st = strata;

int main() {
#ifdef FAIL
  const auto pixels = st::as_matrix(st::Image<3>::full(1, 8, 8, 0.5f));
#else
  const auto image = st::Image<3>::full(1, 8, 8, 0.5f);
  const auto pixels = st::as_matrix(image);
#endif
  return pixels.rows() == 64 ? 0 : 1;
}
