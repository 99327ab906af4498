// Ranks that speak over MPI (Open MPI, MPICH, or another one of MPI 3). The target strata::mpi compiles it into a file
// of its own, distributed/mpi.cpp; a program includes nothing of it:
//
//     target_link_libraries(program PRIVATE strata::strata strata::mpi)
//     mpirun -n 4 program
//
// MPI is started when World::from_environment() finds that a launcher started several processes, and only then.
//
// Waiting costs no processor: after a short while a rank that waits sleeps between its looks, so that ranks that share
// a processor do not keep each other from working. While it waits it hears of other ranks' errors, and counts the
// seconds.
#pragma once

// C++ bindings that MPI dropped in 2012, and that need a library more.
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "strata/core/processor_counts.hpp"
#include "strata/core/processors.hpp"
#include "strata/distributed/world.hpp"

namespace strata { inline namespace STRATA_ABI {

class MpiCommunicator : public Communicator {
 public:
  /// Starts MPI. Throws Error where it starts with another number of ranks than `launch` says.
  MpiCommunicator(const detail::Launch& launch, const WorldOptions& options) {
    set_timeout(options.timeout);
    int started = 0, level = 0;
    MPI_Initialized(&started);
    if (started == 0) {
      if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS)
        throw Error("World: MPI does not start (MPI_Init_thread)");
      ours_ = true;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    if (size_ != launch.size) {
      char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
      int length = 0;
      MPI_Get_library_version(version, &length);
      const std::string first_line(version, std::strcspn(version, ",\n"));
      if (ours_) MPI_Finalize();
      throw Error(concat("World: ", launch.by, " started ", launch.size,
                         " processes, and the MPI that this program is linked to (", first_line, ") sees ", size_,
                         ": start it with the mpirun of that MPI, or link the other one"));
    }
    check(MPI_Comm_dup(MPI_COMM_WORLD, &numbers_), "MPI_Comm_dup");
    check(MPI_Comm_dup(MPI_COMM_WORLD, &errors_), "MPI_Comm_dup");
    for (const MPI_Comm communicator : {numbers_, errors_}) MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN);
  }

  ~MpiCommunicator() override {
    if (!ours_) return;
    if (std::uncaught_exceptions() > exceptions_) fail(concat(name(rank_), ": ended by an error"));
    try {
      if (!failed_) detail::any_of(*this, 0);  // who ends early, without an error, is noticed
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    // MPI_Finalize may wait for ranks that never come.
    if (failed_)
      std::thread([] {
        std::this_thread::sleep_for(std::chrono::seconds(5));
        std::_Exit(1);
      }).detach();
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  bool fail(const std::string& text) noexcept override {
    if (failed_) return false;
    failed_ = true;
    try {
      text_ = text.substr(0, most_letters);
      std::vector<MPI_Request> sends;
      for (int other = 0; other < size_; ++other)
        if (other != rank_)
          MPI_Isend(text_.data(), int(text_.size()), MPI_CHAR, other, error_tag, errors_, &sends.emplace_back());
      // Of ranks that fail at the same time the lowest says it: this one waits until every lower rank has heard of an
      // error, or has said what failed there. Those that compute hear of it when they next wait; if that takes long, it
      // is said without them.
      const auto start = std::chrono::steady_clock::now();
      const std::chrono::duration<double> to_hear(3), to_send(10);
      int waiting_for = 0;  // the lowest rank that has not answered
      bool lower = false, sent = false;
      while (true) {
        for (int other = 0; other < rank_ && !lower; ++other) {
          MPI_Status status;
          int there = 0;
          if (MPI_Iprobe(other, error_tag, errors_, &there, &status) != MPI_SUCCESS || there == 0) continue;
          receive_text(status);
          lower = true;
        }
        for (int there = 1; waiting_for < rank_ && there != 0;) {
          there = waiting_for == lost_;
          if (there == 0 && MPI_Iprobe(waiting_for, heard_tag, errors_, &there, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            break;
          waiting_for += there != 0;
        }
        int done = 0;
        if (!sent && MPI_Testall(int(sends.size()), sends.data(), &done, MPI_STATUSES_IGNORE) == MPI_SUCCESS)
          sent = done != 0;
        const auto waited = std::chrono::steady_clock::now() - start;
        if ((lower || waiting_for == rank_ || waited >= to_hear) && (sent || waited >= to_send)) return !lower;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    } catch (...) {
      return true;
    }
  }

  void set_hosts(std::vector<std::string> hosts) { hosts_ = std::move(hosts); }
  /// From now on errors of other ranks are heard. Not before this rank's program has a World, which says them once: who
  /// has one already has sent all that the others wait for.
  void listen() { listening_ = true; }

 private:
  static constexpr std::size_t most_letters = 4000;
  static constexpr int error_tag = 0, heard_tag = 1;               // what a message on errors_ is
  static constexpr std::size_t most_bytes = std::size_t{1} << 30;  // MPI counts in int

  std::string name(int rank) const {
    return hosts_.empty() ? concat("rank ", rank, " of ", size_)
                          : concat("rank ", rank, " of ", size_, " on ", hosts_[std::size_t(rank)]);
  }

  void check(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw Error(concat(what, ": ", std::string(text, std::size_t(length))));
  }

  std::string receive_text(const MPI_Status& status) {
    char text[most_letters + 1];
    MPI_Status ignored;
    int count = 0;
    if (MPI_Recv(text, int(most_letters), MPI_CHAR, status.MPI_SOURCE, error_tag, errors_, &ignored) == MPI_SUCCESS)
      MPI_Get_count(&ignored, MPI_CHAR, &count);
    return std::string(text, std::size_t(std::max(count, 0)));
  }

  void hear() {
    if (!listening_) return;
    MPI_Status status;
    int there = 0;
    check(MPI_Iprobe(MPI_ANY_SOURCE, error_tag, errors_, &there, &status), "MPI_Iprobe");
    if (there == 0) return;
    text_ = receive_text(status);
    failed_ = true;
    for (int other = rank_ + 1; other < size_; ++other) {  // whichever of them fail: none has to wait for this rank
      MPI_Request answer = MPI_REQUEST_NULL;
      MPI_Isend(nullptr, 0, MPI_CHAR, other, heard_tag, errors_, &answer);
      if (answer != MPI_REQUEST_NULL) MPI_Request_free(&answer);
    }
    throw RankError(text_, true);
  }

  struct Lost {
    int rank;
  };

  /// A message to a rank and one from a rank, each of which an int can count.
  class Flight : public Exchange {
   public:
    Flight(MpiCommunicator& ranks, int tag, int to, std::span<const std::byte> out, int from, std::span<std::byte> in)
        : ranks_(ranks), to_(to), from_(from), wanted_(in.size()) {
      guarded([&] {
        if (from >= 0)
          ranks.check(MPI_Irecv(in.data(), int(in.size()), MPI_BYTE, from, tag, ranks.numbers_, &requests_[0]),
                      "MPI_Irecv");
        if (to >= 0)
          ranks.check(MPI_Isend(out.data(), int(out.size()), MPI_BYTE, to, tag, ranks.numbers_, &requests_[1]),
                      "MPI_Isend");
      });
    }
    Flight(const Flight&) = delete;
    ~Flight() override {
      if (!done_) drop();
    }

    bool done() override {
      if (!done_) guarded([&] { look(); });
      return done_;
    }
    void wait() override {
      guarded([&] {
        const auto start = std::chrono::steady_clock::now();
        auto sleep = std::chrono::microseconds(20);
        for (int looks = 0; !done_; ++looks) {
          look();
          if (done_) break;
          if (looks < 50) {
            sched_yield();
            continue;
          }
          ranks_.hear();
          const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
          if (waited.count() > ranks_.timeout()) throw Lost{requests_[0] != MPI_REQUEST_NULL ? from_ : to_};
          std::this_thread::sleep_for(sleep);
          sleep = std::min(sleep * 5 / 4, std::chrono::microseconds(1000));
        }
      });
    }

   private:
    void look() {
      MPI_Status statuses[2];
      int done = 0;
      const int code = MPI_Testall(2, requests_, &done, statuses);
      if (code == MPI_ERR_IN_STATUS) {
        for (const MPI_Status& status : statuses)
          if (status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING) {
            if (is_truncation(status.MPI_ERROR)) ranks_.throw_elsewhere(from_);
            ranks_.check(status.MPI_ERROR, "MPI_Testall");
          }
      } else if (is_truncation(code)) {
        ranks_.throw_elsewhere(from_);
      } else {
        ranks_.check(code, "MPI_Testall");
      }
      if (done == 0) return;
      done_ = true;
      if (from_ < 0) return;
      int count = 0;
      MPI_Get_count(&statuses[0], MPI_BYTE, &count);
      if (std::size_t(count) != wanted_) ranks_.throw_elsewhere(from_);
    }

    /// An error here is one of the run, which the others have to hear of.
    template <class F>
    void guarded(F&& f) {
      try {
        f();
      } catch (const Lost& lost) {
        drop();
        ranks_.lost_ = lost.rank;
        const std::string text =
            concat(ranks_.name(lost.rank), " has not answered for ", ranks_.timeout(),
                   " s: it has ended or hangs, or cannot be "
                   "reached; the run ends, and goes on from its last checkpoint with whatever ranks there are");
        throw RankError(text, !ranks_.fail(text));
      } catch (const RankError&) {
        drop();
        throw;
      } catch (const Error& error) {  // MPI's own, after which it alone knows what became of the requests
        done_ = true;
        const std::string text = concat("between ", ranks_.name(ranks_.rank_), " and ",
                                        ranks_.name(from_ >= 0 ? from_ : to_), ": ", error.what());
        throw RankError(text, !ranks_.fail(text));
      }
    }

    // Nothing may be written into memory that its owner is about to give back. What was to be sent stays with MPI,
    // which reads it when the other asks for it: never.
    void drop() {
      done_ = true;
      if (requests_[0] == MPI_REQUEST_NULL) return;
      int done = 0;
      MPI_Cancel(&requests_[0]);
      for (int looks = 0; looks < 100 && done == 0; ++looks)
        if (MPI_Test(&requests_[0], &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) break;
    }

    MpiCommunicator& ranks_;
    MPI_Request requests_[2] = {MPI_REQUEST_NULL, MPI_REQUEST_NULL};  // to receive, to send
    int to_, from_;
    std::size_t wanted_;
    bool done_ = false;
  };

  void do_exchange(int to, std::span<const std::byte> out, int from, std::span<std::byte> in) override {
    exchange_in_parts(0, to, out, from, in);
  }
  void exchange_in_parts(int tag, int to, std::span<const std::byte> out, int from, std::span<std::byte> in) {
    if (failed_) throw RankError(text_, true);
    while (true) {  // that an int can count
      const auto out_part = out.first(std::min(out.size(), most_bytes));
      const auto in_part = in.first(std::min(in.size(), most_bytes));
      Flight(*this, tag, to, out_part, from, in_part).wait();
      out = out.subspan(out_part.size());
      in = in.subspan(in_part.size());
      if (out.empty()) to = -1;
      if (in.empty()) from = -1;
      if (to < 0 && from < 0) return;
    }
  }
  std::unique_ptr<Exchange> do_start(int channel, int to, std::span<const std::byte> out, int from,
                                     std::span<std::byte> in) override {
    if (failed_) throw RankError(text_, true);
    if (out.size() <= most_bytes && in.size() <= most_bytes)
      return std::make_unique<Flight>(*this, channel, to, out, from, in);
    exchange_in_parts(channel, to, out, from, in);
    return nullptr;
  }

  static bool is_truncation(int code) {
    int kind = code;
    if (code != MPI_SUCCESS) MPI_Error_class(code, &kind);
    return kind == MPI_ERR_TRUNCATE;
  }
  [[noreturn]] void throw_elsewhere(int from) {
    throw Error(concat("they are at different places of the program: ", name(from),
                       " sent something else than this rank "
                       "waits for; all ranks must do the same steps, in the same order"));
  }

  MPI_Comm numbers_ = MPI_COMM_NULL, errors_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1, lost_ = -1, exceptions_ = std::uncaught_exceptions();
  bool ours_ = false, failed_ = false, listening_ = false;
  std::string text_;  // of the error; sent from here
  std::vector<std::string> hosts_;
};

namespace detail {

/// The processors that this process may use, as bits of a mask.
inline std::vector<unsigned long> affinity_mask() {
  std::vector<unsigned long> mask;
  affinity_processors([&](std::size_t bytes, unsigned long* bits) {
    if (sched_getaffinity(0, bytes, reinterpret_cast<cpu_set_t*>(bits)) != 0) return false;
    mask.assign(bits, bits + bytes / sizeof(unsigned long));
    return true;
  });
  return mask;
}

/// Threads for one of several ranks on a machine: its part of the processors it shares with others (`masks` are of all
/// ranks there, its own too), and of the quota of their cgroup.
inline int threads_of_rank(const std::vector<unsigned long>& own, const std::vector<std::vector<unsigned long>>& masks,
                           double quota) {
  double processors = 0;
  for (std::size_t word = 0; word < own.size(); ++word)
    for (unsigned long bits = own[word]; bits != 0; bits &= bits - 1) {
      const unsigned long lowest = bits & (~bits + 1);
      int sharers = 0;
      for (const auto& mask : masks) sharers += int(word < mask.size() && (mask[word] & lowest) != 0);
      processors += 1.0 / std::max(sharers, 1);
    }
  const double part = std::min(processors + 1e-6, quota / double(std::max<std::size_t>(masks.size(), 1)));
  return int(std::clamp(std::floor(part), 1.0, 1024.0));
}

inline Started start_mpi(const Launch& launch, const WorldOptions& options) {
  auto ranks = std::make_shared<MpiCommunicator>(launch, options);
  char host[256] = "";
  if (gethostname(host, sizeof host - 1) != 0) std::snprintf(host, sizeof host, "unknown");
  Started started;
  started.hosts = gather_texts(*ranks, host);
  ranks->set_hosts(started.hosts);

  const std::vector<unsigned long> mask = affinity_mask();
  const std::vector<std::string> texts = gather_texts(
      *ranks, std::string(reinterpret_cast<const char*>(mask.data()), mask.size() * sizeof(unsigned long)));
  std::vector<std::vector<unsigned long>> masks;
  started.local_size = 0;
  for (int other = 0; other < ranks->size(); ++other) {
    if (started.hosts[std::size_t(other)] != host) continue;
    if (other == ranks->rank()) started.local_rank = started.local_size;
    ++started.local_size;
    const std::string& text = texts[std::size_t(other)];
    masks.emplace_back(text.size() / sizeof(unsigned long));
    if (!text.empty()) std::memcpy(masks.back().data(), text.data(), text.size());
  }
  started.threads = threads_of_rank(mask, masks, cgroup_quota());
  ranks->listen();
  started.communicator = std::move(ranks);
  return started;
}

}  // namespace detail

/// Makes MPI the way in which a program's ranks speak: distributed/mpi.cpp does it.
inline void register_mpi() {
  static constinit detail::WorldProvider provider{"MPI", detail::start_mpi};
  detail::world_provider.store(&provider, std::memory_order_release);
}

}}  // namespace strata::STRATA_ABI
