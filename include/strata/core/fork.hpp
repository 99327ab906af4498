// What holds when a process with threads is forked: the child has the thread that called fork() and no other, and a
// mutex that another one held stays locked in it for ever.
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

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// The process's one T, made by the first who asks and never destroyed: static objects may use it when they go. No
/// thread waits for another that makes it, as it would for a static variable's guard, so no child of fork() can wait
/// for one that is not there. Nothing runs before main: this code may be for a processor that the program has yet to
/// look for.
template <class T>
T& lasting() {
  static constinit std::atomic<T*> place{nullptr};
  T* thing = place.load(std::memory_order_acquire);
  if (thing == nullptr) [[unlikely]] {
    auto fresh = std::make_unique<T>();
    if (place.compare_exchange_strong(thing, fresh.get(), std::memory_order_acq_rel, std::memory_order_acquire))
      thing = fresh.release();
  }
  return *thing;
}

class ForkSafeMutex;

/// All ForkSafeMutexes there are, and how often this process and those it comes from were forked.
class Forks {
 public:
  static Forks& instance() { return lasting<Forks>(); }

  Forks() {
#if defined(STRATA_HAS_FORK)
    // Two threads that make the first one at once both come here, so the handlers count.
    static constinit thread_local int calls = 0;
    pthread_atfork([] { if (calls++ == 0) instance().before(); }, [] { if (--calls == 0) instance().after(); },
                   [] {
                     if (--calls != 0) return;
                     instance().after();
                     instance().count_.fetch_add(1, std::memory_order_relaxed);
                   });
#endif
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

  inline void before();
  inline void after();

  std::mutex guard_;
  ForkSafeMutex* first_ = nullptr;
  std::unique_ptr<Anything> left_behind_;
  std::atomic<unsigned> count_{0};
};

/// A mutex that is free in a child of fork(), and what it protects is whole there: fork() waits until nobody holds it.
/// So it is held for short, and no other one is taken meanwhile.
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

}}}  // namespace strata::STRATA_ABI::detail
