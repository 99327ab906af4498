// What a profile says of a pass: which layers ran, how long, how much they computed; and that it changes nothing.
#include "strata/train/profile.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "strata/autograd/custom_op.hpp"
#include "strata/core/random.hpp"
#include "strata/io/detail/appended_file.hpp"
#include "strata/nn/add.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/checkpoint.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"
#include "temporary_folder.hpp"

namespace st = strata;

namespace {

/// Takes its time: `forward_ms` milliseconds forward, twice as many back.
template <int forward_ms>
struct Slow : st::Layer<Slow<forward_ms>> {
  using io = st::keeps;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto&) {}
  static std::string name() { return st::concat("Slow(", forward_ms, ")"); }
  static auto forward(auto&, auto& pass, const auto& x) {
    const auto wait = [](int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); };
    return st::custom_op(
        pass,
        [&](const auto& image) {
          wait(forward_ms);
          return image;
        },
        [=](const auto& gy, const auto&, const auto&) {
          wait(2 * forward_ms);
          return gy;
        },
        x);
  }
};

/// Waits itself too, around its member.
struct Around : st::Layer<Around> {
  using io = st::keeps;
  Slow<6> inner;
  static constexpr void visit(auto& self, auto&& f) { f("inner", self.inner); }
  static auto forward(auto& self, auto& pass, const auto& x) {
    if constexpr (!st::Symbolic<std::remove_cvref_t<decltype(x)>>)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return self.inner(pass, self.inner(pass, x));
  }
};

using Norm = st::Sequential<st::Conv2d<4, 4, 3, st::no_bias>, st::BatchNorm2d<4>, st::ReLU>;
using Net = st::Add<st::Sequential<st::Conv2d<2, 4>, st::ReLU, Norm, st::Dropout, st::Conv2d<4, 2>>>;

template <int C>
st::Image<C> picture(int n, int h, int w) {
  st::Image<C> x(n, h, w);
  st::Rng rng(3);
  for (float& value : x.span()) value = rng.normal();
  return x;
}

template <class Network>
double train(Network& net, const st::Image<2>& x, st::PassObserver* observer, std::int64_t step = 0) {
  st::Train pass({.seed = 1, .step = step, .observer = observer});
  const auto loss = mean(square(net(pass, x)));
  pass.backward(loss);
  return double(loss.item());
}

const st::ProfileRow& row_of(const std::vector<st::ProfileRow>& rows, const std::string& name) {
  const auto found = std::ranges::find_if(rows, [&](const st::ProfileRow& row) { return row.name == name; });
  REQUIRE_MESSAGE(found != rows.end(), name);
  return *found;
}

}  // namespace

TEST_CASE("a profile lists what ran as one step, with its extents and operations") {
  Net net;
  const auto x = picture<2>(3, 7, 5);
  st::Profile profile;
  for (int i = 0; i < 4; ++i) train(net, x, &profile, i);
  const auto rows = profile.rows(net);
  REQUIRE(rows.size() >= 5);
  const st::ProfileRow& first = row_of(rows, "body.0");
  CHECK(first.layer == "Conv2d(2, 4, kernel_size=3, padding=1) + ReLU()");
  CHECK(first.output == "3x4x7x5");
  CHECK(first.calls == 4);
  const double pixels = 3 * 7 * 5;
  CHECK(first.forward_operations == 2 * pixels * 2 * 4 * 9);
  CHECK(first.backward_operations == first.forward_operations);  // the input is a constant
  CHECK(first.forward_bytes == 4 * (pixels * (2 + 4) + 2 * 4 * 9 + 4));
  CHECK(first.backward_bytes == 4 * (pixels * (4 + 2) + 2 * (2 * 4 * 9 + 4)));
  const st::ProfileRow& norm = row_of(rows, "body.2.0");
  CHECK(norm.layer ==
        "Conv2d(4, 4, kernel_size=3, padding=1, bias=False) + BatchNorm2d(4, eps=1e-05, momentum=0.1) + ReLU()");
  CHECK(norm.backward_operations == 2 * norm.forward_operations);
  double operations = 0, seconds = 0;
  for (const st::ProfileRow& row : rows) {
    operations += row.forward_operations;
    CHECK(row.seconds() >= 0);
    seconds += row.seconds();
  }
  CHECK(operations == 2 * 3 * double(st::multiply_adds<Net>(7, 5)));
  CHECK(seconds > 0);
  CHECK(first.backward_seconds > 0);
  CHECK(rows.back().layer == "in no layer");

  const std::string table = profile.table(net, {.peak = {.gflops = 100, .gbytes = 10}});
  for (const char* part : {"name", "forward ms", "backward ms", "of peak", "body.2.0", "3x4x7x5", "mean of 4 passes",
                           "the peak is 100 GFLOP/s and 10.0 GB/s"})
    CHECK_MESSAGE(table.find(part) != std::string::npos, part);
  CHECK(profile.table(net).find("of peak") == std::string::npos);
  CHECK(profile.table().find("Conv2d(2, 4") != std::string::npos);

  const st::LayerTable layers = profile.layers(net);
  CHECK(layers.columns.size() == 10);
  for (const auto& row : layers.rows) CHECK(row.size() == layers.columns.size());
}

TEST_CASE("an inference pass has a profile too, without a way back") {
  Net net;
  st::Profile profile;
  st::Infer pass({.observer = &profile});
  for (int i = 0; i < 2; ++i) const auto y = net(pass, picture<2>(1, 9, 9));
  const auto rows = profile.rows(net);
  const st::ProfileRow& norm = row_of(rows, "body.2.0");
  CHECK(norm.layer.find(" + BatchNorm2d(4") != std::string::npos);
  CHECK(norm.calls == 2);
  for (const st::ProfileRow& row : rows) CHECK(row.backward_seconds == 0);
  CHECK(profile.table(net).find("backward ms") == std::string::npos);
}

TEST_CASE("a row's time is its own, and not that of what it holds") {
  Around net;
  st::Profile profile;
  const auto x = picture<2>(1, 2, 2);
  st::Infer infer({.observer = &profile});
  const auto y = net(infer, x);
  st::Train pass({.observer = &profile});
  const auto watched = pass.watch(x);
  pass.backward(mean(square(net(pass, watched))));

  const auto rows = profile.rows(net);
  const st::ProfileRow& inner = row_of(rows, "inner");
  const st::ProfileRow& outer = row_of(rows, "");
  CHECK(inner.layer == "Slow(6)");
  CHECK(outer.layer == "Around");
  CHECK(inner.calls == 4);
  CHECK(outer.calls == 2);
  CHECK(inner.forward_seconds >= 4 * 0.006);
  CHECK(inner.backward_seconds >= 2 * 0.012);
  CHECK(outer.forward_seconds >= 2 * 0.010);
  CHECK(outer.forward_seconds + inner.forward_seconds >= 0.044);
  // Sleeping takes longer on a busy machine, but not in the layer around.
  CHECK(outer.backward_seconds < 0.012);
}

TEST_CASE("results have the same bits with a profile and without") {
  Net observed, alone;
  st::initialize(observed, 7);
  st::initialize(alone, 7);
  const auto x = picture<2>(2, 6, 8);
  st::Profile profile;
  for (int step = 0; step < 3; ++step) CHECK(train(observed, x, &profile, step) == train(alone, x, nullptr, step));
  const auto gradients = [](Net& net) {
    std::vector<float> all;
    st::for_each_tensor(net, [&](const std::string&, auto& leaf) {
      if constexpr (requires { leaf.grad(); })
        all.insert(all.end(), leaf.grad().span().begin(), leaf.grad().span().end());
    });
    return all;
  };
  CHECK(gradients(observed).size() > 100);
  CHECK(gradients(observed) == gradients(alone));
}

TEST_CASE("what a checkpoint runs again counts as the way back") {
  using Checkpointed = st::Sequential<st::Conv2d<2, 2>, st::Checkpoint<st::Sequential<Slow<6>, st::Conv2d<2, 2>>>>;
  Checkpointed net;
  st::Profile profile;
  train(net, picture<2>(1, 4, 4), &profile);
  const auto rows = profile.rows(net);
  const st::ProfileRow& slow = row_of(rows, "1.0");
  CHECK(slow.calls == 1);
  CHECK(slow.forward_seconds >= 0.006);
  CHECK(slow.backward_seconds >= 0.006 + 0.012);
  CHECK(row_of(rows, "1.1").backward_seconds > 0);
}

TEST_CASE("layers of other networks, and work outside of layers, are in the last row") {
  st::Sequential<Slow<2>, st::Conv2d<2, 2>> net;
  st::Sequential<st::Conv2d<2, 2>, Slow<9>> other;
  st::Profile profile;
  st::Train pass({.observer = &profile});
  pass.backward(mean(square(other(pass, net(pass, picture<2>(1, 4, 4))))));
  const auto rows = profile.rows(net);
  CHECK(rows.size() == 3);
  CHECK(rows.back().forward_seconds >= 0.009);
  CHECK(rows.back().backward_seconds >= 0.018);
  CHECK(row_of(rows, "0").layer == "Slow(2)");
}

TEST_CASE("images of different extents: times are known, operations when the extents are given") {
  st::Sequential<st::Conv2d<2, 3>, st::ReLU> net;
  st::Profile profile;
  st::Infer pass({.observer = &profile});
  for (const int side : {4, 6}) const auto y = net(pass, picture<2>(1, side, side));
  CHECK(row_of(profile.rows(net), "0").forward_operations == 0);
  CHECK(row_of(profile.rows(net, {.batch = 1, .height = 6, .width = 6}), "0").forward_operations == 2 * 36 * 54);
  CHECK_THROWS_AS(profile.rows(net, {.height = -1}), st::ValueError);

  profile.clear();
  CHECK(profile.rows(net).size() == 1);
  CHECK(profile.table(net).find("mean of 0 passes") != std::string::npos);
}

TEST_CASE("an exception in a layer leaves a profile that goes on") {
  st::Sequential<st::Conv2d<2, 2, 5, st::Conv2dOptions{.padding = 0}>, st::ReLU> net;
  st::Profile profile;
  st::Infer pass({.observer = &profile});
  CHECK_THROWS_AS(net(pass, picture<2>(1, 3, 3)), st::ShapeError);
  profile.clear();
  const auto y = net(pass, picture<2>(1, 6, 6));
  CHECK(row_of(profile.rows(net), "0").calls == 1);
}

TEST_CASE("the trace is a file of events, one inside the other") {
  const strata_test::TemporaryFolder folder;
  Net net;
  st::Profile profile({.most_events = 8});
  for (int i = 0; i < 3; ++i) train(net, picture<2>(1, 5, 5), &profile, i);
  const std::filesystem::path path = folder / "trace.json";
  profile.write_trace(path);
  const std::string text = st::detail::read_whole(path);
  CHECK(text.starts_with("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n{\"name\":\"Conv2d(2, 4"));
  CHECK(text.ends_with("}}\n]}\n"));
  std::size_t events = 0;
  for (std::size_t at = 0; (at = text.find("\"ph\":\"X\"", at)) != std::string::npos; ++at) ++events;
  CHECK(events == 8);
  CHECK(text.find("\"cat\":\"backward\"") != std::string::npos);
  CHECK(text.find("Sequential<") == std::string::npos);
  CHECK_THROWS_AS(profile.write_trace(folder / "none" / "trace.json"), st::FileError);
}

TEST_CASE("the peak of a machine is measured") {
  const st::MachinePeak peak = st::measure_peak();
  CHECK(std::isfinite(peak.gflops));
  CHECK(peak.gflops > 0.1);
  CHECK(std::isfinite(peak.gbytes));
  CHECK(peak.gbytes > 0.01);
}
