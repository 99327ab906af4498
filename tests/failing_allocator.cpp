#include "failing_allocator.hpp"

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>

namespace {

constexpr long never = std::numeric_limits<long>::max();
std::atomic<long> left{never};  // allocations that succeed before one fails
std::atomic<bool> for_good{false};

std::atomic<bool> counts{false};
std::atomic<long> asked_for{0};

bool fails(std::size_t bytes) {
  if (counts.load(std::memory_order_relaxed)) asked_for += long(bytes);
  if (left.load(std::memory_order_relaxed) == never) return false;
  const long before = left.fetch_sub(1);
  return before == 0 || (before < 0 && for_good.load());
}

}  // namespace

namespace strata_test {

FailNthAllocation::FailNthAllocation(long n, bool and_all_after) {
  for_good = and_all_after;
  left = n - 1;
}
FailNthAllocation::~FailNthAllocation() { left = never; }
bool FailNthAllocation::failed() const { return left.load() < 0; }

CountBytes::CountBytes() {
  asked_for = 0;
  counts = true;
}
CountBytes::~CountBytes() { counts = false; }
long CountBytes::so_far() const { return asked_for.load(); }

}  // namespace strata_test

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STRATA_TEST_OWN_MALLOC 0
#elif defined(__has_feature)
#define STRATA_TEST_OWN_MALLOC \
  (!__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer) && !__has_feature(memory_sanitizer))
#else
#define STRATA_TEST_OWN_MALLOC 1
#endif

#if STRATA_TEST_OWN_MALLOC && defined(__GLIBC__)

extern "C" {

void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) {
  if (!fails(bytes)) return __libc_malloc(bytes);
  errno = ENOMEM;
  return nullptr;
}
void* calloc(std::size_t count, std::size_t bytes) {
  if (!fails(count * bytes)) return __libc_calloc(count, bytes);
  errno = ENOMEM;
  return nullptr;
}
void* realloc(void* memory, std::size_t bytes) {
  if (!fails(bytes)) return __libc_realloc(memory, bytes);
  errno = ENOMEM;
  return nullptr;
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  if (!fails(bytes)) return __libc_memalign(alignment, bytes);
  errno = ENOMEM;
  return nullptr;
}

}  // extern "C"

#else

void* operator new(std::size_t bytes) {
  void* memory = fails(bytes) ? nullptr : std::malloc(bytes > 0 ? bytes : 1);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return fails(bytes) ? nullptr : std::malloc(bytes > 0 ? bytes : 1);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

#endif
