// What is said where a device, a driver or an ability is missing. The host execution of kernels plays such machines.
#include "device_test.hpp"
#include "strata/cuda.hpp"
#include "strata/cuda/provider.cuh"

using namespace device_test;
using strata::Device, strata::DeviceError;

TEST_CASE("what is missing is said") {
  const auto options = cuda_on_host::options();
  CHECK(strata::cuda_available());
  CHECK(strata::cuda_missing() == "");
  CHECK(strata::cuda_missing(3).find("only one device") != std::string::npos);
  CHECK(&strata::accelerator(Device::cuda()) == &strata::accelerator(Device::cuda(0)));
  CHECK_THROWS_AS(strata::accelerator(Device::cuda(3)), DeviceError);
  CHECK_THROWS_AS(strata::accelerator(Device::cpu()), DeviceError);
  cuda_on_host::options().device_count = 0;
  CHECK_FALSE(strata::cuda_available());
  cuda_on_host::options().no_device = cudaErrorNoDevice;
  CHECK_THROWS_WITH_AS(strata::cuda::Backend(0), doctest::Contains("no NVIDIA device"), DeviceError);
  cuda_on_host::options().no_device = cudaErrorInsufficientDriver;
  CHECK(strata::cuda_missing().find("driver") != std::string::npos);
  cuda_on_host::options() = options;
}

TEST_CASE("to ask about a device makes no context on another, and leaves the chosen one chosen") {
  const auto options = cuda_on_host::options();
  cuda_on_host::options().device_count = 3;
  int before = -1, after = -1;
  CHECK(cudaGetDevice(&before) == cudaSuccess);
  cuda_on_host::forget_contexts();
  CHECK(strata::cuda_missing(2) == "");
  CHECK(cuda_on_host::has_context(2));
  CHECK_FALSE(cuda_on_host::has_context(before));
  CHECK(cudaGetDevice(&after) == cudaSuccess);
  CHECK(after == before);
  cuda_on_host::options() = options;
}

TEST_CASE("a device too old for a precision says so") {
  const auto options = cuda_on_host::options();
  cuda_on_host::options().major = 7;
  cuda_on_host::options().minor = 5;
  strata::cuda::Backend turing(0);
  const DeviceArray<float> x(16);
  for (const auto precision : {strata::Precision::tf32, strata::Precision::bf16})
    CHECK_THROWS_WITH_AS(turing.conv2d_forward({.h = 2, .w = 2}, x.data(), x.data(), nullptr, x.data(),
                                               strata::Activation::none, false, precision),
                         doctest::Contains("8.0"), strata::ValueError);
  cuda_on_host::options() = options;
}
