// Definitions of data/cifar10.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/data/cifar10.hpp"
#include "strata/data/detail/dataset_file.hpp"
#include "strata/data/detail/image_bytes.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// Throws BadImage unless the bytes are whole records with labels from 0 to 9.
inline void check_cifar(Bytes file) {
  if (file.empty() || file.size() % cifar_record != 0)
    throw BadImage(concat("it has ", file.size(), " bytes, wanted a multiple of ", cifar_record,
                          ", one label and 32 x 32 x 3 ", "values for each image (truncated?)"));
  for (std::size_t i = 0; i < file.size() / cifar_record; ++i)
    if (const int label = file[i * cifar_record]; label > 9)
      throw BadImage(concat("the label of image ", i, " is ", label, ", wanted 0 to 9"));
}

}  // namespace detail

STRATA_INLINE CIFAR10::CIFAR10(const CIFAR10Options& options) {
  for (int batch = 1; batch <= (options.train ? 5 : 1); ++batch) {
    const std::string name = options.train ? concat("data_batch_", batch, ".bin") : "test_batch.bin";
    const auto path =
        detail::find_dataset_file("CIFAR10", options.root, {name, std::filesystem::path("cifar-10-batches-bin") / name},
                                  "the binary version of CIFAR-10 of Krizhevsky, University of Toronto");
    detail::parse_dataset_file(path, [&](const std::vector<unsigned char>& file) {
      detail::check_cifar(file);
      records_.insert(records_.end(), file.begin(), file.end());
    });
  }
}

STRATA_INLINE Image<3> CIFAR10::image(std::size_t index) const {
  detail::check_index("CIFAR10", index, size());
  Image<3> out(1, detail::cifar_extent, detail::cifar_extent);
  const unsigned char* from = records_.data() + index * detail::cifar_record + 1;
  for (std::int64_t c = 0; c < 3; ++c)
    for (std::int64_t i = 0; i < detail::cifar_pixels; ++i) out.data()[3 * i + c] = float(*from++) / 255.0f;
  return out;
}

}  // namespace strata::inline STRATA_ABI
