// Weights in the form that a kernel reads, kept between calls. An inference uses the same weights for every image; the
// cache belongs to the layer, and a checksum of the weights says whether it still holds, so that it can never be stale.
//
//     const auto u = cache.get(key, count, [&](float* u) { transform_weights(..., u); });
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>

#include "strata/core/fork.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

/// Safe to use from several threads. A copy shares what is held so far, which never changes.
class PackedWeights {
 public:
  constexpr PackedWeights() = default;
  constexpr PackedWeights(const PackedWeights& other) : PackedWeights() {
    if (!std::is_constant_evaluated()) hold(other.held());
  }
  constexpr PackedWeights(PackedWeights&& other) noexcept : held_(std::exchange(other.held_, nullptr)) {}
  constexpr PackedWeights& operator=(PackedWeights other) noexcept {
    std::swap(held_, other.held_);
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
  // No std::shared_ptr as a member: the compiler makes layers too, to find a network's facts (nn/follow.hpp), and
  // cannot destroy one.
  using Held = std::shared_ptr<const Entry>;

  Held held() const {
    const std::lock_guard lock(guard());
    return held_ != nullptr ? *held_ : Held();
  }
  void hold(Held entry) {  // what was held goes after the lock
    auto other = std::make_unique<Held>(std::move(entry));
    const std::lock_guard lock(guard());
    if (held_ != nullptr)
      held_->swap(*other);
    else
      held_ = other.release();
  }
  // One for all, taken for as long as a pointer is copied.
  struct Guard : strata::detail::ForkSafeMutex {};
  static Guard& guard() { return strata::detail::lasting<Guard>(); }

  Held* held_ = nullptr;
};

}}}  // namespace strata::STRATA_ABI::cpu
