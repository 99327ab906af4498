// Definitions of core/crc32.hpp.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#if defined(__x86_64__)
#include <wmmintrin.h>
#endif

#include "strata/core/crc32.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

using CrcBytes = std::span<const unsigned char>;
using CrcTables = std::array<std::array<std::uint32_t, 256>, 8>;

// tables[k][b]: the remainder of byte b followed by k zero bytes, so that eight bytes are taken at a time (Kounavis and
// Berry, "Novel table lookup-based algorithms for high-performance CRC generation", 2008). Polynomials have their bits
// reflected.
constexpr CrcTables make_crc_tables(std::uint32_t polynomial) {
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
inline constexpr CrcTables crc32_tables = make_crc_tables(0xEDB88320u), crc32c_tables = make_crc_tables(0x82F63B78u);

/// The register of a checksum after some bytes, from the one before them.
inline std::uint32_t crc_by_tables(const CrcTables& tables, std::uint32_t crc, CrcBytes bytes) {
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word = 0;
    for (std::size_t k = 0; k < 8; ++k) word |= std::uint64_t{bytes[i + k]} << (8 * k);
    word ^= crc;
    crc = 0;
    for (std::size_t k = 0; k < 8; ++k) crc ^= tables[7 - k][(word >> (8 * k)) & 255u];
  }
  for (; i < bytes.size(); ++i) crc = (crc >> 8) ^ tables[0][(crc ^ bytes[i]) & 255u];
  return crc;
}

#if defined(__x86_64__)

/// x^power modulo the checksum's polynomial, bits reflected, times x: what a half of 64 bits is multiplied by to stand
/// `power` + 31 bits later in the message.
constexpr std::int64_t crc32_power(int power) {
  std::uint64_t value = 0x80000000u;  // 1
  for (int i = 0; i < power; ++i) value = (value >> 1) ^ ((value & 1u) ? 0xEDB88320u : 0u);
  return std::int64_t(value << 1);
}

/// The register of CRC-32 after 64 bytes or more. Blocks of 128 bits are multiplied by a power of x and added to the
/// block so many bits later, which leaves the remainder as it is, until one block is left. Gopal et al., "Fast CRC
/// computation for generic polynomials using PCLMULQDQ instruction", Intel 2009.
[[gnu::target("pclmul")]] inline std::uint32_t crc32_by_products(std::uint32_t crc, CrcBytes bytes) {
  constexpr std::size_t step = 4 * sizeof(__m128i);
  constexpr std::int64_t far_low = crc32_power(512 + 32), far_high = crc32_power(512 - 32);
  constexpr std::int64_t near_low = crc32_power(128 + 32), near_high = crc32_power(128 - 32);
  const auto block = [&](std::size_t at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes.data() + at));
  };
  __m128i sums[4];
  for (std::size_t i = 0; i < 4; ++i) sums[i] = block(i * sizeof(__m128i));
  sums[0] = _mm_xor_si128(sums[0], _mm_cvtsi32_si128(int(crc)));
  const __m128i far_fold = _mm_set_epi64x(far_high, far_low);
  std::size_t at = step;
  for (; at + step <= bytes.size(); at += step)
    for (std::size_t i = 0; i < 4; ++i)
      sums[i] = _mm_xor_si128(
          block(at + i * sizeof(__m128i)),
          _mm_xor_si128(_mm_clmulepi64_si128(sums[i], far_fold, 0x00), _mm_clmulepi64_si128(sums[i], far_fold, 0x11)));
  const __m128i near_fold = _mm_set_epi64x(near_high, near_low);
  for (std::size_t i = 1; i < 4; ++i)
    sums[i] = _mm_xor_si128(sums[i], _mm_xor_si128(_mm_clmulepi64_si128(sums[i - 1], near_fold, 0x00),
                                                   _mm_clmulepi64_si128(sums[i - 1], near_fold, 0x11)));
  std::array<unsigned char, sizeof(__m128i)> last;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(last.data()), sums[3]);
  return crc_by_tables(crc32_tables, crc_by_tables(crc32_tables, 0, last), bytes.subspan(at));
}

#endif

inline CrcBytes crc_bytes(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()};
}

}  // namespace detail

STRATA_INLINE std::uint32_t crc32(std::span<const unsigned char> bytes, std::uint32_t before) {
#if defined(__x86_64__)
  if (bytes.size() >= 64 && __builtin_cpu_supports("pclmul")) return ~detail::crc32_by_products(~before, bytes);
#endif
  return ~detail::crc_by_tables(detail::crc32_tables, ~before, bytes);
}
STRATA_INLINE std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t before) {
  return crc32(detail::crc_bytes(bytes), before);
}

STRATA_INLINE std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before) {
  return ~detail::crc_by_tables(detail::crc32c_tables, ~before, detail::crc_bytes(bytes));
}

}}  // namespace strata::STRATA_ABI
