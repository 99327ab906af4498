// needs: opencv2/core.hpp
// expect: strata::as_mat: a view of a temporary's numbers: give the image a name first
#include "strata/interop/opencv.hpp"

namespace st = strata;

int main() {
#ifdef FAIL
  const cv::Mat view = st::as_mat(st::Image<1>::full(1, 8, 8, 0.5f));
#else
  const auto image = st::Image<1>::full(1, 8, 8, 0.5f);
  const cv::Mat view = st::as_mat(image);
#endif
  return view.rows == 8 ? 0 : 1;
}
