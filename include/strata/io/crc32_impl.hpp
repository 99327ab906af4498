// Definitions of io/crc32.hpp.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "strata/io/crc32.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

using CrcTables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: the remainder of byte b followed by k zero bytes, so that eight bytes are taken at a time (Kounavis and
// Berry, "Novel table lookup-based algorithms for high-performance CRC generation", 2008).
inline CrcTables make_crc_tables(std::uint32_t polynomial) {
  CrcTables made{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? polynomial : 0u);
    made[0][byte] = crc;
  }
  for (std::size_t byte = 0; byte < 256; ++byte)
    for (std::size_t k = 1; k < 8; ++k) made[k][byte] = (made[k - 1][byte] >> 8) ^ made[0][made[k - 1][byte] & 255u];
  return made;
}

inline std::uint32_t crc_by_tables(const CrcTables& tables, std::span<const std::byte> bytes, std::uint32_t before) {
  std::uint32_t crc = ~before;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    word ^= crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= tables[7 - k][(word >> (8 * k)) & 255u];
  }
  for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ tables[0][(crc ^ std::uint32_t(bytes[i])) & 255u];
  return ~crc;
}

}  // namespace detail

STRATA_INLINE std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before) {
  static const detail::CrcTables tables = detail::make_crc_tables(0x82F63B78u);
  return detail::crc_by_tables(tables, bytes, before);
}

STRATA_INLINE std::uint32_t crc32_ieee(std::span<const std::byte> bytes, std::uint32_t before) {
  static const detail::CrcTables tables = detail::make_crc_tables(0xEDB88320u);
  return detail::crc_by_tables(tables, bytes, before);
}

}  // namespace strata::inline STRATA_ABI
