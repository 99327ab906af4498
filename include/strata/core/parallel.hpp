// Loops over all cores. One pool of threads serves the process; it changes how long a computation takes and never its
// result, because work is cut into tasks by the size of the problem alone, not by the number of threads.
//
//     st::parallel_for(rows, [&](std::int64_t row, int worker) { ... });   // worker < st::num_threads()
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/flush_denormals.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

class ThreadPool {
 public:
  static ThreadPool& instance() {
    static ThreadPool pool(std::max(1, int(std::thread::hardware_concurrency())));
    return pool;
  }

  explicit ThreadPool(int threads) { start(threads); }
  ~ThreadPool() { stop(); }

  int size() const { return size_.load(std::memory_order_relaxed); }

  void resize(int threads) {
    const std::lock_guard lock(busy_);
    stop();
    start(threads);
  }

  /// Calls task(context, index, worker) for every index below count. Called from inside a task, or while another thread
  /// uses the pool, it runs the loop on the calling thread alone, as worker 0.
  void run(std::int64_t count, void (*task)(void*, std::int64_t, int), void* context) {
    const FlushDenormals flush;
    std::unique_lock lock(busy_, std::defer_lock);
    if (count <= 1 || inside_task() || !lock.try_lock() || workers_.empty()) {
      for (std::int64_t index = 0; index < count; ++index) task(context, index, 0);
      return;
    }
    const std::int64_t workers = std::int64_t(ranges_.size());
    for (std::int64_t worker = 0; worker < workers; ++worker) {
      ranges_[std::size_t(worker)].next.store(count * worker / workers, std::memory_order_relaxed);
      ranges_[std::size_t(worker)].end = count * (worker + 1) / workers;
    }
    task_ = task;
    context_ = context;
    failure_ = nullptr;
    running_.store(int(workers_.size()), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    work(0);
    wait_while([&] { return running_.load(std::memory_order_acquire) != 0; }, [&] {
      const int left = running_.load(std::memory_order_acquire);
      if (left != 0) running_.wait(left, std::memory_order_acquire);
    });
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  static bool& inside_task() {
    thread_local bool inside = false;
    return inside;
  }

  void start(int threads) {
    size_.store(threads, std::memory_order_relaxed);
    ranges_ = std::vector<Range>(std::size_t(threads));
    stopping_.store(false, std::memory_order_relaxed);
    for (int worker = 1; worker < threads; ++worker)
      workers_.emplace_back([this, worker, seen = generation_.load()] { serve(worker, seen); });
  }

  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& thread : workers_) thread.join();
    workers_.clear();
  }

  void serve(int worker, unsigned seen) {
    const FlushDenormals flush;
    while (true) {
      wait_while([&] { return generation_.load(std::memory_order_acquire) == seen; },
                 [&] { generation_.wait(seen, std::memory_order_acquire); });
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_relaxed)) return;
      work(worker);
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_all();
    }
  }

  // Each worker begins with a share of its own, the same for every loop of so many tasks, and helps the others when it is
  // done: loops over the same memory find most of it in the caches of the core that used it last.
  void work(int worker) {
    inside_task() = true;
    const std::size_t workers = ranges_.size();
    for (std::size_t i = 0; i < workers; ++i) {
      Range& range = ranges_[(std::size_t(worker) + i) % workers];
      for (std::int64_t index; (index = range.next.fetch_add(1, std::memory_order_relaxed)) < range.end;) {
        try {
          task_(context_, index, worker);
        } catch (...) {
          const std::lock_guard lock(failure_guard_);
          if (!failure_) failure_ = std::current_exception();
        }
      }
    }
    inside_task() = false;
  }

  // Spins for some tens of microseconds, the time between two kernels, before it lets the thread sleep.
  template <class Condition, class Sleep>
  static void wait_while(Condition condition, Sleep sleep) {
    for (int spin = 0; spin < 2000; ++spin) {
      if (!condition()) return;
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    }
    while (condition()) sleep();
  }

  std::atomic<int> size_{1};
  std::vector<std::thread> workers_;
  std::mutex busy_;
  std::mutex failure_guard_;
  std::exception_ptr failure_;
  std::atomic<bool> stopping_{false};
  struct alignas(64) Range {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };
  std::vector<Range> ranges_;  // one for each thread
  void (*task_)(void*, std::int64_t, int) = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<unsigned> generation_{0};
  alignas(64) std::atomic<int> running_{0};
};

}  // namespace detail

/// Threads that parallel_for uses, the caller included. The number of cores unless set_num_threads said otherwise.
inline int num_threads() { return detail::ThreadPool::instance().size(); }

/// Sets the number of threads of parallel_for. Throws ValueError outside 1 to 1024.
inline void set_num_threads(int threads) {
  if (threads < 1 || threads > 1024)
    throw ValueError(concat("set_num_threads: got ", threads, ", wanted 1 to 1024"));
  if (threads != num_threads()) detail::ThreadPool::instance().resize(threads);
}

/// Calls task(index) or task(index, worker) for every index in [0, count), each once, in any order, on all threads.
/// worker is below num_threads() and no two running tasks share it, so it can choose a workspace. An exception of a task
/// is rethrown here after the others have ended.
template <class Task>
void parallel_for(std::int64_t count, Task&& task) {
  detail::ThreadPool::instance().run(
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

/// Cuts [0, count) into ranges of `grain` elements and calls task(begin, end) for each on all threads.
template <class Task>
void parallel_ranges(std::int64_t count, std::int64_t grain, Task&& task) {
  parallel_for((count + grain - 1) / grain, [&](std::int64_t range) {
    task(range * grain, std::min(count, (range + 1) * grain));
  });
}

}  // namespace strata::inline STRATA_ABI
