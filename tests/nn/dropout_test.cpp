#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "strata/autograd/expression.hpp"
#include "strata/nn/dropout.hpp"

namespace st = strata;

TEST_CASE("dropout drops elements with its probability and keeps the mean") {
  const auto ones = st::Image<3>::full(2, 100, 100, 1.0f);
  st::Train pass({.seed = 1, .step = 0});
  const auto x = pass.watch(ones);
  const auto y = st::DropoutOf<std::ratio<1, 5>>()(pass, x);
  std::int64_t dropped = 0, kept = 0;
  for (const float value : y.value().span()) {
    dropped += value == 0.0f;
    kept += value == 1.25f;
  }
  CHECK(dropped + kept == 60000);
  CHECK(std::abs(double(dropped) - 12000) < 5 * std::sqrt(60000 * 0.2 * 0.8));
  pass.backward(sum(2 * y));
  const auto gradient = pass.gradient(x);
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < ones.size(); ++i) right += gradient.data()[i] == 2 * y.data()[i];
  CHECK(right == 60000);
}

TEST_CASE("a step's elements are its own, and the same again") {
  const auto ones = st::Image<1>::full(1, 40, 40, 1.0f);
  const auto drop = [&](std::uint64_t seed, std::int64_t step, int times) {
    st::Train pass({.seed = seed, .step = step});
    st::Dropout dropout;
    st::Var<1> y = dropout(pass, ones);
    for (int i = 1; i < times; ++i) y = dropout(pass, ones);
    return std::vector<float>(y.value().span().begin(), y.value().span().end());
  };
  const auto first = drop(1, 1, 1);
  CHECK(first == drop(1, 1, 1));
  CHECK(first != drop(1, 2, 1));
  CHECK(first != drop(2, 1, 1));
  CHECK(first != drop(1, 1, 2));  // the second layer of a pass
}

TEST_CASE("dropout does nothing when inferring or with probability 0") {
  const auto image = st::Image<1>::full(1, 4, 4, 3.0f);
  st::Infer infer;
  const auto same = st::Dropout()(infer, image);
  CHECK(same.data() == image.data());
  st::Train pass({.step = 0});
  const auto y = st::DropoutOf<std::ratio<0, 1>>()(pass, image);
  CHECK(std::all_of(y.value().span().begin(), y.value().span().end(), [](float v) { return v == 3.0f; }));
  st::Train unnamed;
  CHECK_THROWS_WITH_AS(st::Dropout()(unnamed, image), doctest::Contains(".step = step"), st::ValueError);
}
