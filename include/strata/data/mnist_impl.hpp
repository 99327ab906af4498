// Definitions of data/mnist.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/data/detail/dataset_file.hpp"
#include "strata/data/detail/idx.hpp"
#include "strata/data/mnist.hpp"

namespace strata::inline STRATA_ABI::detail {

STRATA_INLINE IdxImages::IdxImages(const char* who, const char* origin, const MNISTOptions& options) : who_(who) {
  const std::filesystem::path raw = std::filesystem::path(who) / "raw";
  const auto read = [&](const char* kind, std::size_t rank) {
    const std::string name = concat(options.train ? "train-" : "t10k-", kind, "-idx", rank, "-ubyte");
    const auto path =
        find_dataset_file(who, options.root, {name, name + ".gz", raw / name, raw / (name + ".gz")}, origin);
    return std::pair(parse_dataset_file(path, [&](auto file) { return read_idx(std::move(file), rank); }),
                     path.string());
  };
  auto [images, images_path] = read("images", 3);
  auto [labels, labels_path] = read("labels", 1);
  if (images.sizes[0] != labels.sizes[0])
    throw FileError(concat(labels_path, ": it holds ", labels.sizes[0], " labels, and ", images_path, " ",
                           images.sizes[0], " images: they are not of one data set"));
  for (std::int64_t i = 0; i < labels.sizes[0]; ++i)
    if (labels.elements()[i] > 9)
      throw FileError(concat(labels_path, ": label number ", i, " is ", int(labels.elements()[i]), ", wanted 0 to 9"));
  images_ = std::move(images);
  labels_ = std::move(labels);
}

STRATA_INLINE Image<1> IdxImages::image(std::size_t index) const {
  check_index(who_, index, size());
  Image<1> out(1, h(), w());
  const unsigned char* from = images_.elements() + std::int64_t(index) * out.size();
  for (std::int64_t i = 0; i < out.size(); ++i) out.data()[i] = float(from[i]) / 255.0f;
  return out;
}

}  // namespace strata::inline STRATA_ABI::detail
