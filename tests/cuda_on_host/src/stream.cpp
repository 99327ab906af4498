#include "stream.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "block.hpp"
#include "cuda_on_host_control.hpp"
#include "device_memory.hpp"

using cuda_on_host::OperationPointer;

struct CUstream_st {
  bool blocking = true;  // waits for the default stream, and it for this
  std::deque<OperationPointer> queue;
  std::vector<OperationPointer> next_waits_for;
  CUgraph_st* capture = nullptr;
  bool capture_origin = false;
};
struct CUevent_st {
  OperationPointer operation;     // null: never recorded
  CUgraph_st* capture = nullptr;  // recorded while this graph was captured
};
struct CUgraph_st {
  std::vector<cuda_on_host::Operation> operations;  // in the order of their calls, which is one of the orders allowed
};
struct CUgraphExec_st {
  std::vector<cuda_on_host::Operation> operations;
};

namespace cuda_on_host {
namespace {

CUstream_st default_stream;
std::set<CUstream_st*>& created() {
  static auto* streams = new std::set<CUstream_st*>;
  return *streams;
}
CUgraph_st* captured = nullptr;  // one capture at a time
bool relaxed = false;            // the mode of the capture

CUstream_st& resolve(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread ? default_stream : *stream;
}

void drop_all() {
  const auto drop = [](CUstream_st& stream) {
    for (const auto& operation : std::exchange(stream.queue, {})) {
      operation->done = true;
      operation->after.clear();
      if (operation->drop) operation->drop();
    }
    stream.next_waits_for.clear();
  };
  drop(default_stream);
  for (CUstream_st* stream : created()) drop(*stream);
}

// Runs a stream's queue up to an operation, null for all of it.
void run_until(CUstream_st& stream, OperationPointer last) {
  while (!stream.queue.empty() && !(last && last->done)) {
    const OperationPointer operation = stream.queue.front();
    for (const auto& before : std::exchange(operation->after, {})) {
      if (!before->done) run_until(*before->stream, before);
    }
    if (stream.queue.empty() || stream.queue.front() != operation) continue;  // one of those ran it
    stream.queue.pop_front();
    operation->done = true;
    if (operation->run) {
      const OpenDevice open;
      try {
        operation->run();
      } catch (const Fault&) {
        drop_all();
        throw;
      }
    }
    operation->run = operation->drop = nullptr;
  }
}

}  // namespace

bool is_stream(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread || created().contains(stream);
}
bool capturing() { return captured != nullptr; }
bool capturing_strictly() { return capturing() && !relaxed; }

cudaError_t submit(cudaStream_t handle, std::string name, std::function<void()> run, std::function<void()> drop) {
  if (!is_stream(handle)) return report(cudaErrorInvalidResourceHandle);
  CUstream_st& stream = resolve(handle);
  Operation operation{std::move(name), std::move(run), std::move(drop), {}, &stream, false};
  if (stream.capture != nullptr) {
    stream.capture->operations.push_back(std::move(operation));
    return cudaSuccess;
  }
  operation.after = std::exchange(stream.next_waits_for, {});
  if (&stream == &default_stream) {
    for (CUstream_st* other : created()) {
      if (!other->blocking) continue;
      if (other->capture != nullptr) return report(cudaErrorStreamCaptureUnsupported);
      if (!other->queue.empty()) operation.after.push_back(other->queue.back());
    }
  } else if (stream.blocking && !default_stream.queue.empty()) {
    operation.after.push_back(default_stream.queue.back());
  }
  stream.queue.push_back(std::make_shared<Operation>(std::move(operation)));
  return cudaSuccess;
}

void synchronize(cudaStream_t handle) {
  CUstream_st& stream = resolve(handle);
  for (const auto& before : std::exchange(stream.next_waits_for, {})) {
    if (!before->done) run_until(*before->stream, before);
  }
  if (&stream == &default_stream) {
    for (CUstream_st* other : created()) {
      if (other->blocking) run_until(*other, nullptr);
    }
  }
  run_until(stream, nullptr);
}

void synchronize_all() {
  run_until(default_stream, nullptr);
  // The order of streams that do not wait for each other is nobody's promise: the newest first.
  std::vector<CUstream_st*> streams(created().begin(), created().end());
  if (options().order != Order::forward) std::ranges::reverse(streams);
  for (CUstream_st* stream : streams) run_until(*stream, nullptr);
}

std::size_t pending_operations() {
  std::size_t count = default_stream.queue.size();
  for (const CUstream_st* stream : created()) count += stream->queue.size();
  return count;
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (options().device_count == 0) return report(options().no_device);
  *stream = new CUstream_st;
  (*stream)->blocking = (flags & cudaStreamNonBlocking) == 0;
  created().insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!created().contains(stream)) return report(cudaErrorInvalidResourceHandle);
  run_until(*stream, nullptr);  // CUDA finishes the work too, after the call has returned
  created().erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!is_stream(stream)) return report(cudaErrorInvalidResourceHandle);
  if (capturing()) return report(cudaErrorStreamCaptureUnsupported);
  synchronize(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (!is_stream(stream)) return report(cudaErrorInvalidResourceHandle);
  CUstream_st& queue = resolve(stream);
  if (queue.queue.empty()) return cudaSuccess;
  run_until(queue, queue.queue.front());  // who polls gets there in the end
  return cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (!is_stream(stream)) return report(cudaErrorInvalidResourceHandle);
  CUstream_st& waiting = resolve(stream);
  if (event->capture != nullptr) {
    if (event->capture == captured) waiting.capture = captured;  // the stream joins the capture
    return cudaSuccess;
  }
  if (event->operation && !event->operation->done) waiting.next_waits_for.push_back(event->operation);
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (!created().contains(stream)) return report(cudaErrorStreamCaptureUnsupported);  // not the default stream
  if (captured != nullptr) return report(cudaErrorStreamCaptureUnsupported);
  captured = stream->capture = new CUgraph_st;
  stream->capture_origin = true;
  relaxed = mode == cudaStreamCaptureModeRelaxed;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (!created().contains(stream) || !stream->capture_origin) return report(cudaErrorInvalidValue);
  *graph = std::exchange(captured, nullptr);
  for (CUstream_st* other : created()) other->capture = nullptr;
  stream->capture_origin = false;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  if (!is_stream(stream)) return report(cudaErrorInvalidResourceHandle);
  *status = resolve(stream).capture != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void*), void* data) {
  return submit(stream, "host function", [=] { function(data); });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (options().device_count == 0) return report(options().no_device);
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (!is_stream(stream)) return report(cudaErrorInvalidResourceHandle);
  CUstream_st& recorded = resolve(stream);
  event->operation = nullptr;
  event->capture = recorded.capture;
  if (event->capture != nullptr) return cudaSuccess;
  const cudaError_t status = submit(stream, "event", nullptr);
  if (status == cudaSuccess) event->operation = recorded.queue.back();
  return status;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (capturing()) return report(cudaErrorStreamCaptureUnsupported);
  if (event->operation && !event->operation->done) run_until(*event->operation->stream, event->operation);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (!event->operation || event->operation->done) return cudaSuccess;
  CUstream_st& stream = *event->operation->stream;
  run_until(stream, stream.queue.front());
  return cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t stop) {
  if (!start->operation || !stop->operation) return report(cudaErrorInvalidResourceHandle);
  if (!start->operation->done || !stop->operation->done) return report(cudaErrorNotReady);
  *milliseconds = 1.0f;  // nothing is timed here, and a caller must not divide by zero
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{graph->operations};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  for (const Operation& operation : executable->operations) {
    const cudaError_t status = submit(stream, operation.name, operation.run, operation.drop);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
