// How good an upscaler is: PSNR and SSIM of luma over a set, beside those of bicubic interpolation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "../common/training.hpp"
#include "datasets.hpp"
#include "strata/strata.hpp"

namespace super_resolution {

namespace st = strata;

/// The picture at a larger size by run(luma): colour is resized by a cubic, and gets what the network adds to its luma.
template <class Run>
st::Image<1> upscale_picture(const Run& run, const st::Image<1>& small) {
  return run(small);
}
template <class Run>
st::Image<3> upscale_picture(const Run& run, const st::Image<3>& small) {
  st::Image<1> luma(1, small.h(), small.w());
  for (std::int64_t i = 0; i < luma.size(); ++i) {
    const float* rgb = small.data() + 3 * i;
    luma.data()[i] = 0.299f * rgb[0] + 0.587f * rgb[1] + 0.114f * rgb[2];
  }
  const st::Image<1> large = run(luma), smooth = st::resize_bicubic(luma, large.h(), large.w());
  st::Image<3> out = st::resize_bicubic(small, large.h(), large.w());
  for (std::int64_t i = 0; i < out.size(); ++i) out.data()[i] += large.data()[i / 3] - smooth.data()[i / 3];
  return out;
}

/// The protocol of super-resolution's papers: both pictures rounded to 8 bits, a border as wide as the factor left out,
/// of colour ones BT.601's Y, 16 to 235, compared.
inline st::MetricOptions protocol(bool colour, std::int64_t factor) {
  return {.rounding = st::Rounding::to_8bit,
          .border = factor,
          .channels = colour ? st::ColorSpace::bt601_y : st::ColorSpace::rgb};
}

/// Means over the set of what run(luma of the small picture) makes, against the large ones, shared among the ranks of
/// `world`; `each(index, psnr, ssim, bicubic)` hears of every picture.
template <class Run>
training::Score evaluate(const Run& run, const TestPairs& data, std::int64_t factor,
                         const std::function<void(std::size_t, double, double, double)>& each = {},
                         const st::World& world = {}) {
  const std::vector<training::Score> pictures = world.each(data.size(), [&](std::size_t i) {
    training::Score score;
    data.get(i, [&]<int C>(const st::Sample<C>& sample) {
      const st::MetricOptions options = protocol(C == 3, factor);
      const st::Image<C>& large = sample.target;
      const st::Image<C> output = upscale_picture(run, sample.input);
      score = {st::psnr(output, large, options), st::ssim(output, large, options),
               st::psnr(st::resize_bicubic(sample.input, large.h(), large.w()), large, options)};
    });
    if (each && world.size() == 1) each(i, score.psnr, score.ssim, score.baseline);
    return score;
  });
  return training::mean(pictures);
}

/// The network, on whatever device, on a whole image.
template <class Net>
st::Image<1> upscale(const Net& net, const st::Image<1>& small) {
  st::Infer pass;
  return st::as_var(net(pass, small.to(st::device_of(net)))).value().to(st::Device::cpu());
}

}  // namespace super_resolution
