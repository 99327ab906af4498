// Ranks that are processes of this machine, for tests of what a process has once, as a device.
//
//     CHECK(in_processes(4, [](st::Communicator& ranks) -> std::string { ...; return ""; }) == "");
#pragma once

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <exception>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "strata/distributed/communicator.hpp"

namespace strata_test {

namespace st = strata;

/// Processes of one machine that speak over sockets, for the few bytes with which they begin.
class SocketRank : public st::Communicator {
 public:
  SocketRank(int rank, std::vector<int> sockets) : rank_(rank), sockets_(std::move(sockets)) {}
  int rank() const override { return rank_; }
  int size() const override { return int(sockets_.size()); }
  bool fail(const std::string&) noexcept override { return true; }

 private:
  void do_exchange(int to, std::span<const std::byte> out, int from, std::span<std::byte> in) override {
    if (to >= 0 && ::send(sockets_[std::size_t(to)], out.data(), out.size(), 0) != ssize_t(out.size()))
      throw st::Error("send");
    if (from >= 0 && ::recv(sockets_[std::size_t(from)], in.data(), in.size(), MSG_WAITALL) != ssize_t(in.size()))
      throw st::Error("recv");
  }
  int rank_;
  std::vector<int> sockets_;
};

/// Runs body(communicator) in `size` processes. The first sentence that one of them has to say, or nothing.
template <class Body>
std::string in_processes(int size, Body&& body) {
  std::vector<std::vector<int>> sockets(std::size_t(size), std::vector<int>(std::size_t(size), -1));
  for (int a = 0; a < size; ++a)
    for (int b = a + 1; b < size; ++b) {
      int pair[2];
      REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
      sockets[std::size_t(a)][std::size_t(b)] = pair[0];
      sockets[std::size_t(b)][std::size_t(a)] = pair[1];
    }
  int said[2];
  REQUIRE(::pipe(said) == 0);
  std::vector<pid_t> processes;
  for (int rank = 0; rank < size; ++rank) {
    const pid_t process = ::fork();
    REQUIRE(process >= 0);
    if (process == 0) {
      std::string text;
      try {
        SocketRank ranks(rank, sockets[std::size_t(rank)]);
        text = body(ranks);
      } catch (const std::exception& error) {
        text = error.what();
      }
      if (!text.empty()) text = "rank " + std::to_string(rank) + ": " + text + "\n";
      const bool written = ::write(said[1], text.data(), text.size()) == ssize_t(text.size());
      ::_exit(written ? 0 : 1);
    }
    processes.push_back(process);
  }
  ::close(said[1]);
  for (const auto& row : sockets)
    for (const int socket : row)
      if (socket >= 0) ::close(socket);
  std::string all;
  char piece[1024];
  for (ssize_t count; (count = ::read(said[0], piece, sizeof piece)) > 0;) all.append(piece, std::size_t(count));
  ::close(said[0]);
  for (const pid_t process : processes) {
    int status = 0;
    ::waitpid(process, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) all += "a process was killed\n";
  }
  return all;
}

}  // namespace strata_test
