// MNIST and Fashion-MNIST: 60,000 images of 28 x 28 grey pixels to train with and 10,000 to test with, in ten classes.
//
//     const st::MNIST train({.root = "data"}), test({.root = "data", .train = false});
//     auto [image, label] = train.get(0, rng);            // Image<1> of shape (1, 1, 28, 28) in [0, 1]; 0 to 9
//     st::FashionMNIST::classes[std::size_t(label)];      // "Sneaker"
//     const st::Map moved(train, [](const st::LabelledSample<1>& sample, st::Rng& random) {
//       return st::LabelledSample<1>{st::random_crop(sample.input, 28, random, {.padding = 2}), sample.target};
//     });
//
// The files are those of the data sets' authors, train-images-idx3-ubyte, train-labels-idx1-ubyte,
// t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, as they are or with .gz at the end, in `root` or where torchvision
// puts them below it (MNIST/raw, FashionMNIST/raw). Nothing is downloaded. Images of another size are taken too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>

#include "strata/core/random.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/detail/idx_file.hpp"
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
  Image<1> image(std::size_t index) const;
  Label label(std::size_t index) const {
    check_index(who_, index, size());
    return labels_.elements()[index];
  }
  LabelledSample<1> get(std::size_t index, Rng&) const { return {image(index), label(index)}; }

 protected:
  IdxImages(const char* who, const char* origin, const MNISTOptions& options);

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
  static constexpr std::array<std::string_view, 10> classes{
      "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};

  /// Reads the files. Throws FileError, with its path, for one that is missing, damaged or not what it should be.
  explicit FashionMNIST(const MNISTOptions& options)
      : IdxImages("FashionMNIST", "Fashion-MNIST of Zalando Research", options) {}
};

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/data/mnist_impl.hpp"
#endif
