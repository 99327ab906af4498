// Principal components and whitening, by what they must be; orthogonal initialisation against Eigen's QR.
#include "strata/data/whitening.hpp"

#include <doctest/doctest.h>
#include <Eigen/QR>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/core/random.hpp"
#include "strata/nn/init.hpp"

namespace st = strata;

namespace {

Eigen::MatrixXd normal(int rows, int columns, std::uint32_t stream) {
  st::Rng rng(5, stream);
  Eigen::MatrixXd out(rows, columns);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j) out(i, j) = double(rng.normal());
  return out;
}

/// Batches of images of 4 x 3 pixels whose neighbours are alike, some alone and some in twos.
struct Patches {
  std::size_t count = 300;
  std::size_t size() const { return count; }
  st::Image<2> image(std::size_t i) const {
    st::Rng rng(9, std::uint32_t(i));
    st::Image<2> out(1 + std::int64_t(i % 2), 4, 3);
    float last = 0.5f;
    for (float& value : out.span()) value = last = 0.7f * last + 0.3f * rng.uniform();
    return out;
  }
};

Eigen::MatrixXd rows_of(const Patches& patches) {
  std::vector<float> numbers;
  for (std::size_t i = 0; i < patches.size(); ++i) {
    const auto image = patches.image(i);
    numbers.insert(numbers.end(), image.span().begin(), image.span().end());
  }
  return Eigen::Map<Eigen::Matrix<float, Eigen::Dynamic, 24, Eigen::RowMajor>>(numbers.data(),
                                                                               Eigen::Index(numbers.size() / 24), 24)
      .cast<double>();
}

double error(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) { return (a - b).cwiseAbs().maxCoeff(); }

Eigen::MatrixXd covariance(const Eigen::MatrixXd& rows) {
  const Eigen::MatrixXd centred = rows.rowwise() - rows.colwise().mean().eval();
  return centred.transpose() * centred / double(rows.rows() - 1);
}

}  // namespace

TEST_CASE("principal components: orthonormal axes of the covariance, variances that fall, signs that are fixed") {
  Eigen::MatrixXd samples = normal(40, 7, 1) * normal(7, 7, 2);
  samples.array() += 3;
  const auto got = st::principal_components(samples);
  const Eigen::MatrixXd wanted = covariance(samples);
  CHECK(error(got.axes.transpose() * got.axes, Eigen::MatrixXd::Identity(7, 7)) < 1e-12);
  CHECK(error(got.axes * got.variances.asDiagonal() * got.axes.transpose(), wanted) < 1e-10);
  CHECK(error(got.mean, samples.colwise().mean().transpose()) < 1e-12);
  for (int k = 0; k < 7; ++k) {
    if (k > 0) CHECK(got.variances(k) <= got.variances(k - 1));
    CHECK(got.axes.col(k).maxCoeff() == got.axes.col(k).cwiseAbs().maxCoeff());
  }
  const auto turned = st::principal_components((-samples).eval());
  CHECK(error(turned.axes, got.axes) < 1e-10);

  // Two numbers whose axes are known: the diagonals.
  const double s = std::sqrt(0.5);
  Eigen::MatrixXd cross(4, 2);
  cross << 3, 3, -3, -3, 1, -1, -1, 1;
  const auto diagonals = st::principal_components(cross);
  CHECK(diagonals.variances(0) == doctest::Approx(12));
  CHECK(diagonals.variances(1) == doctest::Approx(4.0 / 3));
  CHECK(std::abs(diagonals.axes(0, 0)) == doctest::Approx(s));
  CHECK(diagonals.axes(0, 0) == doctest::Approx(diagonals.axes(1, 0)));
}

TEST_CASE("a source of images gives what its rows give; fewer samples than numbers leave variances of 0") {
  const Patches patches;
  const auto a = st::principal_components(patches), b = st::principal_components(rows_of(patches));
  CHECK(error(a.mean, b.mean) < 1e-13);
  CHECK(error(a.variances, b.variances) < 1e-13);
  CHECK(error(a.axes * a.variances.asDiagonal() * a.axes.transpose(),
              b.axes * b.variances.asDiagonal() * b.axes.transpose()) < 1e-13);
  const auto few = st::principal_components(Patches{6});  // 9 samples of 24 numbers
  CHECK(few.variances(7) > 1e-5);
  CHECK(few.variances(8) < 1e-15);
  CHECK(few.variances.minCoeff() >= 0);
}

TEST_CASE("whitened data has the unit covariance and the mean 0, and ZCA is the symmetric way to it") {
  const Patches patches;
  const Eigen::MatrixXd rows = rows_of(patches);
  const auto components = st::principal_components(patches);
  const auto zca = st::zca_whitening(components, 0), pca = st::pca_whitening(components, 5, 0);
  const Eigen::MatrixXd white = zca.of_rows(rows), codes = pca.of_rows(rows);
  CHECK(error(covariance(white), Eigen::MatrixXd::Identity(24, 24)) < 1e-10);
  CHECK(white.colwise().mean().cwiseAbs().maxCoeff() < 1e-10);
  CHECK(error(zca.matrix, zca.matrix.transpose()) < 1e-10);
  REQUIRE(codes.cols() == 5);
  CHECK(error(covariance(codes), Eigen::MatrixXd::Identity(5, 5)) < 1e-10);
  const Eigen::MatrixXd damped = covariance(st::zca_whitening(components, 0.5).of_rows(rows));
  const Eigen::VectorXd wanted = components.variances.array() / (components.variances.array() + 0.5);
  CHECK(error(damped, components.axes * wanted.asDiagonal() * components.axes.transpose()) < 1e-12);

  const auto image = patches.image(1);  // two of them
  const auto result = zca(image);
  REQUIRE(result.shape() == image.shape());
  for (int k = 0; k < 48; ++k) CHECK(result.data()[k] == doctest::Approx(white(1 + k / 24, k % 24)).epsilon(1e-4));
}

TEST_CASE("whitening has the same bits again, alone or in a batch, whatever the number of threads") {
  const Patches patches;
  const auto image = patches.image(3);
  st::Image<2> alone(1, 4, 3);
  std::copy_n(image.data() + 24, 24, alone.data());
  const int before = st::num_threads();
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    st::set_num_threads(threads);
    const auto zca = st::zca_whitening(st::principal_components(patches), 1e-3);
    const auto result = zca(image), again = zca(alone);
    const std::vector<float> numbers(result.span().begin(), result.span().end());
    if (first.empty()) first = numbers;
    CHECK(numbers == first);
    CHECK(std::equal(again.span().begin(), again.span().end(), numbers.begin() + 24));
  }
  st::set_num_threads(before);
}

TEST_CASE("what cannot be whitened is refused") {
  struct Uneven {
    std::size_t size() const { return 2; }
    st::Image<1> image(std::size_t i) const { return st::Image<1>::full(1, 2, std::int64_t(2 + i), 0.5f); }
  };
  CHECK_THROWS_WITH_AS(st::principal_components(Uneven{}),
                       "principal_components: image 1 has 2x3 pixels, the first 2x2: crop or resize them to one size",
                       st::ShapeError);
  CHECK_THROWS_AS(st::principal_components(Patches{0}), st::ShapeError);
  CHECK_THROWS_AS(st::principal_components(normal(1, 3, 4)), st::ShapeError);
  Eigen::MatrixXd bad = normal(5, 3, 4);
  bad(2, 1) = std::numeric_limits<double>::infinity();
  CHECK_THROWS_AS(st::principal_components(bad), st::NumericError);
  const auto components = st::principal_components(Patches{6});
  CHECK_THROWS_AS(st::pca_whitening(components, 25), st::ValueError);
  CHECK_THROWS_AS(st::pca_whitening(components, 0), st::ValueError);
  CHECK_THROWS_AS(st::zca_whitening(components, -1), st::ValueError);
  const auto pca = st::pca_whitening(components, 5);
  CHECK_THROWS_AS(pca(Patches{}.image(0)), st::ShapeError);
  CHECK_THROWS_AS(st::zca_whitening(components)(st::Image<2>::full(1, 4, 4, 0.5f)), st::ShapeError);
  CHECK_THROWS_AS(pca.of_rows(normal(2, 23, 4)), st::ShapeError);
}

TEST_CASE(
    "Orthogonal is the Q of Eigen's QR, its signs fixed, as torch.nn.init.orthogonal_ takes it; and the same again") {
  for (const auto& [out, in, kernel] :
       {std::array{6, 4, 3}, std::array{20, 2, 3}, std::array{9, 1, 3}, std::array{5, 3, 1}}) {
    const int rows = out, columns = in * kernel * kernel;
    const bool tall = rows > columns;
    const int count = std::min(rows, columns), length = std::max(rows, columns);
    st::Rng rng(3, 7);
    Eigen::MatrixXd drawn(length, count);
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < length; ++k) drawn(k, i) = double(rng.normal());
    const Eigen::HouseholderQR<Eigen::MatrixXd> qr(drawn);
    Eigen::MatrixXd q = qr.householderQ() * Eigen::MatrixXd::Identity(length, count);
    for (int i = 0; i < count; ++i)
      if (qr.matrixQR()(i, i) < 0) q.col(i) *= -1;
    const Eigen::MatrixXd wanted = 1.5 * (tall ? q : Eigen::MatrixXd(q.transpose()));

    st::Parameter weight(st::Shape{out, in, kernel, kernel}), again(st::Shape{out, in, kernel, kernel});
    st::Orthogonal{.gain = 1.5f}(weight, st::Rng(3, 7));
    st::Orthogonal{.gain = 1.5f}(again, st::Rng(3, 7));
    const float* const numbers = weight.value<float>().data();
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < columns; ++c)
        CHECK(double(numbers[r * columns + c]) == doctest::Approx(wanted(r, c)).epsilon(1e-5));
    CHECK(std::equal(numbers, numbers + rows * columns, again.value<float>().data()));
  }
}
