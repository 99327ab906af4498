// What following a forward tells, against a counted real run: random modules with skips, shared layers, pools, strides,
// transposed convolutions and upsampling, on images of random extents. One type of module, whose structure is made at
// run time, so that the compiler has little to do.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "strata/deploy/tile.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/upsample.hpp"

namespace st = strata;

namespace {

constexpr int width = 8;  // channels: enough for Winograd's algorithm

/// What the module does, one letter a step, to the image at hand, h:
///   layers that keep its size: 3 5 d(ilated) 1 w (depthwise) r (relu) s (sigmoid)
///   halves: p(ool) m(ean) 2 (stride)     doubles: t(ransposed) T (of 4 x 4) n(earest) b(ilinear)
///   [ keeps h aside    + adds what was kept last    c joins it and brings the channels back    g gates by the whole image
struct Scripted {
  using io = st::maps<1, 1>;
  st::Conv2d<1, width> head;
  st::Conv2d<width, width> conv3;
  st::Conv2d<width, width, 5> conv5;
  st::Conv2d<width, width, 3, st::Conv2dOptions{.dilation = 2}> dilated;
  st::Conv2d<width, width, 1> conv1;
  st::DepthwiseConv2d<width> depthwise;
  st::Conv2d<width, width, 3, st::Conv2dOptions{.stride = 2}> strided;
  st::ConvTranspose2d<width, width, 2> doubled;
  st::ConvTranspose2d<width, width, 4> doubled4;
  st::Conv2d<2 * width, width, 1> shrink;
  st::Conv2d<width, 1> tail;
  std::string script;
  mutable std::int64_t counted = 0;  // multiply-adds of a real run

  static constexpr void visit(auto& self, auto&& f) {
    f("head", self.head);
    f("conv3", self.conv3);
    f("conv5", self.conv5);
    f("dilated", self.dilated);
    f("conv1", self.conv1);
    f("depthwise", self.depthwise);
    f("strided", self.strided);
    f("doubled", self.doubled);
    f("doubled4", self.doubled4);
    f("shrink", self.shrink);
    f("tail", self.tail);
  }
  /// h with the multiply-adds that it took: `taps` for each of its pixels.
  template <class V>
  V count(V h, std::int64_t taps) const {
    if constexpr (!st::Symbolic<V>) counted += h.n() * h.h() * h.w() * taps;
    return h;
  }
  static auto run(auto& self, auto& pass, const auto& x) {
    constexpr std::int64_t w = width;
    auto h = self.count(self.head(pass, x), 9 * w);
    std::vector<decltype(h)> kept;
    for (const char step : self.script) {
      const auto before = h;
      switch (step) {
        case '3': h = self.count(self.conv3(pass, h), 9 * w * w); break;
        case '5': h = self.count(self.conv5(pass, h), 25 * w * w); break;
        case 'd': h = self.count(self.dilated(pass, h), 9 * w * w); break;
        case '1': h = self.count(self.conv1(pass, h), w * w); break;
        case 'w': h = self.count(self.depthwise(pass, h), 9 * w); break;
        case 'r': h = st::ReLU()(pass, h); break;
        case 's': h = st::as_var(sigmoid(h)); break;
        case 'p': h = st::MaxPool2d<2>()(pass, h); break;
        case 'm': h = st::AvgPool2d<2>()(pass, h); break;
        case '2': h = self.count(self.strided(pass, h), 9 * w * w); break;
        case 't': self.count(before, 4 * w * w), h = self.doubled(pass, h); break;
        case 'T': self.count(before, 16 * w * w), h = self.doubled4(pass, h); break;
        case 'n': h = st::Upsample<2>()(pass, h); break;
        case 'b': h = st::Upsample<2, st::UpsampleMode::bilinear>()(pass, h); break;
        case '[': kept.push_back(h); break;
        case '+': h = st::as_var(h + kept.back()), kept.pop_back(); break;
        case 'c': h = self.count(self.shrink(pass, st::cat(pass, h, kept.back())), 2 * w * w), kept.pop_back(); break;
        case 'g': h = st::as_var(h * st::expand_as(pass, st::GlobalAvgPool2d()(pass, h), h)); break;
        default: throw st::Error("no such step");
      }
    }
    return self.count(self.tail(pass, h), 9 * w);
  }
  auto operator()(st::Train& pass, const auto& x) { return run(*this, pass, x); }
  auto operator()(st::Infer& pass, const auto& x) const { return run(*this, pass, x); }
};

char one_of(st::Rng& rng, const std::string& letters) {
  return letters[std::size_t(rng.below(std::uint32_t(letters.size())))];
}

/// Layers, and up to `depth` levels of half the size, each left through a skip.
std::string make_script(st::Rng& rng, int depth, const std::string& layers) {
  std::string text;
  for (int part = 0; part < 2; ++part) {
    for (std::uint32_t i = rng.below(3); i > 0; --i) text += one_of(rng, layers);
    if (depth > 0 && rng.below(3) > 0) {
      text += '[';
      text += one_of(rng, "pm2");
      text += make_script(rng, depth - 1, layers);
      text += one_of(rng, "tTnb");
      text += one_of(rng, "+c");
    } else if (rng.below(2) > 0) {
      text += '[';
      text += one_of(rng, layers);
      text += one_of(rng, "+c");
    }
  }
  return text;
}

/// What run_rows gives, and how often it asked for rows.
struct Tiled {
  st::Image<1> image;
  int reads = 0;
};
Tiled tiled(const Scripted& net, const st::Image<1>& x, const st::Image<1>& like, st::TileOptions options) {
  Tiled result{st::Image<1>(1, like.h(), like.w())};
  st::run_rows(
      net, x.h(), x.w(),
      [&](std::int64_t y, st::Image<1>& rows) {
        ++result.reads, std::copy_n(&x(0, 0, y, 0), rows.size(), rows.data());
      },
      [&](std::int64_t y, const st::Image<1>& rows) {
        std::copy_n(rows.data(), rows.size(), &result.image(0, 0, y, 0));
      },
      options);
  return result;
}
st::Image<1> picture(std::int64_t h, std::int64_t w, std::uint64_t seed) {
  st::Image<1> x(1, h, w);
  st::Rng rng(seed, 5, 5);
  for (float& value : x.span()) value = rng.normal();
  return x;
}
bool same_bits(const st::Image<1>& a, const st::Image<1>& b) {
  return a.shape() == b.shape() && std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(float)) == 0;
}
Scripted scripted(std::string script, std::uint64_t seed) {
  Scripted net;
  net.script = std::move(script);
  st::initialize(net, seed);
  return net;
}

/// The largest number of input rows from the first to the last that a row of the result depends on, found by raising
/// one row after another, each in an image of its own. In double, with positive weights: nothing cancels and nothing is
/// lost.
std::int64_t measured_field(Scripted net, std::int64_t h, std::int64_t w) {
  st::for_each_parameter(net, [](const std::string&, st::Parameter& p) {
    for (float& x : p.value().span()) x = 0.0625f;
  });
  st::to<double>(net);
  st::Image<1, double> x(h + 1, h, w);  // image h is as it is
  st::Rng rng(7, 6, 6);
  for (std::int64_t pixel = 0; pixel < h * w; ++pixel) {
    const double value = 0.5 + 0.25 * double(rng.uniform());
    for (std::int64_t n = 0; n <= h; ++n) x.data()[n * h * w + pixel] = value;
  }
  for (std::int64_t n = 0; n < h; ++n)
    for (std::int64_t column = 0; column < w; ++column) x(n, 0, n, column) += 64;  // above all others, for MaxPool2d
  st::Infer pass;
  const auto y = st::as_var(net(pass, x)).value();
  std::int64_t field = 0;
  for (std::int64_t row = y.h() / 2 - y.h() / 8; row < y.h() / 2 + y.h() / 8; ++row) {
    std::int64_t first = h, last = -1;
    for (std::int64_t n = 0; n < h; ++n)
      if (y(n, 0, row, y.w() / 2) != y(h, 0, row, y.w() / 2)) first = std::min(first, n), last = std::max(last, n);
    field = std::max(field, last - first + 1);
  }
  return field;
}

}  // namespace

TEST_CASE("extents and multiply-adds of random modules are those of a counted run; tiles have the whole run's bits") {
  st::Rng rng(1, 7, 7);
  int cut = 0;
  for (int trial = 0; trial < 40; ++trial) {
    const int depth = trial % 4;
    const auto net = scripted(make_script(rng, depth, "35d1wrs"), std::uint64_t(trial));
    const std::int64_t unit = std::int64_t{1} << depth;
    const std::int64_t h = (16 + rng.below(200)) / unit * unit + (depth == 0 ? 1 : 0),
                       w = (16 + rng.below(200)) / unit * unit;
    INFO("script ", net.script, ", ", h, " x ", w);
    const auto x = picture(h, w, std::uint64_t(trial));
    st::Infer pass;
    const st::Image<1> whole = st::as_var(net(pass, x)).value();
    const st::Facts facts = st::facts(net, h, w);
    CHECK(facts.output.h == whole.h());
    CHECK(facts.output.w == whole.w());
    CHECK(facts.multiply_adds == net.counted);
    for (const std::int64_t tile : {1, int(1 + rng.below(90))}) {
      const Tiled part = tiled(net, x, whole, {.tile = tile});
      CAPTURE(tile);
      CHECK(same_bits(part.image, whole));
      cut += part.reads > 1;
    }
    CHECK(same_bits(st::run_tiled(net, x), whole));
  }
  CHECK(cut > 30);  // it was not the whole image each time
}

TEST_CASE("the receptive field of random modules is what a perturbation reaches") {
  st::Rng rng(2, 7, 7);
  int measured = 0;
  for (int trial = 0; trial < 12; ++trial) {
    const int depth = trial % 3;
    const auto net = scripted(make_script(rng, depth, "3d1wr"), 1);
    const std::int64_t field = st::facts(net, 64, 64).receptive_field;
    if (field > 40) continue;
    INFO("script ", net.script);
    CHECK(measured_field(net, 96, 16) == field);
    ++measured;
  }
  CHECK(measured >= 8);
  // By hand: phases of an upsampled image see different rows; a window of 2 moves by 2; both ends of a dilated one.
  const auto field = [](const char* script) { return st::facts(scripted(script, 1), 64, 64).receptive_field; };
  CHECK(field("") == 5);
  CHECK(field("d") == 9);
  CHECK(field("pn") == 6);  // three rows of the enlarged image are of two before, those of four, and those of six
  CHECK(field("[3+") == 7);
  CHECK(field("g") == st::whole_image);
}

TEST_CASE(
    "what looks at the whole image, or asks for its extents, is not cut: whole within the limit, refused beyond") {
  const auto net = scripted("3[pgt+3", 3);
  const auto x = picture(160, 96, 1);
  st::Infer pass;
  const st::Image<1> whole = st::as_var(net(pass, x)).value();
  const Tiled part = tiled(net, x, whole, {.tile = 16});
  CHECK(part.reads == 1);
  CHECK(same_bits(part.image, whole));
  CHECK_THROWS_WITH_AS(tiled(net, x, whole, {.max_bytes = 1 << 20}),
                       doctest::Contains("depends on all of the image: GlobalAvgPool2d()"), st::ValueError);
  // An image that the network does not take is an error before anything is read.
  CHECK_THROWS_WITH_AS(tiled(net, picture(161, 96, 1), whole, {}),
                       doctest::Contains("arithmetic of images of different extents"), st::ShapeError);
  CHECK_THROWS_AS(st::run_tiled(net, picture(161, 96, 1)), st::ShapeError);
}

TEST_CASE("a limit on memory is kept by tiles of modules") {
  const auto net = scripted("3[p3[p3t+3t+3", 3);
  const auto x = picture(640, 512, 1);
  st::Infer pass;
  const st::Image<1> whole = st::as_var(net(pass, x)).value();
  const std::int64_t limit = std::int64_t{24} << 20;
  st::cpu_pool().trim();
  const std::size_t before = st::cpu_pool().live_bytes();
  st::cpu_pool().reset_peak();
  const Tiled part = tiled(net, x, whole, {.max_bytes = limit});
  CHECK(part.reads > 1);
  CHECK(same_bits(part.image, whole));
  CHECK(st::cpu_pool().peak_bytes() - before <= std::size_t(limit) + std::size_t(whole.size()) * sizeof(float));
  CHECK_THROWS_WITH_AS(tiled(net, x, whole, {.max_bytes = 1 << 20}), doctest::Contains("at least"), st::ValueError);
}

TEST_CASE("the memory of random modules is what the pool hands out, to 10 percent") {
  st::Rng rng(3, 7, 7);
  for (int trial = 0; trial < 12; ++trial) {
    auto net = scripted(make_script(rng, trial % 3, "35d1wrs"), 1);
    INFO("script ", net.script);
    const auto x = st::Image<1>::full(4, 96, 80, 0.5f), target = st::Image<1>::full(4, 96, 80, 0.4f);
    const auto measure = [&](auto&& run) {
      st::cpu_pool().trim();
      const std::size_t before = st::cpu_pool().live_bytes();
      st::cpu_pool().reset_peak();
      run();
      return double(st::cpu_pool().peak_bytes() - before);
    };
    const double parameters = double(st::detail::parameter_bytes(net, false));
    const double inferred = measure([&] {  // twice: layers prepare their weights the first time
      for (int i = 0; i < 2; ++i) {
        st::Infer pass;
        CHECK(std::as_const(net)(pass, x).h() == 96);
      }
    });
    const double told = double(st::inference_bytes(net, 4, 96, 80)) - parameters;
    INFO("inference: told ", told / 1e6, " MB, measured ", inferred / 1e6, " MB");
    CHECK(std::abs(told / inferred - 1) <= 0.1);
    const auto train = [&] {
      st::Train pass;
      const auto loss = st::MSELoss()(net(pass, x), target);
      pass.backward(loss);
    };
    train();  // the gradients of parameters stay
    const double trained = measure(train);
    const double told_training =
        double(st::training_bytes(net, 4, 96, 80)) - double(st::detail::parameter_bytes(net, true));
    INFO("training: told ", told_training / 1e6, " MB, measured ", trained / 1e6, " MB");
    CHECK(std::abs(told_training / trained - 1) <= 0.1);
  }
}
