// How good a denoiser is: PSNR and SSIM over a set of noisy images.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "../common/training.hpp"
#include "datasets.hpp"
#include "strata/strata.hpp"

namespace ffdnet {

/// What the network, on whatever device, makes of an image under noise of `sigma` (of 255); odd extents are filled up
/// by the last row or column.
template <class Net, int Channels>
st::Image<Channels> denoise(const Net& net, const st::Image<Channels>& noisy, float sigma) {
  const std::int64_t h = noisy.h(), w = noisy.w();
  st::Image<Channels> even(noisy.n(), h + h % 2, w + w % 2);
  for (std::int64_t n = 0; n < even.n(); ++n)
    for (std::int64_t y = 0; y < even.h(); ++y)
      for (std::int64_t x = 0; x < even.w(); ++x)
        std::copy_n(&noisy(n, 0, std::min(y, h - 1), std::min(x, w - 1)), Channels, &even(n, 0, y, x));
  st::Infer pass;
  const st::Image<Channels + 1> input = with_noise_map(even, sigma / 255).to(st::device_of(net));
  const st::Image<Channels> out = st::as_var(net(pass, input)).value().to(st::Device::cpu());
  return out.h() == h && out.w() == w ? out : st::crop(out, 0, 0, h, w);
}

/// Means over the set of run(noisy image) against the clean ones, shared among the ranks of `world`; `each(index, psnr,
/// ssim)` hears of every image.
template <int Channels, class Run>
training::Score evaluate(const Run& run, const st::NoisyImages<Channels>& data, const st::MetricOptions& protocol = {},
                         const std::function<void(std::size_t, double, double)>& each = {},
                         const st::World& world = {}) {
  const std::vector<training::Score> images = world.each(data.size(), [&](std::size_t i) {
    const auto [input, target] = data.get(i);
    const st::Image<Channels> output = run(input);
    const training::Score score{st::psnr(output, target, protocol), st::ssim(output, target, protocol),
                                st::psnr(input, target, protocol)};
    if (each && world.size() == 1) each(i, score.psnr, score.ssim);
    return score;
  });
  return training::mean(images);
}

}  // namespace ffdnet
