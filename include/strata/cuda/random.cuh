// Random numbers on the device: the words of core/random.hpp, which depend on the key and the place alone, so that a
// sample made here is the one made on the CPU.
//
// Normal numbers are computed in double, as Rng::normal computes them: a logarithm and a sine in float would differ
// from the CPU's in the last bits, and the network would see other noise. It is the only place where a kernel uses
// double.
#pragma once

#include <cstdint>

#include "strata/cuda/numbers.cuh"
#include "strata/kernels/accelerator.hpp"
#include "strata/math/random_stream.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// One Philox4x32-10 block (Salmon et al., SC 2011), as philox4x32.
STRATA_DEVICE uint4 philox(uint4 counter, std::uint32_t key0, std::uint32_t key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint32_t a_high = __umulhi(0xD2511F53u, counter.x), a_low = 0xD2511F53u * counter.x;
    const std::uint32_t b_high = __umulhi(0xCD9E8D57u, counter.z), b_low = 0xCD9E8D57u * counter.z;
    counter = make_uint4(b_high ^ counter.y ^ key0, b_low, a_high ^ counter.w ^ key1, a_low);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// Words `first` to first + 3 of a stream.
STRATA_DEVICE void random_words(const RandomStream& stream, std::uint64_t first, std::uint32_t (&words)[4]) {
  const std::uint64_t place = stream.word + first, block = place / 4;
  const std::uint32_t key0 = std::uint32_t(stream.seed), key1 = std::uint32_t(stream.seed >> 32);
  const uint4 w = philox(make_uint4(std::uint32_t(block), std::uint32_t(block >> 32), stream.a, stream.b), key0, key1);
  const int offset = int(place % 4);
  if (offset == 0) {
    words[0] = w.x, words[1] = w.y, words[2] = w.z, words[3] = w.w;
    return;
  }
  const std::uint64_t next = block + 1;
  const uint4 v = philox(make_uint4(std::uint32_t(next), std::uint32_t(next >> 32), stream.a, stream.b), key0, key1);
  words[0] = offset == 1 ? w.y : offset == 2 ? w.z : w.w;
  words[1] = offset == 1 ? w.z : offset == 2 ? w.w : v.x;
  words[2] = offset == 1 ? w.w : offset == 2 ? v.x : v.y;
  words[3] = offset == 1 ? v.x : offset == 2 ? v.y : v.z;
}

/// Normal numbers `first` to first + 3 of a stream; first is a multiple of 4 (Box-Muller, as Rng::normal).
STRATA_DEVICE void random_normals(const RandomStream& stream, std::uint64_t first, float (&normals)[4]) {
  std::uint32_t words[4];
  random_words(stream, first, words);
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    const double u = (double(words[k]) + 1.0) * 0x1p-32;
    const double radius = sqrt(-2.0 * log(u));
    double sine, cosine;
    sincospi(double(words[k + 1]) * 0x1p-31, &sine, &cosine);
    normals[k] = float(radius * cosine);
    normals[k + 1] = float(radius * sine);
  }
}

inline constexpr int random_block = 256;

/// y[i] (+)= word i < threshold ? 0 : x[i] * scale. A thread to four elements. Grid: ceil(size / 1024).
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(random_block)
    dropout_kernel(RandomStream stream, std::uint32_t threshold, float scale, std::int64_t size, const float* x,
                   float* y, bool accumulate) {
  const std::int64_t first = 4 * (std::int64_t(blockIdx.x) * random_block + threadIdx.x);
  std::uint32_t words[4];
  random_words(stream, std::uint64_t(first), words);
  if (Vectors && first + 4 <= size) {
    Numbers<4> v = load<4>(x + first);
#pragma unroll
    for (int k = 0; k < 4; ++k) v.v[k] = words[k] < threshold ? 0.0f : v.v[k] * scale;
    store<4>(y + first, v, accumulate);
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (first + k < size) {
        const float v = words[k] < threshold ? 0.0f : x[first + k] * scale;
        y[first + k] = accumulate ? y[first + k] + v : v;
      }
  }
}

/// y[i] = x[i] + sigma * (normal number i); x nullptr: zeros. Grid: ceil(size / 1024).
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(random_block)
    add_normal_kernel(RandomStream stream, float sigma, std::int64_t size, const float* x, float* y) {
  const std::int64_t first = 4 * (std::int64_t(blockIdx.x) * random_block + threadIdx.x);
  float normals[4];
  random_normals(stream, std::uint64_t(first), normals);
  if (Vectors && first + 4 <= size) {
    Numbers<4> v{};
    if (x != nullptr) v = load<4>(x + first);
#pragma unroll
    for (int k = 0; k < 4; ++k) v.v[k] += sigma * normals[k];
    store<4>(y + first, v);
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (first + k < size) y[first + k] = (x != nullptr ? x[first + k] : 0.0f) + sigma * normals[k];
  }
}

/// clean[s] = the patch of sources[s], mirrored left to right where its orientation is 4 or more, then turned
/// counter-clockwise orientation % 4 times; noisy[s] = clean[s] + sigma * normals. A thread to four elements of a
/// patch. Grid: (ceil(patch * patch * channels / 1024), sources).
STRATA_GLOBAL void __launch_bounds__(random_block)
    noisy_patches_kernel(const PatchSource* __restrict__ sources, int patch, int channels, Divisor by_channels,
                         Divisor by_patch, float* __restrict__ clean, float* __restrict__ noisy) {
  const int size = patch * patch * channels;
  const int first = 4 * (int(blockIdx.x) * random_block + int(threadIdx.x));
  const PatchSource source = sources[blockIdx.y];
  float normals[4] = {};
  if (noisy != nullptr) random_normals(source.random, std::uint64_t(first), normals);
  const std::int64_t begin = std::int64_t(blockIdx.y) * size;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (first + k < size) {
      const std::uint32_t e = std::uint32_t(first + k), pixel = by_channels.quotient(e), row = by_patch.quotient(pixel);
      const int i = int(row), j = int(pixel - row * by_patch.divisor), c = int(e - pixel * by_channels.divisor);
      const int turn = source.orientation % 4, last = patch - 1;
      const int y = turn == 0 ? i : turn == 1 ? j : turn == 2 ? last - i : last - j;
      const int turned = turn == 0 ? j : turn == 1 ? last - i : turn == 2 ? last - j : i;
      const int x = source.orientation >= 4 ? last - turned : turned;
      const float value = source.image[((source.y + y) * source.w + source.x + x) * channels + c];
      clean[begin + e] = value;
      if (noisy != nullptr) noisy[begin + e] = value + source.sigma * normals[k];
    }
}

}}}  // namespace strata::STRATA_ABI::cuda
