// CIFAR-10: 50,000 images of 32 x 32 coloured pixels to train with and 10,000 to test with, in ten classes (Krizhevsky, 2009).
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
#include <string>
#include <string_view>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/detail/dataset_file.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/sample.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// One image of CIFAR-10's binary files: a label, then rows of the red values, of the green and of the blue ones.
inline constexpr std::int64_t cifar_extent = 32, cifar_pixels = cifar_extent * cifar_extent;
inline constexpr std::size_t cifar_record = 1 + 3 * std::size_t(cifar_pixels);

/// Throws BadImage unless the bytes are whole records with labels from 0 to 9.
inline void check_cifar(Bytes file) {
  if (file.empty() || file.size() % cifar_record != 0)
    throw BadImage(concat("it has ", file.size(), " bytes, wanted a multiple of ", cifar_record, ", one label and 32 x 32 x 3 ",
                          "values for each image (truncated?)"));
  for (std::size_t i = 0; i < file.size() / cifar_record; ++i)
    if (const int label = file[i * cifar_record]; label > 9)
      throw BadImage(concat("the label of image ", i, " is ", label, ", wanted 0 to 9"));
}

}  // namespace detail

struct CIFAR10Options {
  std::filesystem::path root;  ///< the folder
  bool train = true;           ///< the images for training; else those for testing
};

class CIFAR10 {
 public:
  static constexpr int channels = 3;
  static constexpr std::array<std::string_view, 10> classes{"airplane", "automobile", "bird", "cat", "deer",
                                                            "dog", "frog", "horse", "ship", "truck"};

  /// Reads the files. Throws FileError, with its path, for one that is missing, damaged or not what it should be.
  explicit CIFAR10(const CIFAR10Options& options) {
    for (int batch = 1; batch <= (options.train ? 5 : 1); ++batch) {
      const std::string name = options.train ? concat("data_batch_", batch, ".bin") : "test_batch.bin";
      const auto path = detail::find_dataset_file("CIFAR10", options.root,
                                                  {name, std::filesystem::path("cifar-10-batches-bin") / name},
                                                  "the binary version of CIFAR-10 of Krizhevsky, University of Toronto");
      detail::parse_dataset_file(path, [&](const std::vector<unsigned char>& file) {
        detail::check_cifar(file);
        records_.insert(records_.end(), file.begin(), file.end());
      });
    }
  }

  std::size_t size() const { return records_.size() / detail::cifar_record; }
  /// Shape (1, 3, 32, 32) in [0, 1], red, green and blue. Throws ValueError for an index outside, as the others do.
  Image<3> image(std::size_t index) const {
    detail::check_index("CIFAR10", index, size());
    Image<3> out(1, detail::cifar_extent, detail::cifar_extent);
    const unsigned char* from = records_.data() + index * detail::cifar_record + 1;
    for (std::int64_t c = 0; c < 3; ++c)
      for (std::int64_t i = 0; i < detail::cifar_pixels; ++i) out.data()[3 * i + c] = float(*from++) / 255.0f;
    return out;
  }
  Label label(std::size_t index) const {
    detail::check_index("CIFAR10", index, size());
    return records_[index * detail::cifar_record];
  }
  LabelledSample<3> get(std::size_t index, Rng&) const { return {image(index), label(index)}; }

 private:
  std::vector<unsigned char> records_;
};

}  // namespace strata::inline STRATA_ABI
