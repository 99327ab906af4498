// Pictures through the engine: rows of 8 or 16 bits in, floats to the network and back, alpha kept.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "engine.hpp"
#include "strata/strata.hpp"

namespace restore {

namespace st = strata;

struct Settings {
  std::int64_t (*run)(const Request&);
  std::vector<float> weights;
  std::int64_t max_bytes = 0;  // for the network
  int threads = 0;
  bool ensemble = false;
  std::function<void(double)> progress;  // hears the part that is done
};

/// One sample, in [0, 1].
inline float sample(const st::RawImage& image, std::int64_t y, std::int64_t x, int c) {
  const std::size_t index = std::size_t((y * image.w + x) * image.channels + c);
  if (image.bits == 16) return float(image.samples[2 * index] << 8 | image.samples[2 * index + 1]) / 65535.0f;
  return float(image.samples[index]) / 255.0f;
}

/// The number of channels without alpha.
inline int colours(const st::RawImage& image) { return image.channels >= 3 ? 3 : 1; }

/// Runs a network on a picture, in one or all eight orientations. The network gets pixels from `value(y, x, float*)`,
/// and `finish(y, const float*)` gets the rows of the result, `channels` values a pixel, from the top or in the end.
class Passage : public Rows {
 public:
  std::int64_t h, w;         // of the picture
  int in, out;               // channels of the network
  std::int64_t scale = 1, multiple = 1;  // the result's size over the picture's; what extents must be multiples of
  std::function<void(std::int64_t, std::int64_t, float*)> value;
  std::function<void(std::int64_t, const float*)> finish;

  Passage(std::int64_t rows, std::int64_t columns, int ins, int outs) : h(rows), w(columns), in(ins), out(outs) {}

  void run(Task task, const Settings& settings) {
    if (settings.ensemble) sum_.assign(std::size_t(h * w * scale * scale * out), 0.0f);
    turns_ = settings.ensemble ? 8 : 1;
    for (int k = 0; k < turns_; ++k) {
      turn_ = {k, h, w};
      progress_ = &settings.progress;
      const auto padded = [&](std::int64_t size) { return (size + multiple - 1) / multiple * multiple; };
      const Request request{.task = task, .weights = settings.weights.data(), .weight_count = settings.weights.size(),
                            .h = padded(turn_.out_h()), .w = padded(turn_.out_w()), .max_bytes = settings.max_bytes,
                            .threads = settings.threads, .rows = this};
      if (settings.run(request) > request.max_bytes) throw st::Error("the network was given too little memory");
    }
    if (settings.ensemble)
      for (std::int64_t y = 0; y < h * scale; ++y) finish(y, sum_.data() + y * w * scale * out);
  }

  // Beyond the picture its last row and column go on, where the network wants even extents.
  void read(std::int64_t y, std::int64_t count, float* rows) override {
    const std::int64_t width = (turn_.out_w() + multiple - 1) / multiple * multiple;
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t x = 0; x < width; ++x, rows += in) {
        const auto [row, column] = turn_.source(std::min(y + i, turn_.out_h() - 1), std::min(x, turn_.out_w() - 1));
        value(row, column, rows);
      }
  }

  void write(std::int64_t y, std::int64_t count, const float* rows) override {
    const std::int64_t width = (turn_.out_w() + multiple - 1) / multiple * multiple * scale;
    const st::Orientation turn{turn_.k, h * scale, w * scale};
    for (std::int64_t i = 0; i < count && y + i < turn.out_h(); ++i) {
      const float* row = rows + i * width * out;
      if (turns_ == 1) {
        finish(y + i, row);
      } else {
        for (std::int64_t x = 0; x < turn.out_w(); ++x) {
          const auto [to_y, to_x] = turn.source(y + i, x);
          for (int c = 0; c < out; ++c) sum_[std::size_t((to_y * turn.w + to_x) * out + c)] += row[x * out + c] / 8;
        }
      }
    }
    if (*progress_) (*progress_)((double(turn_.k) + double(y + count) / double(turn.out_h())) / turns_);
  }

 private:
  st::Orientation turn_{0, 0, 0};
  int turns_ = 1;
  const std::function<void(double)>* progress_ = nullptr;
  std::vector<float> sum_;
};

/// The picture without noise of `sigma` (of 255), in the same memory, by the grey or the colour network. One whose
/// colours are shades of grey keeps them so.
inline st::RawImage denoise(st::RawImage picture, float sigma, Task task, const Settings& settings) {
  const int colour = colours(picture), network = task == Task::denoise_grey ? 1 : 3;
  const bool grey = is_grey(picture);
  spread_visible_colours(picture);
  Passage passage(picture.h, picture.w, network + 1, network);
  passage.multiple = 2;
  passage.value = [&](std::int64_t y, std::int64_t x, float* to) {
    for (int c = 0; c < network; ++c) to[c] = sample(picture, y, x, c);
    to[network] = sigma / 255;
  };
  std::vector<float> line(std::size_t(picture.w * picture.channels));
  passage.finish = [&](std::int64_t y, const float* row) {
    picture.read_row(y, line.data());  // for its alpha
    for (std::int64_t x = 0; x < picture.w; ++x) {
      const float* const from = row + x * network;
      float* const to = line.data() + x * picture.channels;
      const float level = network == 1 ? from[0] : (from[0] + from[1] + from[2]) / 3;
      for (int c = 0; c < colour; ++c) to[c] = grey ? level : from[c];
    }
    picture.write_row(y, line.data());
  };
  passage.run(task, settings);
  return picture;
}

/// BT.601 luma of one pixel.
inline float luma(const st::RawImage& picture, std::int64_t y, std::int64_t x) {
  if (colours(picture) == 1) return sample(picture, y, x, 0);
  return 0.299f * sample(picture, y, x, 0) + 0.587f * sample(picture, y, x, 1) + 0.114f * sample(picture, y, x, 2);
}

/// How many rows of a picture so wide are resized at a time, and the memory that takes, about.
inline std::int64_t bicubic_rows_at_once(std::int64_t w, int channels) {
  return std::clamp<std::int64_t>((std::int64_t{1} << 18) / (w * channels), 2, 32);
}
inline std::int64_t bicubic_bytes(std::int64_t h, std::int64_t w, int channels) {
  const std::int64_t rows = std::min(h, bicubic_rows_at_once(w, channels) + 7),
                     row = w * channels * std::int64_t(sizeof(float));
  // both sizes, weights, and a row of doubles for each thread
  return 5 * rows * row + 200 * w + 2 * row * st::num_threads();
}

/// Rows [first, first + count) of the picture at `scale` times its size by bicubic interpolation: all channels.
inline std::vector<float> bicubic_rows(const st::RawImage& picture, std::int64_t scale, std::int64_t first,
                                       std::int64_t count) {
  constexpr std::int64_t reach = 3;  // a cubic looks two pixels around
  const std::int64_t top = std::max<std::int64_t>(first / scale - reach, 0);
  const std::int64_t bottom = std::min(picture.h, (first + count + scale - 1) / scale + reach);
  const auto resized = [&]<int C>() {
    st::Image<C> band(1, bottom - top, picture.w);
    for (std::int64_t y = top; y < bottom; ++y) picture.read_row(y, &band(0, 0, y - top, 0));
    const st::Image<C> large = st::resize_bicubic(band, scale * band.h(), scale * band.w());
    const float* begin = &large(0, 0, first - scale * top, 0);
    return std::vector<float>(begin, begin + count * large.w() * C);
  };
  if (picture.channels == 1) return resized.operator()<1>();
  if (picture.channels == 2) return resized.operator()<2>();
  if (picture.channels == 3) return resized.operator()<3>();
  return resized.operator()<4>();
}

/// The picture at twice its size: luma by the network, the rest by bicubic interpolation.
inline st::RawImage upscale(st::RawImage picture, const Settings& settings) {
  constexpr std::int64_t scale = super_resolution::factor;
  const std::int64_t rows_at_once = bicubic_rows_at_once(picture.w, picture.channels);
  st::RawImage result(scale * picture.h, scale * picture.w, picture.channels, picture.bits);
  result.metadata = std::move(picture.metadata);
  spread_visible_colours(picture);
  Passage passage(picture.h, picture.w, 1, 1);
  passage.scale = scale;
  passage.value = [&](std::int64_t y, std::int64_t x, float* to) { *to = luma(picture, y, x); };
  std::vector<float> band;
  std::int64_t band_begin = -1;
  passage.finish = [&](std::int64_t y, const float* row) {
    if (band_begin < 0 || y >= band_begin + rows_at_once) {
      band_begin = y / rows_at_once * rows_at_once;
      band = bicubic_rows(picture, scale, band_begin, std::min(rows_at_once, result.h - band_begin));
    }
    float* line = band.data() + (y - band_begin) * result.w * result.channels;
    for (std::int64_t x = 0; x < result.w; ++x) {
      float* pixel = line + x * result.channels;
      if (colours(result) == 1) {
        pixel[0] = row[x];
      } else {  // the same colour difference, the network's luma
        const float change = row[x] - (0.299f * pixel[0] + 0.587f * pixel[1] + 0.114f * pixel[2]);
        for (int c = 0; c < 3; ++c) pixel[c] += change;
      }
    }
    result.write_row(y, line);
  };
  passage.run(Task::upscale, settings);
  return result;
}

/// The noise's level (of 255), from the middle of the picture.
inline float estimated_sigma(const st::RawImage& picture) {
  constexpr std::int64_t most = 1024;
  const std::int64_t h = std::min(picture.h, most), w = std::min(picture.w, most);
  const std::int64_t top = (picture.h - h) / 2, left = (picture.w - w) / 2;
  const auto estimate = [&]<int C>() {
    st::Image<C> middle(1, h, w);
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t x = 0; x < w; ++x)
        for (int c = 0; c < C; ++c) middle(0, c, y, x) = sample(picture, top + y, left + x, c);
    return 255 * st::estimate_noise(middle);
  };
  return colours(picture) == 1 ? estimate.operator()<1>() : estimate.operator()<3>();
}

/// Before and after beside one another, at the size of `after`, by repeating pixels of a smaller `before`.
inline st::RawImage side_by_side(const st::RawImage& before, const st::RawImage& after) {
  const std::int64_t scale = after.h / before.h;
  st::RawImage both(after.h, 2 * after.w, after.channels, after.bits);
  both.metadata = after.metadata;
  const std::size_t pixel = std::size_t(after.channels * (after.bits / 8));
  for (std::int64_t y = 0; y < both.h; ++y) {
    unsigned char* to = both.samples.data() + std::size_t(y) * both.row_bytes();
    for (std::int64_t x = 0; x < after.w; ++x, to += pixel)
      std::copy_n(before.samples.data() + std::size_t((y / scale) * before.w + x / scale) * pixel, pixel, to);
    std::copy_n(after.samples.data() + std::size_t(y) * after.row_bytes(), after.row_bytes(), to);
  }
  return both;
}

}  // namespace restore
