// The promise that a file takes no more than a small multiple of its length of memory, held while the sanitizer counts.
//
//     const fuzz::MemoryBound bound(size);      // aborts when it goes, if more was taken at any moment
//     fuzz::LargestAllocation largest;          // largest.bytes(): the largest block asked for since
//
// The allocator's own hooks count, and no operator new of this program: libFuzzer's code would use that too.
#pragma once

#include <sanitizer/allocator_interface.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace fuzz {

class MemoryBound {
 public:
  static constexpr std::int64_t times = 100, more = 256 << 10;

  explicit MemoryBound(std::size_t bytes) : limit_(times * std::int64_t(bytes) + more) {
    [[maybe_unused]] static const int installed = __sanitizer_install_malloc_and_free_hooks(
        [](const volatile void*, std::size_t size) { peak = std::max(peak.load(), live += std::int64_t(size)); },
        [](const volatile void* memory) { live -= std::int64_t(__sanitizer_get_allocated_size(memory)); });
    live = peak = 0;
  }
  MemoryBound(const MemoryBound&) = delete;
  MemoryBound& operator=(const MemoryBound&) = delete;
  ~MemoryBound() {
    if (peak <= limit_) return;
    std::fprintf(stderr, "took %lld bytes of memory, the limit is %lld\n", static_cast<long long>(peak),
                 static_cast<long long>(limit_));
    std::abort();
  }

 private:
  static inline std::atomic<std::int64_t> live{0}, peak{0};
  std::int64_t limit_;
};

/// The largest block that was asked for since it was made. One at a time.
class LargestAllocation {
 public:
  LargestAllocation() {
    [[maybe_unused]] static const int installed = __sanitizer_install_malloc_and_free_hooks(
        [](const volatile void*, std::size_t size) { largest = std::max(largest.load(), size); },
        [](const volatile void*) {});
    largest = 0;
  }
  std::size_t bytes() const { return largest; }

 private:
  static inline std::atomic<std::size_t> largest{0};
};

}  // namespace fuzz
