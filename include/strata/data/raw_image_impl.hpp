// Definitions of data/raw_image.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/rounded.hpp"
#include "strata/data/detail/read_image.hpp"
#include "strata/data/raw_image.hpp"

namespace strata::inline STRATA_ABI {

STRATA_INLINE void RawImage::read_row(std::int64_t y, float* to) const {
  const unsigned char* from = samples.data() + std::size_t(y) * row_bytes();
  const std::int64_t count = w * channels;
  if (bits == 16)
    for (std::int64_t i = 0; i < count; ++i) to[i] = float(from[2 * i] << 8 | from[2 * i + 1]) / 65535.0f;
  else
    for (std::int64_t i = 0; i < count; ++i) to[i] = float(from[i]) / 255.0f;
}

STRATA_INLINE void RawImage::write_row(std::int64_t y, const float* from) {
  unsigned char* to = samples.data() + std::size_t(y) * row_bytes();
  const float levels = bits == 16 ? 65535.0f : 255.0f;
  for (std::int64_t i = 0; i < w * channels; ++i) {
    if (std::isnan(from[i])) throw NumericError("RawImage::write_row: the row has NaN values");
    const auto level = static_cast<unsigned>(detail::rounded(std::clamp(from[i], 0.0f, 1.0f) * levels) + 0.5f);
    if (bits == 16) *to++ = static_cast<unsigned char>(level >> 8);
    *to++ = static_cast<unsigned char>(level & 0xFFu);
  }
}

STRATA_INLINE RawImage load_raw_image(const std::filesystem::path& path, std::int64_t max_pixels) {
  return detail::with_path(path, "read", [&] {
    auto file = detail::read_image_bytes(path, max_pixels, nullptr);
    RawImage image;
    detail::DecodedImage decoded = detail::decode_image(std::move(file), max_pixels, nullptr, &image.metadata);
    const ImageInfo& info = decoded.info;
    const bool turned = info.orientation >= 5;
    image.h = turned ? info.w : info.h, image.w = turned ? info.h : info.w;
    image.channels = info.channels, image.bits = info.bits, image.orientation = info.orientation;
    if (turned) std::swap(image.metadata.x_density, image.metadata.y_density);
    if (info.bits == 16) detail::swap_big_endian(decoded.samples);
    if (info.orientation == 1) {
      image.samples = std::move(decoded.samples);
      return image;
    }
    image.samples.resize(decoded.samples.size());
    const std::size_t pixel = std::size_t(info.channels * (info.bits / 8));
    unsigned char* to = image.samples.data();
    for (std::int64_t y = 0; y < image.h; ++y)
      for (std::int64_t x = 0; x < image.w; ++x, to += pixel) {
        const auto [row, column] = detail::upright_source(info.orientation, info.h, info.w, y, x);
        std::copy_n(decoded.samples.data() + std::size_t(row * info.w + column) * pixel, pixel, to);
      }
    return image;
  });
}

STRATA_INLINE bool is_grey(const RawImage& image) {
  if (image.channels <= 2) return true;
  const std::size_t bytes = std::size_t(image.bits / 8), pixel = std::size_t(image.channels) * bytes;
  for (std::size_t at = 0; at < image.samples.size(); at += pixel) {
    const unsigned char* const red = image.samples.data() + at;
    if (std::memcmp(red, red + bytes, bytes) != 0 || std::memcmp(red, red + 2 * bytes, bytes) != 0) return false;
  }
  return true;
}

STRATA_INLINE void spread_visible_colours(RawImage& image) {
  if (!image.has_alpha()) return;
  const std::int64_t h = image.h, w = image.w;
  const std::size_t bytes = std::size_t(image.bits / 8), colours = std::size_t(image.channels - 1) * bytes;
  const auto pixel = [&](std::int64_t y, std::int64_t x) {
    return image.samples.data() + std::size_t(y * w + x) * (colours + bytes);
  };
  const auto alpha = [&](std::int64_t y, std::int64_t x) {
    const unsigned char* const at = pixel(y, x) + colours;
    return bytes == 1 ? 257 * at[0] : at[0] << 8 | at[1];
  };
  constexpr unsigned char unreached = 255;
  std::vector<unsigned char> distance(std::size_t(h * w), 0);  // rows or columns to a visible pixel
  bool any = false;
  for (std::int64_t y = 0; y < h; ++y)
    for (std::int64_t x = 0; x < w; ++x) {
      const int own = alpha(y, x);
      bool hidden = own == 0;
      if (own > 0 && own < 4096)
        for (std::int64_t j = std::max<std::int64_t>(y - 1, 0); j <= std::min(y + 1, h - 1); ++j)
          for (std::int64_t i = std::max<std::int64_t>(x - 1, 0); i <= std::min(x + 1, w - 1); ++i)
            hidden = hidden || 16 * own < alpha(j, i);
      if (hidden) distance[std::size_t(y * w + x)] = unreached;
      any = any || hidden;
    }
  if (!any) return;
  // Twice over the picture, from either corner: each pixel takes the nearest of its neighbours that are done.
  const auto take = [&](std::int64_t y, std::int64_t x, std::int64_t j, std::int64_t i) {
    if (j < 0 || j >= h || i < 0 || i >= w) return;
    unsigned char& own = distance[std::size_t(y * w + x)];
    const int there = distance[std::size_t(j * w + i)];
    if (there == unreached || std::min(there + 1, unreached - 1) >= own) return;
    own = static_cast<unsigned char>(std::min(there + 1, unreached - 1));
    std::copy_n(pixel(j, i), colours, pixel(y, x));
  };
  for (std::int64_t y = 0; y < h; ++y)
    for (std::int64_t x = 0; x < w; ++x) {
      if (distance[std::size_t(y * w + x)] == 0) continue;
      take(y, x, y, x - 1);
      for (const std::int64_t i : {x, x - 1, x + 1}) take(y, x, y - 1, i);
    }
  for (std::int64_t y = h - 1; y >= 0; --y)
    for (std::int64_t x = w - 1; x >= 0; --x) {
      if (distance[std::size_t(y * w + x)] == 0) continue;
      take(y, x, y, x + 1);
      for (const std::int64_t i : {x, x + 1, x - 1}) take(y, x, y + 1, i);
    }
}

STRATA_INLINE void save_raw_image(const std::filesystem::path& path, RawImage image, int quality) {
  const ImageFormat format = detail::format_of_name(path);
  if (format != ImageFormat::png && (image.bits != 8 || image.has_alpha()))
    throw ValueError(concat(path.string(), ": ", path.extension().string(), " holds 8 bits of 1 or 3 channels, not ",
                            image.bits, " of ", image.channels, "; write a .png"));
  detail::write_image(path, format,
                      {.samples = std::move(image.samples),
                       .w = image.w,
                       .h = image.h,
                       .channels = image.channels,
                       .bits = image.bits,
                       .quality = quality,
                       .metadata = std::move(image.metadata)});
}

STRATA_INLINE std::vector<std::string> left_out(const std::filesystem::path& path, const RawImage& image) {
  return detail::left_out(image.metadata, detail::format_of_name(path), image.channels);
}

}  // namespace strata::inline STRATA_ABI
