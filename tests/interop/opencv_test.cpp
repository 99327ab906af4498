// Images to cv::Mat and back. The nine ways in which a picture is garbled between two libraries have a test each:
// right, or refused with a sentence (of a temporary by the compiler: compile_fail/mat_of_temporary.cpp).
#include "strata/interop/opencv.hpp"

#include <doctest/doctest.h>

#include <opencv2/imgcodecs.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "strata/core/random.hpp"
#include "strata/data/image_file.hpp"
#include "message_of.hpp"
#include "temporary_folder.hpp"

namespace st = strata;

namespace {

constexpr st::MatOptions bgr{.order = st::MatOrder::bgr}, rgb{.order = st::MatOrder::rgb};

/// Every number another one, on the grid of 8 bits.
template <int C>
st::Image<C> numbered(std::int64_t n, std::int64_t h, std::int64_t w) {
  st::Image<C> image(n, h, w);
  st::Rng rng(7, std::uint32_t(h), std::uint32_t(w));
  for (float& value : image.span()) value = float(rng.below(256)) / 255.0f;
  return image;
}

template <int C>
bool equal(const st::Image<C>& a, const st::Image<C>& b) {
  return a.shape() == b.shape() && std::equal(a.data(), a.data() + a.size(), b.data());
}

#define CHECK_SAYS(expression, words)                              \
  do {                                                             \
    const std::string said = strata_test::message_of([&] { (void)(expression); }); \
    CAPTURE(said);                                                 \
    CHECK(said.find(words) != std::string::npos);                  \
  } while (false)

}  // namespace

TEST_CASE("a view is the image's own memory, of its type and extents") {
  st::Image<3> image = numbered<3>(1, 3, 5);
  cv::Mat view = st::as_mat(image);
  CHECK(view.type() == CV_32FC3);
  CHECK(view.rows == 3);
  CHECK(view.cols == 5);
  CHECK(view.data == reinterpret_cast<unsigned char*>(image.data()));
  view.at<cv::Vec3f>(2, 4)[1] = 0.25f;
  CHECK(image(0, 1, 2, 4) == 0.25f);
  cv::Mat(3, 5, CV_32FC3, cv::Scalar(1, 2, 3)).copyTo(view);  // the same extents: OpenCV writes where the view is
  CHECK(image(0, 2, 0, 0) == 3.0f);

  st::Image<2, double> other(1, 1, 1);
  CHECK(st::as_mat(other).type() == CV_64FC2);
  const st::Image<1> constant = numbered<1>(1, 4, 4);
  CHECK(st::as_mat(constant).at<float>(3, 1) == constant(0, 0, 3, 1));
}

TEST_CASE("batches: a view shows one image of it") {
  st::Image<1> batch = numbered<1>(3, 2, 4);
  CHECK(st::as_mat(batch, 2).at<float>(1, 3) == batch(2, 0, 1, 3));
  CHECK(st::to_mat<float>(batch, 1).at<float>(0, 2) == batch(1, 0, 0, 2));
  CHECK_SAYS(st::as_mat(batch), "as_mat(batch, n) takes image n");
  CHECK_SAYS(st::to_mat<float>(batch), "to_mat(batch, n) takes image n");
  CHECK_SAYS(st::as_mat(batch, 3), "got image 3 of a batch of 3");
}

TEST_CASE("mistake 1, the order of channels: told, and never turned silently") {
  const st::Image<3> image = numbered<3>(1, 4, 6);
  const cv::Mat turned = st::to_mat<float>(image, bgr), same = st::to_mat<float>(image, rgb);
  for (int y = 0; y < 4; ++y)
    for (int x = 0; x < 6; ++x)
      for (int c = 0; c < 3; ++c) {
        REQUIRE(turned.at<cv::Vec3f>(y, x)[c] == image(0, 2 - c, y, x));
        REQUIRE(same.at<cv::Vec3f>(y, x)[c] == image(0, c, y, x));
      }
  CHECK(equal(st::as_image<3>(turned, bgr), image));
  CHECK(equal(st::as_image<3>(same, rgb), image));
  CHECK_SAYS(st::as_image<3>(turned), "does not say whether it is BGR or RGB");
  CHECK_SAYS(st::to_mat<std::uint8_t>(image), "does not say whether it is BGR or RGB");
  const st::Image<4> alpha = numbered<4>(1, 2, 2);
  CHECK(st::to_mat<float>(alpha, bgr).at<cv::Vec4f>(1, 0)[3] == alpha(0, 3, 1, 0));  // alpha stays last
  CHECK(st::to_mat<float>(alpha, bgr).at<cv::Vec4f>(1, 0)[0] == alpha(0, 2, 1, 0));
  CHECK_SAYS(st::as_image<1>(cv::Mat(2, 2, CV_8UC1, cv::Scalar(0)), bgr), "1 channels have no order of colours");
}

TEST_CASE("mistake 1 and 2 against OpenCV's own files: what it reads and writes is what load_image and save_image do") {
  const strata_test::TemporaryFolder folder;
  const st::Image<3> image = numbered<3>(1, 7, 5);
  st::save_image(folder / "strata.png", image);
  const cv::Mat read = cv::imread((folder / "strata.png").string());
  CHECK(equal(st::as_image<3>(read, bgr), image));
  REQUIRE(cv::imwrite((folder / "opencv.png").string(), st::to_mat<std::uint8_t>(image, bgr)));
  CHECK(equal(st::load_image<3>(folder / "opencv.png"), image));
  REQUIRE(cv::imwrite((folder / "opencv16.png").string(), st::to_mat<std::uint16_t>(image, bgr)));
  CHECK(equal(st::load_image<3>(folder / "opencv16.png"), image));
  CHECK(equal(st::as_image<3>(cv::imread((folder / "opencv16.png").string(), cv::IMREAD_UNCHANGED), bgr), image));
}

TEST_CASE("mistake 2, the layout: planes of cv::dnn are refused") {
  const int extents[] = {1, 3, 4, 6};
  CHECK_SAYS(st::as_image<3>(cv::Mat(4, extents, CV_32F, cv::Scalar(0)), rgb), "has 4 dimensions");
}

TEST_CASE("mistakes 3 and 5, the stride of a cropped Mat, which is not continuous") {
  const st::Image<3> image = numbered<3>(1, 9, 11);
  for (const cv::Mat& whole :
       {st::to_mat<std::uint8_t>(image, bgr), st::to_mat<std::uint16_t>(image, bgr), st::to_mat<float>(image, bgr)}) {
    const cv::Mat part = whole(cv::Rect(2, 3, 7, 4));  // column, row, width, height
    REQUIRE_FALSE(part.isContinuous());
    const st::Image<3> got = st::as_image<3>(part, bgr);
    REQUIRE(got.h() == 4);
    REQUIRE(got.w() == 7);
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 7; ++x)
        for (int c = 0; c < 3; ++c) REQUIRE(got(0, c, y, x) == image(0, c, y + 3, x + 2));
  }
  const st::Image<1> one = st::as_image<1>(cv::Mat(5, 5, CV_8UC1, cv::Scalar(51))(cv::Rect(4, 4, 1, 1)));
  CHECK(one(0, 0, 0, 0) == 51 / 255.0f);
}

TEST_CASE("mistake 4, 16 bits and others: divided by their own white, or refused") {
  const cv::Mat deep(2, 2, CV_16UC1, cv::Scalar(13107));
  CHECK(st::as_image<1>(deep)(0, 0, 1, 1) == 13107 / 65535.0f);
  CHECK(st::as_image<1>(deep, {.white = 26214})(0, 0, 1, 1) == 0.5f);
  CHECK(st::to_mat<std::uint16_t>(st::Image<1>::full(1, 1, 1, 0.5f), {.white = 4095}).at<std::uint16_t>(0, 0) == 2048);
  for (const int type : {CV_8SC1, CV_16SC1, CV_32SC1, CV_16FC1})
    CHECK_SAYS(st::as_image<1>(cv::Mat(2, 2, type, cv::Scalar(1))), "wanted CV_8U, CV_16U, CV_32F or CV_64F");
  CHECK_SAYS(st::to_mat<std::uint8_t>(st::Image<1>(1, 1, 1), {.white = 65535}),
             "the largest number of this type is 255");
}

TEST_CASE("mistake 6, lifetimes: a Mat's image owns its numbers; an image's view goes with it") {
  st::Image<3> image;
  {
    const cv::Mat short_lived(3, 3, CV_32FC3, cv::Scalar(0.5, 0.25, 0.125));
    image = st::as_image<3>(short_lived, rgb);
  }
  CHECK(image(0, 1, 2, 2) == 0.25f);  // the address sanitizer would speak here
  cv::Mat kept;
  {
    st::Image<1> inner = st::Image<1>::full(1, 2, 2, 0.75f);
    kept = st::as_mat(inner).clone();
  }
  CHECK(kept.at<float>(1, 1) == 0.75f);
}

TEST_CASE("mistake 7, grey as three channels and the reverse: refused, with the call that converts") {
  CHECK_SAYS(st::as_image<1>(cv::Mat(2, 2, CV_8UC3, cv::Scalar(1, 1, 1))), "cv::COLOR_BGR2GRAY");
  CHECK_SAYS(st::as_image<3>(cv::Mat(2, 2, CV_8UC1, cv::Scalar(1)), bgr), "cv::COLOR_GRAY2BGR");
  CHECK_SAYS(st::as_image<3>(cv::Mat(2, 2, CV_8UC4, cv::Scalar(1)), bgr), "cv::COLOR_BGRA2BGR");
  CHECK_SAYS(st::as_image<5>(cv::Mat(2, 2, CV_8UC2, cv::Scalar(1))), "use as_image<2>");
}

TEST_CASE("mistake 8, the range of values") {
  const cv::Mat levels(2, 2, CV_32FC1, cv::Scalar(200));
  CHECK_SAYS(st::as_image<1>(levels), "give {.white = 255}");
  CHECK(st::as_image<1>(levels, {.white = 255})(0, 0, 0, 0) == 200 / 255.0f);
  CHECK(st::as_image<1>(levels, {.white = 1})(0, 0, 0, 0) == 200.0f);
  CHECK(st::as_image<1>(cv::Mat(1, 1, CV_64FC1, cv::Scalar(-0.5)))(0, 0, 0, 0) ==
        -0.5f);  // noise: neither clamped nor refused
  st::Image<1> wide(1, 1, 3);
  wide(0, 0, 0, 0) = -1, wide(0, 0, 0, 1) = 2, wide(0, 0, 0, 2) = 0.5f;
  const cv::Mat clamped = st::to_mat<std::uint8_t>(wide);
  CHECK(clamped.at<std::uint8_t>(0, 0) == 0);
  CHECK(clamped.at<std::uint8_t>(0, 1) == 255);
  CHECK(clamped.at<std::uint8_t>(0, 2) == 128);
  wide(0, 0, 0, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK_SAYS(st::to_mat<std::uint8_t>(wide), "NaN in row 0, column 1");
  CHECK(std::isnan(st::to_mat<float>(wide).at<float>(0, 1)));
  CHECK_SAYS(st::as_image<1>(levels, {.white = 0}), "wanted a finite number above 0");
}

TEST_CASE("mistake 9, rows and columns: a Mat of 2 rows and 5 columns is an image of h 2 and w 5") {
  cv::Mat mat(2, 5, CV_32FC1, cv::Scalar(0));
  mat.at<float>(1, 3) = 1;  // row, column
  const st::Image<1> image = st::as_image<1>(mat);
  CHECK(image.h() == 2);
  CHECK(image.w() == 5);
  CHECK(image(0, 0, 1, 3) == 1.0f);
  CHECK_SAYS(st::as_image<1>(cv::Mat()), "cv::imread gives an empty one");
}
