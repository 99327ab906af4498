// Tensor cores and asynchronous copies: one function for each PTX instruction that kernels use, here alone.
//
//     cp_async<16>(&tile[row][column], x + offset, inside);  cp_async_commit();
//     cp_async_wait<0>();  __syncthreads();
//     mma_tf32(sums, a, b);                                   // by all 32 lanes of a warp
//
// The registers of a lane are PTX's for row-major A and column-major B. With group = lane / 4 and t = lane % 4:
//     A, 16 x 8 tf32:    a[0] (group, t), a[1] (group + 8, t), a[2] (group, t + 4), a[3] (group + 8, t + 4)
//     B, 8 x 8 tf32:     b[0] (t, group), b[1] (t + 4, group)
//     A, 16 x 16 halves: a[0] (group, 2t and 2t + 1), a[1] (group + 8, ...), a[2] (group, 2t + 8 and 2t + 9),
//                        a[3] (group + 8, ...)
//     B, 16 x 8 halves:  b[0] (2t and 2t + 1, group), b[1] (2t + 8 and 2t + 9, group)
//     D, 16 x 8 float:   d[0] (group, 2t), d[1] (group, 2t + 1), d[2] (group + 8, 2t), d[3] (group + 8, 2t + 1)
// Source: PTX ISA, "Matrix fragments for mma.m16n8k8" and "... for mma.m16n8k16".
//
// tf32 and bf16 need compute capability 8.0: called on an older device they stop the kernel, so the host chooses.
#pragma once

#include <cstdint>

#include "strata/cuda/launch.cuh"

#if !defined(__CUDACC__)
#include <cuda_matrix.hpp>
#endif

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// Begins a copy of 4, 8 or 16 aligned bytes from global to shared memory; zeros where it is not valid, and then
/// nothing is read. Visible to this thread after cp_async_wait, to others after the barrier that follows it. On devices
/// before 8.0 it is an ordinary copy.
template <int Bytes>
STRATA_DEVICE void cp_async(void* shared, const void* global, bool valid = true) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
#if !defined(__CUDACC__)
  ::cuda_on_host::begin_copy(shared, valid ? global : nullptr, Bytes);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned to = unsigned(__cvta_generic_to_shared(shared));
  const int bytes = valid ? Bytes : 0;
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  else if constexpr (Bytes == 8)
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
#else
  if constexpr (Bytes == 16)
    *static_cast<uint4*>(shared) = valid ? *static_cast<const uint4*>(global) : make_uint4(0, 0, 0, 0);
  else if constexpr (Bytes == 8)
    *static_cast<uint2*>(shared) = valid ? *static_cast<const uint2*>(global) : make_uint2(0, 0);
  else
    *static_cast<unsigned*>(shared) = valid ? *static_cast<const unsigned*>(global) : 0u;
#endif
}

/// Makes a group of the copies that this thread has begun since the last one.
STRATA_DEVICE void cp_async_commit() {
#if !defined(__CUDACC__)
  ::cuda_on_host::commit_copies();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/// Waits until at most the last Pending groups are still under way.
template <int Pending>
STRATA_DEVICE void cp_async_wait() {
#if !defined(__CUDACC__)
  ::cuda_on_host::wait_for_copies(Pending);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

/// Rounded to tf32 (10 bits of mantissa), to nearest with ties away from zero, as cvt.rna.tf32.f32.
STRATA_DEVICE std::uint32_t to_tf32(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
  return result;
#else
  const std::uint32_t bits = __float_as_uint(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
#endif
}

/// Two numbers rounded to nearest even: low in bits 0 to 15, high in bits 16 to 31.
STRATA_DEVICE std::uint32_t pack_fp16([[maybe_unused]] float low, [[maybe_unused]] float high) {
#if !defined(__CUDACC__)
  return ::cuda_on_host::float_to_half(low) | std::uint32_t{::cuda_on_host::float_to_half(high)} << 16;
#elif defined(__CUDA_ARCH__)
  std::uint32_t result;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
#else
  asm("{.reg .b16 a, b; cvt.rn.f16.f32 a, %1; cvt.rn.f16.f32 b, %2; mov.b32 %0, {a, b};}"
      : "=r"(result) : "f"(low), "f"(high));
#endif
  return result;
#else
  return 0;  // nvcc's pass over host code: never called
#endif
}
STRATA_DEVICE std::uint32_t pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
  return result;
#else
  const auto round = [](float value) -> std::uint32_t {
    const std::uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;  // NaN
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  };
  return round(low) | round(high) << 16;
#endif
}

/// d += a * b, 16 x 8 by 8 x 8, tf32 factors, float32 sums.
STRATA_DEVICE void mma_tf32([[maybe_unused]] float (&d)[4], [[maybe_unused]] const std::uint32_t (&a)[4],
                            [[maybe_unused]] const std::uint32_t (&b)[2]) {
#if !defined(__CUDACC__)
  ::cuda_on_host::mma(::cuda_on_host::MatrixFormat::tf32, d, a, b);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(__CUDA_ARCH__)
  __trap();
#endif
}

/// d += a * b, 16 x 16 by 16 x 8, bfloat16 factors, float32 sums.
STRATA_DEVICE void mma_bf16([[maybe_unused]] float (&d)[4], [[maybe_unused]] const std::uint32_t (&a)[4],
                            [[maybe_unused]] const std::uint32_t (&b)[2]) {
#if !defined(__CUDACC__)
  ::cuda_on_host::mma(::cuda_on_host::MatrixFormat::bf16, d, a, b);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(__CUDA_ARCH__)
  __trap();
#endif
}

/// d += a * b, 16 x 16 by 16 x 8, float16 factors, float32 sums.
STRATA_DEVICE void mma_fp16([[maybe_unused]] float (&d)[4], [[maybe_unused]] const std::uint32_t (&a)[4],
                            [[maybe_unused]] const std::uint32_t (&b)[2]) {
#if !defined(__CUDACC__)
  ::cuda_on_host::mma(::cuda_on_host::MatrixFormat::fp16, d, a, b);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#elif defined(__CUDA_ARCH__)
  __trap();
#endif
}

}}}  // namespace strata::STRATA_ABI::cuda
