// Several ranks with a device each, which exchange its memory: the bits of one process on the CPU's path, for any
// number of ranks. Processes here, and the host as their device.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "device/host_accelerator.hpp"
#include "distributed/process_ranks.hpp"
#include "strata/distributed/data_parallel.hpp"

using namespace strata_test;

namespace {

using Net = st::Sequential<st::Conv2d<1, 6, 3, st::no_bias>, st::BatchNorm2d<6>, st::ReLU, st::Conv2d<6, 1>>;

/// Exchanges by way of the host, and counts.
struct CarriedRanks : st::DeviceRanks {
  explicit CarriedRanks(st::Communicator& communicator) : ranks(communicator) {}
  void exchange(int to, const void* out, std::size_t out_bytes, int from, void* in, std::size_t in_bytes) override {
    std::vector<std::byte> sent(out_bytes), received(in_bytes);
    host_accelerator().download(sent.data(), out, out_bytes);
    ranks.exchange(to, sent, from, received);
    host_accelerator().upload(in, received.data(), in_bytes);
    ++exchanges;
  }
  void wait() override {}
  st::Communicator& ranks;
  static inline int exchanges = 0;
};
std::unique_ptr<st::DeviceRanks> meet(st::Device, st::Communicator& ranks) {
  return std::make_unique<CarriedRanks>(ranks);
}
std::unique_ptr<st::DeviceRanks> no_library(st::Device, st::Communicator&) {
  throw st::DeviceError("the library libnccl.so.2 is missing");
}
constexpr st::DeviceRanksProvider carried{"a test", &meet}, missing{"a test", &no_library};

struct Noise {
  std::size_t size() const { return 24; }
  st::Sample<1> get(std::size_t, st::Rng& rng) const {
    st::Image<1> input(1, 7, 5), target(1, 7, 5);
    for (float& x : input.span()) x = rng.normal();
    for (float& x : target.span()) x = rng.normal();
    return {input, target};
  }
};

/// Three steps; all that the network then holds, as text.
std::string train(const st::World& world, const st::DataParallelOptions& options, std::string* carrier = nullptr) {
  const Noise data;
  const st::DataLoader loader(data, {.batch_size = 8, .seed = 3, .shards = 8, .world = world});
  Net net;
  st::initialize(net, 5);
  st::to(net, host_accelerator().device());
  st::DataParallel parallel(net, world, options);
  st::SGD sgd(net, {.lr = 0.05, .momentum = 0.9});
  const st::MSELoss mse;
  std::string held;
  std::int64_t step = 0;
  for (const auto& batch : loader.epoch(0)) {
    sgd.zero_grad();
    held += std::to_string(parallel.step(batch, {.seed = 2, .step = step++}, net, mse)) + " ";
    sgd.step();
  }
  st::check_equal(world, "at the end", net, sgd);
  st::to(net, st::Device::cpu());
  st::for_each_tensor(net, [&](const std::string&, const auto& leaf) {
    std::visit(
        [&](const auto& t) {
          held.append(reinterpret_cast<const char*>(t.data()), std::size_t(t.size()) * sizeof *t.data());
        },
        leaf.any_value());
  });
  if (carrier != nullptr) *carrier = parallel.carrier();
  return held;
}

}  // namespace

TEST_CASE("device: ranks that exchange memory of their devices train to the bits of one process") {
  host_accelerator();
  const std::string one = train(st::World(), {});
  CHECK(one.size() > 500);
  const auto all = [&](int size, const st::DeviceRanksProvider* provider, bool device_memory,
                       const std::string& wanted) {
    CAPTURE(size);
    CAPTURE(wanted);
    CHECK(in_processes(size, [&](st::Communicator& ranks) -> std::string {
            st::detail::device_ranks_provider = provider;
            const auto nobodys = [](st::Communicator*) {};
            std::string carrier;
            const std::string held = train(st::World::of(std::shared_ptr<st::Communicator>(&ranks, nobodys)),
                                           {.device_memory = device_memory}, &carrier);
            if (held != one) return "other bits";
            if (carrier != wanted) return carrier;
            return (CarriedRanks::exchanges > 0) == (wanted == "a test") ? "" : "carried otherwise";
          }) == "");
  };
  for (const int size : {2, 4, 8}) all(size, &carried, true, "a test");
  all(2, &carried, false, "the host's memory");
  all(2, nullptr, true, "the host's memory");
  all(2, &missing, true, "the host's memory: the library libnccl.so.2 is missing");
}
