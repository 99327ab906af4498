// Images as the bytes of PNG files that are not on a disk.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/data/detail/encode.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Image n of a batch with 8 bits, clamped to [0, 1]; a number that is NaN is black, since a picture of a run that goes
/// wrong is wanted all the more. Throws ShapeError for an image without pixels.
template <int C>
std::string png_bytes(const char* what, const Image<C>& batch, std::int64_t n = 0) {
  static_assert(C >= 1 && C <= 4, "strata: a picture has 1 (grey), 2, 3 (RGB) or 4 channels");
  batch.tensor().require_host(what);
  if (n < 0 || n >= batch.n() || batch.h() == 0 || batch.w() == 0)
    throw ShapeError(concat(what, ": there is no picture ", n, " in a batch of shape ", batch.shape().str()));
  const std::int64_t size = batch.h() * batch.w() * C;
  std::vector<unsigned char> samples;
  samples.reserve(std::size_t(size + batch.h()));
  for (const float value : std::span(batch.data() + n * size, std::size_t(size)))
    samples.push_back(
        static_cast<unsigned char>(std::isnan(value) ? 0 : std::lround(std::clamp(value, 0.0f, 1.0f) * 255.0f)));
  std::string file;
  try {
    encode_image(
        ImageFormat::png,
        {.samples = std::move(samples), .w = batch.w(), .h = batch.h(), .channels = C, .bits = 8, .metadata = {}},
        [&](std::span<const Bytes> parts) {
          for (const Bytes part : parts) file.append(reinterpret_cast<const char*>(part.data()), part.size());
        });
  } catch (const BadImage& problem) {
    throw ShapeError(concat(what, ": ", problem.what()));
  }
  return file;
}

}  // namespace strata::inline STRATA_ABI::detail
