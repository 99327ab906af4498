#include "access.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>

#include "block.hpp"
#include "counting.hpp"
#include "device_memory.hpp"
#include "shared_memory.hpp"

// Where the program's own code and constants lie: the linker's.
extern "C" {
extern const char __executable_start;
extern const char _end;
}

namespace cuda_on_host {

bool instrumentation_seen = false;
bool instrumented() { return instrumentation_seen; }

namespace {

// Whether what another thread of this block did, at that barrier interval and warp serial, comes before the current
// thread.
bool ordered_before(unsigned other, std::uint32_t interval, std::uint32_t serial) {
  if (interval != block.interval) return true;
  const Thread& thread = *block.current;
  if (other / 32 != thread.warp) return false;
  return other % 32 == thread.lane || block.warps[thread.warp].seen[thread.lane][other % 32] > serial;
}

std::string element(const Region& region, std::uintptr_t address) {
  return text("%s+%zu bytes", region.name, std::size_t(address - region.begin));
}

[[noreturn]] void race(const Region& region, std::uintptr_t address, const char* now, const char* before, int other) {
  stop([&] {
    const std::string who =
        other < 0 ? std::string("another block of the launch") : text("thread %d, with no barrier between", other);
    return text("race on %s memory, %s: it %s what %s %s", region.shared ? "shared" : "device",
                element(region, address).c_str(), now, who.c_str(), before);
  });
}

void check_cell(const Region& region, std::uintptr_t address, Cell& cell, Access access) {
  const Thread& thread = *block.current;
  WarpOrder& order = block.warps[thread.warp];
  const bool in_block = cell.write_interval >= block.first_interval;
  const bool in_launch = region.shared ? in_block : cell.write_interval >= block.launch_interval;
  if (access != Access::write && (region.shared ? !in_block : cell.write_interval == 0)) {
    stop([&] {
      return text("it reads %s memory that nobody has written: %s", region.shared ? "shared" : "device",
                  element(region, address).c_str());
    });
  }
  const bool both_atomic = access == Access::atomic && cell.atomic != 0;
  if (in_launch && !both_atomic) {
    if (!in_block) race(region, address, access == Access::read ? "reads" : "writes", "wrote", -1);
    if (cell.writer != thread.number && !ordered_before(cell.writer, cell.write_interval, cell.write_serial)) {
      race(region, address, access == Access::read ? "reads" : "writes", "wrote", cell.writer);
    }
  }
  const std::uint32_t warp_bit = 1u << thread.warp, lane_bit = 1u << thread.lane;
  const bool read_by_earlier_block =
      cell.read_interval >= block.launch_interval && cell.read_interval < block.first_interval;
  if (access == Access::read) {
    if (read_by_earlier_block) cell.read_launch = block.launch_interval;
    if (cell.read_interval != block.interval) {
      cell.read_interval = block.interval;
      cell.read_warps = cell.read_lanes = 0;
    }
    if ((cell.read_warps & warp_bit) == 0 || cell.read_warps != warp_bit) cell.read_lanes = 0;
    cell.read_warps |= warp_bit;
    cell.read_lanes |= lane_bit;
    cell.read_serial = order.serial;
    return;
  }
  if (!region.shared && (read_by_earlier_block || cell.read_launch == block.launch_interval)) {
    race(region, address, "writes", "read", -1);
  }
  if (cell.read_interval == block.interval) {
    const std::uint32_t other_warps = cell.read_warps & ~warp_bit;
    if (other_warps != 0) race(region, address, "writes", "read", 32 * std::countr_zero(other_warps));
    if (cell.read_warps == warp_bit) {
      for (std::uint32_t rest = cell.read_lanes & ~lane_bit; rest != 0; rest &= rest - 1) {
        const unsigned reader = thread.warp * 32 + unsigned(std::countr_zero(rest));
        if (!ordered_before(reader, cell.read_interval, cell.read_serial))
          race(region, address, "writes", "read", int(reader));
      }
    }
  }
  cell.write_interval = block.interval;
  cell.write_serial = order.serial;
  cell.writer = std::uint16_t(thread.number);
  cell.atomic = access == Access::atomic;
}

// Memory that is neither of the device nor shared: a kernel may use its own stack, its parameters and constants.
void check_other(std::uintptr_t address, std::size_t bytes) {
  const Thread& thread = *block.current;
  if (thread.stack.overflowed_at(address)) fault("the stack of a thread is full (%zu KiB)", stack_bytes / 1024);
  const auto within = [&](const void* begin, std::size_t size) {
    return address - reinterpret_cast<std::uintptr_t>(begin) < size;
  };
  if (within(block.launch->arguments, block.launch->tuple_bytes)) return;
  if (within(&__executable_start, std::size_t(&_end - &__executable_start))) return;
  fault("it accesses %zu bytes of the host's memory at %p", bytes, reinterpret_cast<void*>(address));
}

}  // namespace

Cell* allocate_cells(std::size_t count) {
  void* memory = mmap(nullptr, std::max<std::size_t>(count, 1) * sizeof(Cell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<Cell*>(memory);  // zeros, and a page takes memory once it is used
}
void free_cells(Cell* cells, std::size_t count) {
  if (cells != nullptr) munmap(cells, std::max<std::size_t>(count, 1) * sizeof(Cell));
}

void split_cells(Region& region, unsigned shift) {
  Region finer = region;
  finer.shift = shift;
  finer.cells = allocate_cells(finer.cell_count());
  for (std::size_t i = 0; i < finer.cell_count(); ++i) finer.cells[i] = region.cells[i >> (region.shift - shift)];
  free_cells(region.cells, region.cell_count());
  region = finer;
}

void mark_written(Region& region, std::uintptr_t address, std::size_t bytes) {
  if (region.cells == nullptr || bytes == 0) return;
  const std::size_t first = (address - region.begin) >> region.shift,
                    last = (address + bytes - 1 - region.begin) >> region.shift;
  for (std::size_t i = first; i <= last; ++i) region.cells[i].write_interval = 1;
}

void mark_copied(Region& to, std::uintptr_t to_address, const Region& from, std::uintptr_t from_address,
                 std::size_t bytes) {
  if (to.cells == nullptr || from.cells == nullptr) return;
  for (std::size_t i = 0; i < bytes; i += std::size_t{1} << std::min(to.shift, from.shift)) {
    const Cell& source = from.cells[(from_address + i - from.begin) >> from.shift];
    to.cells[(to_address + i - to.begin) >> to.shift].write_interval = source.write_interval != 0 ? 1 : 0;
  }
}

void check_region(Region& region, std::uintptr_t address, std::size_t bytes, Access access) {
  if (region.cells == nullptr) return;
  const std::size_t unit = std::size_t{1} << region.shift;
  if (bytes < unit || (address - region.begin) % unit != 0) {
    split_cells(region, bytes >= 2 && address % 2 == 0 ? 1u : 0u);
  }
  const std::size_t first = (address - region.begin) >> region.shift,
                    last = (address + bytes - 1 - region.begin) >> region.shift;
  for (std::size_t i = first; i <= last; ++i) {
    check_cell(region, region.begin + (i << region.shift), region.cells[i], access);
  }
}

void on_access(std::uintptr_t address, std::size_t bytes, Access access, const void* instruction) {
  // Other threads of the program may run instrumented code of the host meanwhile: only the fiber's own stack tells.
  const Thread* thread = block.current;
  if (thread == nullptr || !thread->stack.holds(reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0)))) {
    if (is_device_address(address)) host_access(address);
    return;
  }
  if (thread->stack.holds(address)) return;
  const bool shared = is_shared_address(address), device = !shared && is_device_address(address);
  if (!options().check_accesses && !options().count) return;
  if (!shared && !device) {
    check_other(address, bytes);
    return;
  }
  if (bytes <= 16 && std::has_single_bit(bytes) && address % bytes != 0) {
    fault("misaligned access of %zu bytes to %s memory at %p", bytes, shared ? "shared" : "device",
          reinterpret_cast<void*>(address));
  }
  Region& region = shared ? shared_region(address, bytes, access) : device_region(address, bytes, access);
  if (options().check_accesses) check_region(region, address, bytes, access);
  if (options().count) count_access(address, bytes, access, shared, instruction);
}

void note_access(const volatile void* address, std::size_t bytes, Access access, const void* instruction) {
  const auto place = reinterpret_cast<std::uintptr_t>(address);
  if (bytes <= 16 && std::has_single_bit(bytes) && place % bytes != 0 && block.current != nullptr) {
    fault("misaligned access of %zu bytes at %p", bytes, reinterpret_cast<void*>(place));
  }
  if (instrumentation_seen) on_access(place, bytes, access, instruction);
}

}  // namespace cuda_on_host
