#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#if defined(CUDA_ON_HOST_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(CUDA_ON_HOST_USES_UCONTEXT)
// Saves what the System V ABI makes a callee keep, stores the stack pointer and takes the other stack's. The control
// words of SSE and x87 are the same on all stacks here.
extern "C" void cuda_on_host_switch(void** save, void* to);
asm(R"(
.text
.globl cuda_on_host_switch
.hidden cuda_on_host_switch
.type cuda_on_host_switch,@function
cuda_on_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_host_switch, .-cuda_on_host_switch
)");
#endif

namespace cuda_on_host {
namespace {
FiberStack* starting = nullptr;  // the fiber whose first entry runs next
}

FiberStack::FiberStack() {
  void* memory = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, guard_bytes, PROT_NONE) != 0) throw std::bad_alloc();
  stack_ = static_cast<char*>(memory) + guard_bytes;
}

FiberStack::~FiberStack() { munmap(stack_ - guard_bytes, guard_bytes + stack_bytes); }

void FiberStack::start(void (*entry)()) {
  entry_ = entry;
  fake_stack_ = nullptr;
#if defined(CUDA_ON_HOST_ASAN)
  __asan_unpoison_memory_region(stack_, stack_bytes);  // frames that the fiber before left for good
#endif
#if defined(CUDA_ON_HOST_USES_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = stack_bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, &FiberStack::first_entry, 0);
#else
  void** top = reinterpret_cast<void**>(stack_ + stack_bytes);
  *--top = nullptr;  // the return address of first_entry, which never returns
  *--top = reinterpret_cast<void*>(&FiberStack::first_entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context_ = top;
#endif
}

void FiberStack::first_entry() {
  FiberStack& self = *starting;
  self.entered();
  self.entry_();
  std::abort();
}

void FiberStack::entered() {
#if defined(CUDA_ON_HOST_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_stack_bytes_);
#endif
}

void FiberStack::resume() {
  starting = this;
#if defined(CUDA_ON_HOST_ASAN)
  void* own_fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&own_fake_stack, stack_, stack_bytes);
#endif
#if defined(CUDA_ON_HOST_USES_UCONTEXT)
  swapcontext(&caller_, &context_);
#else
  cuda_on_host_switch(&caller_, context_);
#endif
#if defined(CUDA_ON_HOST_ASAN)
  __sanitizer_finish_switch_fiber(own_fake_stack, nullptr, nullptr);
#endif
}

void FiberStack::leave() {
#if defined(CUDA_ON_HOST_ASAN)
  __sanitizer_start_switch_fiber(&fake_stack_, caller_stack_, caller_stack_bytes_);
#endif
#if defined(CUDA_ON_HOST_USES_UCONTEXT)
  swapcontext(&context_, &caller_);
#else
  cuda_on_host_switch(&context_, caller_);
#endif
  entered();
}

void FiberStack::leave_forever() {
#if defined(CUDA_ON_HOST_ASAN)
  __sanitizer_start_switch_fiber(nullptr, caller_stack_, caller_stack_bytes_);
#endif
#if defined(CUDA_ON_HOST_USES_UCONTEXT)
  swapcontext(&context_, &caller_);
#else
  cuda_on_host_switch(&context_, caller_);
#endif
  std::abort();
}

}  // namespace cuda_on_host
