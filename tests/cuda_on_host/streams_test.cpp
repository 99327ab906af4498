// Streams, events, graphs and memory of the host execution: what is not waited for has not happened.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "cuda_on_host_control.hpp"
#include "strata/cuda/launch.cuh"

using cuda_on_host::DeviceArray;
using cuda_on_host::Fault;
using strata::cuda::launch;

namespace {

STRATA_GLOBAL void add_kernel(int n, const float* __restrict__ x, float* __restrict__ y, float amount) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = x[i] + amount;
}
void add(cudaStream_t stream, const DeviceArray<float>& x, const DeviceArray<float>& y, float amount) {
  REQUIRE(launch<&add_kernel>(unsigned(x.size() + 31) / 32, 32, 0, stream, int(x.size()), x.data(), y.data(), amount) ==
          cudaSuccess);
}

struct Stream {
  cudaStream_t handle = nullptr;
  Stream() { REQUIRE(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking) == cudaSuccess); }
  ~Stream() { CHECK(cudaStreamDestroy(handle) == cudaSuccess); }
};
struct PinnedNumbers {
  float* data = nullptr;
  explicit PinnedNumbers(std::size_t count) { REQUIRE(cudaMallocHost(&data, count * sizeof(float)) == cudaSuccess); }
  ~PinnedNumbers() { CHECK(cudaFreeHost(data) == cudaSuccess); }
};

}  // namespace

TEST_CASE("work waits until somebody waits for it") {
  const Stream stream;
  const DeviceArray<float> x(std::vector<float>(40, 1.0f)), y(40);
  const PinnedNumbers result(40);
  add(stream.handle, x, y, 2.0f);
  CHECK(cudaMemcpyAsync(result.data, y.data(), 160, cudaMemcpyDeviceToHost, stream.handle) == cudaSuccess);
  CHECK(std::isnan(result.data[0]));
  CHECK(cuda_on_host::pending_operations() == 2);
  CHECK(cudaStreamSynchronize(stream.handle) == cudaSuccess);
  CHECK(result.data[39] == 3.0f);
  CHECK(cuda_on_host::pending_operations() == 0);
}

TEST_CASE("pinned memory is read when the stream comes to it, pageable memory at the call") {
  const Stream stream;
  const DeviceArray<float> x(4), y(4);
  PinnedNumbers pinned(4);
  std::vector<float> pageable(4, 1.0f);
  std::fill_n(pinned.data, 4, 1.0f);
  CHECK(cudaMemcpyAsync(x.data(), pinned.data, 16, cudaMemcpyHostToDevice, stream.handle) == cudaSuccess);
  CHECK(cudaMemcpyAsync(y.data(), pageable.data(), 16, cudaMemcpyHostToDevice, stream.handle) == cudaSuccess);
  std::fill_n(pinned.data, 4, 5.0f);  // the fault: the copy is under way
  std::fill_n(pageable.data(), 4, 5.0f);
  CHECK(cudaStreamSynchronize(stream.handle) == cudaSuccess);
  CHECK(x.download()[0] == 5.0f);
  CHECK(y.download()[0] == 1.0f);
}

TEST_CASE("pinned memory that a copy uses is not given back") {
  const Stream stream;
  const DeviceArray<float> x(4);
  const PinnedNumbers pinned(4);
  CHECK(cudaMemcpyAsync(x.data(), pinned.data, 16, cudaMemcpyHostToDevice, stream.handle) == cudaSuccess);
  CHECK_THROWS_AS(cudaFreeHost(pinned.data), Fault);
  CHECK(cudaStreamSynchronize(stream.handle) == cudaSuccess);
}

TEST_CASE("streams that do not wait for each other see old values; an event puts them in order") {
  const Stream first, second;
  cudaEvent_t event = nullptr;
  REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  const DeviceArray<float> x(std::vector<float>(8, 1.0f)), y(std::vector<float>(8, 10.0f)), z(8);
  for (const bool wait : {false, true}) {
    y.download();
    add(first.handle, x, y, wait ? 2.0f : 1.0f);
    REQUIRE(cudaEventRecord(event, first.handle) == cudaSuccess);
    if (wait) REQUIRE(cudaStreamWaitEvent(second.handle, event) == cudaSuccess);
    add(second.handle, y, z, 0.0f);
    CHECK(cudaStreamSynchronize(second.handle) == cudaSuccess);
    CHECK(cudaEventQuery(event) == (wait ? cudaSuccess : cudaErrorNotReady));
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(z.download()[0] == (wait ? 3.0f : 10.0f));
  }
  CHECK(cudaEventDestroy(event) == cudaSuccess);
}

TEST_CASE("the default stream waits for blocking streams, and they for it") {
  cudaStream_t blocking = nullptr;
  REQUIRE(cudaStreamCreate(&blocking) == cudaSuccess);
  const DeviceArray<float> x(std::vector<float>(8, 1.0f)), y(8), z(8);
  add(nullptr, x, y, 1.0f);
  add(blocking, y, z, 1.0f);
  CHECK(cudaStreamSynchronize(blocking) == cudaSuccess);
  CHECK(z.download()[7] == 3.0f);
  add(blocking, z, y, 1.0f);
  add(nullptr, y, z, 1.0f);
  CHECK(z.download()[7] == 5.0f);
  CHECK(cudaStreamDestroy(blocking) == cudaSuccess);
}

TEST_CASE("memory freed in a stream lives until the stream comes to it") {
  const Stream first, second;
  float* memory = nullptr;
  REQUIRE(cudaMallocAsync(&memory, 32, first.handle) == cudaSuccess);
  REQUIRE(cudaMemsetAsync(memory, 0, 32, first.handle) == cudaSuccess);
  const DeviceArray<float> y(8);
  REQUIRE(launch<&add_kernel>(1, 32, 0, first.handle, 8, memory, y.data(), 1.0f) == cudaSuccess);
  REQUIRE(cudaFreeAsync(memory, first.handle) == cudaSuccess);
  CHECK(cudaStreamSynchronize(first.handle) == cudaSuccess);
  CHECK(y.download()[7] == 1.0f);
  CHECK_THROWS_AS((void)cudaFree(memory), Fault);
  REQUIRE(cudaMemset(memory, 0, 32) == cudaSuccess);
  CHECK_THROWS_AS((void)cudaDeviceSynchronize(), Fault);
}

TEST_CASE("a graph does again what was captured") {
  const Stream stream, side;
  cudaEvent_t event = nullptr;
  REQUIRE(cudaEventCreate(&event) == cudaSuccess);
  const DeviceArray<float> x(std::vector<float>(8, 1.0f)), y(8), z(8);
  REQUIRE(cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  add(stream.handle, x, y, 1.0f);
  REQUIRE(cudaEventRecord(event, stream.handle) == cudaSuccess);
  REQUIRE(cudaStreamWaitEvent(side.handle, event) == cudaSuccess);
  add(side.handle, y, z, 1.0f);
  CHECK(cudaStreamSynchronize(stream.handle) == cudaErrorStreamCaptureUnsupported);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 16) == cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamEndCapture(stream.handle, &graph) == cudaSuccess);
  CHECK(cuda_on_host::pending_operations() == 0);
  cudaGraphExec_t executable = nullptr;
  REQUIRE(cudaGraphInstantiate(&executable, graph) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> values(8, float(i));
    REQUIRE(cudaMemcpyAsync(x.data(), values.data(), 32, cudaMemcpyHostToDevice, stream.handle) == cudaSuccess);
    REQUIRE(cudaGraphLaunch(executable, stream.handle) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream.handle) == cudaSuccess);
    CHECK(z.download()[5] == float(i) + 2.0f);
  }
  CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
  CHECK(cudaEventDestroy(event) == cudaSuccess);
}

TEST_CASE("a machine without a device says so") {
  cuda_on_host::options().device_count = 0;
  for (const cudaError reason : {cudaErrorNoDevice, cudaErrorInsufficientDriver}) {
    cuda_on_host::options().no_device = reason;
    int count = -1;
    CHECK(cudaGetDeviceCount(&count) == reason);
    CHECK(count == -1);
    void* memory = nullptr;
    CHECK(cudaMalloc(&memory, 16) == reason);
    cudaStream_t stream = nullptr;
    CHECK(cudaStreamCreate(&stream) == reason);
    CHECK(cudaGetLastError() == reason);
  }
  cuda_on_host::options() = {};
}

TEST_CASE("device memory is used up where the options say") {
  cuda_on_host::options().device_memory = cuda_on_host::live_device_bytes() + 1000;
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 1001) == cudaErrorMemoryAllocation);
  CHECK(memory == nullptr);
  CHECK(cudaMalloc(&memory, 1000) == cudaSuccess);
  std::size_t free = 1, total = 0;
  CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess);
  CHECK(free == 0);
  CHECK(cudaFree(memory) == cudaSuccess);
  cuda_on_host::options() = {};
  (void)cudaGetLastError();
}

TEST_CASE("copies in a direction that the pointers are not, and beyond an allocation") {
  const DeviceArray<float> x(std::vector<float>(8, 1.0f));
  float host[9] = {};
  CHECK(cudaMemcpy(host, x.data(), 32, cudaMemcpyHostToDevice) == cudaErrorInvalidMemcpyDirection);
  CHECK_THROWS_AS((void)cudaMemcpy(host, x.data(), 36, cudaMemcpyDeviceToHost), Fault);
  CHECK_THROWS_AS((void)cudaMemcpy(x.data() + 1, host, 32, cudaMemcpyHostToDevice), Fault);
  (void)cudaGetLastError();
}
