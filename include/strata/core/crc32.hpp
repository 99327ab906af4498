// Checksums of 32 bits: CRC-32, that of PNG, zlib and zip (IEEE 802.3), at about the speed of memory where the
// processor multiplies polynomials, which is found out when the program runs; and CRC-32C (Castagnoli), that of
// checkpoints. Every changed byte and every burst of up to 32 bits is found.
//
//     std::uint32_t crc = st::crc32c(first_bytes);
//     crc = st::crc32c(more_bytes, crc);
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The CRC-32 of `bytes` after others whose CRC is `before`.
std::uint32_t crc32(std::span<const unsigned char> bytes, std::uint32_t before = 0);
std::uint32_t crc32(std::span<const std::byte> bytes, std::uint32_t before = 0);

/// The CRC-32C of `bytes` after others whose CRC is `before`.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);

}}  // namespace strata::STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/core/crc32_impl.hpp"
#endif
