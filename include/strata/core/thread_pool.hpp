// The threads behind parallel_for. Programs use core/parallel.hpp.
//
// A loop's tasks lie in shares, one for each thread that may help. A thread claims a task with one compare-and-swap,
// and the caller waits for claimed tasks only: threads that slept through a loop, or had no processor, hold nobody up.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/flush_denormals.hpp"
#include "strata/core/fork.hpp"
#include "strata/core/processor_counts.hpp"
#include "strata/core/processors.hpp"

namespace strata::inline STRATA_ABI::detail {

/// How one thread waits for others. Between two kernels it spins, since sleeping costs more than the gap; it offers its
/// processor to others meanwhile, and where somebody took it, it sleeps at once for the next few times.
class Patience {
 public:
  /// Returns once ready() is true. sleep() may return early. Never spins unless `spin`.
  template <class Ready, class Sleep>
  void wait(bool spin, Ready ready, Sleep sleep) {
    if (ready()) return;
    if (crowded_ > 0) {
      --crowded_;
    } else if (spin) {
      const auto start = Clock::now();
      for (auto before = start; before - start < whole_spin;) {
        for (int i = 0; i < 32; ++i) {
          if (ready()) return;
          pause();
        }
        if (before - start > quiet_spin) std::this_thread::yield();
        const auto now = Clock::now();
        if (now - before > taken_away) {
          crowded_ = 16;
          break;
        }
        before = now;
      }
    }
    while (!ready()) sleep();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto quiet_spin = std::chrono::microseconds(20), whole_spin = std::chrono::microseconds(100);
  static constexpr auto taken_away = std::chrono::microseconds(50);  // nobody needs so long for 32 looks at a number

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
  }

  int crowded_ = 0;
};

/// Whether this thread runs a task of a loop.
inline bool& inside_task() {
  thread_local bool inside = false;
  return inside;
}

using Task = void (*)(void* context, std::int64_t index, int worker);

/// Threads that run one loop at a time together with the thread that calls run().
class Crew {
 public:
  static constexpr std::int64_t most_tasks = std::int64_t{1} << 31;

  /// Starts threads - 1 of them, or fewer where the system has no more to give.
  explicit Crew(int threads) : shares_(std::size_t(threads)), excess_(threads > processors_.load()) {
    threads_.reserve(std::size_t(threads) - 1);
    try {
      while (int(threads_.size()) < threads - 1) {
        const int worker = int(threads_.size()) + 1;
        threads_.emplace_back([this, worker] { serve(worker); });
      }
    } catch (const std::exception&) {  // RLIMIT_NPROC, a container's limit, no memory: the work is the same with fewer
    }
  }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;
  ~Crew() {
    stopping_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    generation_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  /// The caller included.
  int threads() const { return int(threads_.size()) + 1; }

  /// task(context, first + i, worker) for every i below `count`, worker < limit. `count` is at most most_tasks.
  void run(std::int64_t first, std::int64_t count, int limit, Task task, void* context) {
    const int active = std::min(limit, threads());
    const unsigned loop = generation_.load(std::memory_order_relaxed) + 1;
    task_ = task, context_ = context, first_ = first;
    active_.store(active, std::memory_order_relaxed);
    left_.store(count, std::memory_order_relaxed);
    for (int worker = 0; worker < active; ++worker) {
      const std::int64_t begin = count * worker / active, end = count * (worker + 1) / active;
      Share& share = shares_[std::size_t(worker)];
      share.end = end;
      share.word.store(std::uint64_t{loop} << 32 | std::uint64_t(end - begin), std::memory_order_release);
    }
    generation_.store(loop, std::memory_order_seq_cst);
    wake(int(std::min<std::int64_t>(active, count)) - 1);

    inside_task() = true;
    const bool last = work(0, loop, active);
    inside_task() = false;
    if (abandoned())
      throw Error(
          "parallel_for: this process was forked by a task of the loop, and the other threads of the loop stayed in "
          "the parent; such a child has to end inside of the task, with _exit or exec");
    if (!last) wait_for_end();
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

  /// In the child of a fork: its threads stayed in the parent.
  void abandon() { abandoned_.store(true, std::memory_order_relaxed); }
  bool abandoned() const { return abandoned_.load(std::memory_order_relaxed); }
  Crew* left_before = nullptr;  // the one that was abandoned before this one

 private:
  struct alignas(64) Share {
    std::atomic<std::uint64_t> word{0};  // the loop it belongs to, and how many of its tasks nobody has claimed yet
    std::int64_t end = 0;
  };

  void serve(int worker) {
    inside_task() = true;
    const FlushDenormals flush;
    Patience patience;
    unsigned seen = 0;
    while (true) {
      const bool spin = !excess_ || reserve_spinning();
      patience.wait(
          spin, [&] { return generation_.load(std::memory_order_acquire) != seen; },
          [&] {
            sleepers_.fetch_add(1, std::memory_order_seq_cst);
            generation_.wait(seen, std::memory_order_seq_cst);
            sleepers_.fetch_sub(1, std::memory_order_relaxed);
          });
      if (spin && excess_) spinning_.fetch_sub(1, std::memory_order_relaxed);
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_relaxed)) return;
      const int active = active_.load(std::memory_order_relaxed);
      if (worker < active && work(worker, seen, active)) {
        ended_.fetch_add(1, std::memory_order_release);
        ended_.notify_one();
      }
      if (abandoned()) return;  // a task has forked, and this is the child's only thread
    }
  }

  // Runs tasks of loop number `loop` while there are any, first of the thread's own share and then of others: loops of
  // so many tasks find most of their memory in the caches of the core that used it last. True: that was the loop's last
  // task.
  bool work(int worker, unsigned loop, int active) {
    std::int64_t done = 0;
    for (int i = 0; i < active; ++i) {
      Share& share = shares_[std::size_t((worker + i) % active)];
      std::uint64_t word = share.word.load(std::memory_order_relaxed);
      while (unsigned(word >> 32) == loop && unsigned(word) != 0) {
        if (!share.word.compare_exchange_weak(word, word - 1, std::memory_order_acquire, std::memory_order_relaxed))
          continue;
        const std::int64_t index = first_ + share.end - std::int64_t(unsigned(word));
        try {
          task_(context_, index, worker);
        } catch (...) {
          const std::lock_guard lock(failure_guard_);
          if (!failure_ || index < failed_index_) failure_ = std::current_exception(), failed_index_ = index;
        }
        ++done;
        if (abandoned()) return false;
        word = share.word.load(std::memory_order_relaxed);
      }
    }
    return done != 0 && left_.fetch_sub(done, std::memory_order_acq_rel) == done;
  }

  void wait_for_end() {
    patience_.wait(
        processors_.load(std::memory_order_relaxed) > 1, [&] { return left_.load(std::memory_order_acquire) == 0; },
        [&] {
          const unsigned before = ended_.load(std::memory_order_acquire);
          if (left_.load(std::memory_order_acquire) != 0) ended_.wait(before, std::memory_order_acquire);
        });
  }

  // Wakes no more threads than the loop has use for, nor than there are processors for them. Those that are awake come
  // by themselves.
  void wake(int helpers) {
    const int asleep = sleepers_.load(std::memory_order_seq_cst);
    if (asleep == 0 || helpers == 0) return;
    int processors = processors_.load(std::memory_order_relaxed);
    if (helpers >= processors && affinity_processors() > allowed_) {  // it has been widened meanwhile
      allowed_ = affinity_processors();
      processors_.store(processors = usable_processors(), std::memory_order_relaxed);
    }
    const int wanted = std::min(helpers, processors - 1) - (threads() - 1 - asleep);
    if (wanted >= asleep || (wanted > 0 && active_.load(std::memory_order_relaxed) < threads()))
      generation_.notify_all();
    else
      for (int i = 0; i < wanted; ++i) generation_.notify_one();
  }

  bool reserve_spinning() {
    const int processors = processors_.load(std::memory_order_relaxed);
    if (spinning_.fetch_add(1, std::memory_order_relaxed) + 1 < processors) return true;
    spinning_.fetch_sub(1, std::memory_order_relaxed);
    return false;
  }

  std::vector<Share> shares_;
  std::vector<std::thread> threads_;
  int allowed_ = affinity_processors();               // without the quotas
  std::atomic<int> processors_{usable_processors()};  // with them
  const bool excess_;  // more threads than processors: only as many spin as there are others for
  Patience patience_;  // the caller's

  Task task_ = nullptr;  // these three are read by who has claimed a task
  void* context_ = nullptr;
  std::int64_t first_ = 0;
  std::mutex failure_guard_;
  std::exception_ptr failure_;
  std::int64_t failed_index_ = 0;

  std::atomic<bool> stopping_{false}, abandoned_{false};
  std::atomic<int> active_{0};
  alignas(64) std::atomic<unsigned> generation_{0};  // the number of the latest loop
  std::atomic<int> sleepers_{0}, spinning_{0};
  alignas(64) std::atomic<std::int64_t> left_{0};  // tasks that have not ended
  std::atomic<unsigned> ended_{0};                 // grows when a worker has ended a loop's last task
};

/// The process's pool. It is never destroyed: loops run at any time, in destructors of static objects too. Nor is
/// anything made before the first loop: see lasting().
class ThreadPool {
 public:
  static ThreadPool& instance() {
    static constinit ThreadPool pool;
    return pool;
  }

  int size() {
    const int size = size_.load(std::memory_order_relaxed);
    if (size != 0) return size;
    int none = 0;
    size_.compare_exchange_strong(none, usable_processors(), std::memory_order_relaxed);
    return size_.load(std::memory_order_relaxed);
  }

  /// For the loops that begin from now on, and at once where none is under way.
  void resize(int threads) {
    size_.store(threads, std::memory_order_relaxed);
    if (const Lease lease(*this); lease) fitting_crew();
  }

  /// task(context, index, worker) for every index below `count`, worker < limit. Inside of a task, and while another
  /// thread has a loop under way, the calling thread does all of it, as worker 0.
  void run(std::int64_t count, int limit, Task task, void* context) {
    const FlushDenormals flush;
    if (count > 1 && limit > 1 && !inside_task())
      if (const Lease lease(*this); lease)
        if (Crew* crew = fitting_crew(); crew != nullptr) {
          for (std::int64_t first = 0; first < count; first += Crew::most_tasks)
            crew->run(first, std::min(count - first, Crew::most_tasks), limit, task, context);
          return;
        }
    std::exception_ptr failure;
    for (std::int64_t index = 0; index < count; ++index) try {
        task(context, index, 0);
      } catch (...) {
        if (!failure) failure = std::current_exception();
      }
    if (failure) std::rethrow_exception(failure);
  }

  /// At the program's end, or when the library that holds this code is unloaded: no threads from here on. Those of a
  /// loop that is under way are left alone, since whoever called std::exit may be one of them.
  void close() {
    if (const Lease lease(*this); lease) {
      closed_ = true;
      delete std::exchange(crew_, nullptr);
    }
  }

 private:
  // The right to use the crew. It does not wait.
  class Lease {
   public:
    explicit Lease(ThreadPool& pool)
        : pool_(pool), forks_(pool.forks_), held_(!pool.busy_.exchange(true, std::memory_order_acquire)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      if (held_ && forks_ == pool_.forks_) pool_.busy_.store(false, std::memory_order_release);
    }
    explicit operator bool() const { return held_; }

   private:
    ThreadPool& pool_;
    unsigned forks_;
    bool held_;
  };

  // In the child of a fork: the next loop starts threads of its own. What the parent's were about is left as it is.
  void forked() {
    if (crew_ != nullptr) {
      crew_->abandon();
      crew_->left_before = std::exchange(abandoned_, crew_);
      crew_ = nullptr;
    }
    ++forks_;
    busy_.store(false, std::memory_order_relaxed);
  }

  // The crew for size() threads; null for one thread.
  Crew* fitting_crew() {
    const int wanted = size();
    if (crew_ != nullptr && crew_->threads() == wanted) return crew_;
    delete std::exchange(crew_, nullptr);
    if (wanted == 1 || closed_) return nullptr;
    if (!registered_) {
      registered_ = true;
#if defined(STRATA_HAS_FORK)
      pthread_atfork(nullptr, nullptr, [] { instance().forked(); });
#endif
      std::atexit([] { instance().close(); });  // the end of a library that is unloaded, too
    }
    try {
      crew_ = new Crew(wanted);
    } catch (const std::exception&) {  // no memory for it
      return nullptr;
    }
    int expected = wanted;  // what there is, where it could not be had
    size_.compare_exchange_strong(expected, crew_->threads(), std::memory_order_relaxed);
    if (crew_->threads() > 1) return crew_;
    delete std::exchange(crew_, nullptr);
    return nullptr;
  }

  std::atomic<int> size_{0};  // 0: not known yet
  std::atomic<bool> busy_{false};
  Crew* crew_ = nullptr;       // this and what follows is for who has the lease
  Crew* abandoned_ = nullptr;  // keeps them reachable, for leak checkers
  unsigned forks_ = 0;
  bool closed_ = false, registered_ = false;
};

}  // namespace strata::inline STRATA_ABI::detail
