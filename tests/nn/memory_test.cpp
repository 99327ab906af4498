// What training_bytes and inference_bytes say is what the pool hands out, to 5 percent.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>

#include "strata/strata.hpp"

namespace {

namespace st = strata;

template <int Channels, int Width, int Depth>
using DnCNN = st::Residual<st::Sequential<
    st::Conv2d<Channels, Width>, st::ReLU,
    st::Repeat<Depth, st::Sequential<st::Conv2d<Width, Width, 3, st::no_bias>, st::BatchNorm2d<Width>, st::ReLU>>,
    st::Conv2d<Width, Channels>>>;

template <int Width>
using Vdsr = st::Residual<st::Sequential<st::Conv2d<1, Width>, st::ReLU,
                                         st::Repeat<6, st::Sequential<st::Conv2d<Width, Width>, st::ReLU>>,
                                         st::Conv2d<Width, 1>>>;

template <int Width>
using ReluFirst = st::Sequential<st::Conv2d<1, Width>, st::ReLU, st::BatchNorm2d<Width>, st::Conv2d<Width, Width>,
                                 st::ReLU, st::BatchNorm2d<Width>, st::Conv2d<Width, 1>>;

template <int Width>
using Separable = st::Sequential<
    st::Conv2d<1, Width>, st::ReLU,
    st::Repeat<3, st::Sequential<st::DepthwiseConv2d<Width>, st::ReLU, st::Conv2d<Width, Width, 1, st::no_bias>,
                                 st::BatchNorm2d<Width>, st::ReLU, st::DepthwiseConv2d<Width, 5, st::no_bias>,
                                 st::BatchNorm2d<Width>, st::ReLU>>,
    st::Conv2d<Width, 1>>;

/// Down and up again, as in DCGAN and U-Net.
template <int Width>
using Strided = st::Sequential<st::Conv2d<16, Width, 4, st::Conv2dOptions{.stride = 2, .padding = 1}>, st::ReLU,
                               st::Conv2d<Width, 4 * Width, 3, st::Conv2dOptions{.stride = 2, .padding = 1}>, st::ReLU,
                               st::ConvTranspose2d<4 * Width, Width, 4>, st::ConvTranspose2d<Width, 16, 2>>;

/// Many channels on few pixels: more weights than anything else.
using Deep = st::Sequential<st::Conv2d<256, 256>, st::ReLU, st::Conv2d<256, 256>>;

/// Blocks that are run again on the way back: chains, and one in another.
template <int Width, int Depth>
using Again = st::Sequential<
    st::Conv2d<1, Width>, st::ReLU,
    st::Repeat<Depth, st::Checkpoint<st::Repeat<3, st::Sequential<st::Conv2d<Width, Width, 3, st::no_bias>,
                                                                  st::BatchNorm2d<Width>, st::ReLU>>>>,
    st::Checkpoint<st::Sequential<st::Conv2d<Width, Width>,
                                  st::Checkpoint<st::Repeat<3, st::Sequential<st::Conv2d<Width, Width>, st::ReLU>>>,
                                  st::Checkpoint<st::Repeat<4, st::Sequential<st::Conv2d<Width, Width>, st::ReLU>>>>>,
    st::Conv2d<Width, 1>>;

/// The same, keeping all.
template <int Width, int Depth>
using Kept = st::Sequential<
    st::Conv2d<1, Width>, st::ReLU,
    st::Repeat<Depth, st::Repeat<3, st::Sequential<st::Conv2d<Width, Width, 3, st::no_bias>, st::BatchNorm2d<Width>,
                                                   st::ReLU>>>,
    st::Sequential<st::Conv2d<Width, Width>, st::Repeat<7, st::Sequential<st::Conv2d<Width, Width>, st::ReLU>>>,
    st::Conv2d<Width, 1>>;

template <class Net>
void check(std::int64_t n, std::int64_t h, std::int64_t w) {
  constexpr int c = Net::io::in;
  CAPTURE(n);
  CAPTURE(h);
  const auto x = st::Image<c>::full(n, h, w, 0.5f), target = st::Image<Net::io::out>::full(n, h, w, 0.4f);
  st::cpu_pool().trim();  // no larger blocks of earlier networks to hand out
  const std::size_t before = st::cpu_pool().live_bytes();
  {
    Net net;
    st::cpu_pool().reset_peak();
    for (int step = 0; step < 2; ++step) {
      st::Train pass;
      const auto loss = st::MSELoss()(net(pass, x), target);
      pass.backward(loss);
    }
    const double measured = double(st::cpu_pool().peak_bytes() - before);
    const double told = double(st::training_bytes<Net>(n, h, w));
    INFO("training: told ", told / 1e6, " MB, measured ", measured / 1e6, " MB");
    CHECK(std::abs(told / measured - 1) <= 0.05);
  }
  st::cpu_pool().trim();
  const Net net;
  st::cpu_pool().reset_peak();
  for (int image = 0; image < 2; ++image) {
    st::Infer pass;
    const auto y = net(pass, x);
    CHECK(std::isfinite(y.data()[0]));
  }
  const double measured = double(st::cpu_pool().peak_bytes() - before);
  const double told = double(st::inference_bytes<Net>(n, h, w));
  INFO("inference: told ", told / 1e6, " MB, measured ", measured / 1e6, " MB");
  CHECK(std::abs(told / measured - 1) <= 0.05);
}

}  // namespace

TEST_CASE("the memory of a network is known before it runs") {
  check<DnCNN<1, 32, 6>>(16, 40, 40);
  check<DnCNN<1, 64, 4>>(8, 48, 40);
  check<DnCNN<3, 32, 3>>(4, 96, 128);
  check<Vdsr<48>>(8, 64, 64);
  check<ReluFirst<32>>(8, 64, 64);
  check<Separable<32>>(8, 64, 64);
  check<Strided<64>>(8, 64, 64);
  check<Strided<64>>(2, 16, 16);  // mostly weights
  check<Deep>(1, 14, 14);
}

TEST_CASE("the memory of a network that runs blocks again is known, and less") {
  check<Again<16, 5>>(4, 64, 64);
  check<Again<32, 3>>(8, 40, 48);
  check<st::Checkpoint<Vdsr<48>>>(8, 64, 64);
  CHECK(double(st::training_bytes<Again<16, 12>>(4, 64, 64)) <
        0.5 * double(st::training_bytes<Kept<16, 12>>(4, 64, 64)));
  CHECK(st::inference_bytes<Again<16, 5>>(4, 64, 64) == st::inference_bytes<Kept<16, 5>>(4, 64, 64));
}

TEST_CASE("impossible images are refused") {
  CHECK_THROWS_AS(st::training_bytes<Vdsr<16>>(0, 40, 40), st::ShapeError);
  CHECK_THROWS_AS(st::inference_bytes<Vdsr<16>>(1, 40, -1), st::ShapeError);
}
