// Numbers that PyTorch gave, kept in golden files, and comparisons with them.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <type_traits>

#include "largest.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata_test {

template <class T>
strata::Tensor<T> golden_tensor(const std::filesystem::path& path, const std::string& name) {
  const strata::SafetensorsFile file(path);
  const strata::TensorInfo* info = file.find(name);
  REQUIRE_MESSAGE(info != nullptr, name);
  return file.read<T>(*info);
}

/// Rounding errors, as a part of the largest number.
template <class T>
constexpr double golden_tolerance = std::is_same_v<T, float> ? 4e-6 : 1e-13;

/// Checks numbers in memory, N,H,W,C where they are of an image, against the tensor of this name.
template <class T>
void compare_with_golden(const std::filesystem::path& path, const std::string& name, const strata::Shape& shape,
                         const T* got) {
  CAPTURE(name);
  const strata::Tensor<double> wanted = golden_tensor<double>(path, name);
  REQUIRE(shape == wanted.shape());
  double largest = 0, error = 0;
  for (std::int64_t i = 0; i < wanted.size(); ++i) {
    largest = std::max(largest, std::abs(wanted.data()[i]));
    keep_largest(error, std::abs(double(got[i]) - wanted.data()[i]));
  }
  CHECK(error <= golden_tolerance<T> * largest);
}

}  // namespace strata_test
