// The program of the README.
#include <strata/strata.hpp>
#include <cstdio>
namespace st = strata;

using Net = st::Residual<st::Sequential<                       // y = x - f(x): f learns the noise
    st::Conv2d<1, 32>, st::ReLU,
    st::Repeat<4, st::Sequential<st::Conv2d<32, 32, 3, st::no_bias>, st::BatchNorm2d<32>, st::ReLU>>,
    st::Conv2d<32, 1>>>;

int main() {
  const st::MemoryImages<1> images(st::DeadLeaves<1>({.size = 100}));  // or st::ImageFolder<1>("photos")
  const st::NoisyPatches patches(images, {.patch_size = 40, .size = 1600, .sigma = 25});
  const st::DataLoader loader(patches, {.batch_size = 32, .shuffle = true, .num_workers = 1});
  Net net;
  st::Adam adam(net, {.lr = 1e-3});
  const st::MSELoss mse;
  for (int epoch = 0; epoch < 3; ++epoch)
    for (const auto& [noisy, clean] : loader.epoch(epoch)) {
      st::Train pass;
      const auto loss = mse(net(pass, noisy), clean);
      adam.zero_grad();
      pass.backward(loss);
      adam.step();
      std::printf("\rloss %.5f", loss.item());
    }
  st::save_weights("denoiser.safetensors", net);               // PyTorch reads it, strict=True
}
