// A picture from OpenCV through a network and back, with colours that stay what they are.
//
//     interop_opencv photo.jpg result.png        # without arguments: a picture that it draws
//
// CMake: find_package(strata COMPONENTS opencv), strata::opencv; and OpenCV's imgcodecs, for the files.
#include <strata/interop/opencv.hpp>
#include <strata/strata.hpp>

#include <opencv2/imgcodecs.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>

namespace st = strata;

using Net =
    st::Residual<st::Sequential<st::Conv2d<3, 16>, st::ReLU, st::Conv2d<16, 3>>>;  // yours, with trained weights

int main(int argc, char** argv) try {
  cv::Mat photo;  // BGR, 8 or 16 bits
  if (argc > 1) {
    photo = cv::imread(argv[1], cv::IMREAD_COLOR | cv::IMREAD_ANYDEPTH);
  } else {
    photo = cv::Mat(48, 64, CV_8UC3, cv::Scalar(0, 128, 255));  // orange, as OpenCV writes it
    photo(cv::Rect(8, 8, 16, 16)).setTo(cv::Scalar(255, 0, 0));
  }
  const st::Image<3> image = st::as_image<3>(photo, {.order = st::MatOrder::bgr});

  Net net;
  st::Infer pass;
  st::Image<3> result = net(pass, image);

  cv::Mat view = st::as_mat(result);  // RGB, float, the image's own memory: what OpenCV does to it is done to the image
  cv::min(view, 1.0, view);
  cv::max(view, 0.0, view);
  std::printf("%d x %d pixels, mean of red %.3f\n", view.cols, view.rows, cv::mean(view)[0]);
  if (argc > 2 && !cv::imwrite(argv[2], st::to_mat<std::uint8_t>(result, {.order = st::MatOrder::bgr}))) {
    std::fprintf(stderr, "%s cannot be written\n", argv[2]);
    return 1;
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "interop_opencv: %s\n", error.what());
  return 1;
}
