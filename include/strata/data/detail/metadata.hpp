// What image files say beside their pixels and pictures keep: colour profile, gamma, resolution.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/data/detail/crc32.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/inflate.hpp"
#include "strata/data/detail/jpeg.hpp"
#include "strata/data/detail/png.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Whether a profile is of pictures with so many channels (ICC.1, the header's data colour space).
inline bool icc_fits(Bytes icc, int channels) {
  return icc.size() >= 128 && begins_with(icc.subspan(16), channels >= 3 ? "RGB " : "GRAY", 4);
}

/// The profile in an iCCP chunk; nothing when it is damaged. Its own first bytes say how long it is.
inline std::vector<unsigned char> icc_of_png(Bytes body) {
  const auto name_end = std::find(body.begin(), body.end(), 0);
  const std::size_t begin = std::size_t(name_end - body.begin()) + 2;
  if (begin >= body.size() || body[begin - 1] != 0) return {};
  const std::size_t size = body.size() - begin;
  std::vector<unsigned char> padded(body.begin() + std::ptrdiff_t(begin), body.end());
  padded.resize(size + inflate_padding);
  try {
    std::vector<unsigned char> profile(4 + inflate_padding);
    inflate_zlib(padded.data(), size, profile.data(), 4, true);
    const std::size_t length = big_endian(Bytes(profile).first(4));
    if (length < 128 || length / 1032 > size) return {};
    profile.assign(length + inflate_padding, 0);
    inflate_zlib(padded.data(), size, profile.data(), length, true);
    profile.resize(length);
    return profile;
  } catch (const BadImage&) {
    return {};
  }
}

inline void set_density(ImageMetadata& metadata, double x, double y, bool per_metre) {
  if (!(x >= 0.5 && x < 4e9 && y >= 0.5 && y < 4e9) || (!per_metre && x == y)) return;
  metadata.x_density = std::uint32_t(std::lround(x)), metadata.y_density = std::uint32_t(std::lround(y));
  metadata.per_metre = per_metre;
}

inline ImageMetadata metadata_of(const PngStructure& png) {
  ImageMetadata metadata;
  if (!png.icc.empty()) {
    metadata.icc = icc_of_png(png.icc);
    metadata.damaged_icc = metadata.icc.empty();
  }
  for (const Bytes chunk : png.colour_chunks)
    metadata.png_colour.insert(metadata.png_colour.end(), chunk.begin(), chunk.end());
  if (png.density.size() == 9)
    set_density(metadata, big_endian(png.density.subspan(0, 4)), big_endian(png.density.subspan(4, 4)),
                png.density[8] == 1);
  return metadata;
}

/// Of a JPEG file whose structure has been read whole. A profile lies in up to 255 segments, each with its number.
inline ImageMetadata metadata_of(Bytes file, const JpegStructure& jpeg) {
  constexpr double inch = 0.0254, centimetre = 0.01;
  ImageMetadata metadata;
  if (jpeg.jfif.size() >= 12) {
    const double x = big_endian(jpeg.jfif.subspan(8, 2)), y = big_endian(jpeg.jfif.subspan(10, 2));
    const int unit = jpeg.jfif[7];
    const double per_metre = unit == 1 ? 1 / inch : unit == 2 ? 1 / centimetre : 1;
    set_density(metadata, x * per_metre, y * per_metre, unit == 1 || unit == 2);
  }
  if (metadata.x_density == 0 && (jpeg.exif.unit == 2 || jpeg.exif.unit == 3)) {
    const double per_metre = 1 / (jpeg.exif.unit == 2 ? inch : centimetre);
    set_density(metadata, jpeg.exif.x_resolution * per_metre, jpeg.exif.y_resolution * per_metre, true);
  }
  std::vector<Bytes> parts;
  std::size_t expected = 0, found = 0;
  for (std::size_t at = 2; file[at + 1] != 0xDA;) {
    if (file[at] != 0xFF || file[at + 1] == 0xFF) {  // what fills up
      ++at;
      continue;
    }
    const Bytes body = file.subspan(at + 4, big_endian(file.subspan(at + 2, 2)) - 2);
    if (file[at + 1] == 0xE2 && body.size() > 14 && begins_with(body, "ICC_PROFILE", 12)) {
      const std::size_t number = body[12], count = body[13];
      if (found++ == 0) parts.resize(expected = count);
      if (number < 1 || number > expected || count != expected || !parts[number - 1].empty())
        metadata.damaged_icc = true;
      else
        parts[number - 1] = body.subspan(14);
    }
    at += body.size() + 4;
  }
  for (const Bytes one : parts) metadata.icc.insert(metadata.icc.end(), one.begin(), one.end());
  if (found != expected || metadata.damaged_icc || (found > 0 && metadata.icc.size() < 128)) {
    metadata.icc.clear();
    metadata.damaged_icc = true;
  }
  return metadata;
}

/// Of a BMP file; profiles, which few of them have, are not looked for.
inline ImageMetadata metadata_of_bmp(Bytes file) {
  ImageMetadata metadata;
  set_density(metadata, little_endian(file.subspan(38, 4)), little_endian(file.subspan(42, 4)), true);
  return metadata;
}

/// The names of the chunks in `png_colour`.
inline std::vector<std::string_view> names_of_chunks(Bytes chunks) {
  std::vector<std::string_view> names;
  while (chunks.size() >= 12) {
    names.emplace_back(reinterpret_cast<const char*>(chunks.data()) + 4, 4);
    chunks = chunks.subspan(std::min<std::size_t>(chunks.size(), 12 + std::size_t(big_endian(chunks.first(4)))));
  }
  return names;
}

/// What of it a file of a format cannot hold beside pictures of so many channels: "colour profile", "gamma".
inline std::vector<std::string> left_out(const ImageMetadata& metadata, ImageFormat format, int channels) {
  std::vector<std::string> names;
  if (metadata.damaged_icc)
    names.push_back("colour profile (it is damaged)");
  else if (!metadata.icc.empty() && !icc_fits(metadata.icc, channels))
    names.push_back("colour profile (it is for other channels)");
  else if (!metadata.icc.empty() && format == ImageFormat::bmp)
    names.push_back("colour profile");
  if (format != ImageFormat::png && (metadata.icc.empty() || format == ImageFormat::bmp)) {
    for (const std::string_view chunk : names_of_chunks(metadata.png_colour)) {
      if (chunk == "gAMA") names.push_back("gamma");
      if (chunk == "cHRM") names.push_back("primaries");
      if (chunk == "cICP") names.push_back("colour space");
    }
  }
  const double most = std::max(metadata.x_density, metadata.y_density) * (metadata.per_metre ? 0.0254 : 1.0);
  if ((format == ImageFormat::jpeg && most > 65535) ||
      (format == ImageFormat::bmp && metadata.x_density > 0 && !metadata.per_metre))
    names.push_back("resolution");
  return names;
}

}  // namespace strata::inline STRATA_ABI::detail
