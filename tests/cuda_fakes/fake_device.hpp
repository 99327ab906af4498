// The device that the fake libraries work on: host memory that is known piece by piece, a clock that work moves on, and
// a list of complaints. One shared library holds it, so that the program and the fakes it loads see the same.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <vector>

namespace fake_device {

/// Whether [address, address + bytes) lies inside one live allocation.
bool holds(const void* address, std::size_t bytes);
/// Allocations that have not been freed.
std::size_t live_allocations();

/// Moves the clock that events read on by so many milliseconds: what a piece of work costs.
void spend(float milliseconds);

/// What was called wrongly, in words; a fake that complains also returns an error where its function can.
std::vector<std::string>& complaints();
void complain(const std::string& text);

/// What cudaStreamIsCapturing answers.
void set_capturing(bool on);
/// Whether the stream's work does not end: what cudaStreamQuery answers.
void set_busy(bool on);
/// Lets the next cudaMallocAsync fail.
void fail_next_allocation();

/// The only stream there is.
cudaStream_t stream();

}  // namespace fake_device
