// Folders of images as data: one folder of pictures, or two whose files belong together by name.
//
//     st::ImageFolder<1> photos("photos", {.convert = true});          // every image of the folder, or an error
//     st::PairedFolder<3> pairs("noisy", "clean");                     // noisy/cat.jpg with clean/cat.png
//     st::Map patches(pairs, [](const auto& pair, st::Rng& rng) { return st::random_crop(pair, 64, rng); });
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "strata/data/image_file.hpp"
#include "strata/data/image_source.hpp"
#include "strata/data/sample.hpp"
#include "strata/data/transforms.hpp"

namespace strata { inline namespace STRATA_ABI {

struct ImageFolderOptions {
  bool in_memory = true;                         ///< false: each image is read again whenever it is asked for
  bool convert = false;                          ///< see LoadOptions
  bool drop_alpha = false;                       ///< see LoadOptions
  std::int64_t max_pixels = default_max_pixels;  ///< see LoadOptions

  LoadOptions load() const { return {.convert = convert, .drop_alpha = drop_alpha, .max_pixels = max_pixels}; }
};

/// All images of a folder, sorted by name. An image that cannot be read is an error here and now (with in_memory =
/// false: its header is looked at here, the rest when it is read). As a dataset, input and target are both the image.
template <int C>
class ImageFolder {
 public:
  static constexpr int channels = C;

  explicit ImageFolder(const std::filesystem::path& folder, const ImageFolderOptions& options = {})
      : ImageFolder(list_images(folder), options) {}

  explicit ImageFolder(std::vector<std::filesystem::path> files, const ImageFolderOptions& options = {})
      : files_(std::move(files)), options_(options) {
    if (options_.in_memory)
      images_.resize(files_.size());
    else
      sizes_.resize(files_.size());
    detail::for_each_image(files_.size(), [&](std::size_t i) {
      if (options_.in_memory) {
        images_[i] = load_image<C>(files_[i], options_.load());
      } else {
        const ImageInfo info = read_image_info(files_[i]);
        sizes_[i] = {info.h, info.w};
      }
    });
  }

  std::size_t size() const { return files_.size(); }

  /// Image `index`, shape (1, C, H, W). With in_memory it shares memory with what is kept here: do not write into it.
  Image<C> image(std::size_t index) const {
    detail::check_index("ImageFolder", index, size());
    return options_.in_memory ? images_[index] : load_image<C>(files_[index], options_.load());
  }
  /// See image_source.hpp: with in_memory nothing.
  std::optional<ImageSize> size_of(std::size_t index) const {
    detail::check_index("ImageFolder", index, size());
    return options_.in_memory ? std::nullopt : std::optional(sizes_[index]);
  }
  /// Pixels of image(index); without in_memory no more of the file is decoded than these need.
  Image<C> part(std::size_t index, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w) const {
    detail::check_index("ImageFolder", index, size());
    return options_.in_memory ? crop(images_[index], y, x, h, w)
                              : load_image_part<C>(files_[index], y, x, h, w, options_.load());
  }
  const std::filesystem::path& path(std::size_t index) const& {
    detail::check_index("ImageFolder", index, size());
    return files_[index];
  }
  std::filesystem::path path(std::size_t index) const&& { return path(index); }
  std::string name(std::size_t index) const { return path(index).string(); }

  Sample<C> get(std::size_t index, Rng&) const {
    const Image<C> picture = image(index);
    return {picture, picture};
  }

 private:
  std::vector<std::filesystem::path> files_;
  ImageFolderOptions options_;
  std::vector<Image<C>> images_;    // with in_memory
  std::vector<ImageSize> sizes_;    // without
};

struct PairedFolderOptions {
  bool in_memory = true;
  bool convert = false;
  bool drop_alpha = false;
  std::int64_t max_pixels = default_max_pixels;
  std::int64_t scale = 1;  ///< the target has scale times the rows and columns of the input
};

/// Inputs and targets from two folders. Files belong together when their names without the ending are equal. Throws
/// FileError, naming the files, when one has no partner or the sizes of two do not fit.
template <int C>
class PairedFolder {
 public:
  static constexpr int channels = C;

  PairedFolder(const std::filesystem::path& inputs, const std::filesystem::path& targets,
               const PairedFolderOptions& options = {}) {
    if (options.scale < 1)
      throw ValueError(concat("PairedFolder: got .scale = ", options.scale, ", wanted at least 1"));
    const auto input_files = by_stem(inputs), target_files = by_stem(targets);
    std::vector<std::filesystem::path> alone, paired_inputs, paired_targets;
    for (const auto& [stem, file] : input_files) {
      const auto partner = target_files.find(stem);
      if (partner == target_files.end()) {
        alone.push_back(file);
      } else {
        paired_inputs.push_back(file);
        paired_targets.push_back(partner->second);
      }
    }
    for (const auto& [stem, file] : target_files)
      if (!input_files.contains(stem)) alone.push_back(file);
    if (!alone.empty()) {
      std::string text = concat(inputs.string(), " and ", targets.string(), ": ", alone.size(),
                                " images have no partner of the same name in the other folder:");
      for (std::size_t i = 0; i < std::min<std::size_t>(alone.size(), 5); ++i) text += " " + alone[i].string();
      throw FileError(text + (alone.size() > 5 ? " ..." : ""));
    }
    for (std::size_t i = 0; i < paired_inputs.size(); ++i) {
      const ImageInfo in = read_image_info(paired_inputs[i]), out = read_image_info(paired_targets[i]);
      if (out.w != options.scale * in.w || out.h != options.scale * in.h)
        throw FileError(concat(paired_inputs[i].string(), " has ", in.w, "x", in.h, " pixels and ",
                               paired_targets[i].string(), " has ", out.w, "x", out.h, "; wanted ", options.scale,
                               " times as many rows and columns (PairedFolderOptions::scale)"));
    }
    const ImageFolderOptions folder{.in_memory = options.in_memory,
                                    .convert = options.convert,
                                    .drop_alpha = options.drop_alpha,
                                    .max_pixels = options.max_pixels};
    inputs_ = ImageFolder<C>(std::move(paired_inputs), folder);
    targets_ = ImageFolder<C>(std::move(paired_targets), folder);
  }

  std::size_t size() const { return inputs_.size(); }
  const ImageFolder<C>& inputs() const& { return inputs_; }
  ImageFolder<C> inputs() const&& { return inputs(); }
  const ImageFolder<C>& targets() const& { return targets_; }
  ImageFolder<C> targets() const&& { return targets(); }
  std::string name(std::size_t index) const { return inputs_.name(index); }

  Sample<C> get(std::size_t index, Rng&) const { return {inputs_.image(index), targets_.image(index)}; }

 private:
  static std::map<std::string, std::filesystem::path> by_stem(const std::filesystem::path& folder) {
    std::map<std::string, std::filesystem::path> files;
    for (const auto& file : list_images(folder)) {
      const auto [other, added] = files.emplace(file.stem().string(), file);
      if (!added)
        throw FileError(concat(file.string(), " and ", other->second.string(),
                               ": two images of one name; which of them is meant?"));
    }
    return files;
  }

  ImageFolder<C> inputs_{std::vector<std::filesystem::path>{}};
  ImageFolder<C> targets_{std::vector<std::filesystem::path>{}};
};

}}  // namespace strata::STRATA_ABI
