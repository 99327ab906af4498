#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "child_process.hpp"
#include "strata/tensor/storage.hpp"

namespace st = strata;

namespace {

/// Counts what a pool asks for.
class CountingMemory final : public st::MemorySource {
 public:
  st::Device device() const override { return st::Device::cpu(); }
  void* allocate(std::size_t bytes) override {
    if (bytes > limit || held + bytes > total_limit) throw std::bad_alloc();
    ++allocations, held += bytes;
    return host_.allocate(bytes);
  }
  void deallocate(void* memory, std::size_t bytes) noexcept override {
    held -= bytes;
    host_.deallocate(memory, bytes);
  }
  int allocations = 0;
  std::size_t held = 0, limit = std::size_t{1} << 30, total_limit = std::size_t{1} << 32;

 private:
  st::HostMemory host_;
};

template <class Action>
std::string out_of_memory(Action action) {
  try {
    action();
  } catch (const st::OutOfMemory& error) {
    return error.what();
  }
  return "no OutOfMemory";
}

}  // namespace

TEST_CASE("size classes: at least what was asked for, at most an eighth more") {
  CHECK(st::MemoryPool::block_bytes(0) == 64);
  CHECK(st::MemoryPool::block_bytes(64) == 64);
  CHECK(st::MemoryPool::block_bytes(65) == 72);
  CHECK(st::MemoryPool::block_bytes(128) == 128);
  CHECK(st::MemoryPool::block_bytes(129) == 144);
  for (std::size_t bytes = 64; bytes < std::size_t{1} << 40; bytes += bytes / 13 + 1) {
    const std::size_t block = st::MemoryPool::block_bytes(bytes);
    CHECK(block >= bytes);
    CHECK(block - bytes <= bytes / 8 + 8);
    CHECK(st::MemoryPool::block_bytes(block) == block);
  }
  CHECK_THROWS_AS(st::MemoryPool::block_bytes(~std::size_t{0}), std::bad_alloc);
}

TEST_CASE("a pool meets the same requests from the same memory") {
  CountingMemory source;
  {
    st::MemoryPool pool(source);
    for (int round = 0; round < 5; ++round) {
      const st::Storage a = pool.take(1000), b = pool.take(50000);
      CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % 64 == 0);
      CHECK(a.capacity() >= 1000);
      CHECK(a.data() != b.data());
      CHECK(pool.live_bytes() == a.capacity() + b.capacity());
    }
    CHECK(source.allocations == 2);
    CHECK(pool.fresh_blocks() == 2);
    CHECK(pool.live_bytes() == 0);
    CHECK(pool.reserved_bytes() == source.held);
    CHECK(pool.peak_bytes() == source.held);
    pool.reset_peak();
    CHECK(pool.peak_bytes() == 0);

    const st::Storage kept = pool.take(1000);
    pool.trim();
    CHECK(source.held == kept.capacity());
    CHECK(pool.reserved_bytes() == kept.capacity());
  }
  CHECK(source.held == 0);
}

TEST_CASE("a pool whose sizes change does not keep the old ones as well") {
  CountingMemory source;
  st::MemoryPool pool(source);
  std::size_t largest = 0;
  for (const int megabytes : {20, 31, 47, 71, 107, 20, 31}) {
    const st::Storage block = pool.take(static_cast<std::size_t>(megabytes) << 20);
    largest = std::max(largest, block.capacity());
    CHECK(pool.reserved_bytes() <= std::max(2 * largest, std::size_t{64} << 20));
    CHECK(pool.reserved_bytes() == source.held);
  }
  CHECK(source.allocations >= 6);
}

TEST_CASE("a loop whose blocks change places comes to rest") {
  CountingMemory source;
  st::MemoryPool pool(source);
  const auto step = [&] {  // small blocks while large ones are free, then large ones while small ones are free
    {
      std::vector<st::Storage> held;
      for (std::size_t i = 1; i < 20; ++i) held.push_back(pool.take(10000 * i));
    }
    std::vector<st::Storage> held;
    for (std::size_t i = 20; i > 0; --i) held.push_back(pool.take(7000 * i));
  };
  for (int i = 0; i < 3; ++i) step();
  const int before = source.allocations;
  for (int i = 0; i < 10; ++i) step();
  CHECK(source.allocations == before);
}

TEST_CASE("a pool gives its free blocks back before it says that there is no memory") {
  CountingMemory source;
  source.total_limit = 1000000;
  st::MemoryPool pool(source);
  pool.take(600000);
  CHECK(pool.take(300000));
  CHECK(pool.take(700000));
  const st::Storage held = pool.take(700000);
  CHECK_THROWS_AS(pool.take(400000), std::bad_alloc);
  CHECK(pool.live_bytes() == held.capacity());
}

TEST_CASE("a pool that gets no memory says so and goes on") {
  CountingMemory source;
  source.limit = 1000;
  st::MemoryPool pool(source);
  CHECK_THROWS_AS(pool.take(2000), std::bad_alloc);
  CHECK(pool.live_bytes() == 0);
  CHECK(pool.take(500));
}

TEST_CASE("the error says how much was asked for; sizes that overflow are refused") {
  CountingMemory source;
  source.total_limit = 1000000;
  st::MemoryPool pool(source);
  const st::Storage held = pool.take(600000);
  CHECK(out_of_memory([&] { pool.take(500000); }) ==
        "cpu: not enough memory for a block of 0.5243 MB; 0.6554 MB are in use: use smaller batches or images, or free "
        "others");
  CHECK(out_of_memory([&] { pool.take(std::size_t{5} << 40); }).find("5498 GB") != std::string::npos);
  for (const std::size_t bytes :
       {~std::size_t{0}, std::size_t{1} << 63, (std::size_t{1} << 62) + 1, std::size_t{1} << 62})
    CHECK(out_of_memory([&] { st::cpu_pool().take(bytes); }).find("not enough memory") != std::string::npos);
  CHECK_THROWS_AS(st::Scratch<double>((std::size_t{1} << 61) + 1), st::OutOfMemory);  // 8 bytes, modulo 2^64
  CHECK_THROWS_AS(st::Scratch<double>(~std::size_t{0}), st::OutOfMemory);
  CHECK_THROWS_AS(st::Scratch<float>(std::size_t(std::int64_t{-1})), st::OutOfMemory);
  CHECK(pool.take(100));
}

#if defined(__linux__) && !defined(STRATA_ADDRESS_SANITIZER) && !defined(STRATA_THREAD_SANITIZER)
TEST_CASE("trim returns memory to the system, whatever the sizes were and whatever lies between") {
  const auto resident = [] {  // bytes in memory
    std::size_t all = 0, pages = 0;
    std::ifstream("/proc/self/statm") >> all >> pages;
    return pages * std::size_t(sysconf(_SC_PAGESIZE));
  };
  st::HostMemory source;
  st::MemoryPool pool(source);
  const std::size_t before = resident();
  std::vector<std::string> between;  // small things that live on
  std::size_t most = 0;
  for (int round = 0; round < 3; ++round) {
    pool.trim();
    std::vector<st::Storage> blocks;
    for (std::size_t i = 0; i < 300; ++i) {
      const std::size_t bytes = 20000 + (i * 7919 + std::size_t(round) * 104729) % 997 * 1500;
      blocks.push_back(pool.take(bytes));
      std::memset(blocks.back().data(), 1, bytes);
      between.emplace_back(5000, 'x');
    }
    blocks.push_back(pool.take(std::size_t(9 + round) << 20));
    std::memset(blocks.back().data(), 1, std::size_t(9 + round) << 20);
    most = std::max(most, resident());
  }
  REQUIRE(most - before > std::size_t{200} << 20);
  pool.trim();
  CHECK(resident() - before < (most - before) / 20);
}

TEST_CASE("a process at its limit of memory gets an error that says so, and goes on") {
  CHECK(strata_test::in_child([] {
          // free, and given back when it is needed
          { const st::Storage kept = st::cpu_pool().take(std::size_t{100} << 20); }
          std::size_t pages = 0;
          std::ifstream("/proc/self/statm") >> pages;
          const rlimit limit{pages * std::size_t(sysconf(_SC_PAGESIZE)) + (std::size_t{50} << 20), RLIM_INFINITY};
          if (setrlimit(RLIMIT_AS, &limit) != 0) return 9;
          const std::string told = out_of_memory([] { st::cpu_pool().take(std::size_t{384} << 20); });
          if (told.find("block of 402.7 MB") == std::string::npos) return 1;
          return st::cpu_pool().take(std::size_t{110} << 20) && st::cpu_pool().take(5000) ? 0 : 2;
        }) == 0);
}
#endif

TEST_CASE("large blocks start at huge pages, and each can be written to its end") {
  st::HostMemory source;
  for (const std::size_t bytes :
       {std::size_t{1} << 20, (std::size_t{1} << 20) + 131072, std::size_t{1} << 21, std::size_t{9} << 18,
        std::size_t{15} << 20, std::size_t{100}, (std::size_t{1} << 20) - 64}) {
    std::vector<void*> held;
    for (int i = 0; i < 5; ++i) {
      held.push_back(source.allocate(bytes));
      CHECK(reinterpret_cast<std::uintptr_t>(held.back()) % 64 == 0);
      std::memset(held.back(), i, bytes);
    }
    for (int i = 0; i < 5; ++i) {
      const auto* const begin = static_cast<const unsigned char*>(held[std::size_t(i)]);
      CHECK(std::all_of(begin, begin + bytes, [&](unsigned char byte) { return byte == i; }));
      source.deallocate(held[std::size_t(i)], bytes);
    }
  }
}

TEST_CASE("a child of fork finds the pool free and whole, though another thread was in the middle of it") {
  class SlowMemory final : public st::MemorySource {
   public:
    st::Device device() const override { return st::Device::cpu(); }
    void* allocate(std::size_t bytes) override {
      begun = true;
      if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      return host_.allocate(bytes);
    }
    void deallocate(void* memory, std::size_t bytes) noexcept override { host_.deallocate(memory, bytes); }
    std::atomic<bool> begun = false, slow = true;

   private:
    st::HostMemory host_;
  } source;
  st::MemoryPool pool(source);
  std::thread other([&] { pool.take(1000); });
  while (!source.begun) std::this_thread::yield();
  CHECK(strata_test::in_child([&] {
          source.slow = false;
          return pool.take(1000) && pool.take(5000) ? 0 : 1;
        }) == 0);
  other.join();
}

TEST_CASE("handles share a block, and the last gives it back") {
  CountingMemory source;
  st::MemoryPool pool(source);
  st::Storage a = pool.take(100);
  CHECK(a.unique());
  st::Storage b = a;
  CHECK_FALSE(a.unique());
  CHECK(a.data() == b.data());
  a = st::Storage();
  CHECK_FALSE(bool(a));
  CHECK(a.data() == nullptr);
  CHECK(b.unique());
  CHECK(pool.live_bytes() > 0);
  const st::Storage c = std::move(b);
  CHECK(pool.live_bytes() == c.capacity());
  st::Storage& self = a = c;
  self = *&self;  // to itself
  CHECK(a.data() == c.data());
}

TEST_CASE("blocks can start as NaN") {
  CountingMemory source;
  st::MemoryPool pool(source);
  pool.fill_with_nan(true);
  for (int round = 0; round < 2; ++round) {  // a new block and a used one
    const st::Storage block = pool.take(10 * sizeof(double));
    double values[10];
    std::memcpy(values, block.data(), sizeof values);
    for (const double x : values) CHECK(std::isnan(x));
    std::memset(block.data(), 0, 10 * sizeof(double));
  }
}

TEST_CASE("threads may share a pool") {
  CountingMemory source;
  st::MemoryPool pool(source);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::vector<st::Storage> held;
      for (int i = 0; i < 2000; ++i) {
        held.push_back(pool.take(std::size_t(64 * (i % 7 + 1))));
        std::memset(held.back().data(), t, 64);
        if (held.size() > 10) {
          unsigned char bytes[64];
          std::memcpy(bytes, held.front().data(), 64);
          for (const unsigned char byte : bytes) wrong[std::size_t(t)] += byte != t;
          held.erase(held.begin());
        }
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const int count : wrong) CHECK(count == 0);
  CHECK(pool.live_bytes() == 0);
  CHECK(pool.reserved_bytes() == source.held);
}
