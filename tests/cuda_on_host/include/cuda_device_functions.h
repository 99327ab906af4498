// The functions of CUDA's device library that Strata's kernels call, on the host. Included by cuda_on_host.hpp.
#pragma once

#include <algorithm>

inline void __syncthreads(cuda_on_host::Location location = cuda_on_host::Location::current()) {
  cuda_on_host::block_barrier(false, "__syncthreads", location);
}
inline int __syncthreads_count(int predicate, cuda_on_host::Location location = cuda_on_host::Location::current()) {
  return cuda_on_host::block_barrier(predicate != 0, "__syncthreads_count", location);
}
inline int __syncthreads_or(int predicate, cuda_on_host::Location location = cuda_on_host::Location::current()) {
  return cuda_on_host::block_barrier(predicate != 0, "__syncthreads_or", location) != 0;
}
inline int __syncthreads_and(int predicate, cuda_on_host::Location location = cuda_on_host::Location::current()) {
  return cuda_on_host::block_barrier(predicate == 0, "__syncthreads_and", location) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       cuda_on_host::Location location = cuda_on_host::Location::current()) {
  cuda_on_host::warp_operation(mask, nullptr, nullptr, true, "__syncwarp", location);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              cuda_on_host::Location location = cuda_on_host::Location::current()) {
  const int lane = int(cuda_on_host::lane());
  return cuda_on_host::shuffle(mask, value, lane / width * width + (source & (width - 1)), "__shfl_sync", location);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 cuda_on_host::Location location = cuda_on_host::Location::current()) {
  const int lane = int(cuda_on_host::lane());
  const int source = lane % width >= int(delta) ? lane - int(delta) : lane;
  return cuda_on_host::shuffle(mask, value, source, "__shfl_up_sync", location);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   cuda_on_host::Location location = cuda_on_host::Location::current()) {
  const int lane = int(cuda_on_host::lane());
  const int source = lane % width + int(delta) < width ? lane + int(delta) : lane;
  return cuda_on_host::shuffle(mask, value, source, "__shfl_down_sync", location);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                  cuda_on_host::Location location = cuda_on_host::Location::current()) {
  const int lane = int(cuda_on_host::lane());
  const int source = (lane ^ bits) / width > lane / width ? lane : lane ^ bits;
  return cuda_on_host::shuffle(mask, value, source, "__shfl_xor_sync", location);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              cuda_on_host::Location location = cuda_on_host::Location::current()) {
  return cuda_on_host::vote(mask, predicate != 0, "__ballot_sync", location);
}
inline int __any_sync(unsigned mask, int predicate,
                      cuda_on_host::Location location = cuda_on_host::Location::current()) {
  return cuda_on_host::vote(mask, predicate != 0, "__any_sync", location) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      cuda_on_host::Location location = cuda_on_host::Location::current()) {
  return cuda_on_host::vote(mask, predicate == 0, "__all_sync", location) == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return cuda_on_host::atomic(address, [&](T old) { return T(old + value); });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return cuda_on_host::atomic(address, [&](T old) { return std::max(old, value); });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return cuda_on_host::atomic(address, [&](T old) { return std::min(old, value); });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return cuda_on_host::atomic(address, [&](T old) { return T(old | value); });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return cuda_on_host::atomic(address, [&](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return cuda_on_host::atomic(address, [&](T old) { return old == expected ? value : old; });
}

// Loads and stores with a cache hint are plain ones here.
template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}
template <class T>
void __stcg(T* address, T value) {
  *address = value;
}

// Arithmetic. The device's approximate functions (__expf, rsqrtf, ...) are computed exactly rounded or nearly so: their
// error on a device is the documentation's, not what a test on the host shows.
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __powf(float a, float b) { return std::pow(a, b); }
inline float __sinf(float a) { return std::sin(a); }
inline float __cosf(float a) { return std::cos(a); }
inline float __saturatef(float a) { return a > 0.0f ? std::min(a, 1.0f) : 0.0f; }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline double rsqrt(double a) { return 1.0 / std::sqrt(a); }
inline void sincospif(float a, float* sine, float* cosine) {
  const double angle = double(a) * 3.14159265358979323846;
  *sine = float(std::sin(angle)), *cosine = float(std::cos(angle));
}
inline void sincospi(double a, double* sine, double* cosine) {  // the angle brought to [0, 2) exactly first
  const double turn = std::fmod(a, 2.0) * 3.14159265358979323846;
  *sine = std::sin(turn), *cosine = std::cos(turn);
}
inline float cospif(float a) { return float(std::cos(double(a) * 3.14159265358979323846)); }
inline float sinpif(float a) { return float(std::sin(double(a) * 3.14159265358979323846)); }

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((std::uint64_t{a} * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>((Wide{a} * b) >> 64);
}
inline int __mulhi(int a, int b) { return int((std::int64_t{a} * b) >> 32); }
inline int __popc(unsigned a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(unsigned(a)); }
inline int __ffs(int a) { return a == 0 ? 0 : std::countr_zero(unsigned(a)) + 1; }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline int __float2int_rn(float a) { return int(std::nearbyint(a)); }
inline int __float2int_rd(float a) { return int(std::floor(a)); }

// CUDA has these for all arithmetic types at global scope.
using std::max;
using std::min;
