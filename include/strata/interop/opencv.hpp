// Images to OpenCV and back. Both keep pixels as rows of (y, x, channel), so a float image is seen as a cv::Mat in
// place.
//
//     #include <strata/interop/opencv.hpp>             // not part of strata.hpp: needs OpenCV (Debian:
//     libopencv-core-dev) const cv::Mat photo = cv::imread("photo.jpg");                                   // 8 bits,
//     BGR st::Image<3> image = st::as_image<3>(photo, {.order = st::MatOrder::bgr});       // [0, 1], RGB cv::Mat view
//     = st::as_mat(image);                // CV_32FC3, the image's own numbers, RGB: no copy cv::GaussianBlur(view,
//     view, {5, 5}, 1.2);       // changes `image` cv::imwrite("out.png", st::to_mat<std::uint8_t>(image, {.order =
//     st::MatOrder::bgr}));
//
// With CMake: find_package(strata COMPONENTS opencv), then link strata::opencv.
//
// Who owns what: as_mat gives a header on the image's memory. It holds no share of it, so the image (or a copy of its
// handle) must outlive it, as with a std::span; the compiler refuses as_mat of a temporary. as_image and to_mat give
// numbers of their own. To let OpenCV write straight into an image, make the image first:
// `mat.convertTo(st::as_mat(image), CV_32F, 1 / 255.0)`.
//
// Images are RGB (RGBA), as load_image gives them. OpenCV's readers and writers are BGR (BGRA), and a Mat does not say
// which it is: for three and four channels the caller does, each time. Nothing is turned silently.
#pragma once

#if !__has_include(<opencv2/core.hpp>)
#error \
    "strata/interop/opencv.hpp needs OpenCV, whose folder is not on the include path (Debian: apt install libopencv-core-dev; -isystem /usr/include/opencv4)"
#endif

#include <opencv2/core.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>

#include "strata/core/error.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

/// What the channels of a cv::Mat are. `rgb` stands for RGBA with four channels, `bgr` for BGRA.
enum class MatOrder {
  rgb,   ///< as an Image's
  bgr,   ///< as cv::imread, cv::imwrite, cv::imshow and cv::VideoCapture have them
  other  ///< no colours: channels stay where they are
};

struct MatOptions {
  std::optional<MatOrder> order = {};  ///< of the Mat; must be given for three and four channels
  /// The Mat's number that is 1 in the image: 255 for 8 bits, 65535 for 16 and 1 for floating point unless it is given,
  /// as 4095 for a camera of 12 bits.
  std::optional<double> white = {};
};

namespace detail {

template <class T>
constexpr int mat_depth() {
  if constexpr (std::is_same_v<T, float>)
    return CV_32F;
  else if constexpr (std::is_same_v<T, double>)
    return CV_64F;
  else if constexpr (std::is_same_v<T, std::uint8_t>)
    return CV_8U;
  else if constexpr (std::is_same_v<T, std::uint16_t>)
    return CV_16U;
  else
    return -1;
}

inline std::string mat_type_name(const cv::Mat& mat) {
  constexpr const char* depths[] = {"CV_8U", "CV_8S", "CV_16U", "CV_16S", "CV_32S", "CV_32F", "CV_64F", "CV_16F"};
  return concat(depths[mat.depth() & 7], "C", mat.channels());
}

/// Throws ValueError where the order is not told and must be, or cannot be meant.
template <int C>
void check_order(const char* what, const MatOptions& options) {
  if (options.white && !(*options.white > 0 && std::isfinite(*options.white)))
    throw ValueError(concat(what, ": got .white = ", *options.white, ", wanted a finite number above 0"));
  if ((C == 3 || C == 4) && !options.order)
    throw ValueError(
        concat(what, ": a cv::Mat of ", C,
               " channels does not say whether it is BGR or RGB: give {.order = st::MatOrder::bgr} for what "
               "cv::imread gives and cv::imwrite takes, st::MatOrder::rgb, or st::MatOrder::other for no colours"));
  if (C != 3 && C != 4 && options.order && *options.order != MatOrder::other)
    throw ValueError(concat(what, ": ", C, " channels have no order of colours; leave .order out"));
}

/// Channel c of an image of C channels is this one of a Mat.
template <int C>
constexpr int mat_channel(int c, bool bgr) {
  return bgr && c < 3 ? 2 - c : c;
}

template <int C>
void check_mat(const cv::Mat& mat) {
  if (mat.empty())
    throw ValueError(
        concat("as_image: the cv::Mat is empty: cv::imread gives an empty one for a file that it cannot read"));
  if (mat.dims != 2)
    throw ShapeError(concat("as_image: the cv::Mat has ", mat.dims,
                            " dimensions, wanted rows and columns: a blob of cv::dnn (N, C, H, W) becomes such by "
                            "cv::dnn::imagesFromBlob"));
  if (mat.channels() == C) return;
  const std::string start = concat("as_image<", C, ">: the cv::Mat is ", mat_type_name(mat), ", wanted ", C, " channel",
                                   C == 1 ? ": " : "s: ");
  if (C == 1 && mat.channels() == 3)
    throw ShapeError(start +
                     "cv::imread gives three for a grey file too unless it is told cv::IMREAD_GRAYSCALE or "
                     "IMREAD_UNCHANGED; of colours cv::cvtColor(mat, grey, cv::COLOR_BGR2GRAY) makes grey");
  if (C == 3 && mat.channels() == 1)
    throw ShapeError(start + "cv::cvtColor(mat, colour, cv::COLOR_GRAY2BGR) copies grey to three");
  if (C == 3 && mat.channels() == 4)
    throw ShapeError(start + "cv::cvtColor(mat, opaque, cv::COLOR_BGRA2BGR) drops the alpha channel");
  throw ShapeError(start + concat("use as_image<", mat.channels(), ">"));
}

template <class From, int C, class T>
void rows_of_mat(const cv::Mat& mat, bool bgr, double white, Image<C, T>& out) {
  // v / 255 rounded once, as load_image has it.
  using Wide = std::conditional_t<std::is_same_v<From, double> || std::is_same_v<T, double>, double, float>;
  const auto divisor = Wide(white);
  T* to = out.data();
  for (int y = 0; y < mat.rows; ++y) {  // a row at a time: those of a cropped Mat are further apart than they are long
    const From* from = mat.ptr<From>(y);
    for (int x = 0; x < mat.cols; ++x, from += C)
      for (int c = 0; c < C; ++c) *to++ = T(Wide(from[mat_channel<C>(c, bgr)]) / divisor);
  }
}

/// Throws ValueError for floats that look like levels of 8 or 16 bits.
template <class From>
void check_range(const cv::Mat& mat) {
  constexpr double most = 16;
  for (int y = 0; y < mat.rows; ++y) {
    const From* row = mat.ptr<From>(y);
    for (int i = 0; i < mat.cols * mat.channels(); ++i)
      if (std::abs(double(row[i])) > most)
        throw ValueError(
            concat("as_image: the cv::Mat is of floating point and holds ", double(row[i]), " in row ", y,
                   "; images are in [0, 1]: give {.white = 255} where 255 is white, or {.white = 1} where the "
                   "numbers are meant as they are"));
  }
}

}  // namespace detail

namespace detail {

template <int C, class T>
cv::Mat mat_header(const Image<C, T>& image, std::int64_t n, const T* numbers) {
  static_assert(mat_depth<T>() >= 0 && C <= CV_CN_MAX,
                "strata::as_mat: a cv::Mat has at most 512 channels, and is looked at as float or double");
  image.tensor().require_host("as_mat");
  if (n < 0 || n >= image.n()) throw ValueError(concat("as_mat: got image ", n, " of a batch of ", image.n()));
  constexpr std::int64_t most = std::numeric_limits<int>::max();
  if (image.h() > most || image.w() > most)
    throw ShapeError(concat("as_mat: ", image.shape().str(), " has more rows or columns than a cv::Mat can count"));
  return cv::Mat(int(image.h()), int(image.w()), CV_MAKETYPE(mat_depth<T>(), C),
                 const_cast<T*>(numbers + n * image.h() * image.w() * C));
}

template <int C, class T>
void check_single(const char* what, const Image<C, T>& image) {
  if (image.n() != 1)
    throw ShapeError(concat(what, ": got a batch of shape ", image.shape().str(), ", wanted one image; ", what,
                            "(batch, n) takes image n"));
}

template <class T>
constexpr bool no_view_of_temporary = false;

}  // namespace detail

/// The numbers of an image as a Mat of type CV_32FC(C) (CV_64FC(C) for double), in the image's own order: RGB. No copy,
/// and no share in the memory: see the head of this file. Throws ShapeError for a batch of several; as_mat(batch, n)
/// shows image n.
template <int C, class T>
cv::Mat as_mat(Image<C, T>& image, std::int64_t n) {
  return detail::mat_header(image, n, image.data());
}
template <int C, class T>
cv::Mat as_mat(Image<C, T>& image) {
  detail::check_single("as_mat", image);
  return as_mat(image, 0);
}
/// Of an image that is const. OpenCV does not know of read-only numbers: this Mat, and copies of it, are for reading.
template <int C, class T>
const cv::Mat as_mat(const Image<C, T>& image, std::int64_t n) {
  return detail::mat_header(image, n, image.data());
}
template <int C, class T>
const cv::Mat as_mat(const Image<C, T>& image) {
  detail::check_single("as_mat", image);
  return as_mat(image, 0);
}
/// There is none of a temporary.
template <int C, class T>
cv::Mat as_mat(const Image<C, T>&&, std::int64_t = 0) {
  static_assert(
      detail::no_view_of_temporary<T>,
      "strata::as_mat: a view of a temporary's numbers: give the image a name first, as in 'const auto y = net(pass, "
      "x).value(); const cv::Mat view = st::as_mat(y);', or copy it with st::to_mat");
  return {};
}

/// A new image (1, C, H, W) of a Mat of 8 or 16 bits or of floating point, read row by row, so cropped Mats are fine.
/// Whole numbers are divided by `white`; channels become RGB. Throws ShapeError for another number of channels (grey is
/// not made colour, nor colour grey), ValueError for other types, for an order that is not told, and for numbers of
/// floating point beyond 16 in a Mat whose `white` is not told: such are levels that nobody has divided.
template <int C, class T = float>
Image<C, T> as_image(const cv::Mat& mat, const MatOptions& options = {}) {
  static_assert(C <= CV_CN_MAX, "strata::as_image: a cv::Mat has at most 512 channels");
  detail::check_mat<C>(mat);
  detail::check_order<C>("as_image", options);
  const bool bgr = options.order == MatOrder::bgr;
  const auto white = [&](double usual) { return options.white.value_or(usual); };
  Image<C, T> image(1, mat.rows, mat.cols);
  switch (mat.depth()) {
    case CV_8U:
      detail::rows_of_mat<std::uint8_t>(mat, bgr, white(255), image);
      return image;
    case CV_16U:
      detail::rows_of_mat<std::uint16_t>(mat, bgr, white(65535), image);
      return image;
    case CV_32F:
      if (!options.white) detail::check_range<float>(mat);
      detail::rows_of_mat<float>(mat, bgr, white(1), image);
      return image;
    case CV_64F:
      if (!options.white) detail::check_range<double>(mat);
      detail::rows_of_mat<double>(mat, bgr, white(1), image);
      return image;
    default:
      throw ValueError(
          concat("as_image: the cv::Mat is ", detail::mat_type_name(mat),
                 ", wanted CV_8U, CV_16U, CV_32F or CV_64F: mat.convertTo(other, CV_32F, scale) makes such, and "
                 "scale is to bring its numbers to [0, 1]"));
  }
}

/// Image n of a batch as a Mat of its own: of std::uint8_t or std::uint16_t, clamped to [0, 1] and rounded to the
/// nearest of 255 or 65535 levels as save_image does, or of float or double as the numbers are. With .white, 1 becomes
/// that number. Throws NumericError for a NaN where whole numbers are wanted.
template <class To, int C, class T>
cv::Mat to_mat(const Image<C, T>& image, std::int64_t n, const MatOptions& options = {}) {
  static_assert(detail::mat_depth<To>() >= 0 && C <= CV_CN_MAX,
                "strata::to_mat<T>: T is std::uint8_t, std::uint16_t, float or double, of at most 512 channels");
  detail::check_order<C>("to_mat", options);
  const cv::Mat from = as_mat(image, n);
  const bool bgr = options.order == MatOrder::bgr;
  const double most = std::is_floating_point_v<To> ? 1.0 : double(std::numeric_limits<To>::max());
  const double white = options.white.value_or(most);
  if (white > most && !std::is_floating_point_v<To>)
    throw ValueError(concat("to_mat: got .white = ", white, ", and the largest number of this type is ", most));
  cv::Mat mat(from.rows, from.cols, CV_MAKETYPE(detail::mat_depth<To>(), C));
  for (int y = 0; y < from.rows; ++y) {
    const T* row = from.ptr<T>(y);
    To* to = mat.ptr<To>(y);
    for (int x = 0; x < from.cols; ++x, row += C, to += C)
      for (int c = 0; c < C; ++c) {
        const double value = double(row[detail::mat_channel<C>(c, bgr)]);
        if constexpr (std::is_floating_point_v<To>) {
          to[c] = To(value * white);
        } else {
          if (std::isnan(value)) throw NumericError(concat("to_mat: the image has a NaN in row ", y, ", column ", x));
          to[c] = To(std::lround(std::clamp(value, 0.0, 1.0) * white));
        }
      }
  }
  return mat;
}
template <class To, int C, class T>
cv::Mat to_mat(const Image<C, T>& image, const MatOptions& options = {}) {
  detail::check_single("to_mat", image);
  return to_mat<To>(image, 0, options);
}

}  // namespace strata::inline STRATA_ABI
