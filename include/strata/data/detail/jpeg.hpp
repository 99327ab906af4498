// JPEG files (ITU-T T.81): reads what stands beside the pixels, checks the image data from the first block to the end
// marker, and has stb_image decode it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "strata/data/detail/exif.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/jpeg_scan.hpp"
#include "strata/data/detail/stb.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

inline bool begins_with(Bytes bytes, const char* text, std::size_t size) {
  return bytes.size() >= size && std::memcmp(bytes.data(), text, size) == 0;
}

struct JpegStructure {
  ImageInfo info;
  int components = 0;
  bool adobe_missing = false;  // four channels, and nothing says which: CMYK as it is, as libjpeg and its users have it
  ExifData exif;
  Bytes jfif;                  // the first APP0 segment of that kind
};

/// The components of a frame header and their factors.
inline std::vector<JpegComponent> jpeg_components(Bytes body) {
  const std::size_t count = body[5];
  if (body.size() != 6 + 3 * count || (count != 1 && count != 3 && count != 4))
    throw BadImage(concat("it is a JPEG of ", count, " channels; 1, 3 and 4 are supported"));
  std::vector<JpegComponent> components(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Bytes field = body.subspan(6 + 3 * i, 3);
    JpegComponent& one = components[i];
    one.id = field[0], one.h = field[1] >> 4, one.v = field[1] & 0xF, one.table = field[2];
    for (std::size_t j = 0; j < i; ++j)
      if (components[j].id == one.id) damaged_jpeg("two JPEG channels have one number");
    if (one.h < 1 || one.h > 4 || one.v < 1 || one.v > 4 || one.table > 3)
      damaged_jpeg("its JPEG frame header is impossible");
  }
  return components;
}

/// Walks the markers up to the frame header, or, when `whole`, to the end of the image. Throws BadImage.
inline JpegStructure read_jpeg_structure(Bytes file, bool whole) {
  JpegStructure out;
  ImageInfo& info = out.info;
  info.format = ImageFormat::jpeg;
  JpegScans scans;
  bool scanned = false;
  int adobe = -1;  // what an Adobe marker says of the channels: 0 as they are, 1 YCbCr, 2 YCCK
  for (std::size_t at = 2;;) {
    // The next marker: FF and a byte that is neither 00 nor FF. Some programs fill up with zeros in front of it.
    const char* const where = scanned ? "the JPEG image data" : "the JPEG header";
    while (part(file, at, 2, where)[0] == 0 || (file[at] == 0xFF && file[at + 1] == 0xFF)) ++at;
    const int marker = file[at + 1];
    if (file[at] != 0xFF || marker == 0 || marker == 1 || (marker >= 0xD0 && marker <= 0xD8))
      damaged_jpeg("a JPEG marker was expected");
    at += 2;
    if (marker == 0xD9) {
      if (out.components == 0 || !scanned) throw BadImage("it is a JPEG file without an image");
      if (whole) scans.check_complete();
      return out;
    }
    const std::size_t length = big_endian(part(file, at, 2, "a JPEG segment"));
    if (length < 2) damaged_jpeg("a JPEG segment is shorter than its own length");
    const Bytes body = part(file, at, length, "a JPEG segment").subspan(2);
    at += length;
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame) {
      if (out.components > 0) damaged_jpeg("it has two JPEG frame headers");
      if (body.size() < 6) damaged_jpeg("its JPEG frame header is too short");
      if (marker > 0xC2)
        throw BadImage("it is a lossless, hierarchical or arithmetic-coded JPEG, which is not supported");
      if (body[0] != 8) throw BadImage(concat("it is a JPEG of ", int(body[0]), " bits; only 8 are supported"));
      scans.h = info.h = big_endian(body.subspan(1, 2));
      scans.w = info.w = big_endian(body.subspan(3, 2));
      scans.progressive = marker == 0xC2;
      scans.components = jpeg_components(body);
      out.components = int(scans.components.size());
      info.channels = out.components >= 3 ? 3 : 1;  // CMYK is read as RGB
      info.orientation = out.exif.orientation;
      info.decoding_copies =
          (scans.progressive ? 4 : 2) + (out.components == 4 ? 1 : 0) + (info.orientation == 1 ? 0 : 1);
      if (info.orientation >= 5) std::swap(info.w, info.h);
      out.adobe_missing = out.components == 4 && adobe < 0;
      if (out.components == 4 && adobe != 0 && adobe != 2 && !out.adobe_missing)
        throw BadImage(concat("it is a JPEG of four channels, and its Adobe marker says ", adobe,
                              ", which is for three: convert it to PNG"));
      const bool named_rgb = out.components == 3 && scans.components[0].id == 'R' && scans.components[1].id == 'G' &&
                             scans.components[2].id == 'B';
      if (named_rgb && (!out.jfif.empty() || adobe > 0))
        throw BadImage("its JPEG channels are called R, G and B, and its header says YCbCr: convert it to PNG");
      if (!whole) return out;
      if (info.w > 0 && info.h > 0) scans.lay_out(file.size());
    } else if (marker == 0xE0) {
      if (out.jfif.empty() && begins_with(body, "JFIF", 5)) out.jfif = body;
    } else if (marker == 0xE1) {
      if (const Bytes tiff = exif_of_segment(body); !tiff.empty() && out.components == 0) out.exif = read_exif(tiff);
    } else if (marker == 0xEE) {
      if (out.components == 0 && body.size() >= 12 && begins_with(body, "Adobe", 6)) adobe = body[11];
    } else if (marker == 0xC4) {
      scans.read_codes(body);
    } else if (marker == 0xDB) {
      scans.read_quantisation(body);
    } else if (marker == 0xDD) {
      if (body.size() != 2) damaged_jpeg("a JPEG restart interval is impossible");
      scans.restart_interval = big_endian(body);
    } else if (marker == 0xDC) {
      if (body.size() != 2 || std::int64_t(big_endian(body)) != scans.h)
        damaged_jpeg("its JPEG picture has two heights");
    } else if (marker == 0xDA) {
      if (out.components == 0) damaged_jpeg("its JPEG image data comes before the frame header");
      if (!whole) return out;
      at = std::size_t(scans.run(body, file.subspan(at)) - file.data());
      scanned = true;
    } else if (!(marker >= 0xE0 && marker <= 0xEF) && marker != 0xFE) {
      throw BadImage(concat("it has a JPEG segment of an unknown kind, ", marker));
    }
  }
}

/// Decodes a file whose structure has been read whole. Throws BadImage, and bad_alloc.
inline DecodedImage decode_jpeg(std::vector<unsigned char> file, const JpegStructure& structure) {
  const ImageInfo info = as_stored(structure.info);
  if (structure.adobe_missing) {  // stb_image would read it as YCbCr
    constexpr std::array<unsigned char, 16> marker{0xFF, 0xEE, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100, 0, 0, 0, 0, 0};
    file.insert(file.begin() + 2, marker.begin(), marker.end());
  }
  // Four channels of a progressive file take twelve bytes a pixel, and their rows and columns are filled up to units of
  // 32.
  const std::size_t padded = (std::size_t(info.w) + 32) * (std::size_t(info.h) + 32);
  stb::Memory memory((std::size_t{1} << 20) + 20 * padded);
  int w = 0, h = 0, channels = 0;
  const unsigned char* const pixels =
      stb::strata_stbi_load_from_memory(file.data(), int(file.size()), &w, &h, &channels, info.channels);
  if (!pixels) {
    const char* const reason = stb::strata_stbi_failure_reason();
    throw BadImage(concat("it is damaged: ", reason ? reason : "stb_image gives no reason"));
  }
  if (w != info.w || h != info.h) throw BadImage("it is damaged: its header contradicts its image data");
  const std::size_t size = std::size_t(info.w) * std::size_t(info.h) * std::size_t(info.channels);
  return {info, info.w, std::vector<unsigned char>(pixels, pixels + size)};
}

}}}  // namespace strata::STRATA_ABI::detail
