// The functions of the CUDA runtime that Strata's calls of libraries need, on host memory. The real header declares
// them.
#include "cuda_fakes/fake_device.hpp"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

namespace {

std::map<std::uintptr_t, std::size_t> allocations;
float now = 0;
bool capturing = false, fail_next = false, busy = false;
char stream_place, event_places[64];
float event_times[64];
bool event_used[64];

std::uintptr_t number(const void* address) { return reinterpret_cast<std::uintptr_t>(address); }
int event_index(cudaEvent_t event) { return int(reinterpret_cast<char*>(event) - event_places); }

}  // namespace

namespace fake_device {

bool holds(const void* address, std::size_t bytes) {
  auto next = allocations.upper_bound(number(address));
  if (next == allocations.begin()) return false;
  --next;
  return number(address) + bytes <= next->first + next->second;
}
std::size_t live_allocations() { return allocations.size(); }
void spend(float milliseconds) { now += milliseconds; }
std::vector<std::string>& complaints() {
  static std::vector<std::string> list;
  return list;
}
void complain(const std::string& text) { complaints().push_back(text); }
void set_capturing(bool on) { capturing = on; }
void set_busy(bool on) { busy = on; }
void fail_next_allocation() { fail_next = true; }
cudaStream_t stream() { return reinterpret_cast<cudaStream_t>(&stream_place); }

}  // namespace fake_device

extern "C" {

cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream) {
  if (stream != fake_device::stream()) fake_device::complain("cudaMallocAsync: an unknown stream");
  if (capturing) fake_device::complain("cudaMallocAsync while the stream is recorded");
  if (fail_next) {
    fail_next = false;
    return cudaErrorMemoryAllocation;
  }
  *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*pointer, 0xFF, (bytes + 255) / 256 * 256);  // NaN: what nobody writes shows
  allocations[number(*pointer)] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) {
  if (allocations.erase(number(pointer)) == 0) fake_device::complain("cudaFreeAsync: no such allocation");
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  if (capturing) fake_device::complain("cudaStreamSynchronize while the stream is recorded");
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (stream != fake_device::stream()) fake_device::complain("cudaStreamQuery: an unknown stream");
  return busy ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  for (int i = 0; i < 64; ++i)
    if (!event_used[i]) {
      event_used[i] = true;
      *event = reinterpret_cast<cudaEvent_t>(&event_places[i]);
      return cudaSuccess;
    }
  return cudaErrorMemoryAllocation;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  event_used[event_index(event)] = false;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  if (capturing) fake_device::complain("cudaEventRecord while the stream is recorded");
  event_times[event_index(event)] = now;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = event_times[event_index(end)] - event_times[event_index(begin)];
  return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}
const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown";
}

}  // extern "C"
