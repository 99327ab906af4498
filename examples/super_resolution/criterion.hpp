// How good an upscaler is: PSNR and SSIM of luma over a set, beside those of bicubic interpolation.
#pragma once

#include <cstddef>
#include <functional>

#include "../common/training.hpp"
#include "datasets.hpp"
#include "strata/strata.hpp"

namespace super_resolution {

namespace st = strata;

/// Means over the set of run(small image) against the large ones; `each(index, psnr, ssim, bicubic)` hears of every image.
/// Papers leave out a border as wide as the factor and round to 8 bits.
template <class Run>
training::Score evaluate(const Run& run, const Pairs& data, const st::MetricOptions& protocol,
                         const std::function<void(std::size_t, double, double, double)>& each = {}) {
  st::AverageMeter psnr, ssim, bicubic;
  for (std::size_t i = 0; i < data.size(); ++i) {
    const st::Sample<1>& sample = data.get(i);
    const st::Image<1> output = run(sample.input);
    psnr.add(st::psnr(output, sample.target, protocol));
    ssim.add(st::ssim(output, sample.target, protocol));
    bicubic.add(st::psnr(st::resize_bicubic(sample.input, sample.target.h(), sample.target.w()), sample.target, protocol));
    if (each) each(i, psnr.last(), ssim.last(), bicubic.last());
  }
  return {psnr.mean(), ssim.mean(), bicubic.mean()};
}

/// The network, on whatever device, on a whole image.
template <class Net>
st::Image<1> upscale(const Net& net, const st::Image<1>& small) {
  st::Infer pass;
  return st::as_var(net(pass, small.to(st::device_of(net)))).value().to(st::Device::cpu());
}

}  // namespace super_resolution
