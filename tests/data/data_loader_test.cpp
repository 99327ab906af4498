#include "strata/data/data_loader.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "child_process.hpp"

namespace st = strata;

namespace {

// Sample i: an image filled with i, and one filled with a number drawn for it.
struct Counting {
  std::size_t count = 10;
  std::size_t size() const { return count; }
  st::Sample<1> get(std::size_t index, st::Rng& rng) const {
    return {st::Image<1>::full(1, 3, 5, float(index)), st::Image<1>::full(1, 3, 5, rng.uniform())};
  }
};

struct Labelled {
  std::size_t size() const { return 7; }
  st::LabelledSample<3> get(std::size_t index, st::Rng&) const {
    return {st::Image<3>::full(1, 2, 2, float(index)), st::Label(index) * 10};
  }
};

// The first elements of all inputs and targets of an epoch, one after another, and the batch sizes.
struct Trace {
  std::vector<float> inputs, targets;
  std::vector<std::int64_t> sizes;
  friend bool operator==(const Trace&, const Trace&) = default;
};

template <class Loader>
Trace trace(const Loader& loader, std::int64_t epoch, std::int64_t first = 0) {
  Trace seen;
  for (auto& [input, target] : loader.epoch(epoch, first)) {
    seen.sizes.push_back(input.n());
    for (std::int64_t n = 0; n < input.n(); ++n) {
      CHECK(input(n, 0, 0, 0) == input(n, 0, 2, 4));
      seen.inputs.push_back(input(n, 0, 0, 0));
      seen.targets.push_back(target(n, 0, 2, 4));
    }
  }
  return seen;
}

template <class Action>
std::string reason(Action action) {
  try {
    action();
  } catch (const st::Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool has(const std::string& text, const std::string& part) {
  const bool found = text.find(part) != std::string::npos;
  if (!found) MESSAGE("'" << text << "' lacks '" << part << "'");
  return found;
}

}  // namespace

TEST_CASE("batches hold the samples in order") {
  const Counting dataset;
  const st::DataLoader loader(dataset, {.batch_size = 4});
  CHECK(loader.size() == 3);
  const Trace seen = trace(loader, 0);
  CHECK(seen.sizes == std::vector<std::int64_t>{4, 4, 2});
  CHECK(seen.inputs == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});

  const st::DataLoader whole_batches(dataset, {.batch_size = 4, .drop_last = true});
  CHECK(whole_batches.size() == 2);
  CHECK(trace(whole_batches, 0).sizes == std::vector<std::int64_t>{4, 4});
}

TEST_CASE("a sample's random numbers are those of (seed, epoch, index)") {
  const Counting dataset;
  const st::DataLoader loader(dataset, {.batch_size = 3, .shuffle = true, .num_workers = 2, .seed = 5});
  for (const std::uint32_t epoch : {0u, 1u, 77u}) {
    const Trace seen = trace(loader, epoch);
    for (std::size_t i = 0; i < seen.inputs.size(); ++i)
      CHECK(seen.targets[i] == st::Rng(5, epoch, std::uint32_t(seen.inputs[i])).uniform());
  }
}

TEST_CASE("any number of workers gives the same batches") {
  const Counting dataset{101};
  for (const bool shuffle : {false, true}) {
    const Trace wanted = trace(st::DataLoader(dataset, {.batch_size = 4, .shuffle = shuffle, .seed = 3}), 2);
    for (const int workers : {1, 2, 4, 9})
      for (const int prefetch : {1, 3}) {
        const st::LoaderOptions options{
            .batch_size = 4, .shuffle = shuffle, .num_workers = workers, .seed = 3, .prefetch = prefetch};
        CHECK(trace(st::DataLoader(dataset, options), 2) == wanted);
      }
  }
}

TEST_CASE("shuffling is a permutation keyed by seed and epoch") {
  const Counting dataset{50};
  const st::DataLoader loader(dataset, {.batch_size = 8, .shuffle = true, .seed = 1});
  const auto first = trace(loader, 0).inputs;
  CHECK(std::set<float>(first.begin(), first.end()).size() == 50);
  CHECK(first != trace(loader, 1).inputs);
  CHECK(first == trace(loader, 0).inputs);
  CHECK(first != trace(st::DataLoader(dataset, {.batch_size = 8, .shuffle = true, .seed = 2}), 0).inputs);
  std::vector<float> sorted = first;
  std::sort(sorted.begin(), sorted.end());
  CHECK(first != sorted);
}

TEST_CASE("an epoch can be resumed at any batch") {
  const Counting dataset{23};
  for (const int workers : {0, 3}) {
    const st::DataLoader loader(dataset, {.batch_size = 4, .shuffle = true, .num_workers = workers});
    const Trace whole = trace(loader, 6);
    for (std::int64_t first = 0; first <= loader.size(); ++first) {
      const Trace rest = trace(loader, 6, first);
      CHECK(rest.inputs ==
            std::vector<float>(whole.inputs.begin() + std::min<std::int64_t>(first * 4, 23), whole.inputs.end()));
      CHECK(rest.targets ==
            std::vector<float>(whole.targets.begin() + std::min<std::int64_t>(first * 4, 23), whole.targets.end()));
    }
  }
}

TEST_CASE("labels become a tensor of rank 1") {
  const Labelled dataset;
  const st::DataLoader loader(dataset, {.batch_size = 4});
  std::vector<std::int64_t> labels;
  for (auto& [images, classes] : loader.epoch(0)) {
    static_assert(std::is_same_v<std::remove_reference_t<decltype(classes)>, st::Tensor<std::int64_t>>);
    CHECK(classes.shape() == st::Shape{images.n()});
    for (const std::int64_t label : classes.span()) labels.push_back(label);
  }
  CHECK(labels == std::vector<std::int64_t>{0, 10, 20, 30, 40, 50, 60});
}

TEST_CASE("a batch does not share memory with the dataset") {
  struct Kept {
    st::Image<1> image = st::Image<1>::full(1, 2, 2, 1);
    std::size_t size() const { return 1; }
    st::Sample<1> get(std::size_t, st::Rng&) const { return {image, image}; }
  };
  const Kept dataset;
  const st::DataLoader loader(dataset);
  for (auto& [input, target] : loader.epoch(0)) {
    input.tensor().fill(7);
    CHECK(target(0, 0, 0, 0) == 1);
  }
  CHECK(dataset.image(0, 0, 0, 0) == 1);
}

TEST_CASE("an error of a sample arrives at its batch, with its type and place") {
  struct Broken : Counting {
    st::Sample<1> get(std::size_t index, st::Rng& rng) const {
      if (index == 5) throw st::FileError("photos/five.png: cannot read the image: it is empty (0 bytes)");
      return Counting::get(index, rng);
    }
  };
  const Broken dataset;
  for (const int workers : {0, 1, 4}) {
    CAPTURE(workers);
    const st::DataLoader loader(dataset, {.batch_size = 2, .num_workers = workers});
    int good = 0;
    std::string text;
    try {
      for ([[maybe_unused]] auto& batch : loader.epoch(3)) ++good;
    } catch (const st::FileError& error) {
      text = error.what();
    }
    CHECK(good == 2);
    CHECK(has(text, "photos/five.png"));
    CHECK(has(text, "sample 5, batch 2 of epoch 3"));
  }
}

TEST_CASE("what is no strata error is wrapped, and the next epoch works again") {
  struct Flaky : Counting {
    std::atomic<int>* failures = nullptr;
    st::Sample<1> get(std::size_t index, st::Rng& rng) const {
      if (index == 1 && (*failures)-- > 0) throw std::out_of_range("no such thing");
      return Counting::get(index, rng);
    }
  };
  std::atomic<int> failures = 1;
  Flaky dataset;
  dataset.failures = &failures;
  const st::DataLoader loader(dataset, {.batch_size = 1, .num_workers = 2});
  CHECK(has(reason([&] { trace(loader, 0); }), "no such thing [DataLoader: sample 1, batch 1 of epoch 0]"));
  CHECK(trace(loader, 0).inputs.size() == 10);
}

TEST_CASE("samples of different sizes are refused by name") {
  struct Growing : Counting {
    st::Sample<1> get(std::size_t index, st::Rng&) const {
      const auto h = std::int64_t(index) + 1;
      return {st::Image<1>::full(1, h, 4, 0), st::Image<1>::full(1, h, 4, 0)};
    }
  };
  const Growing dataset;
  const std::string text = reason([&] { trace(st::DataLoader(dataset, {.batch_size = 2}), 0); });
  CHECK(has(text, "the input is 1x1x2x4, the first of the batch is 1x1x1x4"));
  CHECK(has(text, "sample 1, batch 0"));
  const st::DataLoader single(dataset);
  int batches = 0;
  for ([[maybe_unused]] auto& batch : single.epoch(0)) ++batches;
  CHECK(batches == 10);
}

TEST_CASE("leaving the loop early stops the workers") {
  struct Slow : Counting {
    std::atomic<int>* running = nullptr;
    st::Sample<1> get(std::size_t index, st::Rng& rng) const {
      ++*running;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      auto sample = Counting::get(index, rng);
      --*running;
      return sample;
    }
  };
  std::atomic<int> running = 0;
  Slow dataset;
  dataset.count = 100000;
  dataset.running = &running;
  const st::DataLoader loader(dataset, {.batch_size = 100, .num_workers = 4});
  for (int round = 0; round < 5; ++round) {
    const auto start = std::chrono::steady_clock::now();
    const std::size_t live = st::cpu_pool().live_bytes();
    for ([[maybe_unused]] auto& batch : loader.epoch(round)) break;
    CHECK(running == 0);
    CHECK(st::cpu_pool().live_bytes() == live);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  }
  { [[maybe_unused]] auto unused = loader.epoch(0); }
  CHECK(running == 0);
}

TEST_CASE("a child forked in the middle of an epoch is told, and begins epochs of its own") {
  if (!strata_test::children_may_have_threads) return;
  const Counting data{.count = 200};
  for (const int workers : {0, 1, 3}) {
    const st::DataLoader loader(data, {.batch_size = 2, .shuffle = true, .num_workers = workers});
    const Trace rest = trace(loader, 4, 3);
    using Epoch = st::DataLoader<Counting>::Epoch;
    std::unique_ptr<Epoch> epoch(new Epoch(loader.epoch(4)));
    auto batch = epoch->begin();
    ++batch;
    ++batch;
    CHECK(strata_test::in_child([&] {
            const std::string told = reason([&] { ++batch; });
            const bool refused =
                told.find("begin one in the child, with loader.epoch(epoch, first_batch)") != std::string::npos;
            if (refused != (workers > 0)) return 1;
            if (refused && batch != epoch->end()) return 2;
            epoch.reset();
            return trace(loader, 4, 3) == rest ? 0 : 3;
          }) == 0);
    for (std::int64_t left = loader.size() - 3; left > 0; --left) {  // the parent's goes on
      ++batch;
      CHECK(batch != epoch->end());
    }
    ++batch;
    CHECK(batch == epoch->end());
  }
}

TEST_CASE("where the system gives no threads for workers, batches are made without") {
  CHECK(strata_test::in_child([] {
          const Counting data{.count = 21};
          const Trace wanted = trace(st::DataLoader(data, {.batch_size = 4, .shuffle = true}), 1);
          if (!strata_test::forbid_new_threads()) return 9;
          const st::DataLoader loader(data, {.batch_size = 4, .shuffle = true, .num_workers = 3});
          return trace(loader, 1) == wanted ? 0 : 1;
        }) == 0);
}

TEST_CASE("wait_seconds counts the waiting of the latest epoch") {
  struct Slow : Counting {
    st::Sample<1> get(std::size_t index, st::Rng& rng) const {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      return Counting::get(index, rng);
    }
  };
  const Slow dataset;
  const st::DataLoader loader(dataset, {.batch_size = 2});
  trace(loader, 0);
  CHECK(loader.wait_seconds() >= 0.02);
  [[maybe_unused]] const auto next = loader.epoch(1);
  CHECK(loader.wait_seconds() == 0);
}

TEST_CASE("after the first batches the memory pool has all that an epoch needs") {
  const Counting dataset{400};
  const st::DataLoader loader(dataset, {.batch_size = 4, .num_workers = 2});
  trace(loader, 0);
  trace(loader, 1);
  const std::size_t before = st::cpu_pool().reserved_bytes();
  trace(loader, 2);
  CHECK(st::cpu_pool().reserved_bytes() <= before + 16 * 1024);  // how far workers run ahead differs by a few blocks
}

TEST_CASE("options that cannot be meant are refused") {
  const Counting dataset;
  const auto text = [&](st::LoaderOptions options) { return reason([&] { st::DataLoader(dataset, options); }); };
  CHECK(has(text({.batch_size = 0}), ".batch_size = 0, wanted at least 1"));
  CHECK(has(text({.batch_size = -3}), ".batch_size = -3"));
  CHECK(has(text({.num_workers = -1}), ".num_workers = -1, wanted at least 0"));
  CHECK(has(text({.prefetch = 0}), ".prefetch = 0"));
  CHECK(has(text({.batch_size = 11, .drop_last = true}), ".drop_last leaves no batch"));
  CHECK(has(reason([] { st::DataLoader(Counting{0}); }), "the dataset is empty"));
  const st::DataLoader loader(dataset);
  CHECK_THROWS_AS(loader.epoch(-1), st::ValueError);
  CHECK_THROWS_AS(loader.epoch(0, 11), st::ValueError);
  CHECK_THROWS_AS(loader.epoch(0, -1), st::ValueError);
  CHECK_NOTHROW(loader.epoch(0, 10));
}

TEST_CASE("a temporary dataset is kept, also by an epoch that outlives its loader") {
  auto make = [] { return st::DataLoader(Counting{5}, {.batch_size = 2, .num_workers = 1}); };
  CHECK(trace(make(), 0).inputs == std::vector<float>{0, 1, 2, 3, 4});
  int batches = 0;
  auto epoch = make().epoch(0);
  for ([[maybe_unused]] auto& batch : epoch) ++batches;
  CHECK(batches == 3);
}
