// The block that runs: its threads, its barriers and warp operations, its shared memory. One block runs at a time, and
// all its threads on the thread of the host that waits for the stream, so nothing here is thread-safe or needs to be.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda_on_host.hpp"
#include "cuda_on_host_control.hpp"
#include "fiber.hpp"

namespace cuda_on_host {

/// A copy that cp.async began and that nothing has waited for.
struct PendingCopy {
  void* to;
  const void* from;  // null: zeros
  std::size_t bytes;
  unsigned group;
};

struct Thread {
  enum class State { ready, at_barrier, at_warp_operation, exited };

  FiberStack stack;
  State state = State::ready;
  unsigned number = 0, lane = 0, warp = 0;
  uint3 index{};
  // What it waits for.
  const char* operation = nullptr;
  Location location;
  unsigned mask = 0;
  Resolve resolve = nullptr;
  void* data = nullptr;
  bool orders_memory = false;
  bool predicate = false;

  std::vector<PendingCopy> copies;
  unsigned copy_groups = 0;  // committed
};

/// In which order the lanes of a warp have seen each other: what lane b did while the warp's serial was below
/// seen[a][b] happened before what lane a does now.
struct WarpOrder {
  std::uint32_t serial = 0;
  std::uint32_t seen[32][32] = {};
};

struct Block {
  const Launch* launch = nullptr;
  std::string kernel;
  uint3 index{};
  unsigned thread_count = 0;
  std::uint64_t serial = 0;           // of all blocks that ever ran
  std::uint32_t launch_interval = 0;  // the first barrier interval of the launch, of the block, and the one now
  std::uint32_t first_interval = 0;
  std::uint32_t interval = 0;
  int predicates = 0;
  std::uint64_t barriers = 0;
  std::vector<WarpOrder> warps;
  Thread* current = nullptr;  // null while the scheduler or the host runs
};
extern Block block;

/// Runs all blocks of a launch. Throws Fault.
void run_launch(const Launch& launch);

/// The name of a kernel, as source code has it: cuda::relu<256>.
std::string kernel_name(const KernelInfo& kernel);
/// What a message begins with: kernel, block and, inside one, thread.
std::string where();
/// Stops the block that runs, from one of its fibers; elsewhere throws. The message is where() and what `words`
/// returns. It is made on the scheduler's stack: a fiber that is left for good must own nothing.
[[noreturn]] void stop_with(std::string (*words)(const void*), const void* data);
template <class F>
[[noreturn]] void stop(const F& words) {
  stop_with([](const void* data) { return (*static_cast<const F*>(data))(); }, &words);
}
std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace cuda_on_host
