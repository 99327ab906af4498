// A program of somebody who links strata::cuda. On a machine without a device it starts, and says what is missing.
#include <strata/cuda.hpp>
#include <strata/tensor/tensor.hpp>

#include <cstdio>
#include <string>

int main() {
  const std::string missing = strata::cuda_missing();
  if (!missing.empty()) {
    std::printf("%s\n", missing.c_str());
    if (strata::cuda_available() || missing.find("built without CUDA") != std::string::npos) return 1;
    try {
      (void)strata::accelerator(strata::Device::cuda());
    } catch (const strata::DeviceError& error) {
      return error.what() == missing ? 0 : 1;
    }
    return 1;
  }
  strata::Accelerator& gpu = strata::accelerator(strata::Device::cuda());
  std::printf("%s\n", gpu.name().c_str());
  const float three[3] = {-1.0f, 0.0f, 2.0f};
  strata::Tensor<> x(strata::Shape{1, 3, 1, 1}, gpu.pool());
  gpu.upload(x.data(), three, sizeof three);
  gpu.relu_forward(3, x.data(), x.data());
  float result[3] = {};
  gpu.download(result, x.data(), sizeof result);
  return result[0] == 0.0f && result[1] == 0.0f && result[2] == 2.0f ? 0 : 1;
}
