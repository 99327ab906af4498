// Deployment: a folded network runs on a device as any other, and what works in the host's memory says so.
#include <doctest/doctest.h>

#include <filesystem>

#include "device/compare.hpp"
#include "device/host_accelerator.hpp"
#include "strata/io/onnx_export.hpp"
#include "temporary_folder.hpp"

using namespace strata_test;

namespace {

using Net = st::Residual<st::Sequential<st::Conv2d<1, 4>, st::ReLU, st::Conv2d<4, 4, 3, st::no_bias>,
                                        st::BatchNorm2d<4>, st::ReLU, st::Conv2d<4, 1>>>;

/// A network with statistics of its own.
Net trained() {
  Net net;
  st::initialize(net, 3);
  net.body.layer<3>().running_mean.value().fill(0.25f);
  net.body.layer<3>().running_var.value().fill(1.5f);
  return net;
}

}  // namespace

TEST_CASE("device: a folded network gives what it gives on the CPU") {
  const st::Device device = host_accelerator().device();
  const st::Image<1> x = random_image<1>(2, 11, 9, 1);
  const auto here = st::fold(trained());
  auto there = here;
  st::to(there, device);
  st::Infer pass;
  const auto y = st::as_var(std::as_const(there)(pass, x.to(device)));
  CHECK(y.device() == device);
  check_close(y.value(), st::as_var(here(pass, x)).value(), "folded");
  CHECK_THROWS_WITH_AS(there(pass, x), doctest::Contains("the images are on cpu"), st::DeviceError);

  st::Sequential<st::BatchNorm2d<3>, st::ReLU, st::Conv2d<3, 2>> norm_first;  // becomes a scale of its own
  norm_first.layer<0>().running_mean.value().fill(0.1f);
  norm_first.layer<0>().running_var.value().fill(0.5f);
  const auto scaled_here = st::fold(norm_first);
  auto scaled_there = scaled_here;
  st::to(scaled_there, device);
  const st::Image<3> colours = random_image<3>(1, 6, 5, 2);
  check_close(st::as_var(std::as_const(scaled_there)(pass, colours.to(device))).value(),
              st::as_var(scaled_here(pass, colours)).value(), "scale");
  CHECK_THROWS_AS(scaled_there(pass, colours), st::DeviceError);
}

TEST_CASE("device: what works in the host's memory refuses a network or an image of a device") {
  const st::Device device = host_accelerator().device();
  const TemporaryFolder folder;
  Net net = trained();
  st::to(net, device);
  const st::Image<1> here = random_image<1>(1, 24, 24, 1), there = here.to(device);
  const auto wants_host = doctest::Contains("bring it to the host first");
  CHECK_THROWS_WITH_AS(st::fold(net), wants_host, st::DeviceError);
  CHECK_THROWS_WITH_AS(st::run_tiled(net, here), wants_host, st::DeviceError);
  CHECK_THROWS_WITH_AS(st::run_rows(
                           net, 24, 24, [](std::int64_t, auto&) {}, [](std::int64_t, const auto&) {}),
                       wants_host, st::DeviceError);
  CHECK_THROWS_WITH_AS(st::export_onnx(folder.path() / "net.onnx", net), wants_host, st::DeviceError);
  CHECK_FALSE(std::filesystem::exists(folder.path() / "net.onnx"));

  const auto images = doctest::Contains("bring them to the host first");
  const Net host_net = trained();
  CHECK_THROWS_WITH_AS(st::run_tiled(host_net, there), images, st::DeviceError);
  CHECK_THROWS_WITH_AS(st::self_ensemble(there, [](const st::Image<1>& x) { return x; }), images, st::DeviceError);
  CHECK_THROWS_WITH_AS(st::self_ensemble(here, [&](const st::Image<1>& x) { return x.to(device); }), images,
                       st::DeviceError);
  CHECK_THROWS_WITH_AS(st::estimate_noise(there), images, st::DeviceError);
}
