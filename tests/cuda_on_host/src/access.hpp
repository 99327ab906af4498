// The checks of single accesses to memory: bounds, alignment, initialisation, races. The compiler's instrumentation of
// the kernels calls them (instrumentation.cpp), and the few functions of the shim that read or write for a kernel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_on_host.hpp"

namespace cuda_on_host {

/// Who last wrote and who has read since, for one granule of memory.
struct Cell {
  std::uint32_t write_interval = 0;  ///< barrier interval; they count up over all blocks and launches. 0: never written
  std::uint32_t write_serial = 0;    ///< of the writer's warp then
  std::uint16_t writer = 0;          ///< its number in the block
  std::uint16_t atomic = 0;          ///< whether the last write was atomic
  std::uint32_t read_interval = 0;
  std::uint32_t read_warps = 0;   ///< which warps have read in this interval,
  std::uint32_t read_lanes = 0;   ///< which lanes of the last of them,
  std::uint32_t read_serial = 0;  ///< and when, at the latest
  std::uint32_t read_launch = 0;  ///< the last launch in which a block before the latest reader's has read
};

/// Memory with a shadow: one device allocation, or one array in shared memory.
struct Region {
  std::uintptr_t begin = 0;
  std::size_t bytes = 0;
  unsigned shift = 2;  ///< a cell stands for 1 << shift bytes
  Cell* cells = nullptr;
  bool shared = false;
  const char* name = "";
  std::size_t cell_count() const { return (bytes + (std::size_t{1} << shift) - 1) >> shift; }
};

/// The whole check of one access that lies in a region.
void check_region(Region& region, std::uintptr_t address, std::size_t bytes, Access access);
/// Marks bytes as written by the host.
void mark_written(Region& region, std::uintptr_t address, std::size_t bytes);
/// Marks bytes as initialised where the source is.
void mark_copied(Region& to, std::uintptr_t to_address, const Region& from, std::uintptr_t from_address,
                 std::size_t bytes);
/// Gives a region cells for units as small as 1 << shift bytes.
void split_cells(Region& region, unsigned shift);
Cell* allocate_cells(std::size_t count);
void free_cells(Cell* cells, std::size_t count);

/// One access by the current thread, or by the host if there is none.
void on_access(std::uintptr_t address, std::size_t bytes, Access access, const void* instruction);

extern bool instrumentation_seen;

}  // namespace cuda_on_host
