// What holds when a process with threads is forked: the child has the thread that called fork() and no other, and a mutex
// that another one held stays locked in it for ever.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "strata/core/config.hpp"

#if __has_include(<pthread.h>)
#include <pthread.h>
#define STRATA_HAS_FORK 1
#endif

namespace strata::inline STRATA_ABI::detail {

class ForkSafeMutex;

/// All ForkSafeMutexes there are, and how often this process and those it comes from were forked. Never destroyed.
class Forks {
 public:
  static Forks& instance() {
    static Forks& forks = *new Forks;
    return forks;
  }

  unsigned count() const { return count_.load(std::memory_order_relaxed); }

  /// Keeps what a child can neither use nor destroy, such as threads that stayed in the parent.
  template <class T>
  void leave_behind(std::unique_ptr<T> thing) {
    const std::lock_guard lock(guard_);
    left_behind_ = std::make_unique<Kept<T>>(std::move(left_behind_), std::move(thing));
  }

 private:
  friend class ForkSafeMutex;
  struct Anything {
    virtual ~Anything() = default;
  };
  template <class T>
  struct Kept final : Anything {
    Kept(std::unique_ptr<Anything> n, std::unique_ptr<T> t) : next(std::move(n)), thing(std::move(t)) {}
    std::unique_ptr<Anything> next;
    std::unique_ptr<T> thing;
  };

  Forks() {
#if defined(STRATA_HAS_FORK)
    pthread_atfork([] { instance().before(); }, [] { instance().after(); },
                   [] {
                     instance().after();
                     instance().count_.fetch_add(1, std::memory_order_relaxed);
                   });
#endif
  }
  inline void before();
  inline void after();

  std::mutex guard_;
  ForkSafeMutex* first_ = nullptr;
  std::unique_ptr<Anything> left_behind_;
  std::atomic<unsigned> count_{0};
};

/// A mutex that is free in a child of fork(), and what it protects is whole there: fork() waits until nobody holds it. So it
/// is held for short, and no other one is taken meanwhile.
class ForkSafeMutex {
 public:
  ForkSafeMutex() {
    Forks& forks = Forks::instance();
    const std::lock_guard lock(forks.guard_);
    next_ = std::exchange(forks.first_, this);
  }
  ForkSafeMutex(const ForkSafeMutex&) = delete;
  ForkSafeMutex& operator=(const ForkSafeMutex&) = delete;
  ~ForkSafeMutex() {
    Forks& forks = Forks::instance();
    const std::lock_guard lock(forks.guard_);
    ForkSafeMutex** place = &forks.first_;
    while (*place != this) place = &(*place)->next_;
    *place = next_;
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  friend class Forks;
  std::mutex mutex_;
  ForkSafeMutex* next_ = nullptr;
};

inline void Forks::before() {
  guard_.lock();
  for (ForkSafeMutex* mutex = first_; mutex != nullptr; mutex = mutex->next_) mutex->lock();
}

inline void Forks::after() {
  for (ForkSafeMutex* mutex = first_; mutex != nullptr; mutex = mutex->next_) mutex->unlock();
  guard_.unlock();
}

// Made before main and before any thread, so that no child finds it half made.
inline const Forks& forks_made = Forks::instance();

}  // namespace strata::inline STRATA_ABI::detail
