// The container of JPEG files (ITU-T T.81): reads the frame header and checks that the file goes on to its end marker.
// stb_image fills what is missing of a truncated file with grey and says nothing.
#pragma once

#include "strata/data/detail/image_bytes.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Checks the counts of a segment of Huffman tables: stb_image writes past its arrays when they exceed 256.
inline void check_huffman_tables(Bytes body) {
  while (!body.empty()) {
    std::size_t codes = 0;
    if (body.size() >= 17)
      for (const unsigned char count : body.subspan(1, 16)) codes += count;
    if (body.size() < 17 || codes > 256 || codes > body.size() - 17)
      throw BadImage("it is damaged: a JPEG Huffman table is impossible");
    body = body.subspan(17 + codes);
  }
}

/// Walks the markers up to the frame header, or, when `whole`, to the end of the image.
inline ImageInfo read_jpeg_structure(Bytes file, bool whole) {
  ImageInfo info;
  info.format = ImageFormat::jpeg;
  bool scan = false;
  std::size_t at = 2;
  while (true) {
    // The next marker: FF and a byte that is neither stuffing (00), padding (FF) nor a restart marker inside a scan.
    int marker = 0;
    while (marker == 0) {
      const Bytes two = part(file, at, 2, scan ? "the JPEG image data" : "the JPEG header");
      const int byte = two[1];
      if (two[0] != 0xFF || byte == 0xFF) {
        ++at;
      } else if (byte == 0 || (byte >= 0xD0 && byte <= 0xD7) || byte == 0x01) {
        at += 2;
      } else {
        marker = byte;
        at += 2;
      }
    }
    if (marker == 0xD9) {
      if (info.channels == 0 || !scan) throw BadImage("it is a JPEG file without an image");
      return info;
    }
    const std::size_t length = big_endian(part(file, at, 2, "a JPEG segment"));
    if (length < 2) throw BadImage("it is damaged: a JPEG segment is shorter than its own length");
    const Bytes body = part(file, at, length, "a JPEG segment").subspan(2);
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame) {
      if (body.size() < 6) throw BadImage("it is damaged: its JPEG frame header is too short");
      if (marker > 0xC2)
        throw BadImage("it is a lossless, hierarchical or arithmetic-coded JPEG, which is not supported");
      if (body[0] != 8) throw BadImage(concat("it is a JPEG of ", int(body[0]), " bits; only 8 are supported"));
      info.h = big_endian(body.subspan(1, 2));
      info.w = big_endian(body.subspan(3, 2));
      info.channels = body[5] >= 3 ? 3 : 1;  // CMYK is read as RGB
      info.decoding_copies = marker == 0xC2 ? 4 : 2;  // planes, and the coefficients of a progressive one
      if (!whole) return info;
    }
    if (marker == 0xC4) check_huffman_tables(body);
    if (marker == 0xDA) scan = true;
    at += length;
  }
}

}  // namespace strata::inline STRATA_ABI::detail
