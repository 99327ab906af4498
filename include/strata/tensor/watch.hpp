// Whether numbers that a backward pass will read again are still what they were. A block is watched from the forward
// pass on; whoever asks for it to write is taken down with a checksum of what lay there before, and when the backward
// pass comes the checksum is compared. So an access that changes nothing is no change, and a block that nobody asks for
// costs nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>

#include "strata/core/checksum.hpp"
#include "strata/core/fork.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// Beside each block of memory. A pointer to write through that was asked for before begin() is not noticed.
struct Watch {
  static constexpr std::size_t unreadable =
      std::numeric_limits<std::size_t>::max();  ///< of a device: each access is a change

  std::atomic<bool> on{false};  ///< whether who asks for the block to write must call before_write() first
  std::size_t bytes = 0;        ///< what was asked of the pool

  /// Begins to watch; gives the version of what lies at `data`.
  std::uint32_t begin(const void* data) {
    const std::lock_guard lock(guard());
    settle(data);
    ++watchers_;
    on.store(true, std::memory_order_relaxed);
    return version_;
  }

  void end() noexcept {
    const std::lock_guard lock(guard());
    if (--watchers_ > 0) return;
    on.store(false, std::memory_order_relaxed);
    touched_ = false;
  }

  void before_write(const void* data) {
    const std::lock_guard lock(guard());
    if (watchers_ == 0 || touched_) return;
    if (bytes == unreadable) {
      ++version_;
      return;
    }
    before_ = checksum_of(data);
    touched_ = true;
    on.store(false, std::memory_order_relaxed);  // what lies there may have changed now: once is enough
  }

  /// The version of what lies at `data` now.
  std::uint32_t version_of(const void* data) {
    const std::lock_guard lock(guard());
    settle(data);
    return version_;
  }

 private:
  void settle(const void* data) {
    if (!touched_) return;
    if (checksum_of(data) != before_) ++version_;
    touched_ = false;
    on.store(watchers_ > 0, std::memory_order_relaxed);
  }
  std::uint64_t checksum_of(const void* data) const {
    return checksum_range(static_cast<const char*>(data), std::int64_t(bytes), bytes);
  }
  struct Guard : ForkSafeMutex {};
  // one for all: held for a moment, twice for each operation that trains
  static Guard& guard() { return lasting<Guard>(); }

  int watchers_ = 0;
  std::uint32_t version_ = 0;
  bool touched_ = false;
  std::uint64_t before_ = 0;
};

}}}  // namespace strata::STRATA_ABI::detail
