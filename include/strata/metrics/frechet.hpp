// The Frechet distance between two sets of features, as FID compares pictures by the features of an Inception network.
//
//     #include <strata/metrics/frechet.hpp>            // not part of strata.hpp: needs Eigen (Debian: libeigen3-dev)
//     const double distance = st::frechet_distance(real_features, made_features);     // n x d matrices of Eigen's
//     const auto real = st::feature_statistics(real_features);                         // or their statistics, kept
//     const double again = st::frechet_distance(real, st::feature_statistics(made_features));
//
// |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the means and covariances (Dowson and Landau, "The Frechet distance
// between multivariate normal distributions", 1982; Heusel et al., 2017). Covariances are divided by n - 1, as
// numpy.cov, so the numbers are those of pytorch-fid where the features are. The features are the caller's: which
// network they are of, and how pictures are resized for it, is the protocol, and figures of different protocols cannot
// be compared. Few samples give distances that are too large: fewer samples than features leave the covariance
// singular, which is no error here.
#pragma once

#if !__has_include(<Eigen/Eigenvalues>)
#error \
    "strata/metrics/frechet.hpp needs Eigen, whose folder is not on the include path (Debian: apt install libeigen3-dev; -isystem /usr/include/eigen3)"
#endif

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>

#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI {

struct FeatureStatistics {
  Eigen::VectorXd mean;
  Eigen::MatrixXd covariance;
};

/// Of n rows of d features. Throws ShapeError for fewer than two rows, NumericError for features that are not finite.
template <class Derived>
FeatureStatistics feature_statistics(const Eigen::MatrixBase<Derived>& features) {
  if (features.rows() < 2 || features.cols() < 1)
    throw ShapeError(concat("feature_statistics: got ", features.rows(), " x ", features.cols(),
                            " features, wanted at least two rows of one"));
  const Eigen::MatrixXd all = features.template cast<double>();
  if (!all.allFinite()) throw NumericError("feature_statistics: a feature is not finite");
  FeatureStatistics out;
  out.mean = all.colwise().mean().transpose();
  const Eigen::MatrixXd centred = all.rowwise() - out.mean.transpose();
  out.covariance = centred.transpose() * centred / double(all.rows() - 1);
  return out;
}

/// Throws ShapeError for other numbers of features, NumericError where Eigen finds no eigenvalues.
inline double frechet_distance(const FeatureStatistics& a, const FeatureStatistics& b) {
  if (a.mean.size() != b.mean.size())
    throw ShapeError(
        concat("frechet_distance: ", a.mean.size(), " features and ", b.mean.size(), "; both sets must have the same"));
  const auto check = [](Eigen::ComputationInfo info) {
    if (info != Eigen::Success)
      throw NumericError("frechet_distance: the covariance has no eigenvalues that can be found");
  };
  // tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of R S2 R, R the root of S1: symmetric, so none is
  // complex. What rounding puts below 0 is 0.
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> first(a.covariance);
  check(first.info());
  const Eigen::MatrixXd root = first.eigenvectors() * first.eigenvalues().cwiseMax(0).cwiseSqrt().asDiagonal() *
                               first.eigenvectors().transpose();
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> product(root * b.covariance * root, Eigen::EigenvaluesOnly);
  check(product.info());
  const double roots = product.eigenvalues().cwiseMax(0).cwiseSqrt().sum();
  return std::max(0.0, (a.mean - b.mean).squaredNorm() + a.covariance.trace() + b.covariance.trace() - 2 * roots);
}
template <class A, class B>
double frechet_distance(const Eigen::MatrixBase<A>& a, const Eigen::MatrixBase<B>& b) {
  const FeatureStatistics first = feature_statistics(a), second = feature_statistics(b);
  return frechet_distance(first, second);
}

}  // namespace strata::inline STRATA_ABI
