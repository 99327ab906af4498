// A program of somebody who links strata::cuda. On a machine without a device it starts, says what is missing, and
// trains on the CPU.
#include <strata/cuda.hpp>
#include <strata/strata.hpp>

#include <cstdio>
#include <string>

namespace st = strata;

namespace {

/// Whether a small network learns on the device.
bool trains(st::Device device) {
  st::Sequential<st::Conv2d<1, 8>, st::ReLU, st::Conv2d<8, 1>> net;
  st::initialize(net, 1);
  st::to(net, device);
  st::Adam adam(net, {.lr = 1e-2});
  st::Image<1> x(2, 8, 8), y(2, 8, 8);
  st::Rng rng(1);
  for (std::int64_t i = 0; i < x.size(); ++i) y.data()[i] = 0.5f * (x.data()[i] = rng.uniform(-1, 1));
  float first = 0, last = 0;
  for (int step = 0; step < 40; ++step) {
    st::Train pass;
    const auto loss = mean(square(net(pass, x.to(device)) - y.to(device)));
    adam.zero_grad();
    pass.backward(loss);
    adam.step();
    (step == 0 ? first : last) = loss.item();
  }
  std::printf("%s: loss %g, then %g\n", device.str().c_str(), double(first), double(last));
  return last < 0.2f * first;
}

/// Whether asking for a device that is missing gives the reason, as text and as an error.
bool refuses(const std::string& missing) {
  std::printf("%s\n", missing.c_str());
  if (st::cuda_available() || missing.find("built without CUDA") != std::string::npos ||
      missing.find("instruction set") != std::string::npos)
    return false;
  try {
    (void)st::accelerator(st::Device::cuda());
  } catch (const st::DeviceError& error) {
    return error.what() == missing;
  }
  return false;
}

}  // namespace

int main() {
  const std::string missing = st::cuda_missing();
  if (!missing.empty()) return refuses(missing) && trains(st::Device::cpu()) ? 0 : 1;
  std::printf("%s\n", st::accelerator(st::Device::cuda()).name().c_str());
  return trains(st::Device::cuda()) && trains(st::Device::cpu()) ? 0 : 1;
}
