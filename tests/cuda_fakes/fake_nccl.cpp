// An NCCL that sends through memory shared by the processes of a machine, and checks how it is called. The real header
// declares its functions. Each pair of ranks has a box in each direction, of one piece; the sends and receives of a
// group go on together, as the real ones do.
#include <fcntl.h>
#include <nccl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cuda_fakes/fake_device.hpp"

struct Box {
  static constexpr std::size_t most = 4096;
  std::atomic<std::size_t> bytes;  // 0: empty
  std::size_t of_message;          // all of the message that the piece is of
  char piece[most];
};
static_assert(std::atomic<std::size_t>::is_always_lock_free, "shared by processes");

struct ncclComm {
  int rank, size;
  Box* boxes;
  std::size_t shared_bytes;
  bool hangs = false;

  Box& box(int from, int to) { return boxes[from * size + to]; }
};

namespace {

struct Call {
  bool sends;
  char* data;
  std::size_t bytes;
  int peer;
  ncclComm_t communicator;
  std::size_t done = 0;
};
int groups = 0;
std::vector<Call> calls;
int made = 0;

ncclResult_t wrong(const std::string& text) {
  fake_device::complain("NCCL: " + text);
  return ncclInvalidArgument;
}

/// Moves a piece where it can be. False where there was nothing to do.
bool move(Call& call) {
  ncclComm& c = *call.communicator;
  Box& box = call.sends ? c.box(c.rank, call.peer) : c.box(call.peer, c.rank);
  const std::size_t there = box.bytes.load(std::memory_order_acquire);
  if (call.done == call.bytes || (there == 0) != call.sends) return false;
  if (call.sends) {
    const std::size_t now = std::min(Box::most, call.bytes - call.done);
    std::memcpy(box.piece, call.data + call.done, now);
    box.of_message = call.bytes;
    call.done += now;
    box.bytes.store(now, std::memory_order_release);
  } else {
    if (box.of_message != call.bytes) wrong("a message of another size than its receiver waits for");
    const std::size_t now = std::min(there, call.bytes - call.done);
    std::memcpy(call.data + call.done, box.piece, now);
    call.done += now;
    box.bytes.store(0, std::memory_order_release);
  }
  return true;
}

ncclResult_t add(bool sends, const void* data, std::size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                 cudaStream_t stream) {
  const char* const name = sends ? "ncclSend" : "ncclRecv";
  if (c == nullptr) return wrong(std::string(name) + " without a communicator");
  if (groups == 0) return wrong(std::string(name) + " alone: it would wait for a receive that never comes");
  if (type != ncclUint8) return wrong(std::string(name) + " of something else than bytes");
  if (peer < 0 || peer >= c->size || peer == c->rank) return wrong(std::string(name) + ": no such other rank");
  if (stream != fake_device::stream()) return wrong(std::string(name) + " on an unknown stream");
  if (count == 0 || !fake_device::holds(data, count)) return wrong(std::string(name) + " beyond its memory");
  for (const Call& other : calls) {
    const auto* begin = static_cast<const char*>(data);
    if ((!sends || !other.sends) && begin < other.data + other.bytes && other.data < begin + count)
      return wrong(std::string(name) + " of memory that the same group writes");
  }
  calls.push_back({sends, static_cast<char*>(const_cast<void*>(data)), count, peer, c});
  return ncclSuccess;
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess ? "no error" : result == ncclInvalidArgument ? "invalid argument" : "remote error";
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "/strata-fake-nccl-%d-%d", int(getpid()), ++made);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* communicator, int size, ncclUniqueId id, int rank) {
  if (size < 1 || rank < 0 || rank >= size) return wrong("ncclCommInitRank: no such rank");
  if (std::strncmp(id.internal, "/strata-fake-nccl-", 18) != 0) return wrong("ncclCommInitRank: not the id of rank 0");
  const std::size_t bytes = sizeof(Box) * std::size_t(size) * std::size_t(size) + 64;
  const int file = shm_open(id.internal, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, off_t(bytes)) != 0) return ncclSystemError;
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory == MAP_FAILED) return ncclSystemError;
  // It is new, and so zero; the last 64 bytes count who has come.
  auto* const come = reinterpret_cast<std::atomic<int>*>(static_cast<char*>(memory) + bytes - 64);
  come->fetch_add(1);
  const auto start = std::chrono::steady_clock::now();
  while (come->load() < size) {
    if (std::chrono::steady_clock::now() - start > std::chrono::seconds(60))
      return wrong("ncclCommInitRank: not all ranks came");
    std::this_thread::yield();
  }
  shm_unlink(id.internal);
  *communicator = new ncclComm{rank, size, static_cast<Box*>(memory), bytes};
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t c) {
  if (c == nullptr) return wrong("ncclCommDestroy without a communicator");
  munmap(c->boxes, c->shared_bytes);
  delete c;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t c) {
  fake_device::set_busy(false);
  return ncclCommDestroy(c);
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* result) {
  if (c == nullptr) return wrong("ncclCommGetAsyncError without a communicator");
  *result = ncclSuccess;
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() {
  ++groups;
  return ncclSuccess;
}
ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
                      cudaStream_t stream) {
  return add(true, data, count, type, peer, c, stream);
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t stream) {
  return add(false, data, count, type, peer, c, stream);
}
ncclResult_t ncclGroupEnd() {
  if (groups == 0) return wrong("ncclGroupEnd without ncclGroupStart");
  if (--groups > 0) return ncclSuccess;
  auto moved = std::chrono::steady_clock::now();
  while (std::any_of(calls.begin(), calls.end(), [](const Call& call) { return call.done < call.bytes; })) {
    for (Call& call : calls)
      if (move(call)) moved = std::chrono::steady_clock::now();
    std::this_thread::yield();
    if (std::chrono::steady_clock::now() - moved > std::chrono::seconds(2)) {
      fake_device::set_busy(true);  // the work is queued, and never ends
      break;
    }
  }
  calls.clear();
  return ncclSuccess;
}

}  // extern "C"
