// How good a denoiser is: PSNR and SSIM over a set of noisy images.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "strata/strata.hpp"

namespace dncnn {

namespace st = strata;

struct Score {
  double psnr = 0, ssim = 0;    ///< of the denoised images, means over the set; PSNR in dB
  double noisy_psnr = 0;        ///< of the input
  std::size_t images = 0;
};

/// Denoises every image of `data`, shared among the ranks of `world`. The network is not changed. PSNR without
/// rounding, over all pixels. Once stop() says so the rest is left out, and the score means nothing.
template <class Net, int Channels>
Score evaluate(const Net& net, const st::NoisyImages<Channels>& data, const std::function<bool()>& stop = {},
               const st::World& world = {}) {
  const st::Device device = st::device_of(net);
  struct OfImage {
    double psnr = 0, ssim = 0, noisy = 0;
  };
  const std::vector<OfImage> images = world.each(data.size(), [&](std::size_t i) {
    if (stop && stop()) return OfImage{};
    const auto [input, target] = data.get(i);
    st::Infer pass;
    const st::Image<Channels> output = net(pass, input.to(device)).value().to(st::Device::cpu());
    return OfImage{st::psnr(output, target), st::ssim(output, target), st::psnr(input, target)};
  });
  st::AverageMeter psnr, ssim, noisy;
  for (const OfImage& image : images) {
    psnr.add(image.psnr);
    ssim.add(image.ssim);
    noisy.add(image.noisy);
  }
  return {psnr.mean(), ssim.mean(), noisy.mean(), data.size()};
}

}  // namespace dncnn
