// Decompression of gzip files (RFC 1952) of one member, as data sets are handed out.
//
//     const GzipMember member = read_gzip(file);                       // its size, before anything is decompressed
//     std::vector<unsigned char> bytes = gunzip(file, member, member.size);   // BadImage unless its checksum is right
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "strata/core/crc32.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/inflate.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

inline bool is_gzip(Bytes file) { return file.size() >= 2 && file[0] == 0x1F && file[1] == 0x8B; }

struct GzipMember {
  std::size_t begin = 0;   ///< where the deflate stream starts
  std::size_t end = 0;     ///< where the checksum stands, behind the stream
  std::size_t size = 0;    ///< bytes when decompressed
  std::uint32_t crc = 0;   ///< CRC-32 of them
};

/// Reads the header and the eight bytes at the file's end. Throws BadImage, also for a size that so few compressed
/// bytes cannot hold: nothing needs to be allocated for it.
inline GzipMember read_gzip(Bytes file) {
  const Bytes head = part(file, 0, 10, "the gzip header");
  if (!is_gzip(head) || head[2] != 8) throw BadImage("it is no gzip file");
  const unsigned flags = head[3];
  if ((flags & 0xE0u) != 0) throw BadImage("it is damaged: its gzip header has unknown flags");
  std::size_t at = 10;
  if ((flags & 0x04u) != 0) at += 2 + little_endian(part(file, at, 2, "the gzip header"));  // extra field
  for (const unsigned text : {0x08u, 0x10u})                                                // name, comment
    if ((flags & text) != 0) {
      while (part(file, at, 1, "the gzip header")[0] != 0) ++at;
      ++at;
    }
  if ((flags & 0x02u) != 0) {
    if (little_endian(part(file, at, 2, "the gzip header")) != (crc32(file.first(at)) & 0xFFFFu))
      throw BadImage("it is damaged: the checksum of its gzip header is wrong");
    at += 2;
  }
  part(file, at, 8, "the compressed data");
  const std::size_t end = file.size() - 8;
  GzipMember member{at, end, little_endian(file.subspan(end + 4, 4)), little_endian(file.subspan(end, 4))};
  if (member.size > std::size_t{1} << 31) throw BadImage("it holds more than 2 GiB");
  constexpr std::size_t most = 1032;  // a match of 258 bytes takes two bits at least
  if (member.size > (end - at) * most)
    throw BadImage(concat("it is damaged: it says that it holds ", member.size, " bytes, too many for ", end - at,
                          " compressed ones"));
  return member;
}

/// The first `count` bytes, or all of them and their checksum compared. inflate_padding zero bytes follow the file's
/// bytes behind what `file` spans. Throws BadImage.
inline std::vector<unsigned char> gunzip(Bytes file, const GzipMember& member, std::size_t count) {
  const bool whole = count >= member.size;
  const std::size_t size = whole ? member.size : count;
  std::vector<unsigned char> bytes(size + inflate_padding);
  const unsigned char* const end = file.data() + member.end;
  Inflater inflater(file.data() + member.begin, member.end - member.begin, bytes.data(), size, !whole);
  inflater.run_deflate();
  bytes.resize(size);
  if (!whole) return bytes;
  if (inflater.rest() != end)
    throw BadImage("it is damaged, or more than one file compressed: something follows its compressed data");
  if (crc32(bytes) != member.crc) throw BadImage("it is damaged: its checksum is wrong");
  return bytes;
}

}}}  // namespace strata::STRATA_ABI::detail
