// The small parts that kernels share: one or four neighbouring numbers, sums over warps and blocks in a fixed order,
// and division by a number that the host knows.
//
//     const Numbers<4> v = load<4>(x + i);          // one access of 16 bytes; load<1> is one of 4
//     const float total = block_sum<256>(v.v[0], scratch);
#pragma once

#include <cstdint>

#include "strata/cuda/launch.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr unsigned all_lanes = 0xffffffffu;

template <class A, class B>
STRATA_HOST_DEVICE constexpr A ceil_div(A a, B b) {
  return A((a + A(b) - 1) / A(b));
}

template <int W>
struct Numbers {
  float v[W];
};

/// W numbers; for W = 4 the address must be aligned to 16 bytes, for W = 2 to 8.
template <int W>
STRATA_DEVICE Numbers<W> load(const float* from) {
  Numbers<W> out;
  if constexpr (W == 4) {
    const float4 v = load_vector<float4>(from);
    out.v[0] = v.x, out.v[1] = v.y, out.v[2] = v.z, out.v[3] = v.w;
  } else if constexpr (W == 2) {
    const float2 v = load_vector<float2>(from);
    out.v[0] = v.x, out.v[1] = v.y;
  } else {
    static_assert(W == 1);
    out.v[0] = *from;
  }
  return out;
}
template <int W>
STRATA_DEVICE void store(float* to, const Numbers<W>& numbers) {
  if constexpr (W == 4)
    store_vector(to, make_float4(numbers.v[0], numbers.v[1], numbers.v[2], numbers.v[3]));
  else if constexpr (W == 2)
    store_vector(to, make_float2(numbers.v[0], numbers.v[1]));
  else
    *to = numbers.v[0];
}
/// to (+)= numbers.
template <int W>
STRATA_DEVICE void store(float* to, Numbers<W> numbers, bool accumulate) {
  if (accumulate) {
    const Numbers<W> old = load<W>(to);
#pragma unroll
    for (int k = 0; k < W; ++k) numbers.v[k] += old.v[k];
  }
  store<W>(to, numbers);
}

/// Whether every address (nullptr counts) is aligned to 16 bytes, for load<4>.
template <class... T>
bool aligned16(const T*... pointers) {
  return ((reinterpret_cast<std::uintptr_t>(pointers) | ... | std::uintptr_t{0}) & 15u) == 0;
}

/// The sum over the warp's lanes, in all of them: all 32 must call it.
STRATA_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}
STRATA_DEVICE float warp_max(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const float other = __shfl_xor_sync(all_lanes, value, distance);
    value = other > value || other != other ? other : value;  // NaN wins
  }
  return value;
}

/// The sum over the block's Block threads, in thread 0. `scratch` is shared, Block / 32 numbers, free when it is
/// called.
template <int Block>
STRATA_DEVICE float block_sum(float value, float* scratch) {
  static_assert(Block % 32 == 0 && Block <= 1024);
  const int t = int(threadIdx.x);
  value = warp_sum(value);
  if (t % 32 == 0) scratch[t / 32] = value;
  __syncthreads();
  return warp_sum(t < Block / 32 ? scratch[t] : 0.0f);
}

/// Quotient and remainder by a number that is the same for the whole launch, without a division: a multiplication and a
/// shift (Granlund and Montgomery, "Division by invariant integers using multiplication", 1994). For numbers below
/// 2^31.
struct Divisor {
  std::uint32_t divisor = 1, multiplier = 0, shift = 0;

  Divisor() = default;
  explicit Divisor(std::int64_t d) : divisor(std::uint32_t(d)) {
    while ((std::uint64_t{1} << shift) < divisor) ++shift;
    multiplier = std::uint32_t(((std::uint64_t{1} << 32) * ((std::uint64_t{1} << shift) - divisor)) / divisor + 1);
  }
  STRATA_DEVICE_MEMBER std::uint32_t quotient(std::uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
  STRATA_DEVICE_MEMBER std::uint32_t remainder(std::uint32_t n) const { return n - quotient(n) * divisor; }
};

/// The same for numbers below 2^63, where a division would be a call of a function.
struct WideDivisor {
  std::uint64_t multiplier = 0;
  int shift = 0;

  explicit WideDivisor(std::int64_t d) {
    __extension__ using Wide = unsigned __int128;
    while ((std::int64_t{1} << shift) < d) ++shift;
    multiplier = std::uint64_t(((Wide{1} << 64) * Wide((std::int64_t{1} << shift) - d)) / Wide(d) + 1);
  }
  STRATA_DEVICE_MEMBER std::int64_t quotient(std::int64_t n) const {
    return std::int64_t((__umul64hi(std::uint64_t(n), multiplier) + std::uint64_t(n)) >> shift);
  }
};

}}}  // namespace strata::STRATA_ABI::cuda
