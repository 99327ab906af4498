// Pictures that show what a network does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <initializer_list>

#include "strata/strata.hpp"

namespace picture {

namespace st = strata;

/// The images beside one another. All have one image in the batch and the same height.
template <int C>
st::Image<C> side_by_side(std::initializer_list<st::Image<C>> images) {
  std::int64_t width = 0;
  for (const st::Image<C>& image : images) width += image.w();
  const std::int64_t height = images.begin()->h();
  st::Image<C> all(1, height, width);
  std::int64_t left = 0;
  for (const st::Image<C>& image : images) {
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < image.w(); ++x)
        for (int c = 0; c < C; ++c) all(0, c, y, left + x) = std::clamp(image(0, c, y, x), 0.0f, 1.0f);
    left += image.w();
  }
  return all;
}

/// Writes sample `index` of a data set as three pictures in one: the input, what the network makes of it, the target.
template <class Net, class Data>
void before_after(const std::filesystem::path& path, const Net& net, const Data& data, std::size_t index) {
  const auto [input, target] = data.get(index);
  st::Infer pass;
  const auto output = net(pass, input.to(st::device_of(net))).value().to(st::Device::cpu());
  st::save_image(path, side_by_side({input, output, target}));
}

}  // namespace picture
