// NIQE, the natural image quality evaluator: how far a picture's statistics are from those of good photographs. It
// needs no reference; less is better, 2 to 4 are usual for photographs.
//
//     #include <strata/metrics/niqe.hpp>               // not part of strata.hpp: needs Eigen (Debian: libeigen3-dev)
//     const st::ImageFolder<1> photos("pristine", {.in_memory = false, .convert = true});
//     const st::NiqeModel model = st::fit_niqe(photos);                    // once, of sharp, undistorted photographs
//     st::save_niqe("niqe.safetensors", model);
//     const double quality = st::niqe(restored, st::load_niqe("niqe.safetensors"), {.border = 4});
//     st::niqe(colour, model, {.channels = st::ColorSpace::bt601_y});      // of RGB
//
// The formulas, constants and steps are those of the authors' program (detail/niqe_features.hpp names the paper) and of
// BasicSR's calculate_niqe, so with their model the numbers are theirs up to rounding. That model is not part of
// Strata, and figures of different models cannot be compared. In Python, this makes of BasicSR's a file that
// load_niqe() reads:
//
//     safetensors.numpy.save_file(dict(numpy.load("niqe_pris_params.npz")), "niqe.safetensors")
#pragma once

#if !__has_include(<Eigen/Eigenvalues>)
#error \
    "strata/metrics/niqe.hpp needs Eigen, whose folder is not on the include path (Debian: apt install libeigen3-dev; -isystem /usr/include/eigen3)"
#endif

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/metrics/detail/niqe_features.hpp"
#include "strata/metrics/protocol.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The features of good photographs: their mean (36) and covariance (36 x 36).
struct NiqeModel {
  Eigen::VectorXd mean;
  Eigen::MatrixXd covariance;
};

struct NiqeOptions {
  double peak = 1;                        ///< the value of white: 1 for images in [0, 1]
  Rounding rounding = Rounding::to_8bit;  ///< as a file has them; luma is rounded again, as BasicSR does
  std::int64_t border = 0;                ///< rows and columns left out on each side
  ColorSpace channels = ColorSpace::rgb;  ///< bt601_y for RGB images; those of one channel are taken as they are
};

struct NiqeFitOptions {
  double sharpness = 0.75;  ///< of each picture the blocks count that are sharper than this part of its sharpest one
  NiqeOptions pictures = {};
};

namespace detail {

inline std::string niqe_name(const std::string& name) { return name.empty() ? "niqe" : concat("niqe: ", name); }

/// Image n in 0 to 255. Throws what cannot be measured; `name` says which picture.
template <int C>
NiqePlane niqe_plane(const Image<C>& image, std::int64_t n, const NiqeOptions& options, const std::string& name) {
  static_assert(C == 1 || C == 3, "strata::niqe: is of images of one channel, or of the luma of RGB images");
  if (C == 3 && options.channels != ColorSpace::bt601_y)
    throw ValueError(concat(niqe_name(name),
                            ": got RGB, wanted one channel: give {.channels = "
                            "st::ColorSpace::bt601_y} for its luma"));
  const MetricOptions protocol{
      .peak = options.peak, .rounding = options.rounding, .border = options.border, .channels = options.channels};
  check_metric("niqe", image, image, protocol, 1);
  if (image.h() - 2 * options.border < niqe_block || image.w() - 2 * options.border < niqe_block)
    throw ShapeError(concat(niqe_name(name), ": got ", image.h(), " x ", image.w(), " pixels with a border of ",
                            options.border, ", wanted at least a block of ", niqe_block, " x ", niqe_block));
  Planes planes = metric_planes(image, n, protocol);
  for (double& value : planes.values) {
    if (!std::isfinite(value))
      throw NumericError(concat(niqe_name(name), ": the image has a pixel that is not finite"));
    value *= 255 / options.peak;
    if (options.rounding == Rounding::to_8bit) value = std::nearbyint(value);
  }
  return {planes.h, planes.w, std::move(planes.values)};
}

/// Mean and covariance of rows of features: the mean of what is there in each column, the covariance (over the number
/// less 1) of the rows that have all. `rows` gets the number of these.
inline NiqeModel niqe_statistics(const std::vector<double>& features, std::int64_t& rows) {
  const auto count = Eigen::Index(features.size()) / niqe_features;
  const Eigen::Map<const Eigen::Matrix<double, Eigen::Dynamic, niqe_features, Eigen::RowMajor>> all(
      features.data(), count, niqe_features);
  NiqeModel out{Eigen::VectorXd::Zero(niqe_features), {}};
  for (int k = 0; k < niqe_features; ++k) {
    std::int64_t there = 0;
    for (Eigen::Index i = 0; i < count; ++i)
      if (!std::isnan(all(i, k))) out.mean(k) += all(i, k), ++there;
    out.mean(k) /= double(there);
  }
  Eigen::MatrixXd whole(count, niqe_features);
  rows = 0;
  for (Eigen::Index i = 0; i < count; ++i)
    if (!all.row(i).hasNaN()) whole.row(rows++) = all.row(i);
  whole.conservativeResize(rows, niqe_features);
  if (rows < 2) return out;
  whole.rowwise() -= whole.colwise().mean().eval();
  out.covariance = whole.transpose() * whole / double(rows - 1);
  return out;
}

inline void check_niqe_model(const NiqeModel& model) {
  if (model.mean.size() != niqe_features || model.covariance.rows() != niqe_features ||
      model.covariance.cols() != niqe_features)
    throw ShapeError(concat("niqe: got a model of ", model.mean.size(), " features and a covariance of ",
                            model.covariance.rows(), " x ", model.covariance.cols(),
                            ", wanted 36 and 36 x 36: "
                            "fit_niqe() and load_niqe() give one"));
}

template <class S>
concept NiqePictures = requires(const S& source, std::size_t index) {
  { source.size() } -> std::convertible_to<std::size_t>;
  source.image(index);
};

}  // namespace detail

/// How far the image is from the model's photographs; of a batch, the mean over its images. At least two blocks of 96 x
/// 96 pixels must have texture (blocks that are flat say nothing). Pixels beyond whole blocks, right and below, do not
/// count. Throws ShapeError, ValueError and NumericError for what cannot be measured.
template <int C>
double niqe(const Image<C>& image, const NiqeModel& model, const NiqeOptions& options = {}) {
  detail::check_niqe_model(model);
  const detail::AsymmetricFit fit;
  double sum = 0;
  for (std::int64_t n = 0; n < std::max<std::int64_t>(image.n(), 1); ++n) {
    const detail::NiqeBlocks blocks = detail::niqe_blocks(detail::niqe_plane(image, n, options, ""), fit);
    std::int64_t rows = 0;
    const NiqeModel own = detail::niqe_statistics(blocks.features, rows);
    if (rows < 2)
      throw ShapeError(concat("niqe: got ", rows, " of ", blocks.count,
                              " blocks of 96 x 96 pixels with texture, wanted at "
                              "least two, for a covariance"));
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> both((model.covariance + own.covariance) / 2);
    if (both.info() != Eigen::Success) throw NumericError("niqe: the covariance has no eigenvalues that can be found");
    const Eigen::VectorXd along = both.eigenvectors().transpose() * (model.mean - own.mean);
    // MATLAB's pinv: what is rounding beside the largest is 0.
    const double least =
        detail::niqe_features * std::numeric_limits<double>::epsilon() * both.eigenvalues().cwiseAbs().maxCoeff();
    double square = 0;
    for (int k = 0; k < detail::niqe_features; ++k)
      if (std::abs(both.eigenvalues()(k)) > least) square += along(k) * along(k) / both.eigenvalues()(k);
    sum += std::sqrt(std::max(square, 0.0));
  }
  return sum / double(std::max<std::int64_t>(image.n(), 1));
}

/// The model of good photographs: any source of images (data/image_source.hpp: size() and image(index)), one at a time.
/// The authors took 125 of them. Throws ShapeError where fewer than 37 blocks count, of which no covariance of 36
/// features can be estimated, and what niqe() throws, with the picture's name.
template <detail::NiqePictures Source>
NiqeModel fit_niqe(const Source& source, const NiqeFitOptions& options = {}) {
  if (!(options.sharpness >= 0 && options.sharpness < 1))
    throw ValueError(concat("fit_niqe: got .sharpness = ", options.sharpness, ", wanted 0 or more and less than 1"));
  const detail::AsymmetricFit fit;
  std::vector<double> features;
  for (std::size_t i = 0; i < source.size(); ++i) {
    const auto image = source.image(i);
    std::string name = concat("image ", i);
    if constexpr (requires { name = source.name(i); }) name = source.name(i);
    if (image.n() != 1)
      throw ShapeError(concat("fit_niqe: ", name, ": got ", image.n(), " images, wanted one picture at an index"));
    const detail::NiqeBlocks blocks = detail::niqe_blocks(detail::niqe_plane(image, 0, options.pictures, name), fit);
    const double least = options.sharpness * *std::max_element(blocks.sharpness.begin(), blocks.sharpness.end());
    for (std::int64_t b = 0; b < blocks.count; ++b)
      if (blocks.sharpness[std::size_t(b)] > least)
        features.insert(features.end(), blocks.features.begin() + b * detail::niqe_features,
                        blocks.features.begin() + (b + 1) * detail::niqe_features);
  }
  std::int64_t rows = 0;
  NiqeModel model = detail::niqe_statistics(features, rows);
  if (rows <= detail::niqe_features)
    throw ShapeError(concat("fit_niqe: got ", rows, " blocks of 96 x 96 pixels that are sharp, of ", source.size(),
                            " images, wanted at least ", detail::niqe_features + 1, ": give more or larger images"));
  return model;
}

/// Writes a safetensors file of float64 tensors with BasicSR's names: mu_pris_param (1, 36), cov_pris_param (36, 36).
inline void save_niqe(const std::filesystem::path& path, const NiqeModel& model) {
  detail::check_niqe_model(model);
  Tensor<double> mean(Shape{1, detail::niqe_features}), covariance(Shape{detail::niqe_features, detail::niqe_features});
  std::copy_n(model.mean.data(), detail::niqe_features, mean.data());
  double* to = covariance.data();
  for (int i = 0; i < detail::niqe_features; ++i)
    for (int j = 0; j < detail::niqe_features; ++j) *to++ = model.covariance(i, j);
  const AnyTensor first(std::move(mean)), second(std::move(covariance));
  write_safetensors(path, {{"mu_pris_param", &first}, {"cov_pris_param", &second}});
}

/// Reads what save_niqe wrote, or a file with these names. Throws FileError, beginning with the path, for one that has
/// no such tensors or numbers that are no mean and covariance.
inline NiqeModel load_niqe(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const auto read = [&](const char* name, std::int64_t numbers) {
    const TensorInfo* const info = file.find(name);
    if (info == nullptr)
      throw FileError(concat(path.string(), ": has no tensor ", name, ", so it is no model of NIQE's"));
    if (info->shape.size() != numbers)
      throw FileError(
          concat(path.string(), ": ", name, " has the shape ", info->shape.str(), ", wanted ", numbers, " numbers"));
    return file.read<double>(*info);
  };
  const Tensor<double> mean = read("mu_pris_param", detail::niqe_features);
  const Tensor<double> covariance = read("cov_pris_param", detail::niqe_features * detail::niqe_features);
  NiqeModel model{Eigen::VectorXd(detail::niqe_features),
                  Eigen::MatrixXd(detail::niqe_features, detail::niqe_features)};
  std::copy_n(mean.data(), detail::niqe_features, model.mean.data());
  for (int i = 0; i < detail::niqe_features; ++i)
    for (int j = 0; j < detail::niqe_features; ++j)
      model.covariance(i, j) = covariance.data()[i * detail::niqe_features + j];
  const double largest = model.covariance.cwiseAbs().maxCoeff();
  if (!model.mean.allFinite() || !model.covariance.allFinite() ||
      (model.covariance - model.covariance.transpose()).cwiseAbs().maxCoeff() > 1e-6 * largest ||
      !(model.covariance.diagonal().array() > 0).all())
    throw FileError(concat(path.string(), ": its numbers are no mean and covariance of features"));
  return model;
}

}}  // namespace strata::STRATA_ABI
