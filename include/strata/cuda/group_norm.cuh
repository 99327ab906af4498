// Normalisation of every image by itself, over the pixels and the channels of a group (GroupNorm, InstanceNorm2d). The
// formulas stand in kernels/accelerator.hpp.
//
// The pixels are batch normalisation's work, with an image as the grid's third side: moments of chunks, merged by
// Chan's formula, and sums of chunks. What is added here is the merging of a group's channels, and numbers of each
// image's own.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/cuda/batch_norm.cuh"
#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/cuda/reduce.cuh"
#include "strata/math/gradient_target.hpp"
#include "strata/math/group_norm_problem.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int group_block = 256;
inline constexpr std::int64_t most_grid_images = 65535;  ///< of a launch: what the grid's second and third side may be

inline ColumnPlan group_norm_plan(const GroupNormProblem& p) { return {p.pixels, p.channels, p.n}; }
/// Floats of workspace, forward and back.
inline std::int64_t group_norm_workspace(const GroupNormProblem& p) {
  return p.n * group_norm_plan(p).workspace(p.channels, 2);
}

/// Threads that go through `count` numbers: a power of two from 32 on.
inline unsigned group_threads(std::int64_t count) {
  unsigned threads = 32;
  while (threads < count && threads < group_block) threads *= 2;
  return threads;
}

/// Merges the chunks and the channels of a group, and writes the image's rows of numbers (GroupNormProblem::numbers).
/// Block: a power of two of threads, at most group_block. Grid: (groups, images).
STRATA_GLOBAL void __launch_bounds__(group_block)
    finish_group_statistics(std::int64_t pixels, int channels, int group, int chunks, std::int64_t pixels_per_chunk,
                            const float* __restrict__ partial, const float* __restrict__ weight,
                            const float* __restrict__ bias, float eps, float* __restrict__ numbers) {
  STRATA_SHARED(float, counts, [group_block]);
  STRATA_SHARED(float, means, [group_block]);
  STRATA_SHARED(float, squares, [group_block]);
  const int t = int(threadIdx.x), threads = int(blockDim.x), first = int(blockIdx.x) * group;
  const float* const moments = partial + std::int64_t(blockIdx.y) * chunks * 2 * channels + first;
  float count = 0, mean = 0, square = 0;
  for (int i = t; i < group * chunks; i += threads) {
    const int chunk = i / group, c = i - chunk * group;
    const std::int64_t rest = pixels - chunk * pixels_per_chunk;
    const float* const row = moments + std::int64_t(chunk) * 2 * channels + c;
    merge_moments(count, mean, square, float(rest < pixels_per_chunk ? rest : pixels_per_chunk), row[0], row[channels]);
  }
  counts[t] = count, means[t] = mean, squares[t] = square;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) {
      merge_moments(count, mean, square, counts[t + half], means[t + half], squares[t + half]);
      counts[t] = count, means[t] = mean, squares[t] = square;
    }
  }
  __syncthreads();
  mean = means[0];
  const float inverse = 1.0f / sqrtf(squares[0] / counts[0] + eps);
  float* const scale = numbers + std::int64_t(blockIdx.y) * 4 * channels;
  for (int c = first + t; c < first + group; c += threads) {
    const float factor = weight != nullptr ? weight[c] * inverse : inverse;
    scale[c] = factor;
    scale[channels + c] = (bias != nullptr ? bias[c] : 0.0f) - mean * factor;
    scale[2 * channels + c] = mean;
    scale[3 * channels + c] = inverse;
  }
}

/// The image and the channel of an element; sizes as with ChannelOf.
struct ImageChannelOf {
  ChannelOf channel;
  Divisor by_image;  ///< elements of an image, or quads of them
  int channels;

  ImageChannelOf(std::int64_t pixels, int count)
      : channel(count), by_image(count % 4 == 0 ? pixels * (count / 4) : pixels * count), channels(count) {}
  template <int W>
  STRATA_DEVICE_MEMBER std::int64_t image(std::int64_t i) const {
    return std::int64_t(by_image.quotient(std::uint32_t(channel.whole_quads ? i / 4 : i)));
  }
};

/// y = x * scale + shift with an image's own numbers.
struct GroupNormApply {
  const float *x, *numbers;
  float* y;
  ImageChannelOf place;
  bool aligned() const { return place.channel.whole_quads && aligned16(x, numbers, y); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    const float* const scale = numbers + place.image<W>(i) * 4 * place.channels + place.channel.at<W>(i);
    Numbers<W> v = load<W>(x + i);
    const Numbers<W> a = load<W>(scale), b = load<W>(scale + place.channels);
#pragma unroll
    for (int k = 0; k < W; ++k) v.v[k] = fmaf(v.v[k], a.v[k], b.v[k]);
    store<W>(y + i, v);
  }
};

/// Sum of dy and sum of dy * (x - mean) / deviation for each channel of an image.
struct GroupNormTerm {
  const float *x, *dy, *numbers;
  std::int64_t image_size;  ///< pixels * channels
  bool aligned() const { return aligned16(x, dy, numbers); }
  template <bool Vectors>
  struct Column {
    const float *x, *dy;
    int c, channels;
    Numbers<4> mean, inverse;
    STRATA_DEVICE_MEMBER Column(const GroupNormTerm& term, int first, int count)
        : x(term.x + blockIdx.z * term.image_size),
          dy(term.dy + blockIdx.z * term.image_size),
          c(first),
          channels(count),
          mean(load_quad<Vectors>(term.numbers + (std::int64_t(blockIdx.z) * 4 + 2) * count, first, count)),
          inverse(load_quad<Vectors>(term.numbers + (std::int64_t(blockIdx.z) * 4 + 3) * count, first, count)) {}
    STRATA_DEVICE_MEMBER void add(std::int64_t row, Numbers<4> (&sums)[2]) const {
      const Numbers<4> v = load_quad<Vectors>(x + row * channels, c, channels);
      const Numbers<4> g = load_quad<Vectors>(dy + row * channels, c, channels);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        sums[0].v[k] += g.v[k];
        sums[1].v[k] += g.v[k] * ((v.v[k] - mean.v[k]) * inverse.v[k]);
      }
    }
  };
};

/// The gradients of weight and bias from the sums of dy and of dy * (x - mean) / deviation.
struct WriteNormGradients {
  GradientTarget<> dweight, dbias;
  STRATA_DEVICE_MEMBER void operator()(int c, const float (&sums)[2]) const {
    if (dbias.data != nullptr) dbias.data[c] = dbias.accumulate ? dbias.data[c] + sums[0] : sums[0];
    if (dweight.data != nullptr) dweight.data[c] = dweight.accumulate ? dweight.data[c] + sums[1] : sums[1];
  }
};

/// line[image][0][c] = slope and line[image][1][c] = offset of the line slope * (x - mean) + offset that dx takes off,
/// the same for the channels of a group. count: numbers of a group. Block and grid as for finish_group_statistics.
STRATA_GLOBAL void __launch_bounds__(group_block)
    group_norm_lines(int channels, int group, int chunks, float count, const float* __restrict__ partial,
                     const float* __restrict__ numbers, float* __restrict__ line) {
  STRATA_SHARED(float, sums, [2][group_block]);
  const int t = int(threadIdx.x), threads = int(blockDim.x), first = int(blockIdx.x) * group;
  const float* const of_image = partial + std::int64_t(blockIdx.y) * chunks * 2 * channels + first;
  const float* const scale = numbers + std::int64_t(blockIdx.y) * 4 * channels + first;
  float sum_g = 0, sum_gx = 0;
  for (int i = t; i < group * chunks; i += threads) {
    const int chunk = i / group, c = i - chunk * group;
    const float* const row = of_image + std::int64_t(chunk) * 2 * channels + c;
    sum_g += scale[c] * row[0];
    sum_gx += scale[c] * row[channels];
  }
  sums[0][t] = sum_g, sums[1][t] = sum_gx;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half) {
      sums[0][t] = sum_g += sums[0][t + half];
      sums[1][t] = sum_gx += sums[1][t + half];
    }
  }
  __syncthreads();
  const float offset = -sums[0][0] / count, slope = -scale[3 * channels] * sums[1][0] / count;
  float* const to = line + std::int64_t(blockIdx.y) * 2 * channels;
  for (int c = first + t; c < first + group; c += threads) to[c] = slope, to[channels + c] = offset;
}

/// dx (+)= scale * dy + (x - mean) * slope + offset.
struct GroupNormBackwardInput {
  const float *x, *dy, *numbers, *line;
  float* dx;
  ImageChannelOf place;
  bool accumulate;
  bool aligned() const { return place.channel.whole_quads && aligned16(x, dy, numbers) && aligned16(line, dx); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    const std::int64_t row = place.image<W>(i) * 2 * place.channels;
    const int c = place.channel.at<W>(i);
    const float *const scale = numbers + 2 * row + c, *const mean = scale + 2 * place.channels,
                       *const slope = line + row + c;
    const Numbers<W> v = load<W>(x + i), a = load<W>(scale), m = load<W>(mean), s = load<W>(slope);
    const Numbers<W> o = load<W>(slope + place.channels);
    Numbers<W> g = load<W>(dy + i);
#pragma unroll
    for (int k = 0; k < W; ++k) g.v[k] = fmaf(a.v[k], g.v[k], fmaf(v.v[k] - m.v[k], s.v[k], o.v[k]));
    store<W>(dx + i, g, accumulate);
  }
};

/// f(first, count) for the images in as many launches as a grid's sides ask for; stops at an error.
template <class F>
cudaError_t in_grids_of_images(std::int64_t images, F&& f) {
  for (std::int64_t first = 0; first < images; first += most_grid_images)
    if (const cudaError_t status = f(first, unsigned(std::min(images - first, most_grid_images)));
        status != cudaSuccess)
      return status;
  return cudaSuccess;
}

/// workspace: group_norm_workspace(p) floats.
inline cudaError_t group_norm_forward(cudaStream_t stream, const GroupNormProblem& p, const float* x,
                                      const float* weight, const float* bias, float* y, float* numbers,
                                      float* workspace) {
  const ColumnPlan plan = group_norm_plan(p);
  const int group = p.channels / p.groups;
  const std::int64_t size = p.pixels * p.channels, of_image = plan.workspace(p.channels, 2);
  const bool vectors = p.channels % 4 == 0 && aligned16(x);
  const cudaError_t status = in_grids_of_images(p.n, [&](std::int64_t first, unsigned count) {
    const dim3 grid(unsigned(plan.groups), unsigned(plan.chunks), count), block(ColumnPlan::block);
    float* const partial = workspace + first * of_image;
    const float* const from = x + first * size;
    const cudaError_t moments = vectors
                                    ? launch<&moments_of_chunks<true>>(grid, block, 0, stream, p.pixels, p.channels,
                                                                       plan.lanes, plan.rows_per_chunk, from, partial)
                                    : launch<&moments_of_chunks<false>>(grid, block, 0, stream, p.pixels, p.channels,
                                                                        plan.lanes, plan.rows_per_chunk, from, partial);
    if (moments != cudaSuccess) return moments;
    return launch<&finish_group_statistics>(dim3(unsigned(p.groups), count),
                                            dim3(group_threads(std::int64_t(group) * plan.chunks)), 0, stream, p.pixels,
                                            p.channels, group, plan.chunks, plan.rows_per_chunk, partial, weight, bias,
                                            float(p.eps), numbers + first * 4 * p.channels);
  });
  if (status != cudaSuccess) return status;
  return elementwise(stream, p.n * size, GroupNormApply{x, numbers, y, ImageChannelOf(p.pixels, p.channels)});
}

/// workspace: group_norm_workspace(p) floats; line: n * 2 * channels, where dx is wanted.
inline cudaError_t group_norm_backward(cudaStream_t stream, const GroupNormProblem& p, const float* x,
                                       const float* numbers, const float* dy, GradientTarget<> dweight,
                                       GradientTarget<> dbias, GradientTarget<> dx, float* workspace, float* line) {
  const ColumnPlan plan = group_norm_plan(p);
  const int group = p.channels / p.groups;
  const std::int64_t size = p.pixels * p.channels, of_image = plan.workspace(p.channels, 2);
  cudaError_t status = in_grids_of_images(p.n, [&](std::int64_t first, unsigned count) {
    const dim3 grid(unsigned(plan.groups), unsigned(plan.chunks), count), block(ColumnPlan::block);
    float* const partial = workspace + first * of_image;
    const GroupNormTerm term{x + first * size, dy + first * size, numbers + first * 4 * p.channels, size};
    const cudaError_t sums =
        p.channels % 4 == 0 && term.aligned()
            ? launch<&sum_column_chunks<2, GroupNormTerm, true>>(grid, block, 0, stream, p.pixels, p.channels,
                                                                 plan.lanes, plan.rows_per_chunk, term, partial)
            : launch<&sum_column_chunks<2, GroupNormTerm, false>>(grid, block, 0, stream, p.pixels, p.channels,
                                                                  plan.lanes, plan.rows_per_chunk, term, partial);
    if (sums != cudaSuccess || !dx) return sums;
    return launch<&group_norm_lines>(dim3(unsigned(p.groups), count),
                                     dim3(group_threads(std::int64_t(group) * plan.chunks)), 0, stream, p.channels,
                                     group, plan.chunks, float(p.pixels * group), partial,
                                     numbers + first * 4 * p.channels, line + first * 2 * p.channels);
  });
  if (status != cudaSuccess) return status;
  if (dweight || dbias)
    status = launch<&sum_column_partials<2, WriteNormGradients>>(
        dim3(unsigned(ceil_div(p.channels, finish_channels))), dim3(finish_channels * finish_slots), 0, stream,
        p.channels, int(p.n * plan.chunks), workspace, WriteNormGradients{dweight, dbias});
  if (status != cudaSuccess || !dx) return status;
  return elementwise(
      stream, p.n * size,
      GroupNormBackwardInput{x, dy, numbers, line, dx.data, ImageChannelOf(p.pixels, p.channels), dx.accumulate});
}

}}}  // namespace strata::STRATA_ABI::cuda
