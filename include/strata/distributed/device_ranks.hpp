// How ranks exchange memory of their devices: one operation, of which sums are made as those of the host's memory are
// (distributed/tree_sum.hpp), with the same bits.
//
//     struct MyEngine : st::DeviceRanks { ... };                    // cuda/nccl.cuh is one
//     st::detail::butterfly_sum(rank, size, engine, gpu, numbers, other, count);
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "strata/distributed/communicator.hpp"
#include "strata/kernels/accelerator.hpp"

namespace strata { inline namespace STRATA_ABI {

class DeviceRanks {
 public:
  DeviceRanks() = default;
  DeviceRanks(const DeviceRanks&) = delete;
  DeviceRanks& operator=(const DeviceRanks&) = delete;
  virtual ~DeviceRanks() = default;

  /// As Communicator::exchange, of a device's memory: queued behind the device's work so far, and before what follows.
  virtual void exchange(int to, const void* out, std::size_t out_bytes, int from, void* in, std::size_t in_bytes) = 0;
  /// Waits until what was queued is done. Throws RankError where another rank does not answer.
  virtual void wait() = 0;
};

/// The engine of a kind of devices: a text that says which it is, and what makes all ranks' devices meet. All ranks
/// call make() at once; it throws DeviceError on all where one of them lacks something.
struct DeviceRanksProvider {
  const char* name = nullptr;
  std::unique_ptr<DeviceRanks> (*make)(Device, Communicator&) = nullptr;
};

namespace detail {

inline std::atomic<const DeviceRanksProvider*> device_ranks_provider{nullptr};

/// The steps of the sum over a power of two of ranks, as ButterflySum takes them: for few numbers whole(partner) and
/// add(0, count), else give(partner, given, given_count, kept_count), which brings kept_count numbers to be added from
/// the partner, add(kept, kept_count), and on the way back bring(partner, kept, kept_count, given, given_count).
template <class Whole, class Give, class Bring, class Add>
void butterfly(int rank, int size, std::size_t count, Whole&& whole, Give&& give, Bring&& bring, Add&& add) {
  constexpr std::size_t few = 4096;
  if (count <= few) {
    for (int distance = 1; distance < size; distance *= 2) {
      whole(rank ^ distance);
      add(std::size_t(0), count);
    }
    return;
  }
  struct Part {
    std::size_t kept, kept_count, given, given_count;
  };
  std::vector<Part> parts;
  std::size_t first = 0;
  for (int distance = 1; distance < size; distance *= 2) {
    const std::size_t half = count / 2;
    const Part lower{first, half, first + half, count - half}, upper{first + half, count - half, first, half};
    const Part part = (rank & distance) == 0 ? lower : upper;
    give(rank ^ distance, part.given, part.given_count, part.kept_count);
    add(part.kept, part.kept_count);
    parts.push_back(part);
    first = part.kept;
    count = part.kept_count;
  }
  for (int distance = size / 2; distance >= 1; distance /= 2) {
    const Part part = parts.back();
    parts.pop_back();
    bring(rank ^ distance, part.kept, part.kept_count, part.given, part.given_count);
  }
}

/// The sum over all ranks' numbers, on all, in memory of their devices. `other` has place for as many; add(to, from,
/// count) queues to[i] += from[i]. Each rank sends 2 (1 - 1 / ranks) times the numbers. Every sum is of two
/// numbers, and which two does not depend on how many ranks there are.
template <class Add>
void butterfly_sum(int rank, int size, DeviceRanks& ranks, float* numbers, float* other, std::size_t count, Add&& add) {
  butterfly(
      rank, size, count,
      [&](int partner) {
        ranks.exchange(partner, numbers, count * sizeof(float), partner, other, count * sizeof(float));
      },
      [&](int partner, std::size_t given, std::size_t given_count, std::size_t kept_count) {
        ranks.exchange(partner, numbers + given, given_count * sizeof(float), partner, other,
                       kept_count * sizeof(float));
      },
      [&](int partner, std::size_t kept, std::size_t kept_count, std::size_t given, std::size_t given_count) {
        ranks.exchange(partner, numbers + kept, kept_count * sizeof(float), partner, numbers + given,
                       given_count * sizeof(float));
      },
      [&](std::size_t first, std::size_t many) { add(numbers + first, other, many); });
}
/// The same, added by the device.
inline void butterfly_sum(int rank, int size, DeviceRanks& ranks, Accelerator& gpu, float* numbers, float* other,
                          std::size_t count) {
  butterfly_sum(rank, size, ranks, numbers, other, count, [&](float* to, const float* from, std::size_t many) {
    gpu.copy_channels(std::int64_t(many), 1, from, 1, 0, to, 1, 0, true);
  });
}

}  // namespace detail
}}  // namespace strata::STRATA_ABI
