#include "strata/data/dataset.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <set>
#include <vector>

namespace st = strata;

namespace {

struct Numbers {
  int first = 0;
  std::size_t count = 10;
  std::size_t size() const { return count; }
  st::LabelledSample<1> get(std::size_t index, st::Rng& rng) const {
    return {st::Image<1>::full(1, 1, 1, rng.uniform()), first + st::Label(index)};
  }
};
static_assert(st::Dataset<Numbers>);
struct WithoutRng {
  std::size_t size() const { return 1; }
  st::LabelledSample<1> get(std::size_t) const { return {}; }
};
static_assert(!st::Dataset<WithoutRng>);
static_assert(!st::Dataset<int>);

template <class D>
std::vector<st::Label> labels(const D& dataset) {
  static_assert(st::Dataset<D>);
  std::vector<st::Label> all;
  for (std::size_t i = 0; i < dataset.size(); ++i) {
    st::Rng rng(1);
    all.push_back(dataset.get(i, rng).target);
  }
  return all;
}

}  // namespace

TEST_CASE("Subset") {
  const Numbers numbers;
  const st::Subset subset(numbers, {7, 2, 2});
  CHECK(labels(subset) == std::vector<st::Label>{7, 2, 2});
  CHECK_THROWS_AS(st::Subset(numbers, {10}), st::ValueError);
  st::Rng rng;
  CHECK_THROWS_AS(subset.get(3, rng), st::ValueError);
}

TEST_CASE("Concat") {
  const Numbers a{0, 2};
  const st::Concat all(a, Numbers{10, 1}, st::Subset(a, {1}));
  CHECK(labels(all) == std::vector<st::Label>{0, 1, 10, 1});
  st::Rng rng;
  CHECK_THROWS_AS(all.get(4, rng), st::ValueError);
}

TEST_CASE("Map") {
  const Numbers numbers{0, 3};
  const st::Map plain(numbers, [](st::LabelledSample<1> sample) {
    sample.target *= 2;
    return sample;
  });
  CHECK(labels(plain) == std::vector<st::Label>{0, 2, 4});
  const st::Map drawing(Numbers{0, 3}, [](const st::LabelledSample<1>& sample, st::Rng& rng) {
    return st::LabelledSample<1>{sample.input, st::Label(rng.below(1000))};
  });
  st::Rng expected(1);
  expected.uniform();
  CHECK(labels(drawing)[0] == st::Label(expected.below(1000)));
}

TEST_CASE("named datasets are referred to, temporaries kept") {
  Numbers numbers{0, 1};
  const st::Subset subset(numbers, {0});
  const auto kept = st::Map(st::Concat(Numbers{5, 1}, Numbers{6, 1}), [](auto sample) { return sample; });
  numbers.first = 3;
  CHECK(labels(subset) == std::vector<st::Label>{3});
  CHECK(labels(kept) == std::vector<st::Label>{5, 6});
}

TEST_CASE("random_split") {
  const Numbers numbers{0, 100};
  const auto [train, validation] = st::random_split(numbers, 0.9, 4);
  CHECK(train.size() == 90);
  CHECK(validation.size() == 10);
  std::set<st::Label> all;
  for (const st::Label label : labels(train)) all.insert(label);
  for (const st::Label label : labels(validation)) all.insert(label);
  CHECK(all.size() == 100);
  CHECK(labels(st::random_split(Numbers{0, 100}, 0.9, 4).second) == labels(validation));
  CHECK(labels(st::random_split(numbers, 0.9, 5).second) != labels(validation));
  for (const double share : {0.0, 1.0, -1.0, 0.001, 0.999, std::nan("")})
    CHECK_THROWS_AS(st::random_split(numbers, share, 4), st::ValueError);
}

TEST_CASE("random_split into several parts") {
  const Numbers numbers{0, 103};
  const auto [train, validation, test] = st::random_split(numbers, {0.8, 0.1, 0.1}, 4);
  CHECK(train.size() == 83);  // 82, and one of the samples that are left
  CHECK(validation.size() == 10);
  CHECK(test.size() == 10);
  std::set<st::Label> all;
  for (const auto* part : {&train, &validation, &test})
    for (const st::Label label : labels(*part)) all.insert(label);
  CHECK(all.size() == 103);
  CHECK(labels(st::random_split(Numbers{0, 103}, {0.8, 0.1, 0.1}, 4)[2]) == labels(test));
  CHECK(labels(st::random_split(numbers, {0.8, 0.1, 0.1}, 5)[2]) != labels(test));

  const auto by_length = st::random_split(numbers, {83, 10, 10}, 4);
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(labels(by_length[i]) == labels(i == 0 ? train : i == 1 ? validation : test));
  CHECK(labels(st::random_split(Numbers{0, 100}, {0.71, 0.29}, 4)[1]) ==  // 0.29 * 100 is below 29
        labels(st::random_split(Numbers{0, 100}, 0.71, 4).second));
  const auto thirds = st::random_split(Numbers{0, 5}, {1.0 / 3, 1.0 / 3, 1.0 / 3}, 1);
  CHECK(thirds[0].size() == 2);
  CHECK(thirds[1].size() == 2);
  CHECK(thirds[2].size() == 1);

  CHECK_THROWS_WITH_AS(st::random_split(numbers, {100, 2}, 4),
                       "random_split: the lengths add up to 102, and there are 103 samples", st::ValueError);
  CHECK_THROWS_AS(st::random_split(numbers, {100, 4}, 4), st::ValueError);
  CHECK_THROWS_AS(st::random_split(numbers, {104, -1}, 4), st::ValueError);
  CHECK_THROWS_AS(st::random_split(numbers, {103, 0}, 4), st::ValueError);
  CHECK_THROWS_WITH_AS(st::random_split(numbers, {0.5, 0.4}, 4), "random_split: the fractions add up to 0.9, wanted 1",
                       st::ValueError);
  CHECK_THROWS_AS(st::random_split(numbers, {1.5, -0.5}, 4), st::ValueError);
  CHECK_THROWS_AS(st::random_split(numbers, {0.5, std::nan("")}, 4), st::ValueError);
  CHECK_THROWS_AS(st::random_split(Numbers{0, 1}, {0.5, 0.5}, 4), st::ValueError);
  CHECK_THROWS_AS(st::random_split(Numbers{0, 0}, {0.5, 0.5}, 4), st::ValueError);
}
