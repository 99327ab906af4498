// MNIST and Fashion-MNIST: 60,000 images of 28 x 28 grey pixels to train with and 10,000 to test with, in ten classes.
//
//     const st::MNIST train({.root = "data"}), test({.root = "data", .train = false});
//     auto [image, label] = train.get(0, rng);            // Image<1> of shape (1, 1, 28, 28) in [0, 1]; 0 to 9
//     st::FashionMNIST::classes[std::size_t(label)];      // "Sneaker"
//     const st::Map moved(train, [](const st::LabelledSample<1>& sample, st::Rng& random) {
//       return st::LabelledSample<1>{st::random_crop(sample.input, 28, random, {.padding = 2}), sample.target};
//     });
//
// The files are those of the data sets' authors, train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
// t10k-labels-idx1-ubyte, as they are or with .gz at the end, in `root` or where torchvision puts them below it
// (MNIST/raw, FashionMNIST/raw). Nothing is downloaded. Images of another size are taken too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/detail/dataset_file.hpp"
#include "strata/data/detail/idx.hpp"
#include "strata/data/sample.hpp"

namespace strata::inline STRATA_ABI {

struct MNISTOptions {
  std::filesystem::path root;  ///< the folder
  bool train = true;           ///< the images for training; else those for testing
};

namespace detail {

/// The files of one half of a data set in MNIST's form.
class IdxImages {
 public:
  static constexpr int channels = 1;

  std::size_t size() const { return std::size_t(images_.sizes[0]); }
  std::int64_t h() const { return images_.sizes[1]; }
  std::int64_t w() const { return images_.sizes[2]; }

  /// Shape (1, 1, h, w) in [0, 1]. Throws ValueError for an index outside, as the others do.
  Image<1> image(std::size_t index) const {
    check_index(who_, index, size());
    Image<1> out(1, h(), w());
    const unsigned char* from = images_.elements() + std::int64_t(index) * out.size();
    for (std::int64_t i = 0; i < out.size(); ++i) out.data()[i] = float(from[i]) / 255.0f;
    return out;
  }
  Label label(std::size_t index) const {
    check_index(who_, index, size());
    return labels_.elements()[index];
  }
  LabelledSample<1> get(std::size_t index, Rng&) const { return {image(index), label(index)}; }

 protected:
  IdxImages(const char* who, const char* origin, const MNISTOptions& options) : who_(who) {
    const std::filesystem::path raw = std::filesystem::path(who) / "raw";
    const auto read = [&](const char* kind, std::size_t rank) {
      const std::string name = concat(options.train ? "train-" : "t10k-", kind, "-idx", rank, "-ubyte");
      const auto path = find_dataset_file(who, options.root, {name, name + ".gz", raw / name, raw / (name + ".gz")}, origin);
      return std::pair(parse_dataset_file(path, [&](auto file) { return read_idx(std::move(file), rank); }), path.string());
    };
    auto [images, images_path] = read("images", 3);
    auto [labels, labels_path] = read("labels", 1);
    if (images.sizes[0] != labels.sizes[0])
      throw FileError(concat(labels_path, ": it holds ", labels.sizes[0], " labels, and ", images_path, " ", images.sizes[0],
                             " images: they are not of one data set"));
    for (std::int64_t i = 0; i < labels.sizes[0]; ++i)
      if (labels.elements()[i] > 9)
        throw FileError(concat(labels_path, ": label number ", i, " is ", int(labels.elements()[i]), ", wanted 0 to 9"));
    images_ = std::move(images);
    labels_ = std::move(labels);
  }

 private:
  const char* who_;
  IdxFile images_, labels_;
};

}  // namespace detail

/// Handwritten digits (LeCun, Cortes and Burges, 1998).
class MNIST : public detail::IdxImages {
 public:
  static constexpr std::array<std::string_view, 10> classes{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};

  /// Reads the files. Throws FileError, with its path, for one that is missing, damaged or not what it should be.
  explicit MNIST(const MNISTOptions& options)
      : IdxImages("MNIST", "the MNIST database of handwritten digits of LeCun, Cortes and Burges", options) {}
};

/// Articles of clothing, in MNIST's form (Xiao, Rasul and Vollgraf, 2017).
class FashionMNIST : public detail::IdxImages {
 public:
  static constexpr std::array<std::string_view, 10> classes{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                                            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};

  /// Reads the files. Throws FileError, with its path, for one that is missing, damaged or not what it should be.
  explicit FashionMNIST(const MNISTOptions& options)
      : IdxImages("FashionMNIST", "Fashion-MNIST of Zalando Research", options) {}
};

}  // namespace strata::inline STRATA_ABI
