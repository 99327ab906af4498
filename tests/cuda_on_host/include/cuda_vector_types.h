// CUDA's vector types, with its alignments: a misaligned vector access is as wrong here as on a device.
#pragma once

#define CUDA_ON_HOST_VECTOR_TYPES(scalar, name)                                                     \
  struct name##1 { scalar x; };                                                                     \
  struct alignas(2 * sizeof(scalar)) name##2 { scalar x, y; };                                      \
  struct name##3 { scalar x, y, z; };                                                               \
  struct alignas(4 * sizeof(scalar) < 16 ? 4 * sizeof(scalar) : 16) name##4 { scalar x, y, z, w; }; \
  constexpr name##1 make_##name##1(scalar x) { return {x}; }                                        \
  constexpr name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                           \
  constexpr name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }              \
  constexpr name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
CUDA_ON_HOST_VECTOR_TYPES(signed char, char)
CUDA_ON_HOST_VECTOR_TYPES(unsigned char, uchar)
CUDA_ON_HOST_VECTOR_TYPES(short, short)
CUDA_ON_HOST_VECTOR_TYPES(unsigned short, ushort)
CUDA_ON_HOST_VECTOR_TYPES(int, int)
CUDA_ON_HOST_VECTOR_TYPES(unsigned, uint)
CUDA_ON_HOST_VECTOR_TYPES(long long, longlong)
CUDA_ON_HOST_VECTOR_TYPES(unsigned long long, ulonglong)
CUDA_ON_HOST_VECTOR_TYPES(float, float)
CUDA_ON_HOST_VECTOR_TYPES(double, double)
#undef CUDA_ON_HOST_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1) : x(width), y(height), z(depth) {}
  constexpr dim3(uint3 extent) : x(extent.x), y(extent.y), z(extent.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
