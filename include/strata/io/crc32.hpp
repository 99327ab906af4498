// Checksums of 32 bits: CRC-32C (Castagnoli), that of checkpoints, and the CRC-32 of zip archives. Every changed byte
// and every burst of up to 32 bits is found.
//
//     std::uint32_t crc = st::crc32c(first_bytes);
//     crc = st::crc32c(more_bytes, crc);
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// The CRC-32C of `bytes` after others whose CRC is `before`.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);

/// The same with the polynomial of IEEE 802.3, which zip archives use.
std::uint32_t crc32_ieee(std::span<const std::byte> bytes, std::uint32_t before = 0);

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/crc32_impl.hpp"
#endif
