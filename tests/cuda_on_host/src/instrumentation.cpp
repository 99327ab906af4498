// What -fsanitize=thread makes a compiler call at each access to memory. The program is not linked with the thread
// sanitizer: these functions stand in for it and tell the checks of accesses.
#include <cstdint>
#include <cstring>

#include "access.hpp"
#include "cuda_on_host_control.hpp"

#if !defined(__SANITIZE_THREAD__)

using cuda_on_host::Access;
using cuda_on_host::on_access;

namespace {
inline std::uintptr_t place(const volatile void* address) { return reinterpret_cast<std::uintptr_t>(address); }
}  // namespace

#define CUDA_ON_HOST_ACCESS(bytes)                                                                                     \
  void __tsan_read##bytes(void* a) { on_access(place(a), bytes, Access::read, __builtin_return_address(0)); }          \
  void __tsan_write##bytes(void* a) { on_access(place(a), bytes, Access::write, __builtin_return_address(0)); }        \
  void __tsan_unaligned_read##bytes(void* a) {                                                                         \
    on_access(place(a), bytes, Access::read, __builtin_return_address(0));                                             \
  }                                                                                                                    \
  void __tsan_unaligned_write##bytes(void* a) {                                                                        \
    on_access(place(a), bytes, Access::write, __builtin_return_address(0));                                            \
  }                                                                                                                    \
  void __tsan_volatile_read##bytes(void* a) { on_access(place(a), bytes, Access::read, __builtin_return_address(0)); } \
  void __tsan_volatile_write##bytes(void* a) {                                                                         \
    on_access(place(a), bytes, Access::write, __builtin_return_address(0));                                            \
  }                                                                                                                    \
  void __tsan_read_write##bytes(void* a) {                                                                             \
    on_access(place(a), bytes, Access::read, __builtin_return_address(0));                                             \
    on_access(place(a), bytes, Access::write, __builtin_return_address(0));                                            \
  }                                                                                                                    \
  void __tsan_unaligned_read_write##bytes(void* a) {                                                                   \
    on_access(place(a), bytes, Access::read, __builtin_return_address(0));                                             \
    on_access(place(a), bytes, Access::write, __builtin_return_address(0));                                            \
  }

// Host code of an instrumented unit: plain atomic operations.
#define CUDA_ON_HOST_ATOMIC(bits, T)                                                                                  \
  T __tsan_atomic##bits##_load(const volatile T* a, int) { return __atomic_load_n(a, __ATOMIC_SEQ_CST); }             \
  void __tsan_atomic##bits##_store(volatile T* a, T v, int) { __atomic_store_n(a, v, __ATOMIC_SEQ_CST); }             \
  T __tsan_atomic##bits##_exchange(volatile T* a, T v, int) { return __atomic_exchange_n(a, v, __ATOMIC_SEQ_CST); }   \
  T __tsan_atomic##bits##_fetch_add(volatile T* a, T v, int) { return __atomic_fetch_add(a, v, __ATOMIC_SEQ_CST); }   \
  T __tsan_atomic##bits##_fetch_sub(volatile T* a, T v, int) { return __atomic_fetch_sub(a, v, __ATOMIC_SEQ_CST); }   \
  T __tsan_atomic##bits##_fetch_and(volatile T* a, T v, int) { return __atomic_fetch_and(a, v, __ATOMIC_SEQ_CST); }   \
  T __tsan_atomic##bits##_fetch_or(volatile T* a, T v, int) { return __atomic_fetch_or(a, v, __ATOMIC_SEQ_CST); }     \
  T __tsan_atomic##bits##_fetch_xor(volatile T* a, T v, int) { return __atomic_fetch_xor(a, v, __ATOMIC_SEQ_CST); }   \
  T __tsan_atomic##bits##_fetch_nand(volatile T* a, T v, int) { return __atomic_fetch_nand(a, v, __ATOMIC_SEQ_CST); } \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* a, T* expected, T v, int, int) {                      \
    return __atomic_compare_exchange_n(a, expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                    \
  }                                                                                                                   \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* a, T* expected, T v, int, int) {                        \
    return __atomic_compare_exchange_n(a, expected, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                     \
  }                                                                                                                   \
  T __tsan_atomic##bits##_compare_exchange_val(volatile T* a, T expected, T v, int, int) {                            \
    __atomic_compare_exchange_n(a, &expected, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                          \
    return expected;                                                                                                  \
  }

#pragma GCC diagnostic ignored "-Wmissing-declarations"
extern "C" {

// A constructor of each instrumented unit calls this.
void __tsan_init() { cuda_on_host::instrumentation_seen = true; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit(void*) {}

CUDA_ON_HOST_ACCESS(1)
CUDA_ON_HOST_ACCESS(2)
CUDA_ON_HOST_ACCESS(4)
CUDA_ON_HOST_ACCESS(8)
CUDA_ON_HOST_ACCESS(16)

void __tsan_read_range(void* a, unsigned long bytes) {
  if (bytes > 0) on_access(place(a), bytes, Access::read, __builtin_return_address(0));
}
void __tsan_write_range(void* a, unsigned long bytes) {
  if (bytes > 0) on_access(place(a), bytes, Access::write, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

// clang calls these for copies.
void* __tsan_memcpy(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    on_access(place(from), bytes, Access::read, __builtin_return_address(0));
    on_access(place(to), bytes, Access::write, __builtin_return_address(0));
  }
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0) {
    on_access(place(from), bytes, Access::read, __builtin_return_address(0));
    on_access(place(to), bytes, Access::write, __builtin_return_address(0));
  }
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* to, int value, std::size_t bytes) {
  if (bytes > 0) on_access(place(to), bytes, Access::write, __builtin_return_address(0));
  return std::memset(to, value, bytes);
}

CUDA_ON_HOST_ATOMIC(8, unsigned char)
CUDA_ON_HOST_ATOMIC(16, unsigned short)
CUDA_ON_HOST_ATOMIC(32, unsigned)
CUDA_ON_HOST_ATOMIC(64, unsigned long)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}

}  // extern "C"

#endif
