// Counts what kernels do to memory, warp by warp, as the hardware would: the k-th time each lane of a warp runs an
// instruction between two barriers is taken to be one access of the warp. That is exact where the lanes of a warp take
// the same way, and an estimate where they do not.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda_on_host.hpp"

namespace cuda_on_host {

void begin_counting_launch();
void end_counting_launch();
/// At each barrier of the block and at its end: what the lanes did is put together.
void end_counting_interval();
void count_access(std::uintptr_t address, std::size_t bytes, Access access, bool shared, const void* instruction);
void count_matrix_operations(std::uint64_t multiply_adds);

}  // namespace cuda_on_host
