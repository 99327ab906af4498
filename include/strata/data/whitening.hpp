// The principal components of data, and the linear transformations that whiten it: PCA and ZCA.
//
//     #include <strata/data/whitening.hpp>             // not part of strata.hpp: needs Eigen (Debian: libeigen3-dev)
//     const auto components = st::principal_components(patches);     // a source of images of one size, or a matrix
//     const st::LinearTransformation zca = st::zca_whitening(components, 1e-2);
//     const st::Image<3> white = zca(image);                         // of that size; a batch, too
//     const Eigen::MatrixXd codes = st::pca_whitening(components, 64).of_rows(samples);        // n x 64
//
// A sample is a row of numbers; those of an image are in the order of memory, row, column and, running fastest,
// channel. Covariances are divided by n - 1, as numpy.cov and scikit-learn do. ZCA gives of all whitenings the one that
// changes the data least, so a whitened picture still looks like it (Bell and Sejnowski, "The independent components of
// natural scenes are edge filters", 1997); epsilon keeps axes of little variance from being blown up to noise
// (Krizhevsky, "Learning multiple layers of features from tiny images", 2009). Everything is in double, by one thread.
#pragma once

#if !__has_include(<Eigen/Eigenvalues>)
#error \
    "strata/data/whitening.hpp needs Eigen, whose folder is not on the include path (Debian: apt install libeigen3-dev; -isystem /usr/include/eigen3)"
#endif

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Of samples of d numbers: their mean, and the d directions along which they vary without correlation.
struct PrincipalComponents {
  Eigen::VectorXd mean;
  Eigen::MatrixXd axes;       ///< d x d, a column each, orthonormal; of its numbers the largest is positive
  Eigen::VectorXd variances;  ///< along the axes, falling
};

namespace detail {

inline PrincipalComponents components_of(Eigen::VectorXd mean, const Eigen::MatrixXd& covariance) {
  if (!covariance.allFinite()) throw NumericError("principal_components: a sample is not finite");
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(covariance);
  if (solver.info() != Eigen::Success)
    throw NumericError("principal_components: the covariance has no eigenvalues that can be found");
  PrincipalComponents out{std::move(mean), solver.eigenvectors().rowwise().reverse(),
                          solver.eigenvalues().reverse().cwiseMax(0)};
  for (Eigen::Index k = 0; k < out.axes.cols(); ++k) {
    Eigen::Index largest = 0;
    out.axes.col(k).cwiseAbs().maxCoeff(&largest);
    if (out.axes(largest, k) < 0) out.axes.col(k) *= -1;
  }
  return out;
}

inline void check_samples(std::int64_t count, std::int64_t numbers) {
  if (count < 2 || numbers < 1)
    throw ShapeError(
        concat("principal_components: got ", count, " samples of ", numbers, " numbers, wanted at least two of one"));
}

/// Image n as a column of its numbers.
template <int C>
Eigen::VectorXd numbers_of(const Image<C>& image, std::int64_t n) {
  const std::int64_t count = image.h() * image.w() * C;
  return Eigen::Map<const Eigen::VectorXf>(image.data() + n * count, count).template cast<double>();
}

template <class S>
concept SourceOfImages = requires(const S& source, std::size_t index) {
  { source.size() } -> std::convertible_to<std::size_t>;
  source.image(index).tensor();
};

}  // namespace detail

/// Of n rows of d numbers. Throws ShapeError for fewer than two rows, NumericError for numbers that are not finite.
template <class Derived>
PrincipalComponents principal_components(const Eigen::MatrixBase<Derived>& samples) {
  detail::check_samples(samples.rows(), samples.cols());
  const Eigen::MatrixXd all = samples.template cast<double>();
  Eigen::VectorXd mean = all.colwise().mean().transpose();
  const Eigen::MatrixXd centred = all.rowwise() - mean.transpose();
  return detail::components_of(std::move(mean), centred.transpose() * centred / double(all.rows() - 1));
}

/// Of all images of a source (data/image_source.hpp: size() and image(index)), which are asked for twice, one at a
/// time: for the mean, then for the covariance. Throws ShapeError where one has another size than the first.
template <detail::SourceOfImages Source>
PrincipalComponents principal_components(const Source& source) {
  const std::size_t size = source.size();
  Eigen::VectorXd mean;
  std::int64_t count = 0, h = 0, w = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const auto image = source.image(i);
    image.tensor().require_host("principal_components");
    if (i == 0) {
      h = image.h(), w = image.w();
      mean = Eigen::VectorXd::Zero(h * w * image.shape().c());
    }
    if (image.h() != h || image.w() != w)
      throw ShapeError(concat("principal_components: image ", i, " has ", image.h(), "x", image.w(),
                              " pixels, the first ", h, "x", w, ": crop or resize them to one size"));
    for (std::int64_t n = 0; n < image.n(); ++n, ++count) mean += detail::numbers_of(image, n);
  }
  detail::check_samples(count, mean.size());
  mean /= double(count);
  Eigen::MatrixXd covariance = Eigen::MatrixXd::Zero(mean.size(), mean.size());
  Eigen::MatrixXd some(mean.size(), std::min<std::int64_t>(count, 256));  // products of many are quick
  std::int64_t waiting = 0;
  const auto add = [&] {
    covariance.selfadjointView<Eigen::Lower>().rankUpdate(some.leftCols(waiting));
    waiting = 0;
  };
  for (std::size_t i = 0; i < size; ++i) {
    const auto image = source.image(i);
    for (std::int64_t n = 0; n < image.n(); ++n) {
      some.col(waiting++) = detail::numbers_of(image, n) - mean;
      if (waiting == some.cols()) add();
    }
  }
  add();
  covariance.triangularView<Eigen::StrictlyUpper>() = covariance.transpose();
  return detail::components_of(std::move(mean), covariance / double(count - 1));
}

/// Rows x become (x - mean) matrix, as torchvision's LinearTransformation has it.
struct LinearTransformation {
  Eigen::VectorXd mean;
  Eigen::MatrixXd matrix;

  template <class Derived>
  Eigen::MatrixXd of_rows(const Eigen::MatrixBase<Derived>& samples) const {
    if (samples.cols() != mean.size())
      throw ShapeError(
          concat("LinearTransformation: got samples of ", samples.cols(), " numbers, wanted ", mean.size()));
    return (samples.template cast<double>().rowwise() - mean.transpose()) * matrix;
  }

  /// Every image of a batch by itself. Throws ShapeError where it has another number of numbers, or the matrix is not
  /// square.
  template <int C>
  Image<C> operator()(const Image<C>& image) const {
    image.tensor().require_host("LinearTransformation");
    const std::int64_t count = image.h() * image.w() * C;
    if (count != mean.size() || matrix.cols() != mean.size())
      throw ShapeError(concat("LinearTransformation: got images ", image.shape().str(), " of ", count,
                              " numbers, and a matrix of ", matrix.rows(), " x ", matrix.cols(),
                              ": wanted as many rows and columns as an image has numbers"));
    Image<C> out(image.n(), image.h(), image.w());
    for (std::int64_t n = 0; n < image.n(); ++n) {
      const Eigen::VectorXd centred = detail::numbers_of(image, n) - mean;
      const Eigen::VectorXd result = matrix.transpose() * centred;
      std::transform(result.data(), result.data() + count, out.data() + n * count,
                     [](double value) { return float(value); });
    }
    return out;
  }
};

/// Projects on the `count` first axes and divides by the standard deviation along each, sqrt(variance + epsilon).
/// Throws ValueError for more axes than there are, and for one along which nothing varies with epsilon = 0.
inline LinearTransformation pca_whitening(const PrincipalComponents& components, std::int64_t count,
                                          double epsilon = 1e-6) {
  if (count < 1 || count > components.axes.cols())
    throw ValueError(concat("pca_whitening: got ", count, " axes, wanted 1 to ", components.axes.cols()));
  if (!(epsilon >= 0) || !(components.variances(count - 1) + epsilon > 0))
    throw ValueError(concat("whitening: got epsilon = ", epsilon, " where the least variance is ",
                            components.variances(count - 1), ", wanted a sum above 0"));
  const Eigen::VectorXd scales = (components.variances.head(count).array() + epsilon).rsqrt();
  return {components.mean, components.axes.leftCols(count) * scales.asDiagonal()};
}

/// The same, turned back to where the data lies: a symmetric matrix, and images that look like images.
inline LinearTransformation zca_whitening(const PrincipalComponents& components, double epsilon = 1e-6) {
  LinearTransformation out = pca_whitening(components, components.axes.cols(), epsilon);
  out.matrix = (out.matrix * components.axes.transpose()).eval();
  return out;
}

}}  // namespace strata::STRATA_ABI
