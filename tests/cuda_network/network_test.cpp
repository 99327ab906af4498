// Whole networks on "cuda", whose kernels run on the host (tests/cuda_on_host): what they give, and what training makes
// of them, is the CPU's within rounding. The networks are ordinary host code; the device is found through
// strata::accelerator.
#include <doctest/doctest.h>

#include "device/compare.hpp"
#include "device/training.hpp"

using namespace strata_test;

namespace {
const st::Device cuda = st::Device::cuda();
}

TEST_CASE("cuda: layers inside networks") {
  using st::BatchNorm2d;
  using st::Conv2d;
  using st::ReLU;
  using st::Sequential;
  compare<2>(cuda, Sequential<Conv2d<2, 4>, ReLU>(), 2, 5, 6);
  compare<2>(cuda, Sequential<Conv2d<2, 4, 3, st::no_bias>, BatchNorm2d<4>, ReLU>(), 2, 5, 6, 1e-4);
  compare<2>(cuda, Sequential<Conv2d<2, 4>, ReLU, BatchNorm2d<4>>(), 2, 5, 6, 1e-4);
  compare<2>(cuda,
             Sequential<Conv2d<2, 4, 3, st::Conv2dOptions{.stride = 2}>, st::LeakyReLU, st::MaxPool2d<2>,
                        st::Flatten<4, 2, 2>, st::Linear<16, 3>>(),
             2, 8, 8);
  compare<4>(cuda, Sequential<Conv2d<4, 8>, st::PixelShuffle<8, 2>, st::PReLU<2>, st::AvgPool2d<3, 1>>(), 1, 4, 5);
  compare<3>(cuda, Sequential<st::Dropout, Conv2d<3, 4, 1>, st::GlobalAvgPool2d>(), 2, 4, 3);
}

TEST_CASE("cuda: training equals the CPU's") {
  compare_training<st::SGD>(cuda, st::SGDOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-3}, 0.5, 3);
  compare_training<st::Adam>(cuda, st::AdamOptions{.lr = 1e-3, .eps = 1e-4}, 0, 3);
}

TEST_CASE("cuda: a classifier's loss") {
  st::Sequential<st::Conv2d<1, 3>, st::ReLU, st::GlobalAvgPool2d> here;
  auto there = here;
  st::to(there, cuda);
  st::Tensor<st::Label> labels(st::Shape{4});
  for (std::int64_t i = 0; i < 4; ++i) labels.data()[i] = i % 3;
  const st::Image<1> x = random_image<1>(4, 5, 5, 1);
  st::Train here_pass, there_pass;
  const auto here_loss = st::CrossEntropyLoss()(here(here_pass, x), labels);
  const auto there_loss = st::CrossEntropyLoss()(there(there_pass, x.to(cuda)), labels);
  CHECK(there_loss.item() == doctest::Approx(here_loss.item()).epsilon(1e-5));
  here_pass.backward(here_loss);
  there_pass.backward(there_loss);
  check_networks(there, here);
}
