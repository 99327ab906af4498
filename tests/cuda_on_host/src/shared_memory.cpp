#include "shared_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "block.hpp"

#if defined(CUDA_ON_HOST_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_on_host {
namespace {

constexpr std::size_t gap = 128;  // between arrays, and a multiple of all 32 banks
constexpr unsigned char gap_pattern = 0xA5;
constexpr int max_arrays = 64;

struct Array {
  Region region;
  std::size_t offset = 0;
  std::size_t cell_capacity = 0;
};
// The dynamic array is number 0. Arrays keep their cells from block to block: barrier intervals count up, so what an
// earlier block did is told from what this one did.
Array arrays[max_arrays];
int array_count = 0;
std::size_t end_of_arrays = 0, static_bytes = 0, dynamic_bytes_now = 0;

std::uintptr_t make_arena() {
  void* memory = mmap(nullptr, shared_arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("cuda_on_host: the arena of shared memory");
    std::abort();
  }
  return reinterpret_cast<std::uintptr_t>(memory);
}

unsigned char* arena() { return reinterpret_cast<unsigned char*>(shared_arena); }

void* add_array(const char* name, std::size_t bytes, std::size_t element_bytes) {
  if (array_count == max_arrays) fault("more than %d shared arrays", max_arrays);
  Array& array = arrays[array_count++];
  array.offset = end_of_arrays;
  const std::size_t taken = (bytes + gap - 1) / gap * gap + gap;
  if (end_of_arrays + taken > shared_arena_bytes) fault("shared memory is full");
  end_of_arrays += taken;
#if defined(CUDA_ON_HOST_ASAN)
  __asan_unpoison_memory_region(arena() + array.offset, bytes);
#endif
  std::memset(arena() + array.offset, 0xFF, bytes);
#if !defined(CUDA_ON_HOST_ASAN)
  std::memset(arena() + array.offset + bytes, gap_pattern, taken - bytes);
#endif
  Region& region = array.region;
  unsigned shift = element_bytes % 4 == 0 ? 2 : element_bytes % 2 == 0 ? 1 : 0;
  if (region.cells != nullptr) shift = std::min(shift, region.shift);  // cells once split stay so
  array.cell_capacity = std::max(array.cell_capacity, region.cells != nullptr ? region.cell_count() : 0);
  const std::size_t count = (bytes + (std::size_t{1} << shift) - 1) >> shift;
  Cell* cells = region.cells;
  if (instrumentation_seen && array.cell_capacity < count) {
    free_cells(cells, array.cell_capacity);
    cells = allocate_cells(count);
    array.cell_capacity = count;
  }
  region = {shared_arena + array.offset, bytes, shift, cells, true, name};
  return arena() + array.offset;
}

}  // namespace

const std::uintptr_t shared_arena = make_arena();

void begin_block_shared_memory(std::size_t dynamic_bytes) {
  array_count = 0;
  end_of_arrays = gap;
  static_bytes = 0;
  dynamic_bytes_now = dynamic_bytes;
#if defined(CUDA_ON_HOST_ASAN)
  __asan_poison_memory_region(arena(), shared_arena_bytes);
#else
  std::memset(arena(), gap_pattern, gap);
#endif
  add_array("dynamic shared memory", dynamic_bytes, 4);
}

void end_block_shared_memory() {
#if !defined(CUDA_ON_HOST_ASAN)
  for (int i = 0; i < array_count; ++i) {
    const Region& region = arrays[i].region;
    const std::size_t end = i + 1 < array_count ? arrays[i + 1].offset : end_of_arrays;
    for (std::size_t k = arrays[i].offset + region.bytes; k < end; ++k) {
      if (arena()[k] != gap_pattern) {
        throw Fault(where() + text("the block wrote %zu bytes past the end of the shared array %s of %zu bytes",
                                   k - arrays[i].offset - region.bytes + 1, region.name, region.bytes));
      }
    }
  }
#endif
}

void* place_shared_array(SharedArray& array, std::size_t bytes, std::size_t element_bytes) {
  if (array.block != block.serial) {
    array.block = block.serial;
    static_bytes += bytes;
    if (static_bytes > static_shared_limit) {
      fault("its shared arrays take more than 48 KiB: %zu bytes with %s", static_bytes, array.name);
    }
    if (static_bytes + dynamic_bytes_now > options().shared_optin) {
      fault("static and dynamic shared memory together take %zu bytes; a block has at most %zu",
            static_bytes + dynamic_bytes_now, options().shared_optin);
    }
    array.address = add_array(array.name, bytes, element_bytes);
  }
  return array.address;
}

void* dynamic_shared_memory(const char* name) {
  if (dynamic_bytes_now == 0) fault("it uses %s, and the launch gave no dynamic shared memory", name);
  arrays[0].region.name = name;
  return arena() + arrays[0].offset;
}

Region& shared_region(std::uintptr_t address, std::size_t bytes, Access access) {
  const Array* before = nullptr;
  for (int i = 0; i < array_count; ++i) {
    Region& region = arrays[i].region;
    if (address - region.begin < region.bytes && bytes <= region.bytes - (address - region.begin)) return region;
    if (region.begin <= address) before = &arrays[i];
  }
  const Region& region = before ? before->region : arrays[0].region;
  fault("out of bounds: it %s %zu bytes at byte %td of the shared array %s, which has %zu bytes",
        access == Access::read ? "reads" : "writes", bytes, std::ptrdiff_t(address - region.begin), region.name,
        region.bytes);
}

std::size_t shared_bytes_in_use() { return static_bytes + dynamic_bytes_now; }

}  // namespace cuda_on_host
