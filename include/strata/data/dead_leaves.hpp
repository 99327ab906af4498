// Clean training images without photographs: the dead-leaves model. Opaque leaves fall on each other until nothing
// shows between them; with radii of density r^-3 the result has the edges, occlusions and scale invariance of
// photographs.
//
//     st::MemoryImages<1> images(st::DeadLeaves<1>({.size = 400, .seed = 1}));      // made once, kept
//     st::NoisyPatches train(images, {.patch_size = 40, .patches_per_image = 128, .sigma = 25});
//
// A. B. Lee, D. Mumford, J. Huang, Occlusion models for natural images, IJCV 41, 2001; R. Achddou, Y. Gousseau, S.
// Ladjal, Synthetic images as a regularity prior for image restoration neural networks, SSVM 2021, which trains
// denoisers on it. Here the leaves fall twice: large ones are the objects of a scene, and on each lie small ones of its
// own colours, dense or sparse, in disorder or combed like fur. Objects have gradients, noise or stripes. Images are
// drawn larger and reduced, as a camera's pixels average what they see, and about half of them are out of focus, as
// parts of photographs are.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/core/rounded.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/detail/leaf.hpp"
#include "strata/data/detail/noise_tile.hpp"
#include "strata/data/transforms.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

struct DeadLeavesOptions {
  std::size_t size = 400;  ///< number of images
  std::int64_t h = 180;
  std::int64_t w = 180;
  std::uint64_t seed = 0;
  std::int64_t oversampling = 2;  ///< drawn that many times larger, then averaged
  float texture = 1;              ///< scales the strength of gradients and textures; 0: flat leaves
  float blur = 1.6f;              ///< the largest standard deviation of the blur, which half the images have; 0: none
};

/// A source of C-channel images in [0, 1]. Image i depends on the options, the seed and i alone.
template <int C>
class DeadLeaves {
  static_assert(C == 1 || C == 3, "strata::DeadLeaves<C>: C is 1 (grey) or 3 (RGB)");

 public:
  static constexpr int channels = C;

  /// Throws ValueError for options that cannot be meant.
  explicit DeadLeaves(const DeadLeavesOptions& options = {}) : options_(options) {
    const auto within = [](const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
      if (value < low || value > high)
        throw ValueError(concat("DeadLeaves: got .", name, " = ", value, ", wanted ", low, " to ", high));
    };
    within("size", std::int64_t(std::min(options.size, std::size_t{1} << 32)), 1, (std::int64_t{1} << 32) - 1);
    within("h", options.h, 1, 8192);
    within("w", options.w, 1, 8192);
    within("oversampling", options.oversampling, 1, 8);
    within("h times .oversampling", options.h * options.oversampling, 1, 16384);
    within("w times .oversampling", options.w * options.oversampling, 1, 16384);
    if (!(options.texture >= 0 && options.texture <= 10))
      throw ValueError(concat("DeadLeaves: got .texture = ", options.texture, ", wanted 0 to 10"));
    if (!(options.blur >= 0 && options.blur <= 100))
      throw ValueError(concat("DeadLeaves: got .blur = ", options.blur, ", wanted 0 to 100"));
  }

  std::size_t size() const { return options_.size; }
  std::string name(std::size_t index) const { return concat("dead leaves ", index); }

  Image<C> image(std::size_t index) const {
    detail::check_index("DeadLeaves", index, size());
    Rng rng(options_.seed, 0x1EAFu, std::uint32_t(index));
    Image<C> large(1, options_.h * options_.oversampling, options_.w * options_.oversampling);
    draw(large, rng);
    const Image<C> sharp = clamp(options_.oversampling == 1 ? large : downsample(large, options_.oversampling));
    return options_.blur > 0 && rng.coin() ? gaussian_blur(sharp, options_.blur * rng.uniform()) : sharp;
  }

 private:
  using Colour = std::array<float, C>;
  static constexpr float full_turn = 2 * std::numbers::pi_v<float>;

  // What is added to something passes through this, and no two numbers are drawn in one list of arguments: an image has
  // the same bits with every compiler and on every processor.
  static float rounded(float product) { return detail::rounded(product); }

  // The colours of one image: a few, most of them close to grey.
  struct Palette {
    explicit Palette(Rng& rng) {
      const float first = rng.uniform(), second = rng.uniform();
      chroma = 0.15f * first * second;
      const float middle = rng.uniform(0.25f, 0.7f), contrast = rng.uniform(0.15f, 0.5f);
      colours.resize(3 + rng.below(6));
      for (Colour& colour : colours)
        colour = around(Colour{}, middle + rounded(contrast * rng.uniform(-1, 1)), 1.2f * chroma, rng);
    }
    Colour draw(Rng& rng) const {
      const float light = rounded(0.08f * rng.normal());
      const Colour& base = colours[rng.below(std::uint32_t(colours.size()))];
      return around(base, light, 0.3f * chroma, rng);
    }
    std::vector<Colour> colours;
    float chroma = 0;
  };

  // base, lighter by `light`, its hue (Cb, Cr) moved by about `hue`.
  static Colour around(const Colour& base, float light, float hue, Rng& rng) {
    float shift[3] = {};
    if constexpr (C == 3) {
      const float blue = hue * rng.normal(), red = hue * rng.normal();
      shift[0] = rounded(1.402f * red);
      shift[1] = rounded(-0.344f * blue) - rounded(0.714f * red);
      shift[2] = rounded(1.772f * blue);
    }
    Colour colour = base;
    for (int c = 0; c < C; ++c) colour[std::size_t(c)] += light + shift[c];
    return colour;
  }

  // Lightness across a surface: a gradient, and noise or stripes in a direction of their own.
  struct Shading {
    float slope_x = 0, slope_y = 0;
    float noise = 0, stripes = 0;  // amplitudes
    float u_x = 0, u_y = 0, v_x = 0, v_y = 0;
    const detail::NoiseTile* tile = nullptr;

    float at(float dy, float dx) const {
      float light = rounded(slope_x * dx) + rounded(slope_y * dy);
      const float u = rounded(u_x * dx) + rounded(u_y * dy), v = rounded(v_x * dx) + rounded(v_y * dy);
      if (noise > 0) light += rounded(noise * (*tile)(u, v));
      if (stripes > 0) light += rounded(stripes * std::sin(u));
      return light;
    }
  };

  // A large leaf: an object of the scene, with small leaves of similar colours lying on it.
  struct Object {
    float x = 0, y = 0;
    Colour colour{};
    Shading shading;
    float of_smallest = 0, of_largest = 0;  // 1 / r^2 of its smallest and largest small leaf
    float cover = 0;             // small leaves' area over the object's area, before overlaps
    float spread = 0;            // deviation of their lightness
    bool aligned = false;        // all turned alike: fur, grass, bark
    float angle = 0;
    float light_at(float py, float px) const { return shading.at(py - y, px - x); }
  };

  Object make_object(const detail::Leaf& leaf, float radius, const Palette& palette, const detail::NoiseTile* tiles,
                     float chaos, Rng& rng) const {
    const float strength = options_.texture, scale = float(options_.oversampling);
    Object object;
    object.x = leaf.x();
    object.y = leaf.y();
    object.colour = palette.draw(rng);
    const float slope = strength * 0.3f * rng.normal() / radius, downhill = rng.uniform(0, full_turn);
    object.shading.slope_x = slope * std::cos(downhill);
    object.shading.slope_y = slope * std::sin(downhill);
    const float kind = rng.uniform(), along = rng.uniform(0, full_turn);
    const float cosine = std::cos(along), sine = std::sin(along);
    Shading& shading = object.shading;
    shading.tile = &tiles[rng.below(2)];
    if (kind < 0.85f) {
      const float amplitude = rng.normal();
      shading.noise = strength * 0.1f * amplitude * amplitude;
      const float zoom = std::pow(2.0f, rng.uniform(-1.0f, 1.0f)) / scale, stretch = rng.uniform(0.2f, 1.0f);
      shading.u_x = zoom * cosine;
      shading.u_y = zoom * sine;
      shading.v_x = -zoom * stretch * sine;
      shading.v_y = zoom * stretch * cosine;
    } else {
      shading.stripes = strength * 0.22f * std::abs(rng.normal());
      const float frequency = full_turn / (scale * rng.uniform(2.5f, 12.0f));
      shading.u_x = frequency * cosine;
      shading.u_y = frequency * sine;
    }
    const float smallest = scale * 0.4f * std::pow(6.0f, rng.uniform());
    const float largest = std::max(2 * smallest, 0.5f * radius);
    object.of_smallest = 1 / (smallest * smallest);
    object.of_largest = 1 / (largest * largest);
    object.cover = rng.uniform() < chaos ? std::pow(10.0f, rng.uniform(-1.5f, 0.5f)) : 0.0f;
    object.spread = strength * 0.22f * std::abs(rng.normal());
    object.aligned = rng.coin();
    object.angle = along;
    return object;
  }

  void draw(Image<C>& image, Rng& rng) const {
    const std::int64_t h = image.h(), w = image.w();
    const auto scale = float(options_.oversampling);
    const Palette palette(rng);
    const detail::NoiseTile tiles[2] = {{rng.uniform(0.0f, 0.5f), rng}, {rng.uniform(0.5f, 1.0f), rng}};
    const float chaos = rng.uniform();

    // The scene: which object each pixel shows. From front to back, a leaf shows where nothing is yet.
    std::vector<Object> objects;
    std::vector<std::int32_t> shown(std::size_t(h * w));
    {
      const float smallest = scale * 5 * std::pow(10.0f, rng.uniform()), largest = 0.7f * float(std::max(h, w));
      const float of_smallest = 1 / (smallest * smallest),
                  of_largest = std::min(1 / (largest * largest), 0.25f * of_smallest);
      Canvas canvas(h, w);
      for (int fallen = 0; canvas.uncovered > 0; ++fallen) {
        const bool last = fallen == 2000;  // what is left in between is one object in the far back
        const float radius = last ? 4 * float(std::max(h, w)) : 1 / std::sqrt(rng.uniform(of_largest, of_smallest));
        const float y = last ? float(h) / 2 : rng.uniform(-radius, float(h) + radius);
        const float x = last ? float(w) / 2 : rng.uniform(-radius, float(w) + radius);
        const detail::Leaf leaf(x, y, radius, rng);
        const std::int64_t before = canvas.uncovered;
        canvas.cover(leaf, [&](std::int64_t py, std::int64_t px) {
          shown[std::size_t(py * w + px)] = std::int32_t(objects.size());
          return true;
        });
        if (canvas.uncovered != before) objects.push_back(make_object(leaf, radius, palette, tiles, chaos, rng));
      }
    }

    // Small leaves, each on the object where it falls and seen on that alone.
    Canvas canvas(h, w);
    float densest = 0;
    const auto density = [](const Object& object) {  // leaves per pixel
      return object.cover * (object.of_smallest - object.of_largest) /
             (std::numbers::pi_v<float> * std::log(object.of_smallest / object.of_largest));
    };
    for (const Object& object : objects) densest = std::max(densest, density(object));
    const auto falls = std::int64_t(densest * float(h * w));
    for (std::int64_t fall = 0; fall < falls; ++fall) {
      const auto x = std::int64_t(rng.below(std::uint32_t(w))), y = std::int64_t(rng.below(std::uint32_t(h)));
      const std::int32_t id = shown[std::size_t(y * w + x)];
      const Object& object = objects[std::size_t(id)];
      if (rng.uniform() * densest >= density(object)) continue;
      const float radius = 1 / std::sqrt(rng.uniform(object.of_largest, object.of_smallest));
      const detail::Leaf leaf(float(x), float(y), radius, rng, object.aligned ? &object.angle : nullptr);
      const float light = object.light_at(float(y), float(x)) + rounded(object.spread * rng.normal());
      const Colour colour = around(object.colour, light, 0.2f * palette.chroma, rng);
      const float slope = 0.3f * object.spread * rng.normal() / radius, downhill = rng.uniform(0, full_turn);
      const float slope_x = slope * std::cos(downhill), slope_y = slope * std::sin(downhill);
      canvas.cover(leaf, [&](std::int64_t py, std::int64_t px) {
        if (shown[std::size_t(py * w + px)] != id) return false;
        put(&image(0, 0, py, px), colour, rounded(slope_x * float(px - x)) + rounded(slope_y * float(py - y)));
        return true;
      });
    }
    for (std::int64_t y = 0; y < h; ++y)
      canvas.each_free(y, 0, w, [&](std::int64_t x) {
        const Object& object = objects[std::size_t(shown[std::size_t(y * w + x)])];
        put(&image(0, 0, y, x), object.colour, object.light_at(float(y), float(x)));
        return true;
      });
  }

  static void put(float* pixel, const Colour& colour, float light) {
    for (std::size_t c = 0; c < C; ++c) pixel[c] = std::clamp(colour[c] + light, 0.0f, 1.0f);
  }

  // Which pixels are free. Covered stretches of a row are passed in one step: next[y][x] is the first free column from
  // x on, or a step towards it.
  struct Canvas {
    Canvas(std::int64_t rows, std::int64_t columns)
        : h(rows), w(columns), uncovered(rows * columns), next(std::size_t(rows * (columns + 1))) {
      for (std::size_t i = 0; i < next.size(); ++i) next[i] = std::int32_t(i % std::size_t(w + 1));
    }

    /// Calls take(x) for the free pixels of a stretch; those for which it is true are covered then.
    template <class Take>
    void each_free(std::int64_t y, std::int64_t begin, std::int64_t end, Take take) {
      std::int32_t* row = next.data() + y * (w + 1);
      for (auto x = first_free(row, std::int32_t(begin)); x < end; x = first_free(row, x + 1)) {
        if (!take(std::int64_t{x})) continue;
        row[x] = x + 1;
        --uncovered;
      }
    }
    template <class Take>
    void cover(const detail::Leaf& leaf, Take take) {
      for (std::int64_t y = leaf.top(); y < leaf.bottom(h); ++y) {
        std::int64_t begin = 0, end = 0;
        leaf.columns(y, w, begin, end);
        if (begin < end) each_free(y, begin, end, [&](std::int64_t x) { return take(y, x); });
      }
    }
    static std::int32_t first_free(std::int32_t* row, std::int32_t x) {
      while (row[x] != x) {
        row[x] = row[row[x]];
        x = row[x];
      }
      return x;
    }

    std::int64_t h, w, uncovered;
    std::vector<std::int32_t> next;
  };

  DeadLeavesOptions options_;
};

}}  // namespace strata::STRATA_ABI
