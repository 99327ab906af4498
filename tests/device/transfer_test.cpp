// Numbers to a device and back, and what is refused.
#include <doctest/doctest.h>

#include "device/compare.hpp"
#include "device/host_accelerator.hpp"

using namespace strata_test;

TEST_CASE("device: tensors and images go there and back") {
  const st::Device device = host_accelerator().device();
  const st::Image<3> x = random_image<3>(2, 5, 3, 1);
  const st::Image<3> there = x.to(device);
  CHECK(there.device() == device);
  CHECK(&there.pool() == &host_accelerator().pool());
  const auto still_there = there.to(device), still_here = x.to(st::Device::cpu());
  CHECK(still_there.data() == there.data());  // the same handle
  CHECK(still_here.data() == x.data());
  check_close(there, x, "there", 0);
  const st::Tensor<float> copy = st::copy_of(there.tensor());
  CHECK(copy.data() != there.data());
  check_close(copy, x.tensor(), "copy", 0);
  st::Tensor<std::int64_t> whole = st::Tensor<std::int64_t>::full(st::Shape{4}, 7).to(device);
  st::fill(whole, std::int64_t{9});
  CHECK(whole.to(st::Device::cpu()).data()[3] == 9);
  st::Tensor<float> numbers = st::Tensor<float>::zeros(st::Shape{5}).to(device);
  st::fill(numbers, 2.5f);
  CHECK(numbers.to(st::Device::cpu()).data()[4] == 2.5f);
  CHECK(st::Tensor<float>(st::Shape{0}).to(device).size() == 0);
}

TEST_CASE("device: host functions refuse a device's memory") {
  st::Tensor<float> there = st::Tensor<float>::zeros(st::Shape{4}).to(host_accelerator().device());
  CHECK_THROWS_AS(there.fill(1), st::DeviceError);
  CHECK_THROWS_AS(there.clone(), st::DeviceError);
  CHECK_THROWS_AS(st::to_nchw(there), st::DeviceError);
  const std::vector<float> values(4);
  CHECK_THROWS_AS(st::from_nchw(there, std::span<const float>(values)), st::DeviceError);
}

TEST_CASE("device: a device that is not there") {
  host_accelerator();
  CHECK_THROWS_WITH_AS(random_image<1>(1, 2, 2, 1).to(st::Device::cuda(3)),
                       doctest::Contains("cuda:3: there is 1 device"), st::DeviceError);
  st::Conv2d<1, 1> conv;
  CHECK_THROWS_AS(st::to(conv, st::Device::cuda(3)), st::DeviceError);
  CHECK(conv.weight.device() == st::Device::cpu());
  CHECK_THROWS_AS(st::accelerator(st::Device::cpu()), st::DeviceError);
}

TEST_CASE("device: networks are moved, copied, initialised and reset there") {
  const st::Device device = host_accelerator().device();
  st::Sequential<st::Conv2d<2, 3>, st::BatchNorm2d<3>> net, other;
  st::to(net, device);
  st::for_each_tensor(net, [&](const std::string&, auto& leaf) { CHECK(leaf.device() == device); });
  st::initialize(net, 42);
  st::initialize(other, 42);
  check_networks(net, other, 0);
  auto copy = net;
  CHECK(copy.layer<0>().weight.device() == device);
  CHECK(copy.layer<0>().weight.value().data() != net.layer<0>().weight.value().data());
  check_networks(copy, other, 0);
  copy.layer<0>().weight.reset();
  CHECK(copy.layer<0>().weight.value().to(st::Device::cpu()).data()[0] == 0);
  st::to(net, st::Device::cpu());
  check_networks(net, other, 0);
}
