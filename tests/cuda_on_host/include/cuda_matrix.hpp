// What tensor cores and cp.async do, on the host: strata/cuda/mma.cuh calls these.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

#include "cuda_on_host.hpp"

namespace cuda_on_host {

/// The copy takes place when the thread waits for it; until then the target is filled with NaN. from null: zeros.
void begin_copy(void* to, const void* from, std::size_t bytes);
void commit_copies();
void wait_for_copies(unsigned pending_groups);

/// float16, rounded to nearest even.
std::uint16_t float_to_half(float value);
float half_to_float(std::uint16_t bits);

enum class MatrixFormat { tf32, fp16, bf16 };
/// d += a * b by the lanes of a whole warp, with PTX's registers (strata/cuda/mma.cuh). Products are exact and added in
/// double precision, then rounded to float32 once: a device rounds more often.
void mma(MatrixFormat format, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
         Location location = Location::current());

}  // namespace cuda_on_host
