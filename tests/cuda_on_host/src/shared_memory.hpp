// The shared memory of the block that runs: each array apart from the next, filled with NaN when the block begins.
#pragma once

#include <cstddef>
#include <cstdint>

#include "access.hpp"

namespace cuda_on_host {

inline constexpr std::size_t shared_arena_bytes = 1 << 20;
inline constexpr std::size_t static_shared_limit = 48 * 1024;
extern const std::uintptr_t shared_arena;

inline bool is_shared_address(std::uintptr_t address) { return address - shared_arena < shared_arena_bytes; }

void begin_block_shared_memory(std::size_t dynamic_bytes);
/// Throws Fault where something wrote between the arrays.
void end_block_shared_memory();
/// The array that holds these bytes. Faults where none does.
Region& shared_region(std::uintptr_t address, std::size_t bytes, Access access);
/// Static and dynamic, of the block that ran last.
std::size_t shared_bytes_in_use();

}  // namespace cuda_on_host
