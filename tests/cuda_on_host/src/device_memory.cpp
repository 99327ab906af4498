#include "device_memory.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "block.hpp"

#if defined(CUDA_ON_HOST_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_on_host {
namespace {

constexpr std::size_t page = 4096;
constexpr unsigned char slack_pattern = 0xA7;

struct Allocation {
  Region region;
  std::uintptr_t pages = 0;
  std::size_t page_bytes = 0;
  std::size_t id = 0;
};

using Allocations = std::map<std::uintptr_t, Allocation>;  // by first page
Allocations& live() {
  static auto* map = new Allocations;
  return *map;
}
Allocations& freed() {  // to say what a pointer was
  static auto* map = new Allocations;
  return *map;
}
std::uintptr_t next_page = 0;
std::size_t bytes_in_use = 0, bytes_at_most = 0, next_id = 0;
int open_depth = 0;
Region* region_cache[64] = {};  // by page

std::uintptr_t reserve() {
  void* memory = mmap(nullptr, device_arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("cuda_on_host: the address range of device memory");
    std::abort();
  }
  return reinterpret_cast<std::uintptr_t>(memory);
}

void protect(const Allocation& allocation, int protection) {
  if (mprotect(reinterpret_cast<void*>(allocation.pages), allocation.page_bytes, protection) != 0) {
    std::perror("cuda_on_host: mprotect");
    std::abort();
  }
}

Allocation* nearest(Allocations& map, std::uintptr_t address) {
  const auto next = map.upper_bound(address);
  return next == map.begin() ? nullptr : &std::prev(next)->second;
}

std::string describe(std::uintptr_t address) {
  const Allocation* allocation = nearest(live(), address);
  const Allocation* other = nearest(freed(), address);
  if (allocation == nullptr || (other != nullptr && other->pages > allocation->pages)) allocation = other;
  if (allocation == nullptr) return "an address that no allocation ever held";
  const auto offset = std::ptrdiff_t(address - allocation->region.begin);
  return text("byte %td of the %sdevice allocation number %zu of %zu bytes", offset,
              allocation == other ? "freed " : "", allocation->id, allocation->region.bytes);
}

// A fault of the processor: an access by a kernel that the instrumentation has not seen, or one by the host.
struct sigaction previous_handler;
void on_segmentation_fault(int signal, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  if (is_device_address(address)) {
    if (block.current == nullptr) host_access(address);
    std::fprintf(stderr, "cuda_on_host: %sout of bounds: it accesses %s\n", where().c_str(), describe(address).c_str());
    _exit(86);
  }
  if (block.current != nullptr && block.current->stack.overflowed_at(address)) {
    std::fprintf(stderr, "cuda_on_host: %sthe stack of a thread is full (%zu KiB)\n", where().c_str(),
                 stack_bytes / 1024);
    _exit(86);
  }
  if (block.current != nullptr) {
    std::fprintf(stderr, "cuda_on_host: %sit accesses %p, which is no memory of the device\n", where().c_str(),
                 info->si_addr);
  }
  if (previous_handler.sa_flags & SA_SIGINFO) return previous_handler.sa_sigaction(signal, info, context);
  ::signal(SIGSEGV, SIG_DFL);
}

}  // namespace

const std::uintptr_t device_arena = reserve();

void watch_memory() {
  struct sigaction current {};
  sigaction(SIGSEGV, nullptr, &current);
  if ((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_segmentation_fault) return;
  static char stack[64 * 1024];
  stack_t alternative{};
  alternative.ss_sp = stack;
  alternative.ss_size = sizeof stack;
  sigaltstack(&alternative, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_segmentation_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &previous_handler);
}

void* allocate_device_memory(std::size_t bytes) {
  watch_memory();
  if (bytes > options().device_memory - std::min(options().device_memory, bytes_in_use)) return nullptr;
  if (next_page == 0) next_page = device_arena + page;
  Allocation allocation;
  allocation.pages = next_page;
  allocation.page_bytes = std::max(page, (bytes + page - 1) / page * page);
  if (allocation.pages + allocation.page_bytes + page > device_arena + device_arena_bytes) {
    throw Fault("cuda_on_host: the program has allocated more device memory than there are addresses for");
  }
  next_page += allocation.page_bytes + page;
  allocation.id = ++next_id;
  // Instrumented code is checked to the byte, and gets CUDA's alignment of 256. Otherwise the end of the allocation is
  // the end of its pages, as near as the alignment of 16 bytes that a vector access needs allows.
  const std::size_t slack = instrumentation_seen ? 0 : (allocation.page_bytes - bytes) / 16 * 16;
  Region& region = allocation.region;
  region = {allocation.pages + slack, bytes, 2, nullptr, false, "the allocation"};
  if (instrumentation_seen) region.cells = allocate_cells(region.cell_count());
  protect(allocation, PROT_READ | PROT_WRITE);
  auto* data = reinterpret_cast<unsigned char*>(region.begin);
  std::memset(data, 0xFF, bytes);
#if defined(CUDA_ON_HOST_ASAN)
  __asan_poison_memory_region(data + bytes, allocation.pages + allocation.page_bytes - region.begin - bytes);
#else
  std::memset(data + bytes, slack_pattern, allocation.pages + allocation.page_bytes - region.begin - bytes);
#endif
  if (open_depth == 0) protect(allocation, PROT_NONE);
  bytes_in_use += bytes;
  bytes_at_most = std::max(bytes_at_most, bytes_in_use);
  live().emplace(allocation.pages, allocation);
  return data;
}

bool is_live_allocation(const void* pointer) {
  const Allocation* allocation = nearest(live(), reinterpret_cast<std::uintptr_t>(pointer));
  return allocation != nullptr && allocation->region.begin == reinterpret_cast<std::uintptr_t>(pointer);
}

void free_device_memory(void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (!is_live_allocation(pointer)) {
    throw Fault("free of " + text("%p, ", pointer) +
                (is_device_address(address) ? describe(address) : "which is not of the device"));
  }
  Allocation& allocation = *nearest(live(), address);
  protect(allocation, PROT_READ | PROT_WRITE);
#if defined(CUDA_ON_HOST_ASAN)
  __asan_unpoison_memory_region(reinterpret_cast<void*>(allocation.pages), allocation.page_bytes);
#else
  const auto* data = reinterpret_cast<unsigned char*>(allocation.region.begin);
  const std::size_t end = allocation.pages + allocation.page_bytes - allocation.region.begin;
  for (std::size_t i = allocation.region.bytes; i < end; ++i) {
    if (data[i] != slack_pattern) throw Fault("out of bounds: something wrote " + describe(address + i));
  }
#endif
  madvise(reinterpret_cast<void*>(allocation.pages), allocation.page_bytes, MADV_DONTNEED);
  protect(allocation, PROT_NONE);
  free_cells(allocation.region.cells, allocation.region.cell_count());
  allocation.region.cells = nullptr;
  bytes_in_use -= allocation.region.bytes;
  std::ranges::fill(region_cache, nullptr);
  const std::uintptr_t pages = allocation.pages;
  freed().emplace(pages, allocation);
  live().erase(pages);
}

std::size_t device_bytes_in_use() { return bytes_in_use; }
std::size_t device_bytes_at_most() { return bytes_at_most; }
std::size_t live_allocations() { return live().size(); }
std::size_t live_device_bytes() { return bytes_in_use; }

Region& device_region(std::uintptr_t address, std::size_t bytes, Access access) {
  const auto holds = [&](const Region& region) {
    return address - region.begin < region.bytes && bytes <= region.bytes - (address - region.begin);
  };
  Region*& cached = region_cache[(address / page) % std::size(region_cache)];
  if (cached != nullptr && holds(*cached)) return *cached;
  Allocation* allocation = nearest(live(), address);
  if (allocation == nullptr || !holds(allocation->region)) {
    stop([&] {
      return text("out of bounds: it %s %zu bytes at ", access == Access::read ? "reads" : "writes", bytes) +
             describe(address);
    });
  }
  cached = &allocation->region;
  return *cached;
}

void host_access(std::uintptr_t address) {
  std::fprintf(stderr, "cuda_on_host: the host uses a pointer of the device: %s\n", describe(address).c_str());
  _exit(86);
}

OpenDevice::OpenDevice() {
  watch_memory();
  if (open_depth++ > 0) return;
  for (const auto& [pages, allocation] : live()) protect(allocation, PROT_READ | PROT_WRITE);
}
OpenDevice::~OpenDevice() {
  if (--open_depth > 0) return;
  for (const auto& [pages, allocation] : live()) protect(allocation, PROT_NONE);
}

}  // namespace cuda_on_host
