// Small kernels, each right or with one fault that CUDA leaves undefined or forbids. Their tests: faults_test.cpp.
#pragma once

#include "strata/cuda/mma.cuh"

namespace faults {

using namespace strata::cuda;

// ---------------------------------------------------------------- right

template <int Tile, bool BeforeUse = true, bool AfterUse = true>
STRATA_GLOBAL void matrix_product(int m, int n, int k, const float* __restrict__ a, const float* __restrict__ b,
                                  float* __restrict__ c) {
  STRATA_SHARED(float, left, [Tile][Tile]);
  STRATA_SHARED(float, right, [Tile][Tile + 1]);
  const int tx = int(threadIdx.x), ty = int(threadIdx.y);
  const int row = int(blockIdx.y) * Tile + ty, column = int(blockIdx.x) * Tile + tx;
  float sum = 0;
  for (int first = 0; first < k; first += Tile) {
    left[ty][tx] = row < m && first + tx < k ? a[row * k + first + tx] : 0.0f;
    right[ty][tx] = column < n && first + ty < k ? b[(first + ty) * n + column] : 0.0f;
    if constexpr (BeforeUse) __syncthreads();
    for (int i = 0; i < Tile; ++i) sum += left[ty][i] * right[i][tx];
    if constexpr (AfterUse) __syncthreads();
  }
  if (row < m && column < n) c[row * n + column] = sum;
}

/// One block's sum, by shuffles and shared memory.
template <int Block, bool Barrier = true>
STRATA_GLOBAL void block_sum(int n, const float* __restrict__ x, float* __restrict__ sum) {
  STRATA_SHARED(float, partial, [Block / 32]);
  const int t = int(threadIdx.x), lane = t % 32, warp = t / 32;
  float mine = 0;
  for (int i = t; i < n; i += Block) mine += x[i];
  for (int step = 16; step > 0; step /= 2) mine += __shfl_down_sync(0xffffffffu, mine, unsigned(step));
  if (lane == 0) partial[warp] = mine;
  if constexpr (Barrier) __syncthreads();
  if (warp == 0) {
    mine = lane < Block / 32 ? partial[lane] : 0.0f;
    for (int step = 16; step > 0; step /= 2) mine += __shfl_down_sync(0xffffffffu, mine, unsigned(step));
    if (lane == 0) *sum = mine;
  }
}

/// Each warp turns its 32 numbers round, through shared memory and with __syncwarp alone.
template <bool Synchronised>
STRATA_GLOBAL void reverse_in_warps(float* x) {
  STRATA_SHARED(float, shared, [64]);
  const int t = int(threadIdx.x);
  shared[t] = x[t];
  if constexpr (Synchronised) __syncwarp();
  x[t] = shared[t ^ 31];
}

/// Halves of a warp go their own ways: legal with masks that say so.
STRATA_GLOBAL void halves(float* x) {
  STRATA_SHARED(float, shared, [32]);
  const int t = int(threadIdx.x);
  if (t < 16) {
    shared[t] = float(t);
    __syncwarp(0x0000ffffu);
    x[t] = shared[15 - t] + __shfl_xor_sync(0x0000ffffu, float(t), 1, 16);
  } else {
    x[t] = __shfl_down_sync(0xffff0000u, float(t), 8, 16);
  }
}

template <bool Atomic>
STRATA_GLOBAL void count_all(int* counter) {
  if constexpr (Atomic)
    atomicAdd(counter, 1);
  else
    *counter = 1;
}

template <bool Wait, bool Commit = true>
STRATA_GLOBAL void copy_through_shared(int n, const float* __restrict__ x, float* __restrict__ y) {
  STRATA_SHARED(float, tile, [256]);
  const int t = int(threadIdx.x);
  cp_async<16>(&tile[4 * t], x + 4 * t, 4 * t < n);
  if constexpr (Commit) cp_async_commit();
  if constexpr (Wait) cp_async_wait<0>();
  __syncthreads();
  for (int i = t; i < 256; i += 64) y[i] = tile[255 - i];
}

/// d = a * b of one 16 x K by K x 8 tile: every register of the three formats.
template <int Format>
STRATA_GLOBAL void tensor_product(int k, const float* __restrict__ a, const float* __restrict__ b,
                                  float* __restrict__ d) {
  const int group = int(threadIdx.x) / 4, t = int(threadIdx.x) % 4;
  float sums[4] = {};
  constexpr int depth = Format == 0 ? 8 : 16, each = Format == 0 ? 1 : 2;
  for (int first = 0; first < k; first += depth) {
    std::uint32_t left[4], right[2];
    const auto pack = [](const float* low, int distance) {
      if constexpr (Format == 0) return to_tf32(*low);
      if constexpr (Format == 1) return pack_fp16(*low, low[distance]);
      if constexpr (Format == 2) return pack_bf16(*low, low[distance]);
    };
    for (int i = 0; i < 4; ++i) left[i] = pack(a + (group + i % 2 * 8) * k + first + each * t + i / 2 * depth / 2, 1);
    for (int i = 0; i < 2; ++i) right[i] = pack(b + (first + each * t + i * depth / 2) * 8 + group, 8);
    if constexpr (Format == 0) mma_tf32(sums, left, right);
    if constexpr (Format == 1) mma_fp16(sums, left, right);
    if constexpr (Format == 2) mma_bf16(sums, left, right);
  }
  for (int i = 0; i < 4; ++i) d[(group + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// ---------------------------------------------------------------- with a fault

STRATA_GLOBAL void write_past_the_end(int n, float* x) {
  for (int i = int(threadIdx.x); i <= n; i += int(blockDim.x)) x[i] = 1.0f;
}
STRATA_GLOBAL void read_past_the_end(int n, const float* x, float* y) {
  y[threadIdx.x] = x[n - 32 + int(threadIdx.x) + 1];
}
STRATA_GLOBAL void static_shared_overrun(float* x, int beyond) {
  STRATA_SHARED(float, first, [64]);
  STRATA_SHARED(float, second, [64]);
  const int t = int(threadIdx.x);
  first[t + beyond] = 1.0f;
  second[t] = 2.0f;
  __syncthreads();
  x[t] = first[t] + second[t];
}
STRATA_GLOBAL void dynamic_shared_overrun(float* x) {
  STRATA_DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = shared[threadIdx.x + 1];
}
STRATA_GLOBAL void no_dynamic_shared(float* x) {
  STRATA_DYNAMIC_SHARED(float, shared);
  shared[threadIdx.x] = 1.0f;
  x[threadIdx.x] = 1.0f;
}
STRATA_GLOBAL void much_static_shared(float* x) {
  STRATA_SHARED(float, shared, [12289]);
  shared[threadIdx.x] = 1.0f;
  x[threadIdx.x] = shared[threadIdx.x];
}
STRATA_GLOBAL void shared_not_written(float* x) {
  STRATA_DYNAMIC_SHARED(float, shared);
  if (threadIdx.x != 0) shared[threadIdx.x] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = shared[threadIdx.x];
}
STRATA_GLOBAL void copy(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }
STRATA_GLOBAL void exit_before_barrier(float* x) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  x[threadIdx.x] = 1.0f;
}
STRATA_GLOBAL void barrier_or_shuffle(float* x) {
  float value = 1.0f;
  if (threadIdx.x < 16)
    __syncthreads();
  else
    value = __shfl_down_sync(0xffffffffu, value, 1);
  x[threadIdx.x] = value;
}
STRATA_GLOBAL void barrier_at_two_sites(float* x) {
  STRATA_SHARED(float, shared, [64]);
  const int t = int(threadIdx.x);
  shared[t] = float(t);
  if (t < 32) {
    __syncthreads();
    x[t] = shared[63 - t];
  } else {
    __syncthreads();
    x[t] = shared[63 - t] + 1.0f;
  }
}
STRATA_GLOBAL void shuffle_with_exited_lanes(float* x) {
  if (threadIdx.x % 32 >= 16) return;
  x[threadIdx.x] = __shfl_down_sync(0xffffffffu, 1.0f, 8);
}
STRATA_GLOBAL void lane_outside_its_mask(float* x) { x[threadIdx.x] = __shfl_sync(0x7fffffffu, 1.0f, 0); }
STRATA_GLOBAL void masks_that_differ(float* x) {
  x[threadIdx.x] = __shfl_xor_sync(threadIdx.x % 32 == 5 ? 0xffffffffu : 0x0fffffffu | 1u << threadIdx.x % 32, 1.0f, 1);
}
STRATA_GLOBAL void mask_beyond_the_warp(float* x) { x[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1); }
/// Forward order hides it: each thread reads what the one before has just written.
STRATA_GLOBAL void neighbour_without_barrier(float* x) {
  STRATA_SHARED(float, shared, [64]);
  const int t = int(threadIdx.x);
  shared[t] = float(t);
  x[t] = t > 0 ? shared[t - 1] : 0.0f;
}
/// No result shows it: all write the same value.
STRATA_GLOBAL void all_write_the_same(float* x) {
  STRATA_SHARED(float, shared, [1]);
  shared[0] = 7.0f;
  __syncthreads();
  x[threadIdx.x] = shared[0];
}
/// Half of the array is overwritten while other warps may still read it.
STRATA_GLOBAL void write_after_read(float* x) {
  STRATA_SHARED(float, shared, [64]);
  const int t = int(threadIdx.x);
  shared[t] = float(t);
  __syncthreads();
  const float other = shared[63 - t];
  shared[t] = other + 1.0f;
  __syncthreads();
  x[t] = shared[t];
}
STRATA_GLOBAL void blocks_read_each_other(float* x) {
  x[blockIdx.x + 1] = 1.0f;
  if (blockIdx.x > 0) x[gridDim.x + blockIdx.x + 1] = x[blockIdx.x];
}
STRATA_GLOBAL void blocks_overwrite_what_others_read(const float* x, float* y) {
  if (threadIdx.x == 0) y[16 + blockIdx.x] = x[(blockIdx.x + 1) % gridDim.x];
  __syncthreads();
  if (threadIdx.x == 1) y[blockIdx.x] = 0.0f;
}
STRATA_GLOBAL void misaligned_vector(const float* x, float* y) {
  store_vector(y + 4 * threadIdx.x, load_vector<float4>(x + 4 * threadIdx.x + 1));
}
STRATA_GLOBAL void index_overflow(int big, float* x) {
  const int index = big * big + int(threadIdx.x);
  if (index < 64) x[threadIdx.x] = float(index);
}
STRATA_GLOBAL void deep_stack(float* x) {
  volatile char large[300000];
  large[threadIdx.x] = 1;
  x[threadIdx.x] = large[threadIdx.x];
}
struct Large {
  float values[1024];
};
STRATA_GLOBAL void large_argument(Large large, float* x) { x[threadIdx.x] = large.values[threadIdx.x]; }

}  // namespace faults
