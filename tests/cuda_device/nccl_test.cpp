// NCCL on a device: a communicator of one rank, which sends to itself. Where the library is missing it says so.
#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "device_test.hpp"
#include "strata/distributed/device_ranks.hpp"

using namespace device_test;

namespace {

struct OneRank : strata::Communicator {
  int rank() const override { return 0; }
  int size() const override { return 1; }
  bool fail(const std::string&) noexcept override { return true; }

 private:
  void do_exchange(int, std::span<const std::byte>, int, std::span<std::byte>) override {
    throw strata::Error("there is nobody else");
  }
};

}  // namespace

TEST_CASE("NCCL starts with one rank, and what it sends to itself arrives behind the work before") {
  const strata::DeviceRanksProvider* const provider = strata::detail::device_ranks_provider.load();
  if (provider == nullptr) {
    MESSAGE("SKIPPED: built without nccl.h");
    return;
  }
  OneRank ranks;
  std::unique_ptr<strata::DeviceRanks> devices;
  try {
    devices = provider->make(strata::Device::cuda(), ranks);
  } catch (const strata::DeviceError& error) {
    MESSAGE("SKIPPED: ", error.what());
    return;
  }
  for (const std::size_t count : {std::size_t(1), std::size_t(1000003)}) {
    const Numbers numbers_sent = numbers(std::int64_t(count), 1);
    const DeviceArray<float> sent(numbers_sent), twice(count), received(count);
    gpu().fill(twice.data(), std::int64_t(count), 0);
    for (int k = 0; k < 2; ++k)
      gpu().copy_channels(std::int64_t(count), 1, sent.data(), 1, 0, twice.data(), 1, 0, true);
    devices->exchange(0, twice.data(), count * sizeof(float), 0, received.data(), count * sizeof(float));
    devices->wait();
    const Numbers got = received.download();
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < count; ++i) wrong += std::size_t(got[i] != 2 * numbers_sent[i]);
    CHECK(wrong == 0);
  }
}
