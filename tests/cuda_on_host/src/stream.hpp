// Streams, events and graphs: operations in queues, run when something waits for them and no sooner.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_on_host {

struct Operation {
  std::string name;
  std::function<void()> run;
  std::function<void()> drop;                     ///< instead of run, after a fault: the memory it holds is given back
  std::vector<std::shared_ptr<Operation>> after;  ///< operations of other streams that come before
  CUstream_st* stream = nullptr;
  bool done = false;
};
using OperationPointer = std::shared_ptr<Operation>;

/// Puts an operation at the end of a stream, or into the graph that the stream captures.
cudaError_t submit(cudaStream_t stream, std::string name, std::function<void()> run, std::function<void()> drop = {});
/// Runs what is in the stream, and what that waits for. When something throws a Fault, all that waits in all streams is
/// dropped, as after a failure on a device.
void synchronize(cudaStream_t stream);
void synchronize_all();
/// True where a stream captures: calls that wait are then not allowed.
bool capturing();
/// Whether the capture also forbids calls that only might wait, as taking memory does.
bool capturing_strictly();
bool is_stream(cudaStream_t stream);

/// Keeps the error for cudaGetLastError and returns it.
cudaError_t report(cudaError_t error);

}  // namespace cuda_on_host
