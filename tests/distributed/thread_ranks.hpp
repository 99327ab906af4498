// Ranks that are threads of one process, for tests: each pair has a queue of messages in each direction, for each
// channel.
//
//     on_threads(4, [](const st::World& world) { ... });       // throws what one of them threw
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "strata/distributed/world.hpp"

namespace st = strata;

struct Post {
  std::mutex guard;
  std::condition_variable changed;
  std::map<std::tuple<int, int, int>, std::deque<std::vector<std::byte>>> letters;  // from, to, channel
  bool waits_at_once = false;  // an engine that has exchange() alone
  std::string failure;
  std::vector<std::int64_t> bytes, messages;
};

class ThreadRank : public st::Communicator {
 public:
  ThreadRank(Post& post, int rank, int size) : post_(post), rank_(rank), size_(size) {}
  ~ThreadRank() override {
    const std::lock_guard lock(post_.guard);
    post_.bytes[std::size_t(rank_)] = bytes_sent();
    post_.messages[std::size_t(rank_)] = messages_sent();
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool fail(const std::string& text) noexcept override {
    const std::lock_guard lock(post_.guard);
    const bool first = post_.failure.empty();
    if (first) post_.failure = text;
    post_.changed.notify_all();
    return first;
  }

 private:
  struct Flight : Exchange {
    Flight(ThreadRank& whose, int on, int sender, std::span<std::byte> to)
        : rank(whose), channel(on), from(sender), in(to) {}
    bool done() override {
      const std::lock_guard lock(rank.post_.guard);
      return taken = taken || rank.take(channel, from, in);
    }
    void wait() override {
      std::unique_lock lock(rank.post_.guard);
      rank.post_.changed.wait(lock, [&] { return taken = taken || rank.take(channel, from, in); });
    }
    ThreadRank& rank;
    int channel, from;
    std::span<std::byte> in;
    bool taken = false;
  };

  /// Whether the next letter is there; it is then taken. The post is locked.
  bool take(int channel, int from, std::span<std::byte> in) {
    if (from < 0) return true;
    if (!post_.failure.empty()) throw st::RankError(post_.failure, true);
    auto& box = post_.letters[{from, rank_, channel}];
    if (box.empty()) return false;
    if (box.front().size() != in.size()) throw st::Error("ranks are at different places of the program");
    std::memcpy(in.data(), box.front().data(), in.size());
    box.pop_front();
    return true;
  }
  std::unique_ptr<Exchange> begin(int channel, int to, std::span<const std::byte> out, int from,
                                  std::span<std::byte> in) {
    const std::lock_guard lock(post_.guard);
    if (to >= 0) post_.letters[{rank_, to, channel}].emplace_back(out.begin(), out.end());
    post_.changed.notify_all();
    return std::make_unique<Flight>(*this, channel, from, in);
  }
  void do_exchange(int to, std::span<const std::byte> out, int from, std::span<std::byte> in) override {
    begin(0, to, out, from, in)->wait();
  }
  std::unique_ptr<Exchange> do_start(int channel, int to, std::span<const std::byte> out, int from,
                                     std::span<std::byte> in) override {
    if (!post_.waits_at_once) return begin(channel, to, out, from, in);
    do_exchange(to, out, from, in);
    return nullptr;
  }
  Post& post_;
  int rank_, size_;
};

template <class F>
void on_threads(int size, F&& body, Post* given = nullptr) {
  Post own;
  Post& post = given != nullptr ? *given : own;
  post.bytes.assign(std::size_t(size), 0);
  post.messages.assign(std::size_t(size), 0);
  std::vector<std::thread> threads;
  std::exception_ptr failure, of_others;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        body(st::World::of(std::make_shared<ThreadRank>(post, rank, size)));
      } catch (const st::RankError&) {  // what another rank said; by itself it is a failure too
        const std::lock_guard lock(post.guard);
        of_others = std::current_exception();
      } catch (const std::exception& error) {
        ThreadRank(post, rank, size).fail(error.what());
        const std::lock_guard lock(post.guard);
        if (!failure) failure = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
  if (of_others && given == nullptr) std::rethrow_exception(of_others);
}
