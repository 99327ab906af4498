// How good a denoiser is: PSNR and SSIM over a set of noisy images.
#pragma once

#include <cstddef>
#include <functional>

#include "strata/strata.hpp"

namespace dncnn {

namespace st = strata;

struct Score {
  double psnr = 0, ssim = 0;    ///< of the denoised images, means over the set; PSNR in dB
  double noisy_psnr = 0;        ///< of the input
  std::size_t images = 0;
};

/// Denoises every image of `data`, or those until stop() says so. The network is not changed. PSNR without rounding,
/// over all pixels.
template <class Net, int Channels>
Score evaluate(const Net& net, const st::NoisyImages<Channels>& data, const std::function<bool()>& stop = {}) {
  const st::Device device = st::device_of(net);
  st::AverageMeter psnr, ssim, noisy;
  for (std::size_t i = 0; i < data.size() && !(stop && stop()); ++i) {
    const auto [input, target] = data.get(i);
    st::Infer pass;
    const st::Image<Channels> output = net(pass, input.to(device)).value().to(st::Device::cpu());
    psnr.add(st::psnr(output, target));
    ssim.add(st::ssim(output, target));
    noisy.add(st::psnr(input, target));
  }
  return {psnr.mean(), ssim.mean(), noisy.mean(), data.size()};
}

}  // namespace dncnn
