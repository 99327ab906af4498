// Images as tensors of Eigen's unsupported module, without a copy. A header of its own, since Eigen's takes long to
// compile.
//
//     #include <strata/interop/eigen_tensor.hpp>
//     auto t = st::as_tensor(image);                   // Eigen::TensorMap of n x h x w x C, row-major
//     Eigen::Tensor<float, 3, Eigen::RowMajor> mean = t.mean(Eigen::array<int, 1>{0});
//
// For lifetimes see interop/eigen.hpp.
#pragma once

#if !__has_include(<unsupported/Eigen/CXX11/Tensor>)
#error \
    "strata/interop/eigen_tensor.hpp needs Eigen, whose folder is not on the include path (Debian: apt install libeigen3-dev; -isystem /usr/include/eigen3)"
#endif

#include <unsupported/Eigen/CXX11/Tensor>

#include <cstdint>

#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

template <class T>
using ImageTensor = Eigen::Tensor<T, 4, Eigen::RowMajor, std::int64_t>;

namespace detail {
template <class T>
constexpr bool no_tensor_of_temporary = false;
}  // namespace detail

/// A batch as it lies in memory: image, row, column, channel.
template <int C, class T>
Eigen::TensorMap<ImageTensor<T>> as_tensor(Image<C, T>& image) {
  image.tensor().require_host("as_tensor");
  return {image.data(), image.n(), image.h(), image.w(), std::int64_t{C}};
}
template <int C, class T>
Eigen::TensorMap<const ImageTensor<T>> as_tensor(const Image<C, T>& image) {
  image.tensor().require_host("as_tensor");
  return {image.data(), image.n(), image.h(), image.w(), std::int64_t{C}};
}
template <int C, class T>
Eigen::TensorMap<const ImageTensor<T>> as_tensor(const Image<C, T>&&) {
  static_assert(detail::no_tensor_of_temporary<T>,
                "strata::as_tensor: a view of a temporary's numbers: give the image a name first");
  return {nullptr, 0, 0, 0, 0};
}

}  // namespace strata::inline STRATA_ABI
