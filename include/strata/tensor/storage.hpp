// Memory that is taken once and used again. A training step asks for the same sizes each time, so after the first one
// every request is met from the pool: no call to the system, no page fault.
//
//     st::Storage block = st::cpu_pool().take(1 << 20);  // uninitialised, 64-byte aligned, returned by its last handle
//
// A pool rounds sizes up to eight classes per power of two; block_bytes(bytes) tells what a request really takes.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/core/fork.hpp"
#include "strata/tensor/device.hpp"
#include "strata/tensor/watch.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define STRATA_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define STRATA_ADDRESS_SANITIZER 1
#endif
#endif
#if defined(STRATA_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

namespace strata { inline namespace STRATA_ABI {

/// Where a pool's memory comes from. One implementation per kind of device.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  virtual Device device() const = 0;
  /// At least 64-byte aligned; throws std::bad_alloc or DeviceError when there is none left.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void deallocate(void* memory, std::size_t bytes) noexcept = 0;
  /// Gives to the system what it keeps of deallocated memory.
  virtual void trim() noexcept {}
};

class HostMemory final : public MemorySource {
 public:
  Device device() const override { return Device::cpu(); }

  void* allocate(std::size_t bytes) override {
    constexpr std::size_t huge_page = std::size_t{1} << 21;
    const std::size_t alignment = bytes >= huge_page ? huge_page : 64;
    void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (memory == nullptr) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (bytes >= huge_page) madvise(memory, bytes, MADV_HUGEPAGE);  // fewer page faults; a refusal costs only time
#endif
    return memory;
  }

  void deallocate(void* memory, std::size_t) noexcept override { std::free(memory); }

  // What the C library keeps is soon used again while sizes change, and taking it anew from the system costs some
  // percent of a small network's time: so it is returned here and not by deallocate.
  void trim() noexcept override {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
  }
};

class MemoryPool;

namespace detail {
struct Block {
  void* data = nullptr;
  std::size_t capacity = 0;
  int size_class = 0;
  MemoryPool* pool = nullptr;
  std::atomic<int> handles{0};
  Block* next = nullptr;  // in the pool's list of free blocks
  Watch watch;
};
}  // namespace detail

/// A counted handle on a block of a pool's memory. Copies share the block.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage& other) noexcept : block_(other.block_) {
    if (block_) block_->handles.fetch_add(1, std::memory_order_relaxed);
  }
  Storage(Storage&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Storage& operator=(Storage other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Storage() { release(); }

  explicit operator bool() const { return block_ != nullptr; }
  void* data() const& { return block_ ? block_->data : nullptr; }
  void* data() const&& = delete;  // the last handle of a block gives it back: name it first
  /// The same for who may write: where a backward pass is to read the block again, what lies there is noted first.
  void* data_to_write() const {
    if (block_ && block_->watch.on.load(std::memory_order_relaxed)) [[unlikely]]
      block_->watch.before_write(block_->data);
    return data();
  }
  /// From here to unwatch() it shows whether the numbers have changed: see tensor/watch.hpp. For no block, nothing
  /// does.
  std::uint32_t watch() const { return block_ ? block_->watch.begin(block_->data) : 0; }
  void unwatch() const noexcept {
    if (block_) block_->watch.end();
  }
  bool unchanged_since(std::uint32_t version) const {
    return !block_ || block_->watch.version_of(block_->data) == version;
  }
  /// Whether both are handles on one block.
  bool same_block(const Storage& other) const { return block_ == other.block_; }
  std::size_t capacity() const { return block_ ? block_->capacity : 0; }
  inline Device device() const;
  /// The pool it is of; the host's for no block.
  inline MemoryPool& pool() const;
  /// Whether this is the only handle on the block.
  bool unique() const { return block_ && block_->handles.load(std::memory_order_acquire) == 1; }

 private:
  friend class MemoryPool;
  explicit Storage(detail::Block* block) : block_(block) {}
  inline void release() noexcept;

  detail::Block* block_ = nullptr;
};

/// Recycles blocks of one source. Safe to use from any thread. The pool must outlive its blocks.
class MemoryPool {
 public:
  explicit MemoryPool(MemorySource& source) : source_(source) {}
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;
  ~MemoryPool() { free_unused(); }

  /// What a request of `bytes` takes: rounded up to one of eight classes per power of two, 64 bytes at least.
  static constexpr std::size_t block_bytes(std::size_t bytes) { return class_bytes(class_of(bytes)); }

  /// An uninitialised block of at least `bytes` bytes. One that will be held for long is taken no larger than
  /// block_bytes(bytes); others may be up to 1.5 times as large. Throws OutOfMemory, or what the source throws, when
  /// there is none even with the free blocks given back.
  Storage take(std::size_t bytes, bool for_long = false) {
    if (MemoryPool* const other = instead_.load(std::memory_order_acquire)) [[unlikely]]
      return other->take(bytes, for_long);
    const int wanted = class_of(bytes);
    const std::lock_guard lock(guard_);
    detail::Block* block = take_free(wanted, for_long ? 0 : 4);
    if (block == nullptr) {
      const std::size_t needed = live_bytes_ + class_bytes(wanted);
      if (free_bytes_ + needed > std::max(2 * std::max(most_live_, needed), always_kept))
        trim_locked();  // sizes changed: do not keep the old ones as well
      block = fresh(wanted);
    }
    live_bytes_ += block->capacity;
    most_live_ = std::max(most_live_, live_bytes_);
    peak_bytes_ = std::max(peak_bytes_, live_bytes_);
    block->handles.store(1, std::memory_order_relaxed);
    block->watch.bytes = on_host() ? bytes : detail::Watch::unreadable;
    unpoison(block, bytes);
    return Storage(block);
  }

  /// From here on, until it is called with nullptr, what is asked of this pool is taken from another: from that of a
  /// recording while work is recorded, and from the device's own for what is computed from a recording's results.
  void take_from(MemoryPool* other) { instead_.store(other, std::memory_order_release); }

  /// Gives the free blocks back to the system, and what the C library keeps of earlier ones.
  void trim() {
    free_unused();
    const std::lock_guard lock(guard_);
    source_.trim();
  }

  /// Frees the free blocks, for requests of other sizes: the C library may keep their memory. A pool does so itself
  /// when the system has no more, and when it would come to hold more than twice what was ever in use at once.
  void free_unused() {
    const std::lock_guard lock(guard_);
    trim_locked();
    most_live_ = live_bytes_;
  }

  Device device() const { return source_.device(); }
  std::size_t live_bytes() const { return locked(live_bytes_); }          ///< in blocks with a handle
  std::size_t peak_bytes() const { return locked(peak_bytes_); }          ///< the most of that since reset_peak
  std::size_t reserved_bytes() const { return locked(live_bytes_, free_bytes_); }  ///< live and free together
  std::size_t fresh_blocks() const { return locked(fresh_blocks_); }      ///< requests the source had to meet, so far
  void reset_peak() {
    const std::lock_guard lock(guard_);
    peak_bytes_ = live_bytes_;
  }

  /// Fills host blocks with bytes of all ones, a NaN in every floating-point type, when they are taken: an element that
  /// nobody writes then shows. For tests.
  void fill_with_nan(bool on) {
    const std::lock_guard lock(guard_);
    fill_with_nan_ = on;
  }

 private:
  friend class Storage;
  static constexpr int class_count = 8 * 58;
  static constexpr std::size_t always_kept = std::size_t{1} << 26;  // so much is never worth giving back

  static constexpr int class_of(std::size_t bytes) {
    if (bytes <= 64) return 0;
    if (bytes > (std::size_t{1} << 62)) throw OutOfMemory(bytes, "memory", 0);
    const int log = int(std::bit_width(bytes - 1)) - 1;  // 2^log < bytes <= 2^(log+1)
    const std::size_t step = std::size_t{1} << (log - 3);
    return 8 * (log - 6) + int((bytes - (std::size_t{1} << log) + step - 1) / step);
  }
  static constexpr std::size_t class_bytes(int index) {
    const int log = 6 + index / 8;
    return (std::size_t{1} << log) + std::size_t(index % 8) * (std::size_t{1} << (log - 3));
  }

  detail::Block* take_free(int wanted, int classes_more) {
    const int last = std::min(wanted + classes_more, class_count - 1);
    for (int index = wanted; index <= last; ++index)
      if (detail::Block* block = free_[std::size_t(index)]) {
        free_[std::size_t(index)] = block->next;
        free_bytes_ -= block->capacity;
        return block;
      }
    return nullptr;
  }

  detail::Block* fresh(int wanted) {
    auto block = std::make_unique<detail::Block>();
    block->capacity = class_bytes(wanted);
    block->size_class = wanted;
    block->pool = this;
    try {
      block->data = source_.allocate(block->capacity);
    } catch (const std::exception&) {
      trim_locked();
      source_.trim();
      try {
        block->data = source_.allocate(block->capacity);
      } catch (const std::bad_alloc&) {
        throw OutOfMemory(block->capacity, device().str().c_str(), live_bytes_);
      }
    }
    ++fresh_blocks_;
    return block.release();
  }

  void give_back(detail::Block* block) noexcept {
    const std::lock_guard lock(guard_);
    live_bytes_ -= block->capacity;
    free_bytes_ += block->capacity;
    block->next = free_[std::size_t(block->size_class)];
    free_[std::size_t(block->size_class)] = block;
    poison(block);
  }

  void trim_locked() {
    for (detail::Block*& list : free_)
      while (list != nullptr) {
        detail::Block* block = std::exchange(list, list->next);
        free_bytes_ -= block->capacity;
        unpoison(block, block->capacity);
        source_.deallocate(block->data, block->capacity);
        delete block;
      }
  }

  bool on_host() const { return device().kind == DeviceKind::cpu; }
  void poison([[maybe_unused]] detail::Block* block) const {
#if defined(STRATA_ADDRESS_SANITIZER)
    if (on_host()) __asan_poison_memory_region(block->data, block->capacity);
#endif
  }
  void unpoison(detail::Block* block, std::size_t bytes) const {
    if (!on_host()) return;
#if defined(STRATA_ADDRESS_SANITIZER)
    __asan_poison_memory_region(block->data, block->capacity);
    __asan_unpoison_memory_region(block->data, bytes);
#endif
    if (fill_with_nan_) std::memset(block->data, 0xFF, bytes);
  }

  template <class... Counts>
  std::size_t locked(const Counts&... counts) const {
    const std::lock_guard lock(guard_);
    return (counts + ...);
  }

  MemorySource& source_;
  mutable detail::ForkSafeMutex guard_;
  std::array<detail::Block*, std::size_t(class_count)> free_{};
  std::size_t live_bytes_ = 0, free_bytes_ = 0, peak_bytes_ = 0, fresh_blocks_ = 0;
  std::size_t most_live_ = 0;  // as peak_bytes_, since trim
  bool fill_with_nan_ = false;
  std::atomic<MemoryPool*> instead_{nullptr};
};

inline Device Storage::device() const { return block_ ? block_->pool->device() : Device::cpu(); }

inline void Storage::release() noexcept {
  if (block_ && block_->handles.fetch_sub(1, std::memory_order_acq_rel) == 1) block_->pool->give_back(block_);
  block_ = nullptr;
}

namespace detail {
struct HostPool {
  HostMemory source;
  MemoryPool pool{source};
};
}  // namespace detail

/// The process's pool of host memory. It is never destroyed, so that tensors with static lifetime stay valid.
inline MemoryPool& cpu_pool() { return detail::lasting<detail::HostPool>().pool; }

inline MemoryPool& Storage::pool() const { return block_ ? *block_->pool : cpu_pool(); }

/// Uninitialised scratch memory of `count` elements for the length of a scope.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::size_t count)
      : storage_(cpu_pool().take(count > SIZE_MAX / sizeof(T) ? SIZE_MAX : count * sizeof(T))) {}
  T* data() & { return static_cast<T*>(storage_.data()); }
  const T* data() const& { return static_cast<const T*>(storage_.data()); }
  const T* data() const&& = delete;  // it ends with this line
  T& operator[](std::size_t index) { return data()[index]; }

 private:
  Storage storage_;
};

}}  // namespace strata::STRATA_ABI
