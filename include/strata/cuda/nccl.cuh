// Memory of several GPUs, exchanged by NCCL: what a run's ranks with a device each sum their gradients over. The
// library is found at run time.
//
//     st::cuda::NcclRanks devices(*world.communicator(), stream);  // all ranks; DeviceError where a library is missing
//     devices.exchange(partner, out, bytes, partner, in, bytes);    // on the stream
//     st::detail::butterfly_sum(world.rank(), world.size(), devices, gpu, numbers, other, count);
//
// NCCL's own ncclAllReduce is not used: the order of its sums depends on the number of ranks and on the machine. Of
// sends and receives a tree is made in which it does not (distributed/device_ranks.hpp), with as few bytes; what NCCL's
// allreduce may do in the switches of a network, this cannot.
#pragma once

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/cuda/shared_library.cuh"
#include "strata/distributed/collectives.hpp"
#include "strata/distributed/communicator.hpp"
#include "strata/distributed/device_ranks.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// The functions have the names of NCCL's without the prefix.
class NcclLibrary {
 public:
  static std::string default_name() { return concat("libnccl.so.", NCCL_MAJOR); }

  /// Throws DeviceError when the library is missing, or too old to send and receive.
  explicit NcclLibrary(const std::string& name = default_name()) : library_(name) {
    int version = 0;
    check(get_version(&version), "asking for the version");
    if (version < 20900 || version / 10000 != NCCL_MAJOR)
      throw DeviceError(concat(name, " is NCCL ", version / 10000, ".", version / 100 % 100, ".", version % 100,
                               "; this program wants 2.9 or a later 2.x"));
  }
  NcclLibrary(const NcclLibrary&) = delete;
  NcclLibrary& operator=(const NcclLibrary&) = delete;

  /// Throws LibraryError unless it went well. `what` names the operation.
  void check(ncclResult_t result, const char* what) const {
    if (result != ncclSuccess) throw LibraryError(concat("NCCL: ", what, ": ", get_error_string(result)));
  }

 private:
  SharedLibrary library_;

 public:
#define STRATA_NCCL_FUNCTION(name, symbol) \
  decltype(&symbol) name = library_.function<std::remove_pointer_t<decltype(&symbol)>>(#symbol)
  STRATA_NCCL_FUNCTION(get_version, ncclGetVersion);
  STRATA_NCCL_FUNCTION(get_error_string, ncclGetErrorString);
  STRATA_NCCL_FUNCTION(get_unique_id, ncclGetUniqueId);
  STRATA_NCCL_FUNCTION(init_rank, ncclCommInitRank);
  STRATA_NCCL_FUNCTION(destroy, ncclCommDestroy);
  STRATA_NCCL_FUNCTION(abort, ncclCommAbort);
  STRATA_NCCL_FUNCTION(get_async_error, ncclCommGetAsyncError);
  STRATA_NCCL_FUNCTION(group_start, ncclGroupStart);
  STRATA_NCCL_FUNCTION(group_end, ncclGroupEnd);
  STRATA_NCCL_FUNCTION(send, ncclSend);
  STRATA_NCCL_FUNCTION(receive, ncclRecv);
#undef STRATA_NCCL_FUNCTION
};

class NcclRanks : public DeviceRanks {
 public:
  /// Of the current device. All ranks make one, at the same place of the program; `ranks` carries what they need to
  /// find each other, 129 bytes. Throws DeviceError on all where one has no library.
  NcclRanks(Communicator& ranks, cudaStream_t stream, const std::string& library = NcclLibrary::default_name())
      : ranks_(ranks), stream_(stream), library_(open(ranks, library)) {
    struct {
      ncclUniqueId id{};
      std::uint8_t failed = 0;
    } start;
    ncclResult_t result = ncclSuccess;
    if (ranks.rank() == 0) result = library_.get_unique_id(&start.id);
    start.failed = result != ncclSuccess;
    strata::detail::broadcast(ranks, std::as_writable_bytes(std::span(&start, 1)));
    library_.check(result, "making the name of a communicator");
    if (start.failed != 0) throw LibraryError("NCCL: rank 0 cannot make the name of a communicator");
    library_.check(library_.init_rank(&communicator_, ranks.size(), start.id, ranks.rank()),
                   "joining the communicator of all ranks");
  }
  ~NcclRanks() override {
    if (communicator_ == nullptr) return;
    if (waited_)
      (void)library_.destroy(communicator_);
    else
      (void)library_.abort(communicator_);  // destroying would wait for a rank that may have gone
  }

  void exchange(int to, const void* out, std::size_t out_bytes, int from, void* in, std::size_t in_bytes) override {
    if (communicator_ == nullptr) throw RankError("NCCL: another rank has not answered before", true);
    waited_ = false;
    library_.check(library_.group_start(), "beginning an exchange");
    ncclResult_t sent = ncclSuccess, received = ncclSuccess;
    if (to >= 0 && out_bytes > 0) sent = library_.send(out, out_bytes, ncclUint8, to, communicator_, stream_);
    if (from >= 0 && in_bytes > 0) received = library_.receive(in, in_bytes, ncclUint8, from, communicator_, stream_);
    const ncclResult_t ended = library_.group_end();
    library_.check(sent, "sending");
    library_.check(received, "receiving");
    library_.check(ended, "an exchange");
  }

  void wait() override {
    const auto start = std::chrono::steady_clock::now();
    while (true) {
      const cudaError_t status = cudaStreamQuery(stream_);
      if (status == cudaSuccess) {
        waited_ = true;
        return;
      }
      if (status != cudaErrorNotReady) throw DeviceError(concat("NCCL: ", cudaGetErrorString(status)));
      ncclResult_t result = ncclSuccess;
      if (library_.get_async_error(communicator_, &result) != ncclSuccess ||
          (result != ncclSuccess && result != ncclInProgress))
        give_up(concat("NCCL: ", library_.get_error_string(result)));
      const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
      if (waited.count() > ranks_.timeout())
        give_up(concat("rank ", ranks_.rank(), " of ", ranks_.size(), ": another rank's device has not answered for ",
                       ranks_.timeout(),
                       " s: it has ended or hangs; the run ends, and goes on from its last checkpoint"));
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

 private:
  /// The library, where all ranks have it.
  static NcclLibrary open(Communicator& ranks, const std::string& name) {
    std::string missing;
    try {
      NcclLibrary here(name);
    } catch (const DeviceError& error) {
      missing = error.what();
    }
    const bool of_any = strata::detail::any_of(ranks, missing.empty() ? 0 : 1) != 0;
    if (!missing.empty()) throw DeviceError(missing);
    if (of_any) throw DeviceError(concat("the library ", name, " is missing on another rank: install it there too"));
    return NcclLibrary(name);
  }

  [[noreturn]] void give_up(const std::string& text) {
    (void)library_.abort(std::exchange(communicator_, nullptr));
    throw RankError(text, !ranks_.fail(text));
  }

  Communicator& ranks_;
  cudaStream_t stream_;
  NcclLibrary library_;
  ncclComm_t communicator_ = nullptr;
  bool waited_ = true;  // for the last exchange
};

}}}  // namespace strata::STRATA_ABI::cuda
