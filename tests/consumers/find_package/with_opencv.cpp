#include <strata/interop/opencv.hpp>

int main() {
  const auto image = strata::Image<3>::full(1, 2, 2, 0.5f);
  return cv::sum(strata::as_mat(image))[1] == 2.0 ? 0 : 1;
}
