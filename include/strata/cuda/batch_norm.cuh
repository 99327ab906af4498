// Batch normalisation of N,H,W,C activations, with an optional ReLU behind it; the formulas stand in
// kernels/accelerator.hpp. `pixels` counts n*h*w.
//
// Statistics: a thread holds eight pixels of four channels in registers and takes their mean, then the sum of squared
// deviations from it: two passes, but over registers. It merges these pairs (count, mean, squares) by Chan's formula
// (Chan, Golub and LeVeque, 1979), and so do the threads of a block and the blocks at the end. So memory is read once
// and nothing cancels, as in Welford's recurrence, which is the merge with one value at a time and costs a division for
// each.
#pragma once

#include <cstdint>

#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/cuda/reduce.cuh"
#include "strata/kernels/accelerator.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// Mean and squared deviations of two sets of values together.
STRATA_DEVICE void merge_moments(float& count, float& mean, float& squares, float other_count, float other_mean,
                                 float other_squares) {
  const float total = count + other_count;
  const float share = total > 0.0f ? other_count / total : 0.0f, delta = other_mean - mean;
  mean += delta * share;
  squares += other_squares + delta * delta * count * share;
  count = total;
}

inline constexpr int moment_pixels = 8;  ///< that a thread holds at once; ColumnPlan's chunks are multiples of it

/// partial[image][chunk][0][c] = mean and partial[image][chunk][1][c] = sum of squared deviations over the chunk's
/// pixels. Grid: (plan.groups, plan.chunks, images); batch normalisation is one image of all pixels.
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(ColumnPlan::block)
    moments_of_chunks(std::int64_t pixels, int channels, int lanes, std::int64_t pixels_per_chunk,
                      const float* __restrict__ x, float* __restrict__ partial) {
  STRATA_SHARED(float, means, [ColumnPlan::block][4]);
  STRATA_SHARED(float, squares, [ColumnPlan::block][4]);
  STRATA_SHARED(float, counts, [ColumnPlan::block]);
  const int t = int(threadIdx.x), lane = t % lanes, slot = t / lanes, slots = ColumnPlan::block / lanes;
  const int c = 4 * (int(blockIdx.x) * lanes + lane);
  const std::int64_t begin = std::int64_t(blockIdx.y) * pixels_per_chunk;
  const std::int64_t end = begin + pixels_per_chunk < pixels ? begin + pixels_per_chunk : pixels;
  const float* const image = x + std::int64_t(blockIdx.z) * pixels * channels;
  float count = 0;
  Numbers<4> mean{}, square{};
  if (c < channels)
    for (std::int64_t first = begin + slot; first < end; first += moment_pixels * slots) {
      Numbers<4> v[moment_pixels];
      float seen = 0;
#pragma unroll
      for (int k = 0; k < moment_pixels; ++k) {
        const std::int64_t pixel = first + k * slots;
        const bool there = pixel < end;
        v[k] = there ? load_quad<Vectors>(image + pixel * channels, c, channels) : Numbers<4>{};
        seen += there ? 1.0f : 0.0f;
      }
      const float before = count;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float sum = 0;
#pragma unroll
        for (int k = 0; k < moment_pixels; ++k) sum += v[k].v[j];
        const float center = sum / seen;
        float deviations = 0;
#pragma unroll
        for (int k = 0; k < moment_pixels; ++k) {
          const float d = first + k * slots < end ? v[k].v[j] - center : 0.0f;
          deviations += d * d;
        }
        count = before;
        merge_moments(count, mean.v[j], square.v[j], seen, center, deviations);
      }
    }
  store<4>(means[t], mean);
  store<4>(squares[t], square);
  counts[t] = count;
  for (int half = slots / 2; half > 0; half /= 2) {
    __syncthreads();
    if (slot < half) {
      const int other = t + half * lanes;
      const float before = count, other_count = counts[other];
      const Numbers<4> m = load<4>(means[other]), s = load<4>(squares[other]);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        count = before;
        merge_moments(count, mean.v[k], square.v[k], other_count, m.v[k], s.v[k]);
      }
      store<4>(means[t], mean);
      store<4>(squares[t], square);
      counts[t] = count;
    }
  }
  if (slot == 0 && c < channels) {
    float* row = partial + (std::int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * 2 * channels;
    store_quad<Vectors>(row, c, channels, mean);
    store_quad<Vectors>(row + channels, c, channels, square);
  }
}

/// What the statistics become: the rows that the way back needs, and the running averages.
struct FinishStatistics {
  const float *weight, *bias;
  float eps, momentum, unbiased;  ///< unbiased: pixels / (pixels - 1)
  float *running_mean, *running_var;
  std::int64_t* batches;
  NormalisationRows rows;
};

/// Merges the chunks of a channel in order. Block: 32 channels, 8 rows of threads. Grid: ceil(channels / 32).
STRATA_GLOBAL void __launch_bounds__(finish_channels* finish_slots)
    finish_statistics(std::int64_t pixels, int channels, int chunks, std::int64_t pixels_per_chunk,
                      const float* __restrict__ partial, FinishStatistics finish) {
  STRATA_SHARED(float, shared, [3][finish_slots][finish_channels]);
  const int lane = int(threadIdx.x) % finish_channels, slot = int(threadIdx.x) / finish_channels;
  const int c = int(blockIdx.x) * finish_channels + lane;
  float count = 0, mean = 0, squares = 0;
  if (c < channels)
    for (int chunk = slot; chunk < chunks; chunk += finish_slots) {
      const std::int64_t rest = pixels - chunk * pixels_per_chunk;
      const float seen = float(rest < pixels_per_chunk ? rest : pixels_per_chunk);
      const float* row = partial + std::int64_t(chunk) * 2 * channels + c;
      merge_moments(count, mean, squares, seen, row[0], row[channels]);
    }
  shared[0][slot][lane] = count, shared[1][slot][lane] = mean, shared[2][slot][lane] = squares;
  __syncthreads();
  if (slot > 0 || c >= channels) return;
#pragma unroll
  for (int k = 1; k < finish_slots; ++k)
    merge_moments(count, mean, squares, shared[0][k][lane], shared[1][k][lane], shared[2][k][lane]);
  const float variance = squares / float(pixels), inverse = 1.0f / sqrtf(variance + finish.eps);
  const float scale = finish.weight[c] * inverse;
  finish.rows.scale[c] = scale;
  finish.rows.shift[c] = finish.bias[c] - mean * scale;
  finish.rows.mean[c] = mean;
  finish.rows.inverse_std[c] = inverse;
  finish.running_mean[c] = (1.0f - finish.momentum) * finish.running_mean[c] + finish.momentum * mean;
  finish.running_var[c] =
      (1.0f - finish.momentum) * finish.running_var[c] + finish.momentum * variance * finish.unbiased;
  if (c == 0 && finish.batches != nullptr) *finish.batches += 1;
}

/// workspace: ColumnPlan(pixels, channels).workspace(channels, 2) floats.
inline cudaError_t batch_norm_statistics(cudaStream_t stream, std::int64_t pixels, int channels, const float* x,
                                         float* workspace, const FinishStatistics& finish) {
  const ColumnPlan plan(pixels, channels);
  const dim3 grid(unsigned(plan.groups), unsigned(plan.chunks)), block(ColumnPlan::block);
  const cudaError_t status = channels % 4 == 0 && aligned16(x)
                                 ? launch<&moments_of_chunks<true>>(grid, block, 0, stream, pixels, channels,
                                                                    plan.lanes, plan.rows_per_chunk, x, workspace)
                                 : launch<&moments_of_chunks<false>>(grid, block, 0, stream, pixels, channels,
                                                                     plan.lanes, plan.rows_per_chunk, x, workspace);
  if (status != cudaSuccess) return status;
  return launch<&finish_statistics>(dim3(unsigned(ceil_div(channels, finish_channels))),
                                    dim3(finish_channels * finish_slots), 0, stream, pixels, channels, plan.chunks,
                                    plan.rows_per_chunk, workspace, finish);
}

/// rows from running statistics, one thread to a channel (as an elementwise operation over channels).
struct InferenceRows : SingleElements {
  const float *weight, *bias, *mean, *variance;
  float eps;
  NormalisationRows rows;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t c) const {
    const float inverse = 1.0f / sqrtf(variance[c] + eps), scale = weight[c] * inverse;
    rows.scale[c] = scale;
    rows.shift[c] = bias[c] - mean[c] * scale;
    rows.mean[c] = mean[c];
    rows.inverse_std[c] = inverse;
  }
};

/// y = x * scale + shift, not below 0 where `relu`. y may be x.
struct NormApply {
  const float *x, *scale, *shift;
  float* y;
  ChannelOf channel;
  bool relu;
  bool aligned() const { return channel.whole_quads && aligned16(x, scale, shift, y); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    const int c = channel.at<W>(i);
    Numbers<W> v = load<W>(x + i);
    const Numbers<W> a = load<W>(scale + c), b = load<W>(shift + c);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      v.v[k] = fmaf(v.v[k], a.v[k], b.v[k]);
      if (relu) v.v[k] = v.v[k] < 0.0f ? 0.0f : v.v[k];  // NaN stays NaN
    }
    store<W>(y + i, v);
  }
};

/// The sums the gradients are made of; g is dy where the activation let the value through, else 0:
/// sum of g and sum of g * (x - mean) for each channel.
struct NormBackwardTerm {
  const float *x, *dy, *scale, *shift, *mean;
  bool relu;
  bool aligned() const { return aligned16(x, dy, scale, shift, mean); }
  template <bool Vectors>
  struct Column {
    const float *x, *dy;
    int c, channels;
    bool relu;
    Numbers<4> scale, shift, mean;
    STRATA_DEVICE_MEMBER Column(const NormBackwardTerm& term, int first, int count)
        : x(term.x), dy(term.dy), c(first), channels(count), relu(term.relu),
          scale(load_quad<Vectors>(term.scale, first, count)), shift(load_quad<Vectors>(term.shift, first, count)),
          mean(load_quad<Vectors>(term.mean, first, count)) {}
    STRATA_DEVICE_MEMBER void add(std::int64_t row, Numbers<4> (&sums)[2]) const {
      const Numbers<4> v = load_quad<Vectors>(x + row * channels, c, channels);
      const Numbers<4> g = load_quad<Vectors>(dy + row * channels, c, channels);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float passed = !relu || fmaf(v.v[k], scale.v[k], shift.v[k]) > 0.0f ? g.v[k] : 0.0f;
        sums[0].v[k] += passed;
        sums[1].v[k] += passed * (v.v[k] - mean.v[k]);
      }
    }
  };
};

/// From the sums: the gradients of weight and bias, and the line slope * (x - mean) + offset that dx takes off.
struct FinishNormBackward {
  float pixels;
  const float *scale, *inverse_std;
  GradientTarget<> dweight, dbias;
  float *slope, *offset;  ///< nullptr: dx is not wanted
  STRATA_DEVICE_MEMBER void operator()(int c, const float (&sums)[2]) const {
    const float inverse = inverse_std[c];
    const float for_weight = sums[1] * inverse, for_bias = sums[0];
    if (dweight.data != nullptr) dweight.data[c] = dweight.accumulate ? dweight.data[c] + for_weight : for_weight;
    if (dbias.data != nullptr) dbias.data[c] = dbias.accumulate ? dbias.data[c] + for_bias : for_bias;
    if (slope != nullptr) {
      slope[c] = -scale[c] * inverse * for_weight / pixels;
      offset[c] = -scale[c] * for_bias / pixels;
    }
  }
};

/// dx (+)= scale * g + (x - mean) * slope + offset. dx may be dy.
struct NormBackwardInput {
  const float *x, *dy, *scale, *shift, *mean, *slope, *offset;
  float* dx;
  ChannelOf channel;
  bool relu, accumulate;
  bool aligned() const {
    return channel.whole_quads && aligned16(x, dy, scale, shift, mean) && aligned16(slope, offset, dx);
  }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    const int c = channel.at<W>(i);
    const Numbers<W> v = load<W>(x + i), a = load<W>(scale + c), b = load<W>(shift + c), m = load<W>(mean + c);
    const Numbers<W> s = load<W>(slope + c), o = load<W>(offset + c);
    Numbers<W> g = load<W>(dy + i);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float passed = !relu || fmaf(v.v[k], a.v[k], b.v[k]) > 0.0f ? g.v[k] : 0.0f;
      g.v[k] = fmaf(a.v[k], passed, fmaf(v.v[k] - m.v[k], s.v[k], o.v[k]));
    }
    store<W>(dx + i, g, accumulate);
  }
};

/// folded_weight[o, t] = weight[o, t] * scale[o] over the weights.
struct FoldWeight : SingleElements {
  const float *weight, *scale;
  float* folded;
  Divisor taps;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    folded[i] = weight[i] * scale[taps.quotient(std::uint32_t(i))];
  }
};
/// folded_bias[o] = shift[o] + bias[o] * scale[o] over the output channels.
struct FoldBias : SingleElements {
  const float *bias, *scale, *shift;
  float* folded;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t o) const {
    folded[o] = bias == nullptr ? shift[o] : fmaf(bias[o], scale[o], shift[o]);
  }
};

}}}  // namespace strata::STRATA_ABI::cuda
