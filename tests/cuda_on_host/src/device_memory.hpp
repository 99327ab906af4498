// The memory of the device: each allocation on pages of its own with a guard behind, at an address that is never used
// again, and inaccessible while nothing of the device runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "access.hpp"

namespace cuda_on_host {

inline constexpr std::size_t device_arena_bytes = std::size_t{256} << 30;
extern const std::uintptr_t device_arena;

inline bool is_device_address(std::uintptr_t address) { return address - device_arena < device_arena_bytes; }

/// Null where options().device_memory is used up.
void* allocate_device_memory(std::size_t bytes);
/// Throws Fault for what is not the beginning of a live allocation.
void free_device_memory(void* pointer);
bool is_live_allocation(const void* pointer);
std::size_t device_bytes_in_use();
std::size_t device_bytes_at_most();

/// Has faults of the processor in device memory explained, on a stack of its own, since a full stack is one of them. To
/// be called again and again: test frameworks put handlers of their own in place.
void watch_memory();

/// The allocation that holds these bytes. Faults where none does: with the allocation that is nearest.
Region& device_region(std::uintptr_t address, std::size_t bytes, Access access);
/// Says that the host uses a pointer of the device, and ends the program.
[[noreturn]] void host_access(std::uintptr_t address);

/// While one lives, device memory can be accessed.
class OpenDevice {
 public:
  OpenDevice();
  ~OpenDevice();
};

}  // namespace cuda_on_host
