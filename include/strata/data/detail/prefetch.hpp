// Makes a sequence of things ahead of the one who uses them, on threads of its own, and hands them out in order.
//
//     Prefetcher<Batch> batches(first, last, workers, ahead, [&](std::int64_t index) { return make_batch(index); });
//     while (std::optional<Batch> batch = batches.next()) use(*batch);
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI::detail {

template <class T>
class Prefetcher {
 public:
  /// make(index, stopping) for first <= index < last; at most `ahead` results wait or are being made. stopping() turns
  /// true when nobody wants the result any more. workers = 0: everything is made inside next().
  using Make = std::function<T(std::int64_t, const Prefetcher&)>;

  Prefetcher(std::int64_t first, std::int64_t last, int workers, std::int64_t ahead, Make make)
      : make_(std::move(make)), last_(last), wanted_(first), claimed_(first) {
    if (workers == 0) return;
    slots_.resize(std::size_t(ahead));
    threads_.reserve(std::size_t(workers));
    try {
      for (int worker = 0; worker < workers; ++worker) threads_.emplace_back([this] { work(); });
    } catch (...) {
      stop();
      throw;
    }
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  ~Prefetcher() { stop(); }

  /// The next result; nothing after the last. What make threw for it is thrown here, and the sequence is over.
  std::optional<T> next() {
    if (wanted_ >= last_) return std::nullopt;
    if (slots_.empty()) {
      const std::int64_t index = std::exchange(wanted_, last_);  // stays at the end if make throws
      std::optional<T> result = make_(index, *this);
      wanted_ = index + 1;
      return result;
    }
    Slot taken;
    {
      std::unique_lock lock(guard_);
      Slot& slot = slots_[std::size_t(wanted_) % slots_.size()];
      made_.wait(lock, [&] { return slot.result.has_value() || slot.failure; });
      taken = std::exchange(slot, Slot{});
      wanted_ = taken.failure ? last_ : wanted_ + 1;
    }
    if (taken.failure) {
      stop();
      std::rethrow_exception(taken.failure);
    }
    room_.notify_one();
    return std::move(taken.result);
  }

  bool stopping() const {
    const std::lock_guard lock(guard_);
    return stopping_;
  }

 private:
  struct Slot {
    std::optional<T> result;
    std::exception_ptr failure;
  };

  void work() {
    std::unique_lock lock(guard_);
    while (true) {
      room_.wait(lock,
                 [&] { return stopping_ || claimed_ >= last_ || claimed_ < wanted_ + std::int64_t(slots_.size()); });
      if (stopping_ || claimed_ >= last_) return;
      const std::int64_t index = claimed_++;
      lock.unlock();
      Slot made;
      try {
        made.result = make_(index, *this);
      } catch (...) {
        made.failure = std::current_exception();
      }
      lock.lock();
      slots_[std::size_t(index) % slots_.size()] = std::move(made);
      made_.notify_one();
    }
  }

  void stop() {
    {
      const std::lock_guard lock(guard_);
      stopping_ = true;
    }
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  Make make_;
  std::int64_t last_;
  mutable std::mutex guard_;
  std::condition_variable made_, room_;
  std::int64_t wanted_, claimed_;  // the next index to hand out, and to make
  std::vector<Slot> slots_;        // result `index` waits in slot index % size
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace strata::inline STRATA_ABI::detail
