// Folders that say what a picture is: one folder for each class, or pictures beside their masks.
//
//     #include <strata/data/class_folder.hpp>          // not part of strata.hpp
//     const st::ClassFolder<3> photos("train");        // train/cat/1.jpg, train/dog/breeds/7.png, ...
//     photos.classes()[1];                             // "dog": classes are sorted by name, as torchvision's
//     ImageFolder const st::MaskFolder<3> cells("images", "masks");        // images/a.jpg with masks/a.png, of the
//     same size
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/data/image_file.hpp"
#include "strata/data/image_folder.hpp"
#include "strata/data/sample.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

/// Pictures with the class of the folder they are in, at any depth. Throws FileError for a folder without classes, a
/// class without pictures, and a picture in a format that cannot be read. Pictures are read when they are asked for,
/// and kept with .in_memory.
template <int C>
class ClassFolder {
 public:
  static constexpr int channels = C;

  explicit ClassFolder(const std::filesystem::path& root, const ImageFolderOptions& options = {.in_memory = false})
      : images_(files_of(root), options) {}

  std::size_t size() const { return images_.size(); }
  /// The classes' names; a label is a place in this list.
  const std::vector<std::string>& classes() const& { return classes_; }
  std::vector<std::string> classes() const&& { return classes_; }
  /// The label of every picture.
  const std::vector<Label>& labels() const& { return labels_; }
  std::vector<Label> labels() const&& { return labels_; }
  Image<C> image(std::size_t index) const { return images_.image(index); }
  std::string name(std::size_t index) const { return images_.name(index); }

  LabelledSample<C> get(std::size_t index, Rng&) const { return {images_.image(index), labels_.at(index)}; }

 private:
  static constexpr int deepest = 32;  // links may go round in circles

  static std::vector<std::filesystem::path> subfolders(const std::filesystem::path& folder) {
    std::vector<std::filesystem::path> found;
    std::error_code failure;
    for (std::filesystem::directory_iterator entry(folder, failure), none; !failure && entry != none;
         entry.increment(failure)) {
      std::error_code unknown;
      if (std::filesystem::is_directory(entry->path(), unknown) && entry->path().filename().native()[0] != '.')
        found.push_back(entry->path());
    }
    if (failure) throw FileError(concat(folder.string(), ": cannot list the folder: ", failure.message()));
    std::sort(found.begin(), found.end());
    return found;
  }

  static void gather(const std::filesystem::path& folder, int depth, std::vector<std::filesystem::path>& files) {
    if (depth > deepest)
      throw FileError(
          concat(folder.string(), ": folders are nested more than ", deepest, " deep; does a link lead back?"));
    const auto own = detail::list_images_if_any(folder);
    files.insert(files.end(), own.begin(), own.end());
    for (const auto& inner : subfolders(folder)) gather(inner, depth + 1, files);
  }

  // Before images_, which takes what it gives.
  std::vector<std::filesystem::path> files_of(const std::filesystem::path& root) {
    std::vector<std::filesystem::path> files;
    for (const auto& folder : subfolders(root)) {
      const std::size_t before = files.size();
      gather(folder, 1, files);
      if (files.size() == before)
        throw FileError(concat(folder.string(), ": there are no images in this folder, which would be the class ",
                               folder.filename().string()));
      classes_.push_back(folder.filename().string());
      labels_.insert(labels_.end(), files.size() - before, Label(classes_.size() - 1));
    }
    if (classes_.empty())
      throw FileError(
          concat(root.string(), ": there are no folders in it; wanted one for each class, with its images"));
    return files;
  }

  std::vector<std::string> classes_;
  std::vector<Label> labels_;
  ImageFolder<C> images_;
};

/// Pictures of C channels and, by the same name without the ending, their masks of M. Values of both are in [0, 1]: a
/// mask of class numbers in 8 bits holds number / 255. Throws FileError, naming the files, when one has no partner or
/// sizes differ.
template <int C, int M = 1>
class MaskFolder {
 public:
  static constexpr int channels = C;

  MaskFolder(const std::filesystem::path& images, const std::filesystem::path& masks,
             const ImageFolderOptions& options = {.in_memory = false}) {
    std::map<std::string, std::filesystem::path> partners;
    for (const auto& file : list_images(masks))
      if (!partners.emplace(file.stem().string(), file).second)
        throw FileError(concat(file.string(), ": another mask has this name too; which of them is meant?"));
    std::vector<std::filesystem::path> image_files = list_images(images), mask_files;
    if (image_files.size() != partners.size())
      throw FileError(concat(images.string(), " has ", image_files.size(), " images and ", masks.string(), " ",
                             partners.size(), "; each must have its partner of the same name"));
    for (const auto& file : image_files) {
      const auto partner = partners.find(file.stem().string());
      if (partner == partners.end())
        throw FileError(concat(file.string(), ": there is no mask of this name in ", masks.string()));
      const ImageInfo one = read_image_info(file), other = read_image_info(partner->second);
      if (one.h != other.h || one.w != other.w)
        throw FileError(concat(file.string(), " has ", one.w, "x", one.h, " pixels and ", partner->second.string(), " ",
                               other.w, "x", other.h));
      mask_files.push_back(partner->second);
    }
    images_ = ImageFolder<C>(std::move(image_files), options);
    masks_ = ImageFolder<M>(std::move(mask_files), options);
  }

  std::size_t size() const { return images_.size(); }
  std::string name(std::size_t index) const { return images_.name(index); }

  Pair<Image<C>, Image<M>> get(std::size_t index, Rng&) const { return {images_.image(index), masks_.image(index)}; }

 private:
  ImageFolder<C> images_{std::vector<std::filesystem::path>{}};
  ImageFolder<M> masks_{std::vector<std::filesystem::path>{}};
};

}  // namespace strata::inline STRATA_ABI
