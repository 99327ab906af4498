// Scratch memory for each worker of a parallel loop, on cache lines of its own.
//
//     st::cpu::WorkerScratch<float> workspace(1000);
//     st::parallel_for(tasks, [&](std::int64_t task, int worker) { use(workspace[worker]); });
#pragma once

#include <cstddef>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

/// `count` uninitialised elements for each worker. Slices start at multiples of 128 bytes, since some processors fetch
/// cache lines in pairs: two workers that write to the same line would wait for each other at every write.
template <class T>
class WorkerScratch {
 public:
  explicit WorkerScratch(std::int64_t count)
      : distance_(distance(count)), memory_(std::size_t(num_threads() * distance_)) {}
  WorkerScratch(const WorkerScratch&) = delete;
  WorkerScratch& operator=(const WorkerScratch&) = delete;

  /// What it takes from the pool.
  static std::size_t bytes(std::int64_t count) {
    return MemoryPool::block_bytes(std::size_t(num_threads() * distance(count)));
  }

  T* operator[](int worker) { return reinterpret_cast<T*>(memory_.data() + worker * distance_); }

 private:
  static constexpr std::int64_t distance(std::int64_t count) {
    return (count * std::int64_t(sizeof(T)) + 127) / 128 * 128;
  }

  SteadyThreads steady_;   // first: there is a slice for each worker as long as there are slices
  std::int64_t distance_;  // in bytes
  Scratch<std::byte> memory_;
};

}}}  // namespace strata::STRATA_ABI::cpu
