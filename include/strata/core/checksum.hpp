// A fast 64-bit checksum of numbers in memory, to notice that they have changed. It is not a defence against somebody
// who means to deceive it, and it differs between instruction sets: never written to a file.
//
//     std::uint64_t key = st::checksum(weight.data(), weight.size());
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// Spreads every bit over all others (Stafford's variant 13 of the finaliser of MurmurHash3).
constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

inline std::uint64_t checksum_range(const char* bytes, std::int64_t count, std::uint64_t seed) {
  using V = simd::Vector<std::uint64_t>;
  constexpr std::int64_t step = 4 * std::int64_t(sizeof(V));
  V sums[4];
  for (int i = 0; i < 4; ++i) sums[i] = V{} + (seed + std::uint64_t(i));
  std::int64_t at = 0;
  for (; at + step <= count; at += step)
    for (int i = 0; i < 4; ++i) {
      V block;
      std::memcpy(&block, bytes + at + i * std::int64_t(sizeof(V)), sizeof(V));
      sums[i] = (sums[i] ^ block) * 0x9e3779b97f4a7c15u;
      sums[i] ^= sums[i] >> 32;
    }
  std::uint64_t result = seed;
  for (int i = 0; i < 4; ++i)
    for (int lane = 0; lane < simd::lanes<V>; ++lane) result = mix(result ^ sums[i][lane]);
  for (; at < count; at += 8) {
    std::uint64_t rest = 0;
    std::memcpy(&rest, bytes + at, std::size_t(std::min<std::int64_t>(8, count - at)));
    result = mix(result ^ rest);
  }
  return result;
}

}  // namespace detail

/// The checksum of `count` numbers, continued from `seed`. Reads memory on all threads.
template <class T>
std::uint64_t checksum(const T* numbers, std::int64_t count, std::uint64_t seed = 0) {
  constexpr std::int64_t grain = 1 << 14;
  std::atomic<std::uint64_t> sum{detail::mix(seed + std::uint64_t(count))};
  parallel_ranges(count, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::uint64_t part =
        detail::checksum_range(reinterpret_cast<const char*>(numbers + begin), (end - begin) * std::int64_t(sizeof(T)),
                               seed + std::uint64_t(begin) + 1);
    sum.fetch_add(part, std::memory_order_relaxed);
  });
  return detail::mix(sum.load(std::memory_order_relaxed));
}

}}  // namespace strata::STRATA_ABI
