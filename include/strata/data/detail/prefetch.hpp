// Makes a sequence of things ahead of the one who uses them, on threads of its own, and hands them out in order.
//
//     Prefetcher<Batch> batches(first, last, workers, ahead, [&](std::int64_t index) { return make_batch(index); });
//     while (std::optional<Batch> batch = batches.next()) use(*batch);
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/fork.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

template <class T>
class Prefetcher {
 public:
  /// make(index, stopping) for first <= index < last; at most `ahead` results wait or are being made. stopping() turns
  /// true when nobody wants the result any more. workers = 0: everything is made inside next(). Where the system gives
  /// fewer threads than `workers`, those do the work.
  using Make = std::function<T(std::int64_t, const Prefetcher&)>;

  Prefetcher(std::int64_t first, std::int64_t last, int workers, std::int64_t ahead, Make make)
      : make_(std::move(make)), last_(last), wanted_(first), claimed_(first) {
    if (workers == 0) return;
    queue_ = std::make_unique<Queue>();
    queue_->places.resize(std::size_t(ahead));
    queue_->threads.reserve(std::size_t(workers));
    try {
      for (int worker = 0; worker < workers; ++worker) queue_->threads.emplace_back([this] { work(*queue_); });
    } catch (const std::exception&) {
      if (queue_->threads.empty()) queue_.reset();
    }
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  ~Prefetcher() { stop(); }

  /// The next result; nothing after the last. What make threw for it is thrown here, and the sequence is over. Throws
  /// Error in a child forked since the beginning, which has none of the threads.
  std::optional<T> next() {
    if (wanted_ >= last_) return std::nullopt;
    if (queue_ == nullptr) {
      const std::int64_t index = std::exchange(wanted_, last_);  // stays at the end if make throws
      std::optional<T> result = make_(index, *this);
      wanted_ = index + 1;
      return result;
    }
    if (forked()) {
      wanted_ = last_;
      throw Error(
          "DataLoader: this process was forked in the middle of an epoch, and the workers that make its batches stayed "
          "in "
          "the parent; begin one in the child, with loader.epoch(epoch, first_batch)");
    }
    Queue& queue = *queue_;
    Slot taken;
    {
      std::unique_lock lock(queue.guard);
      Slot& slot = queue.places[std::size_t(wanted_) % queue.places.size()];
      queue.made.wait(lock, [&] { return slot.result.has_value() || slot.failure; });
      taken = std::exchange(slot, Slot{});
      wanted_ = taken.failure ? last_ : wanted_ + 1;
    }
    if (taken.failure) {
      stop();
      std::rethrow_exception(taken.failure);
    }
    queue.room.notify_one();
    return std::move(taken.result);
  }

  bool stopping() const {
    if (queue_ == nullptr) return false;
    const std::lock_guard lock(queue_->guard);
    return queue_->stopping;
  }

 private:
  struct Slot {
    std::optional<T> result;
    std::exception_ptr failure;
  };
  struct Queue {
    std::mutex guard;
    std::condition_variable made, room;
    std::vector<Slot> places;  // result `index` waits in slot index % size
    bool stopping = false;
    std::vector<std::thread> threads;
  };

  void work(Queue& queue) {
    std::unique_lock lock(queue.guard);
    while (true) {
      queue.room.wait(lock, [&] {
        return queue.stopping || claimed_ >= last_ || claimed_ < wanted_ + std::int64_t(queue.places.size());
      });
      if (queue.stopping || claimed_ >= last_) return;
      const std::int64_t index = claimed_++;
      lock.unlock();
      Slot made;
      try {
        made.result = make_(index, *this);
      } catch (...) {
        made.failure = std::current_exception();
      }
      lock.lock();
      queue.places[std::size_t(index) % queue.places.size()] = std::move(made);
      queue.made.notify_one();
    }
  }

  void stop() {
    if (queue_ == nullptr) return;
    if (forked()) return Forks::instance().leave_behind(std::move(queue_));  // nobody would ever leave its mutex
    {
      const std::lock_guard lock(queue_->guard);
      queue_->stopping = true;
    }
    queue_->room.notify_all();
    for (std::thread& thread : queue_->threads) thread.join();
    queue_->threads.clear();
  }

  bool forked() const { return forks_ != Forks::instance().count(); }

  Make make_;
  std::int64_t last_;
  std::int64_t wanted_, claimed_;  // the next index to hand out, and to make
  unsigned forks_ = Forks::instance().count();
  std::unique_ptr<Queue> queue_;  // none: no threads
};

}}}  // namespace strata::STRATA_ABI::detail
