// Images and parameters as Eigen's matrices and tensors.
#include "strata/interop/eigen.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <type_traits>

#include "strata/interop/eigen_tensor.hpp"

namespace st = strata;

namespace {

template <int C, class T = float>
st::Image<C, T> numbered(std::int64_t n, std::int64_t h, std::int64_t w) {
  st::Image<C, T> image(n, h, w);
  for (std::int64_t i = 0; i < image.size(); ++i) image.data()[i] = T(i);
  return image;
}

}  // namespace

TEST_CASE("pixels x channels: the image's own memory, C known to the compiler") {
  st::Image<3> image = numbered<3>(2, 4, 5);
  auto pixels = st::as_matrix(image);
  static_assert(decltype(pixels)::ColsAtCompileTime == 3);
  CHECK(pixels.rows() == 40);
  CHECK(pixels.data() == image.data());
  for (std::int64_t n = 0; n < 2; ++n)
    for (std::int64_t y = 0; y < 4; ++y)
      for (std::int64_t x = 0; x < 5; ++x)
        for (int c = 0; c < 3; ++c) REQUIRE(pixels((n * 4 + y) * 5 + x, c) == image(n, c, y, x));
  const Eigen::RowVector3f mean = pixels.colwise().mean();
  CHECK(mean(1) == doctest::Approx(double(mean(0)) + 1));
  pixels.rowwise() -= mean;
  CHECK(st::as_matrix(image).colwise().mean().norm() < 1e-3f);

  st::Image<1, double> grey = numbered<1, double>(1, 3, 2);
  CHECK(st::as_matrix(grey)(5, 0) == 5.0);
  const st::Image<3>& constant = image;
  static_assert(std::is_const_v<std::remove_pointer_t<decltype(st::as_matrix(constant).data())>> ||
                !std::is_assignable_v<decltype(st::as_matrix(constant)(0, 0)), float>);
  st::Image<3> nothing;
  CHECK(st::as_matrix(nothing).rows() == 0);
}

TEST_CASE("a plane: rows are rows, with the stride of pixels and of rows") {
  st::Image<3> image = numbered<3>(2, 4, 5);
  for (int c = 0; c < 3; ++c) {
    const auto plane = st::plane(image, 1, c);
    REQUIRE(plane.rows() == 4);
    REQUIRE(plane.cols() == 5);
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 5; ++x) REQUIRE(plane(y, x) == image(1, c, y, x));
  }
  st::plane(image, 0, 2).setZero();
  CHECK(image(0, 2, 3, 4) == 0.0f);
  CHECK(image(0, 1, 3, 4) != 0.0f);
  CHECK_THROWS_AS(st::plane(image, 2, 0), st::ValueError);
  CHECK_THROWS_AS(st::plane(image, 0, 3), st::ValueError);
  const st::Image<3>& constant = image;
  CHECK(st::plane(constant, 1, 1)(2, 3) == image(1, 1, 2, 3));
}

TEST_CASE("a matrix of Eigen's, which is column-major in memory, becomes the image with its rows") {
  Eigen::MatrixXf matrix(2, 3);
  matrix << 1, 2, 3, 4, 5, 6;
  const st::Image<1> image = st::as_image(matrix);
  CHECK(image.h() == 2);
  CHECK(image.w() == 3);
  CHECK(image(0, 0, 0, 2) == 3.0f);
  CHECK(image(0, 0, 1, 0) == 4.0f);
  CHECK(st::as_image(matrix.transpose() * 2.0f)(0, 0, 2, 0) == 6.0f);
  CHECK(st::as_image(matrix.block(0, 1, 2, 2))(0, 0, 1, 1) == 6.0f);  // a part has a stride of its own

  const st::Image<3> colours = numbered<3>(1, 2, 3);
  const Eigen::MatrixXf pixels = st::as_matrix(colours);  // a copy, column-major
  const st::Image<3> back = st::as_image<3>(pixels, 2, 3);
  for (std::int64_t i = 0; i < back.size(); ++i) REQUIRE(back.data()[i] == colours.data()[i]);
  CHECK_THROWS_WITH_AS(st::as_image<3>(pixels, 3, 3),
                       "as_image<3>: got a matrix of 6 x 3, wanted pixels x channels, 3 * 3 x 3", st::ShapeError);
  CHECK_THROWS_AS(st::as_image<3>(pixels.transpose(), 1, 3), st::ShapeError);
}

TEST_CASE("a parameter: output channels x (kernel row, kernel column, input channel)") {
  st::Parameter weight(st::Shape{4, 3, 2, 5});  // O, I, KH, KW
  for (std::int64_t i = 0; i < weight.size(); ++i) weight.value().data()[i] = float(i);
  auto matrix = st::as_matrix(weight);
  CHECK(matrix.rows() == 4);
  CHECK(matrix.cols() == 30);
  const auto nchw = st::to_nchw(weight.value());
  for (int o = 0; o < 4; ++o)
    for (int i = 0; i < 3; ++i)
      for (int y = 0; y < 2; ++y)
        for (int x = 0; x < 5; ++x)
          REQUIRE(matrix(o, (y * 5 + x) * 3 + i) == nchw[std::size_t(((o * 3 + i) * 2 + y) * 5 + x)]);
  matrix *= 2;
  CHECK(weight.value().data()[1] == 2.0f);
  st::Parameter bias(st::Shape{4}, 0.5f);
  CHECK(st::as_matrix(bias).rows() == 4);
  CHECK(st::as_matrix(bias).cols() == 1);
  const st::Parameter linear(st::Shape{2, 3}, 1.0f);
  CHECK(st::as_matrix(linear).sum() == 6.0f);
  CHECK_THROWS_AS(st::as_matrix<double>(bias), st::Error);
}

TEST_CASE("a tensor of Eigen's: image, row, column, channel") {
  st::Image<2> image = numbered<2>(2, 3, 4);
  auto tensor = st::as_tensor(image);
  CHECK(tensor.data() == image.data());
  CHECK(tensor.dimension(0) == 2);
  CHECK(tensor.dimension(1) == 3);
  CHECK(tensor.dimension(2) == 4);
  CHECK(tensor.dimension(3) == 2);
  CHECK(tensor(1, 2, 3, 1) == image(1, 1, 2, 3));
  tensor(0, 1, 0, 1) = -1;
  CHECK(image(0, 1, 1, 0) == -1.0f);
  const st::Image<2>& constant = image;
  CHECK(st::as_tensor(constant)(1, 0, 0, 0) == image(1, 0, 0, 0));
}
