#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "child_process.hpp"
#include "strata/core/parallel.hpp"
#include "strata/core/thread_pool.hpp"
#include "strata/cpu/worker_scratch.hpp"

namespace st = strata;
using strata_test::in_child;

namespace {

/// Puts the number of threads back at the end of a test.
struct KeepThreads {
  int before = st::num_threads();
  ~KeepThreads() { st::set_num_threads(before); }
};

/// Whether loops of several sizes call each index once.
bool loops_work() {
  for (const std::int64_t count : {1, 2, 3, 100, 10001}) {
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
    st::parallel_for(count, [&](std::int64_t index) { ++calls[std::size_t(index)]; });
    for (const auto& n : calls)
      if (n != 1) return false;
  }
  return true;
}

/// Numbers of the threads that a loop ran on, when each of them waits for the others for a while.
int threads_of_a_loop() {
  std::atomic<int> inside = 0;
  st::parallel_for(st::num_threads(), [&](std::int64_t) {
    ++inside;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
    while (inside < st::num_threads() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  });
  return inside;
}

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

TEST_CASE("all tasks run though some throw; the exception of the lowest index comes out, and the pool goes on") {
  const KeepThreads keep;
  for (const int threads : {1, 3}) {
    st::set_num_threads(threads);
    std::atomic<int> calls = 0, running = 0;
    const auto work = [&] {
      st::parallel_for(100, [&](std::int64_t index) {
        ++calls, ++running;
        const struct Leave {
          std::atomic<int>& count;
          ~Leave() { --count; }
        } leave{running};
        if (index % 10 == 3) throw std::runtime_error("index " + std::to_string(index));
        if (index % 10 == 5) throw index;
      });
    };
    for (int round = 0; round < 20; ++round) {
      calls = 0;
      CHECK_THROWS_WITH_AS(work(), "index 3", std::runtime_error);
      CHECK(calls == 100);
      CHECK(running == 0);
    }
    CHECK(loops_work());
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
  const int before = st::num_threads();
  for (const int threads : {0, -1, 1025, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()})
    CHECK_THROWS_WITH_AS(st::set_num_threads(threads), doctest::Contains("wanted 1 to 1024"), st::ValueError);
  CHECK(st::num_threads() == before);
  CHECK_THROWS_AS(st::parallel_ranges(10, 0, [](std::int64_t, std::int64_t) {}), st::ValueError);
  CHECK_THROWS_AS(st::parallel_ranges(10, -3, [](std::int64_t, std::int64_t) {}), st::ValueError);
  st::parallel_for(-5, [](std::int64_t) { FAIL("no task"); });
}

TEST_CASE("the number of threads may be set inside of a task, for the loops after this one") {
  const KeepThreads keep;
  for (const int from : {1, 2, 4})
    for (const int to : {1, 3}) {
      st::set_num_threads(from);
      std::atomic<int> strange_workers = 0, calls = 0;
      st::parallel_for(64, [&](std::int64_t, int worker) {
        st::set_num_threads(to);
        strange_workers += worker >= from;
        st::parallel_for(3, [&](std::int64_t) { ++calls; });
      });
      CHECK(strange_workers == 0);
      CHECK(calls == 3 * 64);
      CHECK(st::num_threads() == to);
      CHECK(loops_work());
    }
}

TEST_CASE("scratch memory has a place for each worker, though another thread sets another number of threads meanwhile") {
  const KeepThreads keep;
  for (const int threads : {1, 2}) {
    st::set_num_threads(threads);
    st::cpu::WorkerScratch<int> first(8);
    std::thread([] { st::set_num_threads(5); }).join();
    CHECK(st::num_threads() == threads);
    const st::cpu::WorkerScratch<int> second(8);
    std::atomic<int> strange_workers = 0;
    for (int round = 0; round < 10; ++round)
      st::parallel_for(40, [&](std::int64_t index, int worker) {
        strange_workers += worker >= threads;
        if (worker < threads) first[worker][0] = int(index);
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      });
    CHECK(strange_workers == 0);
  }
  CHECK(st::num_threads() == 5);
}

TEST_CASE("threads that sleep come to the next loop") {
  const KeepThreads keep;
  st::set_num_threads(st::usable_processors());
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // longer than any thread spins
    CHECK(threads_of_a_loop() == st::num_threads());
  }
}

#if defined(__linux__)
TEST_CASE("many threads on one processor cost little of its time") {
  if (!strata_test::children_may_have_threads) return;
  const auto processor_time = [](int threads) {
    st::set_num_threads(threads);
    std::atomic<double> sink = 0;
    const auto loop = [&] {
      st::parallel_for(64, [&](std::int64_t index) {
        double x = double(index);
        for (int i = 0; i < 200; ++i) x = std::sqrt(x + i);
        sink = x;
      });
    };
    loop();
    const std::clock_t start = std::clock();
    for (int round = 0; round < 500; ++round) loop();
    return double(std::clock() - start);
  };
  CHECK(in_child([&] {
          if (!strata_test::allow_one_processor()) return 9;
          const double one = processor_time(1);
          return processor_time(64) < 2 * one ? 0 : 1;
        }) == 0);
}
#endif

TEST_CASE("a child of fork has loops of its own, also while threads of the parent are in theirs") {
  if (!strata_test::children_may_have_threads) return;
  const KeepThreads keep;
  st::set_num_threads(3);
  CHECK(loops_work());
  const auto child = [] {
    if (!loops_work() || threads_of_a_loop() < 2) return 1;
    st::set_num_threads(2);
    if (!loops_work()) return 2;
    return in_child([] { return loops_work() ? 0 : 4; });  // and a child of a child
  };
  CHECK(in_child(child) == 0);
  CHECK(loops_work());

  std::atomic<bool> stop = false;
  std::vector<std::thread> others;
  for (int i = 0; i < 2; ++i)
    others.emplace_back([&] {
      while (!stop) st::parallel_for(20, [](std::int64_t) { st::cpu_pool().take(1000); });
    });
  for (int round = 0; round < 10; ++round)
    CHECK(in_child([&] {
            st::cpu_pool().take(3000);
            return child();
          }) == 0);
  stop = true;
  for (std::thread& thread : others) thread.join();
}

TEST_CASE("a child of a task may loop inside of it; its copy of the loop around it ends with an error") {
  if (!strata_test::children_may_have_threads) return;
  const KeepThreads keep;
  st::set_num_threads(3);
  std::atomic<int> wrong = 0;
  for (int round = 0; round < 5; ++round)
    st::parallel_for(6, [&](std::int64_t) { wrong += in_child([] { return loops_work() ? 0 : 1; }) != 0; });
  CHECK(wrong == 0);

  const auto leaves_its_task = [](int chosen) {  // in a child, since one process more comes out of it
    return in_child([=] {
      std::atomic<pid_t> child{-1};
      const pid_t parent = getpid();
      std::string told;
      try {
        std::atomic<int> begun = 0;
        st::parallel_for(3, [&](std::int64_t, int worker) {
          const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
          for (++begun; begun < 2 && std::chrono::steady_clock::now() < end;) std::this_thread::yield();
          pid_t none = -1;
          if ((worker == 0) == (chosen == 0) && child.compare_exchange_strong(none, 0)) {
            child = fork();
            if (child == 0) alarm(60);
          }
        });
      } catch (const st::Error& error) {
        told = error.what();
      }
      if (getpid() != parent) _exit(told.find("forked by a task") != std::string::npos && loops_work() ? 0 : 1);
      int status = 1;
      if (!told.empty() || child <= 0 || waitpid(child, &status, 0) != child) return 3;
      return status == 0 ? 0 : 4;
    });
  };
  CHECK(leaves_its_task(0) == 0);
#if !defined(__SANITIZE_ADDRESS__)  // its leak checker, run by the child's last thread, misses what the parent's others held
  CHECK(leaves_its_task(1) == 0);
#endif
}

TEST_CASE("where the system gives no more threads, loops run on those there are") {
  if (!strata_test::children_may_have_threads) return;
  const auto without_threads = [](int threads) {
    return in_child([=] {
      if (!strata_test::forbid_new_threads()) return 9;
      if (threads > 0) st::set_num_threads(threads);
      if (!loops_work()) return 1;
      return st::num_threads() == 1 ? 0 : 2;
    });
  };
  CHECK(without_threads(0) == 0);
  CHECK(without_threads(4) == 0);
  CHECK(without_threads(1024) == 0);
}

TEST_CASE("std::exit ends the program, from a task too, and loops run after the pool has closed") {
  if (!strata_test::children_may_have_threads) return;
  const KeepThreads keep;
  st::set_num_threads(3);
  const auto exits_in = [](int chosen) {
    return in_child([=]() -> int {
      std::atexit([] {
        if (!loops_work()) _exit(1);
        _exit(5);
      });
      std::atomic<int> begun = 0;
      st::parallel_for(3, [&](std::int64_t, int worker) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
        for (++begun; begun < 2 && std::chrono::steady_clock::now() < end;) std::this_thread::yield();
        if ((worker == 0) == (chosen == 0)) {
          static std::atomic<bool> once = false;
          if (!once.exchange(true)) std::exit(3);
        }
        while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
      });
      return 2;
    });
  };
  CHECK(exits_in(0) == 5);
  CHECK(exits_in(1) == 5);
  CHECK(in_child([] {
          if (!loops_work()) return 1;
          st::detail::ThreadPool::instance().close();
          st::detail::ThreadPool::instance().close();
          return loops_work() ? 0 : 2;
        }) == 0);
  std::atomic<bool> in_loop = false, go_on = true;
  std::thread other([&] {
    st::parallel_for(2, [&](std::int64_t) {
      in_loop = true;
      while (go_on) std::this_thread::yield();
    });
  });
  while (!in_loop) std::this_thread::yield();
  st::detail::ThreadPool::instance().close();  // leaves a loop alone that is under way
  go_on = false;
  other.join();
  CHECK(loops_work());
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
