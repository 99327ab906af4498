// Random numbers of the CUDA backend: the same words as core/random.hpp, hence the same dropout, noise and patches as
// on the CPU. Normal numbers go through another logarithm and sine in double, so they may differ in float32's last bit,
// seldom.
#include "device_test.hpp"
#include "strata/data/transforms.hpp"

using namespace device_test;
using strata::Image, strata::PatchSource, strata::RandomStream, strata::Rng;

namespace {

RandomStream place(const Rng& rng) { return {rng.seed(), rng.stream()[0], rng.stream()[1], rng.position()}; }

}  // namespace

TEST_CASE("a stream's place") {
  Rng rng(7, 1, 2);
  CHECK(rng.position() == 0);
  for (std::uint64_t i = 1; i < 10; ++i) {
    (void)rng.bits();
    CHECK(rng.position() == i);
  }
  rng.seek(5);
  CHECK(rng.position() == 20);
  CHECK(Rng(0x123456789abcdefULL).seed() == 0x123456789abcdefULL);
}

TEST_CASE("dropout drops the elements that the CPU drops") {
  for (const std::int64_t size : {1, 7, 1030})
    for (const int before : {0, 1, 2, 3}) {  // words drawn before
      Rng rng(0x1234567890ULL, 3, 4);
      for (int i = 0; i < before; ++i) (void)rng.bits();
      const RandomStream stream = place(rng);
      const double p = 0.3;
      const Numbers x = numbers(size, 1), old = numbers(size, 2);
      std::vector<double> y(x.size()), added = doubles(old);
      for (std::size_t i = 0; i < x.size(); ++i) {
        y[i] = rng.bits() < std::uint32_t(p * 4294967296.0) ? 0 : double(x[i]) / (1 - p);
        added[i] += y[i];
      }
      in_random_order([&] {
        const DeviceArray<float> dev_x(x), dev_y(x.size()), dev_added(old);
        gpu().dropout(stream, p, size, dev_x.data(), dev_y.data(), false);
        gpu().dropout(stream, p, size, dev_x.data(), dev_added.data(), true);
        gpu().dropout(stream, p, size, dev_x.data(), dev_x.data(), false);
        CHECK(largest_error(dev_y, y) <= 2 * unit);
        CHECK(largest_error(dev_added, added) <= 3 * unit);
        CHECK(dev_x.download() == dev_y.download());
      });
    }
  const DeviceArray<float> x(4);
  CHECK_THROWS_AS(gpu().dropout({}, 1.0, 4, x.data(), x.data(), false), strata::ValueError);
}

TEST_CASE("noise is the CPU's") {
  for (const std::int64_t size : {1, 6, 1027})
    for (const int before : {0, 1, 3}) {
      Rng rng(9, 1, 5);
      for (int i = 0; i < before; ++i) (void)rng.bits();
      const RandomStream stream = place(rng);
      const Numbers x = numbers(size, 1);
      std::vector<double> y(x.size()), noise(x.size());
      for (std::size_t i = 0; i < x.size(); ++i) {
        noise[i] = double(0.1f * rng.normal());
        y[i] = double(x[i]) + noise[i];
      }
      in_random_order([&] {
        const DeviceArray<float> dev_x(x), dev_y(x.size()), dev_noise(x.size());
        gpu().add_normal(stream, 0.1f, size, dev_x.data(), dev_y.data());
        gpu().add_normal(stream, 0.1f, size, nullptr, dev_noise.data());
        CHECK(largest_error(dev_y, y) <= 2 * unit);
        CHECK(largest_error(dev_noise, noise, 0.1) <= 2 * unit);
      });
    }
}

TEST_CASE("patches: places, the eight orientations and noise as the CPU makes them") {
  const std::int64_t patch = 5;
  const auto check = [&]<int C>(std::integral_constant<int, C>) {
    Image<C> image(1, 9, 12);
    const Numbers values = numbers(image.size(), 1);
    std::copy(values.begin(), values.end(), image.data());
    const DeviceArray<float> on_device(values);
    std::vector<PatchSource> sources;
    Numbers clean;
    std::vector<double> noisy;
    for (std::uint32_t s = 0; s < 11; ++s) {
      Rng rng(3, 0, s);
      Rng places = rng;  // random_crop draws the row, then the column
      const std::int64_t y = places.below(std::uint32_t(image.h() - patch + 1)),
                         x = places.below(std::uint32_t(image.w() - patch + 1));
      const Image<C> cut = strata::random_crop(image, patch, rng);
      const int orientation = s < 8 ? int(s) : int(rng.below(8));
      const Image<C> turned = strata::dihedral(cut, orientation);
      const float sigma = 0.05f * float(s);
      sources.push_back({.image = on_device.data(),
                         .h = image.h(),
                         .w = image.w(),
                         .y = y,
                         .x = x,
                         .orientation = orientation,
                         .sigma = sigma,
                         .random = place(rng)});
      const Image<C> with_noise = strata::add_gaussian_noise(turned, sigma, rng);
      clean.insert(clean.end(), turned.data(), turned.data() + turned.size());
      noisy.insert(noisy.end(), with_noise.data(), with_noise.data() + with_noise.size());
    }
    in_every_order([&] {
      const DeviceArray<float> dev_clean(clean.size()), dev_noisy(clean.size()), only_clean(clean.size());
      gpu().noisy_patches(sources, patch, C, dev_clean.data(), dev_noisy.data());
      gpu().noisy_patches(sources, patch, C, only_clean.data(), nullptr);
      CHECK(dev_clean.download() == clean);
      CHECK(only_clean.download() == clean);
      CHECK(largest_error(dev_noisy, noisy) <= 2 * unit);
    });
    sources[3].x = image.w() - patch + 1;
    const DeviceArray<float> result(clean.size());
    CHECK_THROWS_AS(gpu().noisy_patches(sources, patch, C, result.data(), nullptr), strata::ShapeError);
  };
  check(std::integral_constant<int, 1>{});
  check(std::integral_constant<int, 3>{});
}
