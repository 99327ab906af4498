// The checksum of PNG and zlib: CRC-32, polynomial 0xEDB88320 (bits reflected), at about the speed of memory where the
// processor multiplies polynomials, which is found out when the program runs.
//
//     std::uint32_t crc = crc32(bytes);
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <wmmintrin.h>
#endif

#include "strata/data/detail/image_bytes.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// The register of the checksum after some bytes, from the one before them. Eight bytes at a time: tables[k] holds the
/// checksums of a byte that k zero bytes follow.
inline std::uint32_t crc32_by_tables(std::uint32_t crc, Bytes bytes) {
  static constexpr auto tables = [] {
    std::array<std::array<std::uint32_t, 256>, 8> entries{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      std::uint32_t entry = i;
      for (int bit = 0; bit < 8; ++bit) entry = (entry >> 1) ^ ((entry & 1u) ? 0xEDB88320u : 0u);
      entries[0][i] = entry;
    }
    for (std::size_t k = 1; k < 8; ++k)
      for (std::size_t i = 0; i < 256; ++i)
        entries[k][i] = (entries[k - 1][i] >> 8) ^ entries[0][entries[k - 1][i] & 0xFFu];
    return entries;
  }();
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    const std::uint32_t low = crc ^ little_endian(bytes.subspan(i, 4));
    crc = tables[7][low & 0xFFu] ^ tables[6][low >> 8 & 0xFFu] ^ tables[5][low >> 16 & 0xFFu] ^ tables[4][low >> 24] ^
          tables[3][bytes[i + 4]] ^ tables[2][bytes[i + 5]] ^ tables[1][bytes[i + 6]] ^ tables[0][bytes[i + 7]];
  }
  for (; i < bytes.size(); ++i) crc = tables[0][(crc ^ bytes[i]) & 0xFFu] ^ (crc >> 8);
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

/// The same for 64 bytes or more. Blocks of 128 bits are multiplied by a power of x and added to the block so many bits
/// later, which leaves the remainder as it is, until one block is left. Gopal et al., "Fast CRC computation for generic
/// polynomials using PCLMULQDQ instruction", Intel 2009.
[[gnu::target("pclmul")]] inline std::uint32_t crc32_by_products(std::uint32_t crc, Bytes bytes) {
  constexpr std::size_t step = 4 * sizeof(__m128i);
  constexpr std::int64_t far_low = crc32_power(512 + 32), far_high = crc32_power(512 - 32);
  constexpr std::int64_t near_low = crc32_power(128 + 32), near_high = crc32_power(128 - 32);
  const auto block = [&](std::size_t at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes.data() + at)); };
  __m128i sums[4];
  for (std::size_t i = 0; i < 4; ++i) sums[i] = block(i * sizeof(__m128i));
  sums[0] = _mm_xor_si128(sums[0], _mm_cvtsi32_si128(int(crc)));
  const __m128i far_fold = _mm_set_epi64x(far_high, far_low);
  std::size_t at = step;
  for (; at + step <= bytes.size(); at += step)
    for (std::size_t i = 0; i < 4; ++i)
      sums[i] = _mm_xor_si128(block(at + i * sizeof(__m128i)), _mm_xor_si128(_mm_clmulepi64_si128(sums[i], far_fold, 0x00),
                                                                            _mm_clmulepi64_si128(sums[i], far_fold, 0x11)));
  const __m128i near_fold = _mm_set_epi64x(near_high, near_low);
  for (std::size_t i = 1; i < 4; ++i)
    sums[i] = _mm_xor_si128(sums[i], _mm_xor_si128(_mm_clmulepi64_si128(sums[i - 1], near_fold, 0x00),
                                                   _mm_clmulepi64_si128(sums[i - 1], near_fold, 0x11)));
  std::array<unsigned char, sizeof(__m128i)> last;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(last.data()), sums[3]);
  return crc32_by_tables(crc32_by_tables(0, last), bytes.subspan(at));
}

#endif

/// crc32(b, crc32(a)) is that of a and b together.
inline std::uint32_t crc32(Bytes bytes, std::uint32_t before = 0) {
#if defined(__x86_64__)
  if (bytes.size() >= 64 && __builtin_cpu_supports("pclmul")) return ~crc32_by_products(~before, bytes);
#endif
  return ~crc32_by_tables(~before, bytes);
}

}}}  // namespace strata::STRATA_ABI::detail
