// Fibers: stacks of their own that a scheduler switches to and that switch back. All run on the thread that resumes
// them.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(CUDA_ON_HOST_UCONTEXT)
#define CUDA_ON_HOST_USES_UCONTEXT 1
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define CUDA_ON_HOST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUDA_ON_HOST_ASAN 1
#endif
#endif

namespace cuda_on_host {

#if defined(CUDA_ON_HOST_ASAN)
inline constexpr std::size_t stack_bytes = 256 * 1024;
#else
inline constexpr std::size_t stack_bytes = 64 * 1024;
#endif

class FiberStack {
 public:
  FiberStack();
  ~FiberStack();
  FiberStack(const FiberStack&) = delete;
  FiberStack& operator=(const FiberStack&) = delete;

  /// Makes the next resume() call entry() on a fresh stack. entry must not return: it ends with leave_forever().
  void start(void (*entry)());
  /// Runs the fiber until it leaves.
  void resume();
  /// Called on the fiber: back to whoever resumed it.
  void leave();
  [[noreturn]] void leave_forever();

  std::uintptr_t begin() const { return reinterpret_cast<std::uintptr_t>(stack_); }
  bool holds(std::uintptr_t address) const { return address - begin() < stack_bytes; }
  /// True for an address in the guard below the stack.
  bool overflowed_at(std::uintptr_t address) const { return begin() - 1 - address < guard_bytes; }

 private:
  static constexpr std::size_t guard_bytes = 1 << 20;  // addresses only: a large frame does not reach past it
  static void first_entry();
  void entered();

  char* stack_ = nullptr;
  void (*entry_)() = nullptr;
#if defined(CUDA_ON_HOST_USES_UCONTEXT)
  ucontext_t context_{}, caller_{};
#else
  void* context_ = nullptr;
  void* caller_ = nullptr;
#endif
  [[maybe_unused]] void* fake_stack_ = nullptr;  // of the address sanitizer
  [[maybe_unused]] const void* caller_stack_ = nullptr;
  [[maybe_unused]] std::size_t caller_stack_bytes_ = 0;
};

}  // namespace cuda_on_host
