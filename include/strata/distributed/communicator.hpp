// How the processes of a run speak with each other: the one operation that an engine has to have, and the same without
// waiting for those that can. Everything else (distributed/collectives.hpp) is made of it, so that it is the same for
// all engines, to the bit.
//
//     struct MyEngine : st::Communicator { ... };          // distributed/mpi.hpp is one
//
// A process is a rank, 0 to size() - 1. All ranks call the same operations in the same order, so messages have no
// names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The end of another rank, of which it has told, or which does not answer. The text says which rank, and its host.
struct RankError : Error {
  RankError(const std::string& text, bool is_said) : Error(text), said(is_said) {}
  bool said;  ///< whether another rank says it to the user
};

class Communicator {
 public:
  Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// Sends `out` to rank `to` and receives `in` from rank `from`, both at the same time; a rank of -1: that half is
  /// left out. Throws RankError where another rank has failed, does not answer within timeout(), or sends another
  /// number of bytes.
  void exchange(int to, std::span<const std::byte> out, int from, std::span<std::byte> in) {
    if (to >= 0) {
      ++messages_sent_;
      bytes_sent_ += std::int64_t(out.size());
    }
    do_exchange(to, out, from, in);
  }
  /// An exchange that is under way. Where it is destroyed before it is done, the run has failed.
  class Exchange {
   public:
    virtual ~Exchange() = default;
    /// Looks whether it is done. Throws as exchange() does.
    virtual bool done() = 0;
    virtual void wait() = 0;
  };
  /// As exchange(), without waiting; the bytes must stay where they are until it is done. Between two ranks those
  /// of one `channel`, 0 (that of exchange()) to 16,000, meet in the order in which they were started, whatever
  /// others do. nullptr: it is done.
  std::unique_ptr<Exchange> start(int channel, int to, std::span<const std::byte> out, int from,
                                  std::span<std::byte> in) {
    if (to >= 0) {
      ++messages_sent_;
      bytes_sent_ += std::int64_t(out.size());
    }
    return do_start(channel, to, out, from, in);
  }
  void send(int to, std::span<const std::byte> bytes) { exchange(to, bytes, -1, {}); }
  void receive(int from, std::span<std::byte> bytes) { exchange(-1, {}, from, bytes); }

  /// Tells the other ranks that this one ends by an error: they throw RankError where they wait for anybody, or will
  /// wait. True on the lowest of the ranks that fail at once, which is the one to say it to the user. Later calls do
  /// nothing.
  virtual bool fail(const std::string& text) noexcept = 0;

  /// Seconds to wait for another rank before it counts as lost.
  double timeout() const { return timeout_; }
  void set_timeout(double seconds) {
    if (!(seconds > 0)) throw ValueError(concat("a rank's timeout is ", seconds, " s, wanted a number above 0"));
    timeout_ = seconds;
  }

  /// What this rank has sent so far.
  std::int64_t messages_sent() const { return messages_sent_; }
  std::int64_t bytes_sent() const { return bytes_sent_; }

 private:
  virtual void do_exchange(int to, std::span<const std::byte> out, int from, std::span<std::byte> in) = 0;
  /// An engine that only knows how to wait does so: all ranks start the same exchanges in the same order, if it is
  /// so on all of them.
  virtual std::unique_ptr<Exchange> do_start(int, int to, std::span<const std::byte> out, int from,
                                             std::span<std::byte> in) {
    do_exchange(to, out, from, in);
    return nullptr;
  }

  double timeout_ = 300;
  std::int64_t messages_sent_ = 0, bytes_sent_ = 0;
};

}}  // namespace strata::STRATA_ABI
