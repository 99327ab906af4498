#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "strata/core/parallel.hpp"

namespace st = strata;

namespace {

/// Puts the number of threads back at the end of a test.
struct KeepThreads {
  int before = st::num_threads();
  ~KeepThreads() { st::set_num_threads(before); }
};

}  // namespace

TEST_CASE("parallel_for calls each index once, for any number of threads") {
  const KeepThreads keep;
  for (const int threads : {1, 2, 3, 7}) {
    st::set_num_threads(threads);
    CHECK(st::num_threads() == threads);
    for (const std::int64_t count : {0, 1, 2, 3, 100, 10001}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
      std::atomic<int> strange_workers = 0;
      st::parallel_for(count, [&](std::int64_t index, int worker) {
        ++calls[std::size_t(index)];
        strange_workers += worker < 0 || worker >= threads;
      });
      int wrong = 0;
      for (const auto& n : calls) wrong += n != 1;
      CHECK(wrong == 0);
      CHECK(strange_workers == 0);
    }
  }
}

TEST_CASE("no two running tasks share a worker's number") {
  const KeepThreads keep;
  st::set_num_threads(4);
  std::vector<std::atomic<int>> busy(4);
  std::atomic<int> collisions = 0;
  for (int round = 0; round < 20; ++round)
    st::parallel_for(64, [&](std::int64_t, int worker) {
      collisions += ++busy[std::size_t(worker)] != 1;
      std::this_thread::yield();
      --busy[std::size_t(worker)];
    });
  CHECK(collisions == 0);
}

TEST_CASE("a task's exception comes out once all have ended, and the pool goes on") {
  const KeepThreads keep;
  for (const int threads : {1, 3}) {
    st::set_num_threads(threads);
    std::atomic<int> running = 0;
    const auto work = [&] {
      st::parallel_for(100, [&](std::int64_t index) {
        ++running;
        const struct Leave {
          std::atomic<int>& count;
          ~Leave() { --count; }
        } leave{running};
        if (index % 10 == 3) throw std::runtime_error("index " + std::to_string(index));
      });
    };
    CHECK_THROWS_WITH_AS(work(), doctest::Contains("index "), std::runtime_error);
    CHECK(running == 0);
    std::atomic<int> calls = 0;
    st::parallel_for(100, [&](std::int64_t) { ++calls; });
    CHECK(calls == 100);
  }
}

TEST_CASE("loops inside of loops, and from several threads at once") {
  const KeepThreads keep;
  st::set_num_threads(3);
  std::atomic<int> calls = 0;
  st::parallel_for(10, [&](std::int64_t) { st::parallel_for(10, [&](std::int64_t) { ++calls; }); });
  CHECK(calls == 100);

  calls = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) st::parallel_for(20, [&](std::int64_t) { ++calls; });
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(calls == 4 * 50 * 20);
}

TEST_CASE("parallel_ranges cuts by the grain alone") {
  const KeepThreads keep;
  for (const int threads : {1, 3}) {
    st::set_num_threads(threads);
    for (const std::int64_t count : {0, 1, 7, 8, 9, 100}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
      std::atomic<int> strange = 0;
      st::parallel_ranges(count, 8, [&](std::int64_t begin, std::int64_t end) {
        strange += begin % 8 != 0 || end != std::min(count, begin + 8);
        for (std::int64_t i = begin; i < end; ++i) ++calls[std::size_t(i)];
      });
      for (const auto& n : calls) CHECK(n == 1);
      CHECK(strange == 0);
    }
  }
}

TEST_CASE("numbers of threads that cannot be") {
  CHECK_THROWS_AS(st::set_num_threads(0), st::ValueError);
  CHECK_THROWS_AS(st::set_num_threads(-1), st::ValueError);
  CHECK_THROWS_WITH_AS(st::set_num_threads(1025), doctest::Contains("wanted 1 to 1024"), st::ValueError);
}

#if defined(__SSE__)
TEST_CASE("denormals are zero in tasks and as before outside") {
  const KeepThreads keep;
  const auto denormal = [] {
    volatile float smallest = 1.2e-38f;
    return smallest * 0.5f;
  };
  for (const int threads : {1, 3}) {
    st::set_num_threads(threads);
    CHECK(denormal() != 0.0f);
    std::atomic<int> kept = 0;
    st::parallel_for(50, [&](std::int64_t) { kept += denormal() != 0.0f; });
    CHECK(kept == 0);
    CHECK(denormal() != 0.0f);
  }
}
#endif
