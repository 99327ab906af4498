// Weights in the form that a kernel reads, kept between calls. An inference uses the same weights for every image; the
// cache belongs to the layer, and a checksum of the weights says whether it still holds, so that it can never be stale.
//
//     const auto u = cache.get(key, count, [&](float* u) { transform_weights(..., u); });
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

/// Safe to use from several threads. A copy shares what is held so far, which never changes.
class PackedWeights {
 public:
  PackedWeights() = default;
  PackedWeights(const PackedWeights& other) noexcept : held_(other.held()) {}
  PackedWeights& operator=(const PackedWeights& other) {
    auto entry = other.held();
    hold(std::move(entry));
    return *this;
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
  std::shared_ptr<const Entry> held() const {
    const std::lock_guard lock(guard());
    return held_;
  }
  void hold(std::shared_ptr<const Entry> entry) {  // what was held goes after the lock
    const std::lock_guard lock(guard());
    held_.swap(entry);
  }

  // One for all, taken for as long as a pointer is copied.
  struct Guard : strata::detail::ForkSafeMutex {};
  static Guard& guard() { return strata::detail::lasting<Guard>(); }

  std::shared_ptr<const Entry> held_;
};

}  // namespace strata::inline STRATA_ABI::cpu
