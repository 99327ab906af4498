// Running by rows and by tiles: the bits of the whole run, for any shape, tile size and number of threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "strata/deploy/fold.hpp"
#include "strata/deploy/tile.hpp"
#include "strata/strata.hpp"

namespace st = strata;

namespace {

template <int W>
using Block = st::Sequential<st::Conv2d<W, W, 3, st::no_bias>, st::BatchNorm2d<W>, st::ReLU>;
using DnCNN = st::Residual<st::Sequential<st::Conv2d<1, 16>, st::ReLU, st::Repeat<4, Block<16>>, st::Conv2d<16, 1>>>;

/// A skip that says so.
template <class Body>
struct Add {
  using io = typename Body::io;
  Body body;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  auto join(auto&, const auto& x, const auto& y) const { return x + 0.5f * y; }
  auto operator()(st::Train& pass, const auto& x) { return join(pass, x, body(pass, x)); }
  auto operator()(st::Infer& pass, const auto& x) const { return join(pass, x, body(pass, x)); }
  auto fold() const { return Add<st::deploy_t<Body>>{.body = st::fold(body)}; }
};
using Half = Add<st::Sequential<st::PixelUnshuffle<2, 2>, st::Conv2d<8, 24>, st::ReLU,
                                st::Repeat<2, Add<st::Sequential<st::Conv2d<24, 24>, st::ReLU, st::Conv2d<24, 24, 5>>>>,
                                st::Conv2d<24, 8>, st::PixelShuffle<8, 2>>>;
using Twice = st::Sequential<st::Conv2d<1, 16>, st::LeakyReLU, st::Conv2d<16, 16, 3, st::Conv2dOptions{.dilation = 2}>,
                             st::PReLU<16>, st::PixelShuffle<16, 2>, st::Conv2d<4, 8, 1>, st::Conv2d<8, 3>>;
using Smaller = st::Sequential<st::Conv2d<1, 8>, st::MaxPool2d<2>, st::Conv2d<8, 8>,
                               st::Conv2d<8, 2, 3, st::Conv2dOptions{.padding = 0}>>;

/// Kernels that are cut into parts, and dilations.
using Large = st::Sequential<st::Conv2d<1, 16, 9>, st::ReLU, st::Conv2d<16, 8, 5>, st::ReLU,
                             st::Conv2d<8, 8, 3, st::Conv2dOptions{.dilation = 3}>, st::ReLU, st::Conv2d<8, 16, 7>,
                             st::Conv2d<16, 9, 5, st::Conv2dOptions{.padding = 1, .dilation = 2}>, st::Conv2d<9, 1, 3>>;
/// Made larger by transposed convolutions.
using Transposed = st::Sequential<st::Conv2d<1, 8>, st::SiLU, st::ConvTranspose2d<8, 8, 4>, st::Conv2d<8, 8, 5>,
                                  st::Tanh, st::ConvTranspose2d<8, 1, 5, st::ConvTranspose2dOptions{.stride = 1}>>;

/// Depthwise convolutions between others.
using Separable = Add<st::Sequential<st::DepthwiseConv2d<2, 5>, st::Conv2d<2, 19, 1>, st::ReLU,
                                     st::DepthwiseConv2d<19, 7, st::no_bias>, st::BatchNorm2d<19>, st::ReLU,
                                     st::Conv2d<19, 16>, st::DepthwiseConv2d<16, 3, st::Conv2dOptions{.dilation = 3}>,
                                     st::DepthwiseConv2d<16>, st::ReLU, st::Conv2d<16, 2, 1>>>;
using Halved =
    st::Sequential<st::DepthwiseConv2d<3, 3, st::Conv2dOptions{.stride = 2}>, st::Conv2d<3, 8>, st::DepthwiseConv2d<8>>;

/// Modules whose inside nobody knows.
struct Opaque {
  using io = st::maps<1, 1>;
  st::Conv2d<1, 8> first;
  st::Sequential<st::AvgPool2d<2>, st::Conv2d<8, 16, 3, st::Conv2dOptions{.dilation = 3}>, st::ReLU, st::Conv2d<16, 32>,
                 st::PixelShuffle<32, 2>> coarse;
  st::Conv2d<16, 1> last;
  static constexpr void visit(auto& self, auto&& f) {
    f("first", self.first);
    f("coarse", self.coarse);
    f("last", self.last);
  }
  auto operator()(st::Train& pass, const auto& x) {
    const auto a = first(pass, x);
    return last(pass, st::cat(pass, a, coarse(pass, a)));
  }
  auto operator()(st::Infer& pass, const auto& x) const {
    const auto a = first(pass, x);
    return last(pass, st::cat(pass, a, coarse(pass, a)));
  }
};
using Strided = st::Sequential<st::Conv2d<1, 8>, st::ReLU, st::Conv2d<8, 16, 3, st::Conv2dOptions{.stride = 2}>,
                               st::Conv2d<16, 16>>;
/// Made larger by interpolation, and pixels normalised over their channels.
using Interpolated = st::Sequential<st::Conv2d<1, 8>, st::LayerNorm2d<8>, st::Upsample<3, st::UpsampleMode::bilinear>,
                                    st::Conv2d<8, 8>, st::GELU, st::Upsample<2>, st::Conv2d<8, 1>>;
using Repeated = st::Sequential<st::Conv2d<1, 8>, st::Upsample<2>, st::Conv2d<8, 9>, st::LayerNorm2d<9>, st::Hardswish,
                                st::Conv2d<9, 1>>;
using Normalised = st::Sequential<st::Conv2d<1, 8>, st::GroupNorm<2, 8>, st::ReLU, st::Conv2d<8, 1>>;
using Whole = st::Sequential<st::Conv2d<1, 8>, st::GlobalAvgPool2d>;

template <class Net>
Net made(std::uint64_t seed) {
  Net net;
  st::initialize(net, seed);
  st::Rng rng(seed, 1, 1);
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& parameter) {
    if (parameter.shape().rank() < 2)
      for (float& x : parameter.value().span()) x += 0.2f * rng.normal();
  });
  return net;
}

template <int C>
st::Image<C> picture(std::int64_t n, std::int64_t h, std::int64_t w, std::uint64_t seed) {
  st::Image<C> image(n, h, w);
  st::Rng rng(seed, 2, 2);
  for (float& x : image.span()) x = rng.uniform();
  return image;
}

template <int C>
bool same_bits(const st::Image<C>& a, const st::Image<C>& b) {
  return a.shape() == b.shape() && std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(float)) == 0;
}

/// Ten random shapes and tile sizes; `multiple` of which extents must be.
template <class Net>
void check(const Net& net, std::int64_t multiple = 1) {
  constexpr int in = Net::io::in;
  st::Rng rng(11, 3, 3);
  for (int trial = 0; trial < 10; ++trial) {
    const std::int64_t h = (8 + rng.below(160)) / multiple * multiple, w = (8 + rng.below(160)) / multiple * multiple;
    const std::int64_t tile = 1 + rng.below(70);
    CAPTURE(h);
    CAPTURE(w);
    CAPTURE(tile);
    const auto image = picture<in>(1, h, w, std::uint64_t(trial));
    st::set_num_threads(2);
    st::Infer pass;
    const auto wanted = st::as_var(net(pass, image)).value();
    for (const int threads : {1, 3}) {
      st::set_num_threads(threads);
      CHECK(same_bits(st::run_tiled(net, image, {.tile = tile}), wanted));
    }
    CHECK(same_bits(st::run_tiled(net, image), wanted));
  }
  st::set_num_threads(2);
}

}  // namespace

TEST_CASE("by rows: the same bits") {
  CHECK(st::detail::RowStage<st::deploy_t<DnCNN>, 1>::possible);
  CHECK(st::detail::RowStage<Half, 2>::possible);
  CHECK(st::detail::RowStage<st::deploy_t<Half>, 2>::possible);
  CHECK(st::detail::RowStage<Twice, 1>::possible);
  CHECK(st::detail::RowStage<Smaller, 1>::possible);
  CHECK(st::detail::RowStage<Large, 1>::possible);
  CHECK(st::detail::RowStage<st::deploy_t<Separable>, 2>::possible);
  CHECK(st::detail::RowStage<st::Sequential<st::DepthwiseConv2d<3>, st::ReLU, st::DepthwiseConv2d<3>>, 3>::possible);
  SUBCASE("folded batch norm") { check(st::fold(made<DnCNN>(1))); }
  SUBCASE("half the size and back, skips in skips") { check(st::fold(made<Half>(2)), 2); }
  SUBCASE("twice the size, dilation") { check(made<Twice>(3)); }
  SUBCASE("pooling, no padding") { check(made<Smaller>(4)); }
  SUBCASE("large kernels and dilations") { check(made<Large>(9)); }
  CHECK(st::detail::RowStage<Repeated, 1>::possible);
  CHECK(st::detail::RowStage<st::Checkpoint<Twice>, 1>::possible);
  SUBCASE("pixels repeated") { check(made<Repeated>(14)); }
  SUBCASE("depthwise convolutions") { check(st::fold(made<Separable>(11))); }
  SUBCASE("depthwise convolutions, not folded") {
    check(made<st::Sequential<st::DepthwiseConv2d<3>, st::ReLU, st::DepthwiseConv2d<3, 5>>>(12));
  }
}

TEST_CASE("by tiles: the same bits") {
  CHECK_FALSE(st::detail::RowStage<Opaque, 1>::possible);
  CHECK_FALSE(st::detail::RowStage<Strided, 1>::possible);
  SUBCASE("a module that does not say what it does") { check(made<Opaque>(5), 2); }
  SUBCASE("batch norm not folded") { check(made<DnCNN>(6)); }
  SUBCASE("strides") { check(made<Strided>(7), 2); }
  SUBCASE("depthwise convolutions, not folded") { check(made<Separable>(13)); }
  SUBCASE("strides of depthwise convolutions") { check(made<Halved>(14), 2); }
  SUBCASE("transposed convolutions") { check(made<Transposed>(10)); }
  SUBCASE("interpolation") { check(made<Interpolated>(12)); }
  SUBCASE("statistics of the image cannot be cut") { check(made<Normalised>(13)); }
  SUBCASE("a look at the whole image cannot be cut") { check(made<Whole>(8)); }
}

TEST_CASE("batches, one pixel, and limits") {
  const auto net = st::fold(made<DnCNN>(1));
  const auto batch = picture<1>(3, 41, 37, 1);
  st::Infer pass;
  CHECK(same_bits(st::run_tiled(net, batch, {.tile = 16}), st::as_var(net(pass, batch)).value()));
  const auto pixel = picture<1>(1, 1, 1, 1);
  CHECK(same_bits(st::run_tiled(net, pixel), st::as_var(net(pass, pixel)).value()));
  CHECK_THROWS_WITH_AS(st::run_tiled(net, batch, {.max_bytes = 1000}), doctest::Contains("at least"), st::ValueError);
  CHECK_THROWS_AS(st::run_tiled(net, batch, {.max_bytes = 0}), st::ValueError);
  CHECK_THROWS_AS(st::run_tiled(net, batch, {.tile = -1}), st::ValueError);
}

TEST_CASE("memory stays under the limit, what the pool keeps included") {
  const auto net = st::fold(made<DnCNN>(1));
  const std::int64_t w = 600;
  for (const std::int64_t h : {1500, 1496, 1501}) {  // the widest layer alone is 58 MB
    const std::int64_t least = st::least_band_bytes(net, h, w);
    CHECK(least < 12 << 20);
    for (const std::int64_t limit : {least, 2 * least, std::int64_t{40} << 20}) {
      CAPTURE(h);
      CAPTURE(limit);
      st::cpu_pool().trim();
      const auto live = st::cpu_pool().live_bytes();
      st::cpu_pool().reset_peak();
      std::int64_t written = 0, read = 0;
      std::size_t most = 0;
      st::run_rows(
          net, h, w,
          [&](std::int64_t y, st::Image<1>& rows) {
            CHECK(y == read);  // each row once
            read += rows.h();
            rows.tensor().fill(0.5f);
          },
          [&](std::int64_t y, const st::Image<1>& rows) {
            CHECK(y == written);
            CHECK(y + rows.h() <= read);  // and before the result at its place
            written += rows.h();
            most = std::max(most, st::cpu_pool().reserved_bytes() - live);
          },
          {.max_bytes = limit});
      CHECK(written == h);
      CHECK(most <= std::size_t(limit));
      CHECK(st::cpu_pool().peak_bytes() - live <= std::size_t(limit));
    }
  }
  CHECK(st::least_band_bytes(made<Opaque>(5), 100, 100) == 0);
  CHECK(st::least_band_bytes(net, 4, 100) == 0);
}
