// The Frechet distance, against closed forms.
#include "strata/metrics/frechet.hpp"

#include <doctest/doctest.h>
#include <Eigen/QR>

#include <cmath>
#include <cstdint>

#include "strata/core/random.hpp"

namespace st = strata;

namespace {

Eigen::MatrixXd normal(int rows, int columns, std::uint32_t stream) {
  st::Rng rng(5, stream);
  Eigen::MatrixXd out(rows, columns);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j) out(i, j) = double(rng.normal());
  return out;
}

}  // namespace

TEST_CASE("one feature: the squared differences of means and of standard deviations") {
  Eigen::VectorXd a(3), b(4);
  a << 1, 2, 3;     // mean 2, variance 1
  b << 1, 3, 5, 7;  // mean 4, variance 20 / 3
  CHECK(st::frechet_distance(a, b) == doctest::Approx(4 + std::pow(1 - std::sqrt(20.0 / 3), 2)).epsilon(1e-12));
}

TEST_CASE("covariances that commute: the sum over their common axes, however these lie") {
  st::FeatureStatistics a, b;
  a.mean = Eigen::Vector3d(1, 0, -1);
  b.mean = Eigen::Vector3d(0, 2, -1);
  const Eigen::Vector3d first(4, 1, 0), second(9, 0.25, 2);  // variances; one is 0
  const double wanted = 1 + 4 + 1 + 0.25 + 2;
  const Eigen::HouseholderQR<Eigen::Matrix3d> qr(Eigen::Matrix3d(normal(3, 3, 1)));
  const Eigen::Matrix3d turn = qr.householderQ();
  a.covariance = turn * first.asDiagonal() * turn.transpose();
  b.covariance = turn * second.asDiagonal() * turn.transpose();
  CHECK(st::frechet_distance(a, b) == doctest::Approx(wanted).epsilon(1e-7));  // the root of 0 + rounding is 1e-8
  CHECK(st::frechet_distance(b, a) == doctest::Approx(wanted).epsilon(1e-7));
}

TEST_CASE("covariances that do not commute: tr (S1 S2)^(1/2) of two features is known from trace and determinant") {
  st::FeatureStatistics a, b;
  a.mean = b.mean = Eigen::Vector2d::Zero();
  a.covariance = (Eigen::Matrix2d() << 2, 1, 1, 3).finished();
  b.covariance = (Eigen::Matrix2d() << 4, -1, -1, 1).finished();
  const Eigen::Matrix2d product = a.covariance * b.covariance;  // its root's trace is sqrt(tr + 2 sqrt(det))
  const double root = std::sqrt(product.trace() + 2 * std::sqrt(product.determinant()));
  CHECK(st::frechet_distance(a, b) == doctest::Approx(5 + 5 - 2 * root).epsilon(1e-12));
}

TEST_CASE("the same features are at no distance, fewer samples than features too; statistics are numpy's") {
  const Eigen::MatrixXf few = normal(5, 20, 2).cast<float>();
  CHECK(st::frechet_distance(few, few) < 1e-6);
  CHECK(st::frechet_distance(few, (few.array() + 1).matrix()) == doctest::Approx(20).epsilon(1e-5));
  Eigen::MatrixXd rows(3, 2);
  rows << 1, 2, 3, 5, 8, 0;
  const auto statistics = st::feature_statistics(rows);
  CHECK(statistics.mean(0) == doctest::Approx(4));
  CHECK(statistics.covariance(0, 0) == doctest::Approx(13));
  CHECK(statistics.covariance(0, 1) == doctest::Approx(-5.5));
}

TEST_CASE("what cannot be compared is refused") {
  const Eigen::MatrixXd a = normal(4, 3, 3);
  CHECK_THROWS_AS(st::frechet_distance(a, normal(4, 2, 3)), st::ShapeError);
  CHECK_THROWS_AS(st::feature_statistics(a.topRows(1)), st::ShapeError);
  Eigen::MatrixXd bad = a;
  bad(1, 1) = std::nan("");
  CHECK_THROWS_AS(st::feature_statistics(bad), st::NumericError);
}
