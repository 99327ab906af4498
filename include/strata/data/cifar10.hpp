// CIFAR-10: 50,000 images of 32 x 32 coloured pixels to train with and 10,000 to test with, in ten classes (Krizhevsky,
// 2009).
//
//     const st::CIFAR10 train({.root = "data"}), test({.root = "data", .train = false});
//     auto [image, label] = train.get(0, rng);            // Image<3> of shape (1, 3, 32, 32) in [0, 1]; 0 to 9
//     st::CIFAR10::classes[std::size_t(label)];           // "frog"
//
// The files are those of its binary version, data_batch_1.bin to data_batch_5.bin and test_batch.bin, in `root` or in
// cifar-10-batches-bin below it. Nothing is downloaded.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "strata/core/random.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/sample.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// One image of CIFAR-10's binary files: a label, then rows of the red values, of the green and of the blue ones.
inline constexpr std::int64_t cifar_extent = 32, cifar_pixels = cifar_extent * cifar_extent;
inline constexpr std::size_t cifar_record = 1 + 3 * std::size_t(cifar_pixels);

}  // namespace detail

struct CIFAR10Options {
  std::filesystem::path root;  ///< the folder
  bool train = true;           ///< the images for training; else those for testing
};

class CIFAR10 {
 public:
  static constexpr int channels = 3;
  static constexpr std::array<std::string_view, 10> classes{"airplane", "automobile", "bird",  "cat",  "deer",
                                                            "dog",      "frog",       "horse", "ship", "truck"};

  /// Reads the files. Throws FileError, with its path, for one that is missing, damaged or not what it should be.
  explicit CIFAR10(const CIFAR10Options& options);

  std::size_t size() const { return records_.size() / detail::cifar_record; }
  /// Shape (1, 3, 32, 32) in [0, 1], red, green and blue. Throws ValueError for an index outside, as the others do.
  Image<3> image(std::size_t index) const;
  Label label(std::size_t index) const {
    detail::check_index("CIFAR10", index, size());
    return records_[index * detail::cifar_record];
  }
  LabelledSample<3> get(std::size_t index, Rng&) const { return {image(index), label(index)}; }

 private:
  std::vector<unsigned char> records_;
};

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/data/cifar10_impl.hpp"
#endif
