// needs: Eigen/Core
// expect: strata::niqe: is of images of one channel, or of the luma of RGB images
#include "strata/metrics/niqe.hpp"

namespace st = strata;

int main() {
#ifdef FAIL
  const st::Image<2> image;
#else
  const st::Image<1> image;
#endif
  return st::niqe(image, st::NiqeModel{}) > 5 ? 1 : 0;
}
