// The calls of NCCL, by several processes, against a fake that sends through shared memory: sums over ranks have
// the bits of the tree, whatever their number, and what is missing or hangs is said. Nothing here runs on a GPU.
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "cuda_fakes/libraries.hpp"
#include "cuda_fakes/support.hpp"
#include "distributed/process_ranks.hpp"
#include "strata/cuda/nccl.cuh"

namespace st = strata;
using namespace strata_test;

namespace {

/// in_processes(), where the fakes' complaints are said too.
template <class Body>
std::string in_clean_processes(int size, Body&& body) {
  return in_processes(size, [&](st::Communicator& ranks) {
    std::string text;
    try {
      text = body(ranks);
    } catch (const std::exception& error) {
      text = error.what();
    }
    for (const std::string& complaint : fake_device::complaints()) text += " | " + complaint;
    return text;
  });
}

std::vector<float> row_of(std::size_t count, int shard) {
  st::Rng rng(11, 3, std::uint32_t(shard));
  std::vector<float> row(count);
  for (float& x : row) x = rng.normal();
  return row;
}

/// Neighbours, then sums of neighbours.
std::vector<float> by_hand(std::size_t count, int first, int shards) {
  if (shards == 1) return row_of(count, first);
  std::vector<float> left = by_hand(count, first, shards / 2);
  const std::vector<float> right = by_hand(count, first + shards / 2, shards / 2);
  for (std::size_t i = 0; i < count; ++i) left[i] += right[i];
  return left;
}

class Floats {
 public:
  explicit Floats(std::size_t count) : memory_(count * sizeof(float), fake_device::stream()) {}
  float* data() const { return static_cast<float*>(memory_.data()); }

 private:
  st::cuda::DeviceScratch memory_;
};

}  // namespace

TEST_CASE("NCCL: sums over 1, 2, 4 and 8 ranks have the bits of the tree over 8 shards") {
  for (const int size : {1, 2, 4, 8})
    for (const std::size_t count :
         {std::size_t(1), std::size_t(7), std::size_t(4096), std::size_t(4097), std::size_t(50003)}) {
      CAPTURE(size);
      CAPTURE(count);
      const std::string said = in_clean_processes(size, [&](st::Communicator& ranks) -> std::string {
        st::cuda::NcclRanks devices(ranks, fake_device::stream(), fake_nccl_path());
        const Floats numbers(count), other(count);
        const int own = 8 / size;
        for (int again = 0; again < 2; ++again) {
          const std::vector<float> mine = by_hand(count, ranks.rank() * own, own);
          std::memcpy(numbers.data(), mine.data(), count * sizeof(float));
          st::detail::butterfly_sum(ranks.rank(), ranks.size(), devices, numbers.data(), other.data(), count,
                                    [](float* to, const float* from, std::size_t many) {
                                      for (std::size_t i = 0; i < many; ++i) to[i] += from[i];
                                    });
          devices.wait();
          if (std::memcmp(numbers.data(), by_hand(count, 0, 8).data(), count * sizeof(float)) != 0) return "other bits";
        }
        return "";
      });
      CHECK(said == "");
    }
}

TEST_CASE("NCCL: one of three ranks may send, and another receive") {
  CHECK(in_clean_processes(3, [](st::Communicator& ranks) -> std::string {
          st::cuda::NcclRanks devices(ranks, fake_device::stream(), fake_nccl_path());
          const Floats numbers(10);
          for (int i = 0; i < 10; ++i) numbers.data()[i] = float(10 * ranks.rank() + i);
          if (ranks.rank() == 2) devices.exchange(0, numbers.data(), 20, -1, nullptr, 0);
          if (ranks.rank() == 0) devices.exchange(-1, nullptr, 0, 2, numbers.data() + 5, 20);
          devices.wait();
          return ranks.rank() != 0 || (numbers.data()[4] == 4 && numbers.data()[5] == 20 && numbers.data()[9] == 24)
                     ? ""
                     : "other numbers";
        }) == "");
}

TEST_CASE("NCCL: what is missing or does not answer is said on all ranks") {
  const std::string missing = in_clean_processes(2, [](st::Communicator& ranks) -> std::string {
    st::cuda::NcclRanks devices(ranks, fake_device::stream(),
                                ranks.rank() == 1 ? "libno-such-nccl.so" : fake_nccl_path());
    return "made";
  });
  CHECK(missing.find("rank 1: the library libno-such-nccl.so is missing: install it") != std::string::npos);
  CHECK(missing.find("is missing on another rank") != std::string::npos);
  CHECK(missing.find("made") == std::string::npos);

  const std::string silent = in_clean_processes(2, [](st::Communicator& ranks) -> std::string {
    ranks.set_timeout(0.5);
    st::cuda::NcclRanks devices(ranks, fake_device::stream(), fake_nccl_path());
    if (ranks.rank() == 1) return "";
    const Floats numbers(10);
    devices.exchange(1, numbers.data(), 20, 1, numbers.data() + 5, 20);
    devices.wait();
    return "ended";
  });
  CHECK(silent ==
        "rank 0: rank 0 of 2: another rank's device has not answered for 0.5 s: it has ended or hangs; the run "
        "ends, and goes on from its last checkpoint\n");

  // The fake sees what it is to see.
  const std::string overlapping = in_clean_processes(2, [](st::Communicator& ranks) -> std::string {
    st::cuda::NcclRanks devices(ranks, fake_device::stream(), fake_nccl_path());
    const Floats numbers(10);
    devices.exchange(1 - ranks.rank(), numbers.data(), 24, 1 - ranks.rank(), numbers.data() + 5, 20);
    return "";
  });
  CHECK(overlapping.find("memory that the same group writes") != std::string::npos);
}
