#include "block.hpp"

#include <algorithm>
#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "access.hpp"
#include "counting.hpp"
#include "shared_memory.hpp"

namespace cuda_on_host {

Block block;

namespace {

std::vector<std::unique_ptr<Thread>> threads;
struct Failure {
  std::string (*words)(const void*) = nullptr;
  const void* data = nullptr;
};
Failure failure;
std::mt19937_64 shuffler;
std::uint32_t intervals = 1;  // 1: what the host has written
std::uint64_t blocks_run = 0;

Thread& self() { return *block.current; }

void thread_main() {
  block.launch->run(block.launch->arguments);
  Thread& thread = self();
  if (!thread.copies.empty()) fault("the thread exits with a cp.async that nothing has waited for");
  thread.state = Thread::State::exited;
  thread.stack.leave_forever();
}

void resume(Thread& thread) {
  block.current = &thread;
  thread.stack.resume();
  if (failure.words != nullptr) {
    const std::string message = where() + failure.words(failure.data);
    block.current = nullptr;
    throw Fault(message);
  }
  block.current = nullptr;
}

template <class T>
void arrange(std::vector<T>& order) {
  std::iota(order.begin(), order.end(), T{0});
  if (options().order == Order::reverse) std::reverse(order.begin(), order.end());
  if (options().order == Order::random) std::shuffle(order.begin(), order.end(), shuffler);
}

std::string at(const Location& location) {
  const char* slash = std::strrchr(location.file_name(), '/');
  return text("%s:%u", slash ? slash + 1 : location.file_name(), unsigned(location.line()));
}
bool same_place(const Location& a, const Location& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}
std::string waits_in(const Thread& thread) {
  if (thread.state == Thread::State::exited) return text("thread %u has exited", thread.number);
  return text("thread %u waits in %s at %s", thread.number, thread.operation, at(thread.location).c_str());
}

void order_memory(unsigned warp, unsigned mask) {
  WarpOrder& order = block.warps[warp];
  const std::uint32_t now = ++order.serial;
  std::uint32_t seen[32] = {};
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const auto& lane = order.seen[std::countr_zero(rest)];
    for (int i = 0; i < 32; ++i) seen[i] = std::max(seen[i], lane[i]);
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) seen[std::countr_zero(rest)] = now;
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) std::ranges::copy(seen, order.seen[std::countr_zero(rest)]);
}

// Lets the warp operations of a warp go on whose lanes have all arrived. Returns whether any did.
bool resolve_warp(unsigned warp) {
  const unsigned first = warp * 32, lanes = std::min(32u, block.thread_count - first);
  bool any = false;
  unsigned handled = 0;
  for (unsigned lane = 0; lane < lanes; ++lane) {
    Thread& thread = *threads[first + lane];
    if (thread.state != Thread::State::at_warp_operation || (handled >> lane & 1u)) continue;
    bool all_here = true;
    for (unsigned rest = thread.mask; rest != 0; rest &= rest - 1) {
      const unsigned other = unsigned(std::countr_zero(rest));
      if (other >= lanes) {
        throw Fault(
            where() +
            text("illegal mask: thread %u names lane %u in the mask 0x%08x of %s at %s, and the warp has %u lanes",
                 thread.number, other, thread.mask, thread.operation, at(thread.location).c_str(), lanes));
      }
      const Thread& partner = *threads[first + other];
      if (partner.state == Thread::State::exited) {
        throw Fault(where() +
                    text("illegal mask: %s with the mask 0x%08x at %s names lane %u (thread %u), which has exited",
                         thread.operation, thread.mask, at(thread.location).c_str(), other, partner.number));
      }
      if (partner.state != Thread::State::at_warp_operation) {
        all_here = false;
      } else if (partner.mask != thread.mask || partner.resolve != thread.resolve ||
                 !same_place(partner.location, thread.location)) {
        if (partner.mask >> lane & 1u) {
          throw Fault(where() + "warp divergence: " + waits_in(thread) +
                      text(" with the mask 0x%08x, but ", thread.mask) + waits_in(partner) +
                      text(" with the mask 0x%08x", partner.mask));
        }
        all_here = false;
      }
    }
    if (!all_here) continue;
    handled |= thread.mask;
    void* data[32] = {};
    for (unsigned rest = thread.mask; rest != 0; rest &= rest - 1) {
      const unsigned member = unsigned(std::countr_zero(rest));
      data[member] = threads[first + member]->data;
    }
    if (thread.resolve != nullptr) thread.resolve(thread.mask, data);
    if (thread.orders_memory) order_memory(warp, thread.mask);
    for (unsigned rest = thread.mask; rest != 0; rest &= rest - 1) {
      threads[first + unsigned(std::countr_zero(rest))]->state = Thread::State::ready;
    }
    any = true;
  }
  return any;
}

// Runs the warp until none of its threads can go on alone. Returns whether any ran.
bool run_warp(unsigned warp, std::vector<unsigned>& lane_order) {
  const unsigned first = warp * 32, lanes = std::min(32u, block.thread_count - first);
  lane_order.resize(lanes);
  bool any = false;
  for (;;) {
    arrange(lane_order);
    bool ran = false;
    for (const unsigned lane : lane_order) {
      Thread& thread = *threads[first + lane];
      if (thread.state != Thread::State::ready) continue;
      resume(thread);
      ran = true;
    }
    any |= ran;
    if (!resolve_warp(warp)) return any;
    any = true;
    if (options().order == Order::random && shuffler() % 4 == 0) return true;  // another warp's turn
  }
}

// All threads wait or have exited. Opens the barrier they wait at, or says why it cannot open.
void release_barrier() {
  const Thread* waiting = nullptr;
  unsigned exited = 0, at_barrier = 0;
  for (unsigned i = 0; i < block.thread_count; ++i) {
    const Thread& thread = *threads[i];
    exited += thread.state == Thread::State::exited;
    if (thread.state == Thread::State::at_barrier) {
      ++at_barrier;
      if (waiting == nullptr) waiting = &thread;
    }
  }
  for (unsigned i = 0; i < block.thread_count; ++i) {
    const Thread& thread = *threads[i];
    if (thread.state == Thread::State::at_warp_operation) {
      for (unsigned k = thread.warp * 32; k < std::min(thread.warp * 32 + 32, block.thread_count); ++k) {
        if ((thread.mask >> threads[k]->lane & 1u) && k != i) {
          const Thread& other = *threads[k];
          if (other.state != Thread::State::at_warp_operation || other.mask != thread.mask ||
              other.resolve != thread.resolve || !same_place(other.location, thread.location)) {
            throw Fault(where() + "divergence: " + waits_in(thread) + text(" with the mask 0x%08x, but ", thread.mask) +
                        waits_in(other));
          }
        }
      }
      throw Fault(where() + "divergence: " + waits_in(thread) + " for ever");
    }
  }
  if (exited > 0) {
    throw Fault(where() + text("barrier divergence: %u threads have exited while %u wait at %s (%s)", exited,
                               at_barrier, waiting->operation, at(waiting->location).c_str()));
  }
  for (unsigned i = 0; i < block.thread_count; ++i) {
    const Thread& thread = *threads[i];
    if (!same_place(thread.location, waiting->location) || thread.operation != waiting->operation) {
      throw Fault(where() + "barrier divergence: threads wait at different barriers: " + waits_in(*waiting) + ", " +
                  waits_in(thread));
    }
  }
  block.interval = ++intervals;
  ++block.barriers;
  block.predicates = 0;
  for (unsigned i = 0; i < block.thread_count; ++i) block.predicates += threads[i]->predicate;
  for (unsigned i = 0; i < block.thread_count; ++i) threads[i]->state = Thread::State::ready;
  end_counting_interval();
}

void run_block(const Launch& launch) {
  const unsigned count = block.thread_count;
  while (threads.size() < count) threads.push_back(std::make_unique<Thread>());
  const dim3 extent = launch.block;
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = *threads[i];
    thread.state = Thread::State::ready;
    thread.number = i, thread.lane = i % 32, thread.warp = i / 32;
    thread.index = {i % extent.x, i / extent.x % extent.y, i / (extent.x * extent.y)};
    thread.copies.clear();
    thread.copy_groups = 0;
    thread.stack.start(&thread_main);
  }
  block.serial = ++blocks_run;
  block.first_interval = block.interval = ++intervals;
  const unsigned warps = (count + 31) / 32;
  block.warps.assign(warps, {});
  begin_block_shared_memory(launch.shared_bytes);

  std::vector<unsigned> warp_order(warps), lane_order;
  for (;;) {
    arrange(warp_order);
    bool any = false;
    for (const unsigned warp : warp_order) any |= run_warp(warp, lane_order);
    if (any) continue;
    bool all_exited = true;
    for (unsigned i = 0; i < count; ++i) all_exited &= threads[i]->state == Thread::State::exited;
    if (all_exited) break;
    release_barrier();
  }
  end_counting_interval();
  end_block_shared_memory();
}

// The kernels of a device start with denormals on and rounding to nearest, whatever the host thread has set.
struct FloatingPointMode {
#if defined(__SSE__)
  unsigned saved = _mm_getcsr();
  FloatingPointMode() { _mm_setcsr(0x1f80); }
  ~FloatingPointMode() { _mm_setcsr(saved); }
#endif
};

struct EndOfLaunch {
  ~EndOfLaunch() {
    block.launch = nullptr;
    block.current = nullptr;
  }
};

}  // namespace

std::string text(const char* format, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  return buffer;
}

std::string kernel_name(const KernelInfo& kernel) {
  // g++: "... launch(...) [with auto Kernel = strata::v0::cuda::relu<256>; P = {...}; ...]", clang: "[Kernel =
  // &strata::..., P = <...>]"
  std::string name = kernel.function;
  const auto start = name.find("Kernel = ");
  if (start == std::string::npos) return name;
  name = name.substr(start + 9);
  int depth = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (c == '<' || c == '(' || c == '{' || c == '[') ++depth;
    if ((c == ';' || c == ',' || c == ']') && depth == 0) {
      name.resize(i);
      break;
    }
    if (c == '>' || c == ')' || c == '}' || c == ']') --depth;
  }
  if (name.starts_with("&")) name.erase(0, 1);
  // Drop the namespaces before the kernel's own name.
  const auto template_start = std::min(name.find('<'), name.size());
  const auto colons = name.rfind("::", template_start);
  return colons == std::string::npos ? name : name.substr(colons + 2);
}

std::string where() {
  if (block.launch == nullptr) return "";
  std::string result =
      "kernel " + block.kernel + text(", block (%u,%u,%u)", block.index.x, block.index.y, block.index.z);
  if (const Thread* thread = block.current) {
    result += text(", thread (%u,%u,%u)", thread->index.x, thread->index.y, thread->index.z);
  }
  return result + ": ";
}

void stop_with(std::string (*words)(const void*), const void* data) {
  if (block.current == nullptr) throw Fault(where() + words(data));
  failure = {words, data};
  self().stack.leave();  // and nobody comes back; what data points to stays as it is
  std::abort();
}

void fault(const char* format, ...) {
  char buffer[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(buffer, sizeof buffer, format, arguments);
  va_end(arguments);
  stop([&] { return std::string(buffer); });
}

void run_launch(const Launch& launch) {
  if (block.launch != nullptr) throw Fault("a launch while another one runs");
  const EndOfLaunch end;
  const FloatingPointMode mode;
  block.launch = &launch;
  block.kernel = kernel_name(launch.kernel);
  block.thread_count = launch.block.x * launch.block.y * launch.block.z;
  block.launch_interval = intervals + 1;
  shuffler.seed(options().seed);
  begin_counting_launch();
  const dim3 grid = launch.grid;
  std::vector<std::uint64_t> blocks(std::uint64_t{grid.x} * grid.y * grid.z);
  arrange(blocks);
  failure = {};
  for (const std::uint64_t number : blocks) {
    block.index = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
    run_block(launch);
  }
  end_counting_launch();
}

// ---------------------------------------------------------------- what kernels call

uint3 thread_index() noexcept { return block.current->index; }
uint3 block_index() noexcept { return block.index; }
dim3 block_extent() noexcept { return block.launch->block; }
dim3 grid_extent() noexcept { return block.launch->grid; }
unsigned lane() noexcept { return block.current->lane; }

int block_barrier(bool predicate, const char* name, Location location) {
  Thread& thread = self();
  thread.state = Thread::State::at_barrier;
  thread.operation = name;
  thread.location = location;
  thread.predicate = predicate;
  thread.stack.leave();
  return block.predicates;
}

void warp_operation(unsigned mask, Resolve resolve, void* data, bool orders_memory, const char* name,
                    Location location) {
  Thread& thread = self();
  if ((mask >> thread.lane & 1u) == 0) {
    stop([&] {
      return text("illegal mask: lane %u calls %s at %s with the mask 0x%08x, in which it is not", thread.lane, name,
                  at(location).c_str(), mask);
    });
  }
  thread.state = Thread::State::at_warp_operation;
  thread.operation = name;
  thread.location = location;
  thread.mask = mask;
  thread.resolve = resolve;
  thread.data = data;
  thread.orders_memory = orders_memory;
  thread.stack.leave();
}

void Shuffle::resolve(unsigned mask, void* const (&data)[32]) {
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    auto& mine = *static_cast<Shuffle*>(data[std::countr_zero(rest)]);
    // What comes from a lane that takes no part is undefined: a NaN.
    mine.result = mine.source >= 0 && mine.source < 32 && (mask >> mine.source & 1u)
                      ? static_cast<Shuffle*>(data[mine.source])->value
                      : ~std::uint64_t{0};
  }
}
void Vote::resolve(unsigned mask, void* const (&data)[32]) {
  unsigned ballot = 0;
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    if (static_cast<Vote*>(data[lane])->predicate) ballot |= 1u << lane;
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1)
    static_cast<Vote*>(data[std::countr_zero(rest)])->result = ballot;
}

}  // namespace cuda_on_host
