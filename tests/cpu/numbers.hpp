// Numbers for the tests of kernels.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <vector>

#include "strata/core/random.hpp"

/// `count` numbers of a normal distribution.
template <class T>
std::vector<T> normal(std::int64_t count, std::uint32_t stream) {
  strata::Rng rng(5, stream);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = T(rng.normal());
  return values;
}

/// Memory in which every number that a kernel forgets to write shows.
template <class T>
std::vector<T> unwritten(std::int64_t count) {
  return std::vector<T>(std::size_t(count), std::numeric_limits<T>::quiet_NaN());
}

/// Numbers in memory of their own between two pages that nobody may touch: a kernel that reads or writes in front of
/// them (at_end = false) or behind them (at_end) is killed there.
template <class T>
class Fenced {
 public:
  Fenced(const std::vector<T>& values, bool at_end) {
    const std::size_t bytes = values.size() * sizeof(T);
    bytes_ = (bytes + page - 1) / page * page + 2 * page;
    memory_ = static_cast<std::byte*>(
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, /*fd=*/-1, /*offset=*/0));
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory_, page, PROT_NONE);
    mprotect(memory_ + bytes_ - page, page, PROT_NONE);
    data_ = reinterpret_cast<T*>(at_end ? memory_ + bytes_ - page - bytes : memory_ + page);
    std::copy(values.begin(), values.end(), data_);
  }
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;
  ~Fenced() { munmap(memory_, bytes_); }

  T* data() { return data_; }

 private:
  static constexpr std::size_t page = std::size_t{1} << 16;  // as large as any processor's

  std::byte* memory_ = nullptr;
  std::size_t bytes_ = 0;
  T* data_ = nullptr;
};
