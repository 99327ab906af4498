// What Eigen is good at, on the numbers of images and networks themselves: the principal colours of a picture, and the
// singular values of a layer's weight.
//
// CMake: find_package(strata COMPONENTS eigen), strata::eigen.
#include <strata/interop/eigen.hpp>
#include <strata/strata.hpp>

#include <Eigen/Eigenvalues>
#include <Eigen/SVD>

#include <cmath>
#include <cstdio>

namespace st = strata;

int main() {
  const st::Image<3> picture = st::DeadLeaves<3>({.size = 64}).image(0);
  const auto pixels = st::as_matrix(picture);  // 4096 x 3, no copy
  const Eigen::RowVector3f mean = pixels.colwise().mean();
  const Eigen::MatrixX3f centred = pixels.rowwise() - mean;
  const Eigen::Matrix3f covariance = centred.transpose() * centred / float(pixels.rows());
  const Eigen::SelfAdjointEigenSolver<Eigen::Matrix3f> colours(covariance);
  std::printf("mean colour %.3f %.3f %.3f, standard deviations along the principal ones %.3f %.3f %.3f\n",
              double(mean(0)), double(mean(1)), double(mean(2)), std::sqrt(double(colours.eigenvalues()(2))),
              std::sqrt(double(colours.eigenvalues()(1))), std::sqrt(double(colours.eigenvalues()(0))));

  st::Conv2d<3, 16> layer;
  const Eigen::JacobiSVD<Eigen::MatrixXf> svd(st::as_matrix(layer.weight));  // 16 x 27
  std::printf("largest singular value of the weight: %.3f\n", double(svd.singularValues()(0)));
  st::as_matrix(layer.weight) /= svd.singularValues()(0);  // spectral norm 1; the next pass uses it
  std::printf("and now: %.3f\n",
              double(Eigen::JacobiSVD<Eigen::MatrixXf>(st::as_matrix(layer.weight)).singularValues()(0)));
  return 0;
}
