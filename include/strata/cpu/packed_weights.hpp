// Weights in the form that a kernel reads, kept between calls. An inference uses the same weights for every image; the
// cache belongs to the layer, and a checksum of the weights says whether it still holds, so that it can never be stale.
//
//     const auto u = cache.get(key, count, [&](float* u) { transform_weights(..., u); });
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>

#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

/// Safe to use from several threads. A copy shares what is held so far, which never changes.
class PackedWeights {
 public:
  constexpr PackedWeights() = default;
  constexpr PackedWeights(const PackedWeights& other) noexcept : PackedWeights() {
    if (!std::is_constant_evaluated()) hold(other.held());
  }
  constexpr PackedWeights& operator=(const PackedWeights& other) {
    if (!std::is_constant_evaluated()) hold(other.held());
    return *this;
  }
  constexpr ~PackedWeights() {
    if (!std::is_constant_evaluated()) delete held_;
  }

  struct Entry {
    Entry(std::uint64_t k, std::size_t count) : key(k), numbers(cpu_pool().take(count * sizeof(float), true)) {}
    const float* data() const { return static_cast<const float*>(numbers.data()); }
    std::uint64_t key;
    Storage numbers;
  };

  /// The numbers of `key`: those held, or new ones that make(float* to) writes, `count` of them.
  template <class Make>
  std::shared_ptr<const Entry> get(std::uint64_t key, std::int64_t count, Make&& make) {
    if (auto entry = held(); entry != nullptr && entry->key == key) return entry;
    auto fresh = std::make_shared<Entry>(key, std::size_t(count));
    make(static_cast<float*>(fresh->numbers.data()));
    hold(fresh);
    return fresh;
  }

 private:
  // Neither a std::mutex nor a std::shared_ptr as a member: the compiler makes layers too, to find a network's facts
  // (nn/follow.hpp), and can destroy neither.
  using Held = std::shared_ptr<const Entry>;
  class Lock {
   public:
    explicit Lock(std::atomic_flag& taken) : taken_(taken) {
      while (taken_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();  // for as long as a pointer is copied
    }
    ~Lock() { taken_.clear(std::memory_order_release); }
    Lock(const Lock&) = delete;

   private:
    std::atomic_flag& taken_;
  };

  Held held() const {
    const Lock lock(taken_);
    return held_ != nullptr ? *held_ : Held();
  }
  void hold(Held entry) {
    auto fresh = std::make_unique<Held>(std::move(entry));
    const Lock lock(taken_);
    fresh.reset(std::exchange(held_, fresh.release()));
  }

  mutable std::atomic_flag taken_;
  Held* held_ = nullptr;
};

}  // namespace strata::inline STRATA_ABI::cpu
