// Cross entropy: -log softmax(logits[row])[label]. A warp to a row: its lanes go through the classes, and the largest
// logit is taken off before the exponential, so that nothing overflows.
#pragma once

#include <cstdint>

#include "strata/cuda/numbers.cuh"
#include "strata/cuda/reduce.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int loss_block = 128;

/// log of the sum of exp(row[c]), in every lane.
STRATA_DEVICE float log_sum_exp(const float* row, int classes, int lane) {
  float largest = -INFINITY;
  for (int c = lane; c < classes; c += 32) largest = row[c] > largest || row[c] != row[c] ? row[c] : largest;
  largest = warp_max(largest);
  float total = 0;
  for (int c = lane; c < classes; c += 32) total += expf(row[c] - largest);
  return largest + logf(warp_sum(total));
}

/// What a target has at the label, and what at every class besides.
struct TargetShares {
  float own, shared;
};

/// losses[row] = -sum of target * log softmax(logits[row]); NaN for a label that is no class. Grid: ceil(rows / 4).
STRATA_GLOBAL void __launch_bounds__(loss_block)
    cross_entropy_rows(std::int64_t rows, int classes, const float* __restrict__ logits,
                       const std::int64_t* __restrict__ labels, TargetShares target, float* __restrict__ losses) {
  const int lane = int(threadIdx.x) % 32;
  const std::int64_t row = std::int64_t(blockIdx.x) * (loss_block / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const float* x = logits + row * classes;
  const float total = log_sum_exp(x, classes, lane);
  const std::int64_t label = labels[row];
  float others = 0;
  if (target.shared != 0.0f) {
    for (int c = lane; c < classes; c += 32) others += total - x[c];
    others = target.shared * warp_sum(others);
  }
  if (lane == 0) losses[row] = label >= 0 && label < classes ? target.own * (total - x[label]) + others : NAN;
}

/// dlogits[row, c] (+)= factor * (*upstream) * (softmax(logits[row])[c] - target[row, c]). Grid as above.
STRATA_GLOBAL void __launch_bounds__(loss_block)
    cross_entropy_backward_kernel(std::int64_t rows, int classes, const float* __restrict__ logits,
                                  const std::int64_t* __restrict__ labels, TargetShares target, float factor,
                                  const float* __restrict__ upstream, float* __restrict__ dlogits, bool accumulate) {
  const int lane = int(threadIdx.x) % 32;
  const std::int64_t row = std::int64_t(blockIdx.x) * (loss_block / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const float* x = logits + row * classes;
  float* to = dlogits + row * classes;
  const float total = log_sum_exp(x, classes, lane), g = upstream != nullptr ? factor * *upstream : factor;
  const std::int64_t label = labels[row];
  for (int c = lane; c < classes; c += 32) {
    const float value = g * (expf(x[c] - total) - target.shared - (c == label ? target.own : 0.0f));
    to[c] = accumulate ? to[c] + value : value;
  }
}

/// *result = factor * sum of the rows' losses. workspace: rows + SumPlan(rows).workspace() floats.
inline cudaError_t cross_entropy_forward(cudaStream_t stream, std::int64_t rows, int classes, const float* logits,
                                         const std::int64_t* labels, TargetShares target, float factor,
                                         float* workspace, float* result) {
  const dim3 grid(unsigned(ceil_div(rows, loss_block / 32)));
  const cudaError_t status =
      launch<&cross_entropy_rows>(grid, dim3(loss_block), 0, stream, rows, classes, logits, labels, target, workspace);
  if (status != cudaSuccess) return status;
  return sum_all(stream, rows, ValueTerm{workspace}, workspace + rows, WriteTotal{factor, result});
}

inline cudaError_t cross_entropy_backward(cudaStream_t stream, std::int64_t rows, int classes, const float* logits,
                                          const std::int64_t* labels, TargetShares target, float factor,
                                          const float* upstream, float* dlogits, bool accumulate) {
  const dim3 grid(unsigned(ceil_div(rows, loss_block / 32)));
  return launch<&cross_entropy_backward_kernel>(grid, dim3(loss_block), 0, stream, rows, classes, logits, labels,
                                                target, factor, upstream, dlogits, accumulate);
}

}}}  // namespace strata::STRATA_ABI::cuda
