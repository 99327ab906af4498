// Definitions of core/parallel.hpp.
#pragma once

#include "strata/core/parallel.hpp"
#include "strata/core/thread_pool.hpp"

namespace strata::inline STRATA_ABI {

STRATA_INLINE detail::SteadyCount& detail::SteadyCount::here() {
  thread_local SteadyCount count;
  return count;
}

STRATA_INLINE void detail::run_tasks(std::int64_t count, void (*task)(void* context, std::int64_t index, int worker),
                                     void* context) {
  ThreadPool::instance().run(count, num_threads(), task, context);
}

STRATA_INLINE int num_threads() {
  const detail::SteadyCount& steady = detail::SteadyCount::here();
  return steady.holders > 0 ? steady.threads : detail::ThreadPool::instance().size();
}

STRATA_INLINE void set_num_threads(int threads) {
  if (threads < 1 || threads > 1024) throw ValueError(concat("set_num_threads: got ", threads, ", wanted 1 to 1024"));
  detail::ThreadPool::instance().resize(threads);
}

STRATA_INLINE SteadyThreads::SteadyThreads() {
  detail::SteadyCount& steady = detail::SteadyCount::here();
  if (steady.holders == 0) steady.threads = num_threads();
  ++steady.holders;
}
STRATA_INLINE SteadyThreads::~SteadyThreads() { --detail::SteadyCount::here().holders; }

}  // namespace strata::inline STRATA_ABI
