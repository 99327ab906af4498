// Images and parameters as Eigen's matrices: the same numbers, no copy.
//
//     #include <strata/interop/eigen.hpp>              // not part of strata.hpp: needs Eigen (Debian: libeigen3-dev)
//     auto pixels = st::as_matrix(image);              // (n h w) x C, row-major; C is known to the compiler
//     Eigen::RowVector3f mean = pixels.colwise().mean();
//     pixels.rowwise() -= mean;                        // changes `image`
//     auto red = st::plane(image, 0, 0);               // h x w: channel 0 of image 0
//     auto weight = st::as_matrix(net.head.weight);    // out x (kernel rows, kernel columns, in)
//     st::Image<1> grey = st::as_image(Eigen::MatrixXf::Random(20, 30));        // 20 rows, 30 columns; copied
//
// With CMake: find_package(strata COMPONENTS eigen), then link strata::eigen.
//
// Views hold no share of the memory: the image (or a copy of its handle), the network, must outlive them, and a view of
// a temporary is refused by the compiler. A view of a const image is const. Write `auto` or a Map for the type:
// Eigen::MatrixXf m = st::as_matrix(image) is a copy. A weight that is written is read anew by the next pass.
//
// Rows are rows: element (y, x) of plane() is row y, column x, though Eigen's own matrices are column-major in memory.
// interop/eigen_tensor.hpp has the same as Eigen::TensorMap.
#pragma once

#if !__has_include(<Eigen/Core>)
#error \
    "strata/interop/eigen.hpp needs Eigen, whose folder is not on the include path (Debian: apt install libeigen3-dev; -isystem /usr/include/eigen3)"
#endif

#include <Eigen/Core>

#include <cstdint>
#include <type_traits>

#include "strata/autograd/parameter.hpp"
#include "strata/core/error.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

/// Pixels x channels. Eigen wants a single column to be column-major, which for one column is the same.
template <class T, int C>
using PixelMatrix = Eigen::Matrix<T, Eigen::Dynamic, C, C == 1 ? Eigen::ColMajor : Eigen::RowMajor>;
template <class T>
using RowMajorMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

namespace detail {

template <class T>
constexpr bool no_view_of_temporary_in_eigen = false;

template <class View, int C, class T>
View pixel_view(const Image<C, T>& image, T* numbers) {
  image.tensor().require_host("as_matrix");
  return View(numbers, image.n() * image.h() * image.w(), C);
}

template <class View, int C, class T>
View plane_view(const Image<C, T>& image, T* numbers, std::int64_t n, int c) {
  image.tensor().require_host("plane");
  if (n < 0 || n >= image.n() || c < 0 || c >= C)
    throw ValueError(
        concat("plane: got image ", n, " and channel ", c, " of ", image.shape().str(), ", both counted from 0"));
  return View(numbers + n * image.h() * image.w() * C + c, image.h(), image.w(),
              Eigen::Stride<Eigen::Dynamic, C>(image.w() * C, C));
}

}  // namespace detail

/// The pixels of all images of a batch, one row each, in the order of memory: image, row, column.
template <int C, class T>
Eigen::Map<PixelMatrix<T, C>> as_matrix(Image<C, T>& image) {
  return detail::pixel_view<Eigen::Map<PixelMatrix<T, C>>>(image, image.data());
}
template <int C, class T>
Eigen::Map<const PixelMatrix<T, C>> as_matrix(const Image<C, T>& image) {
  return detail::pixel_view<Eigen::Map<const PixelMatrix<T, C>>>(image, const_cast<T*>(image.data()));
}

/// Channel c of image n: its h rows and w columns.
template <int C, class T>
using Plane = Eigen::Map<RowMajorMatrix<T>, Eigen::Unaligned, Eigen::Stride<Eigen::Dynamic, C>>;
template <int C, class T>
using ConstPlane = Eigen::Map<const RowMajorMatrix<T>, Eigen::Unaligned, Eigen::Stride<Eigen::Dynamic, C>>;

template <int C, class T>
Plane<C, T> plane(Image<C, T>& image, std::int64_t n, int c) {
  return detail::plane_view<Plane<C, T>>(image, image.data(), n, c);
}
template <int C, class T>
ConstPlane<C, T> plane(const Image<C, T>& image, std::int64_t n, int c) {
  return detail::plane_view<ConstPlane<C, T>>(image, const_cast<T*>(image.data()), n, c);
}

/// A tensor's first extent as rows, the others as columns in the order of memory. A convolution's weight (O, I, KH, KW)
/// is O x (KH, KW, I): a column is kernel row, kernel column and, running fastest, input channel. A Linear's weight is
/// out x in; what has one extent is a column. Throws Error when the tensor holds another type than T.
template <class T>
Eigen::Map<RowMajorMatrix<T>> as_matrix(Tensor<T>& tensor) {
  tensor.require_host("as_matrix");
  const std::int64_t rows = tensor.shape().rank() == 0 ? 1 : tensor.shape()[0];
  return {tensor.data(), rows, rows == 0 ? 0 : tensor.size() / rows};
}
template <class T>
Eigen::Map<const RowMajorMatrix<T>> as_matrix(const Tensor<T>& tensor) {
  tensor.require_host("as_matrix");
  const std::int64_t rows = tensor.shape().rank() == 0 ? 1 : tensor.shape()[0];
  return {tensor.data(), rows, rows == 0 ? 0 : tensor.size() / rows};
}
template <class T = float>
Eigen::Map<RowMajorMatrix<T>> as_matrix(Parameter& parameter) {
  return as_matrix(parameter.value<T>());
}
template <class T = float>
Eigen::Map<const RowMajorMatrix<T>> as_matrix(const Parameter& parameter) {
  return as_matrix(parameter.value<T>());
}

/// There are no views of temporaries.
template <int C, class T>
Eigen::Map<const PixelMatrix<T, C>> as_matrix(const Image<C, T>&&) {
  static_assert(detail::no_view_of_temporary_in_eigen<T>,
                "strata::as_matrix: a view of a temporary's numbers: give the image a name first, as in 'const auto y "
                "= net(pass, "
                "x).value(); const auto pixels = st::as_matrix(y);'");
  return {nullptr, 0, C};
}
template <int C, class T>
ConstPlane<C, T> plane(const Image<C, T>&&, std::int64_t, int) {
  static_assert(
      detail::no_view_of_temporary_in_eigen<T>,
      "strata::plane: a view of a temporary's numbers: give the image a name first, as in 'const auto y = net(pass, "
      "x).value(); const auto red = st::plane(y, 0, 0);'");
  return {nullptr, 0, 0, Eigen::Stride<Eigen::Dynamic, C>(0, C)};
}
template <class T>
Eigen::Map<const RowMajorMatrix<T>> as_matrix(const Tensor<T>&&) {
  static_assert(detail::no_view_of_temporary_in_eigen<T>,
                "strata::as_matrix: a view of a temporary's numbers: give the tensor a name first");
  return {nullptr, 0, 0};
}
template <class T = float>
Eigen::Map<const RowMajorMatrix<T>> as_matrix(const Parameter&&) {
  static_assert(detail::no_view_of_temporary_in_eigen<T>,
                "strata::as_matrix: a view of a temporary's numbers: give the parameter a name first");
  return {nullptr, 0, 0};
}

/// A new image (1, 1, rows, columns) of a matrix or expression of Eigen's.
template <class Derived>
Image<1, typename Derived::Scalar> as_image(const Eigen::DenseBase<Derived>& grey) {
  Image<1, typename Derived::Scalar> image(1, grey.rows(), grey.cols());
  plane(image, 0, 0) = grey.derived().matrix();
  return image;
}
/// A new image (1, C, h, w) of a matrix of pixels x channels, the pixels row after row. Throws ShapeError unless it has
/// h w rows and C columns.
template <int C, class Derived>
Image<C, typename Derived::Scalar> as_image(const Eigen::DenseBase<Derived>& pixels, std::int64_t h, std::int64_t w) {
  if (h < 0 || w < 0 || pixels.cols() != C || pixels.rows() != h * w)
    throw ShapeError(concat("as_image<", C, ">: got a matrix of ", pixels.rows(), " x ", pixels.cols(),
                            ", wanted pixels x channels, ", h, " * ", w, " x ", C));
  Image<C, typename Derived::Scalar> image(1, h, w);
  as_matrix(image) = pixels.derived().matrix();
  return image;
}

}  // namespace strata::inline STRATA_ABI
