// Loops over all processors that the process may use. One pool of threads serves the process; it changes how long a
// computation takes and never its result, because work is cut into tasks by the size of the problem alone, not by the
// number of threads. docs/threads.md says how it shares a machine with others, and what holds after fork().
//
//     st::parallel_for(rows, [&](std::int64_t row, int worker) { ... });   // worker < st::num_threads()
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// What num_threads() is on this thread while a SteadyThreads lives on it.
struct SteadyCount {
  int holders = 0, threads = 0;
  static SteadyCount& here();
};

/// task(context, index, worker) for every index below `count`, as parallel_for says.
void run_tasks(std::int64_t count, void (*task)(void* context, std::int64_t index, int worker), void* context);

}  // namespace detail

/// Threads that parallel_for uses at most, the caller included: usable_processors() unless set_num_threads said
/// otherwise.
int num_threads();

/// Sets the number of threads of parallel_for. It holds for the loops that begin afterwards, on every thread, and may
/// be called anywhere, inside of a task too. Where the system gives fewer threads, num_threads() says how many. Throws
/// ValueError outside 1 to 1024.
void set_num_threads(int threads);

/// While it lives, num_threads() stays what it was for the thread that made it, and that thread's loops use no more,
/// whatever set_num_threads does elsewhere: for memory that has a place for each worker.
class SteadyThreads {
 public:
  SteadyThreads();
  SteadyThreads(const SteadyThreads&) = delete;
  SteadyThreads& operator=(const SteadyThreads&) = delete;
  ~SteadyThreads();
};

/// Calls task(index) or task(index, worker) for every index in [0, count), each once, in any order, on all threads.
/// worker is below num_threads() and no two running tasks share it, so it can choose a workspace. An exception of a
/// task is rethrown here after all others have ended; of several, that of the lowest index.
///
/// Inside of a task, and while another thread has a loop under way, the calling thread does all of it alone.
template <class Task>
void parallel_for(std::int64_t count, Task&& task) {
  detail::run_tasks(
      count,
      [](void* context, std::int64_t index, int worker) {
        auto& f = *static_cast<std::remove_reference_t<Task>*>(context);
        if constexpr (requires { f(index, worker); })
          f(index, worker);
        else
          f(index);
      },
      const_cast<void*>(static_cast<const void*>(std::addressof(task))));
}

/// Cuts [0, count) into ranges of `grain` elements and calls task(begin, end) for each on all threads. Throws
/// ValueError for a grain below 1.
template <class Task>
void parallel_ranges(std::int64_t count, std::int64_t grain, Task&& task) {
  if (grain < 1) throw ValueError(concat("parallel_ranges: got ranges of ", grain, " elements, wanted at least 1"));
  parallel_for(count / grain + (count % grain > 0), [&](std::int64_t range) {
    task(range * grain, range * grain + std::min(grain, count - range * grain));
  });
}

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/core/parallel_impl.hpp"
#endif
