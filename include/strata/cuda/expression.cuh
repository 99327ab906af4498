// Any elementwise expression by one kernel: it runs the program of math/expression_program.hpp for four elements per thread.
//
//     status = expression_forward(stream, program, size, y);
//     status = expression_backward(stream, program, size, upstream, gradients, count);
//     status = expression_sum(stream, program, size, factor, workspace, result);
//
// Values live in columns of shared memory, one float4 to a thread and slot, since an array that a program indexes would lie
// in local memory. Forward uses a stack. Backward keeps the value of every instruction, then goes through the program from
// its end: the gradients still to be handed down form a stack again, because operands stand right before their operation.
// The functions and their derivatives are those of math/functions.hpp.
#pragma once

#include <cstdint>

#include "strata/cuda/numbers.cuh"
#include "strata/cuda/reduce.cuh"
#include "strata/kernels/accelerator.hpp"
#include "strata/math/expression_program.hpp"

namespace strata::inline STRATA_ABI::cuda {

/// An ExpressionProgram as kernels take it.
struct Program {
  struct Instruction {
    Operation operation;
    std::uint8_t operands, leaf, left;
    float a, b;
  };
  Instruction instruction[ExpressionProgram::max_length];
  const float* leaf[ExpressionProgram::max_leaves];
  int length, leaves, depth;
  bool aligned;  ///< all leaves, to 16 bytes

  explicit Program(const ExpressionProgram& program)
      : instruction{}, leaf{}, length(program.length()), leaves(program.leaves()), depth(program.depth()), aligned(true) {
    for (int p = 0; p < length; ++p) {
      const ExpressionProgram::Instruction& from = program[p];
      instruction[p] = {from.operation, std::uint8_t(operand_count(from.operation)), from.leaf, from.left, from.a, from.b};
    }
    for (int l = 0; l < leaves; ++l) {
      leaf[l] = program.leaf(l);
      aligned = aligned && aligned16(leaf[l]);
    }
  }
};
using Instruction = Program::Instruction;

/// f(x).
STRATA_DEVICE float unary_value(const Instruction& instruction, float x) {
  switch (instruction.operation) {
    case Operation::negate: return -x;
    case Operation::square: return x * x;
    case Operation::sqrt: return sqrtf(x);
    case Operation::abs: return x < 0.0f ? -x : x;
    case Operation::exp: return expf(x);
    case Operation::log: return logf(x);
    case Operation::sigmoid: return 1.0f / (1.0f + expf(-x));
    case Operation::tanh: return tanhf(x);
    case Operation::erf: return erff(x);
    case Operation::leaky_relu: return x < 0.0f ? (instruction.a == 0.0f ? 0.0f : instruction.a * x) : x;
    case Operation::power: return powf(x, instruction.a);
    default: return x < instruction.a ? instruction.a : x > instruction.b ? instruction.b : x;  // clamp
  }
}
/// f'(x), where y = f(x).
STRATA_DEVICE float unary_derivative(const Instruction& instruction, float x, float y) {
  switch (instruction.operation) {
    case Operation::negate: return -1.0f;
    case Operation::square: return x + x;
    case Operation::sqrt: return 1.0f / (y + y);
    case Operation::abs: return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
    case Operation::exp: return y;
    case Operation::log: return 1.0f / x;
    case Operation::sigmoid: return y * (1.0f - y);
    case Operation::tanh: return 1.0f - y * y;
    case Operation::erf: return 1.12837917f * expf(-x * x);
    case Operation::leaky_relu: return x > 0.0f ? 1.0f : instruction.a;
    case Operation::power: return instruction.a == 0.0f ? 0.0f : instruction.a * powf(x, instruction.a - 1.0f);
    default: return x < instruction.a || x > instruction.b ? 0.0f : 1.0f;  // clamp
  }
}
/// f(a, b).
STRATA_DEVICE float binary_value(Operation operation, float a, float b) {
  switch (operation) {
    case Operation::add: return a + b;
    case Operation::subtract: return a - b;
    case Operation::multiply: return a * b;
    case Operation::divide: return a / b;
    case Operation::maximum: return a > b || a != a ? a : b;
    default: return a < b || a != a ? a : b;  // minimum
  }
}
/// What f hands to a and to b of the gradient g for y = f(a, b).
STRATA_DEVICE void binary_backward(Operation operation, float a, float b, float y, float g, float& ga, float& gb) {
  switch (operation) {
    case Operation::add: ga = g, gb = g; break;
    case Operation::subtract: ga = g, gb = -g; break;
    case Operation::multiply: ga = g * b, gb = g * a; break;
    case Operation::divide: ga = g / b, gb = -ga * y; break;
    default: {  // the winner takes it; equals share it
      const bool first = operation == Operation::maximum ? a > b : a < b, second = operation == Operation::maximum ? a < b : a > b;
      ga = first ? g : second ? 0.0f : 0.5f * g;
      gb = second ? g : first ? 0.0f : 0.5f * g;
    }
  }
}

/// The thread's column of slots.
struct Column {
  float4* slots;
  int distance;
  STRATA_DEVICE_MEMBER Numbers<4> get(int slot) const {
    return load<4>(reinterpret_cast<const float*>(slots + slot * distance));
  }
  STRATA_DEVICE_MEMBER void set(int slot, const Numbers<4>& numbers) const {
    store<4>(reinterpret_cast<float*>(slots + slot * distance), numbers);
  }
};

/// Elements i to i + count - 1 of a leaf; zeros behind them. A count of 4 is one access where Vectors; none where below 1.
template <bool Vectors>
STRATA_DEVICE Numbers<4> load_elements(const float* from, std::int64_t i, int count) {
  if (Vectors && count == 4) return load<4>(from + i);
  Numbers<4> out;
#pragma unroll
  for (int k = 0; k < 4; ++k) out.v[k] = k < count ? from[i + k] : 0.0f;
  return out;
}
template <bool Vectors>
STRATA_DEVICE void store_elements(float* to, std::int64_t i, int count, const Numbers<4>& numbers) {
  if (Vectors && count == 4) {
    store<4>(to + i, numbers);
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < count) to[i + k] = numbers.v[k];
  }
}

/// The program's value at up to four elements. With `keep` the value of instruction p stays in slot p; without it slots are
/// a stack. The result is in the last slot used, and returned.
template <bool Vectors, bool Keep>
STRATA_DEVICE Numbers<4> evaluate(const Program& program, std::int64_t i, int count, const Column& column) {
  Numbers<4> top{};
  int depth = 0;             // Keep: not used
  for (int p = 0; p < program.length; ++p) {
    const Instruction instruction = program.instruction[p];
    const int operands = instruction.operands;
    if (operands == 0) {
      if (instruction.operation == Operation::leaf) {
        top = load_elements<Vectors>(program.leaf[instruction.leaf], i, count);
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) top.v[k] = instruction.a;
      }
      ++depth;
    } else if (operands == 1) {
#pragma unroll
      for (int k = 0; k < 4; ++k) top.v[k] = unary_value(instruction, top.v[k]);
    } else {
      const Numbers<4> left = column.get(Keep ? instruction.left : depth - 2);
#pragma unroll
      for (int k = 0; k < 4; ++k) top.v[k] = binary_value(instruction.operation, left.v[k], top.v[k]);
      --depth;
    }
    column.set(Keep ? p : depth - 1, top);
  }
  return top;
}

// Slots of a launch: so many threads that their columns fit 48 KiB.
inline constexpr int expression_shared_bytes = 48 * 1024;
inline int expression_threads(int slots) {
  int threads = 128;
  while (threads > 32 && threads * slots * int(sizeof(float4)) > expression_shared_bytes) threads /= 2;
  return threads;
}

/// y[i] = program(i). Grid: ceil(size / (4 * threads)). Shared: depth * threads float4.
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(128)
    expression_forward_kernel(const __grid_constant__ Program program, std::int64_t size, float* y) {
  STRATA_DYNAMIC_SHARED(float4, slots);
  const Column column{slots + threadIdx.x, int(blockDim.x)};
  const std::int64_t i = 4 * (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
  const int count = size - i < 4 ? int(size - i) : 4;  // not a guard: more than four would be taken one by one
  store_elements<Vectors>(y, i, count, evaluate<Vectors, false>(program, i, count, column));
}

struct LeafGradients {
  float* data[ExpressionProgram::max_leaves];
  unsigned accumulate;  ///< bit l: add to data[l]
};

/// gradient[leaf][i] (+)= upstream(i) * d program / d leaf. Grid as forward. Shared: (length + depth) * threads float4.
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(128)
    expression_backward_kernel(const __grid_constant__ Program program, std::int64_t size,
                               UpstreamGradient upstream, const __grid_constant__ LeafGradients gradients) {
  STRATA_DYNAMIC_SHARED(float4, slots);
  const Column pending{slots + threadIdx.x, int(blockDim.x)};
  const Column column{pending.slots + program.depth * pending.distance, pending.distance};
  const std::int64_t i = 4 * (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x);
  const int count = size - i < 4 ? int(size - i) : 4;  // not a guard: more than four would be taken one by one
  evaluate<Vectors, true>(program, i, count, column);

  Numbers<4> g;
  if (upstream.values != nullptr && !upstream.uniform)
    g = load_elements<Vectors>(upstream.values, i, count);
  else
    for (int k = 0; k < 4; ++k) g.v[k] = upstream.values != nullptr ? *upstream.values : 1.0f;
#pragma unroll
  for (int k = 0; k < 4; ++k) g.v[k] *= upstream.factor;

  unsigned written = gradients.accumulate;
  int waiting = 0;  // gradients in `pending`; g is the one of instruction p
  for (int p = program.length - 1; p >= 0; --p) {
    const Instruction instruction = program.instruction[p];
    const int operands = instruction.operands;
    if (operands == 1) {
      const Numbers<4> x = column.get(p - 1), y = column.get(p);
#pragma unroll
      for (int k = 0; k < 4; ++k) g.v[k] *= unary_derivative(instruction, x.v[k], y.v[k]);
    } else if (operands == 2) {
      const Numbers<4> a = column.get(instruction.left), b = column.get(p - 1), y = column.get(p);
      Numbers<4> ga;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        float left, right;
        binary_backward(instruction.operation, a.v[k], b.v[k], y.v[k], g.v[k], left, right);
        ga.v[k] = left, g.v[k] = right;
      }
      pending.set(waiting++, ga);
    } else {
      if (instruction.operation == Operation::leaf) {
        float* const to = gradients.data[instruction.leaf];
        if (to != nullptr) {
          if (written >> instruction.leaf & 1u) {
            const Numbers<4> old = load_elements<Vectors>(to, i, count);
#pragma unroll
            for (int k = 0; k < 4; ++k) g.v[k] += old.v[k];
          }
          store_elements<Vectors>(to, i, count, g);
          written |= 1u << instruction.leaf;
        }
      }
      if (waiting > 0) g = pending.get(--waiting);
    }
  }
}

/// partial[block] = sum of the program's values over the block's chunk. Shared: depth * 128 float4.
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(128)
    expression_sum_kernel(const __grid_constant__ Program program, std::int64_t size, std::int64_t chunk,
                          float* __restrict__ partial) {
  STRATA_DYNAMIC_SHARED(float4, slots);
  STRATA_SHARED(float, scratch, [4]);
  const Column column{slots + threadIdx.x, int(blockDim.x)};
  const std::int64_t begin = std::int64_t(blockIdx.x) * chunk, end = begin + chunk < size ? begin + chunk : size;
  float total = 0;
  for (std::int64_t i = begin + 4 * std::int64_t(threadIdx.x); i < end; i += 4 * 128) {
    const int count = end - i < 4 ? int(end - i) : 4;  // not a guard: more than four would be taken one by one
    const Numbers<4> v = evaluate<Vectors, false>(program, i, count, column);
    float sum = v.v[0];
#pragma unroll
    for (int k = 1; k < 4; ++k)
      if (k < count) sum += v.v[k];
    total += sum;
  }
  total = block_sum<128>(total, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

inline cudaError_t expression_forward(cudaStream_t stream, const ExpressionProgram& expression, std::int64_t size, float* y) {
  if (size <= 0) return cudaSuccess;
  const Program program(expression);
  const int threads = expression_threads(program.depth);
  const dim3 grid(unsigned(ceil_div(size, 4 * threads))), block{unsigned(threads)};
  const std::size_t shared = sizeof(float4) * std::size_t(program.depth * threads);
  return program.aligned && aligned16(y)
             ? launch<&expression_forward_kernel<true>>(grid, block, shared, stream, program, size, y)
             : launch<&expression_forward_kernel<false>>(grid, block, shared, stream, program, size, y);
}

/// gradients: one for each of the program's leaves.
inline cudaError_t expression_backward(cudaStream_t stream, const ExpressionProgram& expression, std::int64_t size,
                                       const UpstreamGradient& upstream, const GradientTarget<>* gradients) {
  if (size <= 0) return cudaSuccess;
  const Program program(expression);
  LeafGradients targets{};
  bool aligned = program.aligned && (upstream.uniform || aligned16(upstream.values));
  for (int leaf = 0; leaf < program.leaves; ++leaf) {
    targets.data[leaf] = gradients[leaf].data;
    targets.accumulate |= gradients[leaf].accumulate ? 1u << leaf : 0u;
    aligned = aligned && aligned16(gradients[leaf].data);
  }
  const int slots = program.length + program.depth, threads = expression_threads(slots);
  const dim3 grid(unsigned(ceil_div(size, 4 * threads))), block{unsigned(threads)};
  const std::size_t shared = sizeof(float4) * std::size_t(slots * threads);
  return aligned ? launch<&expression_backward_kernel<true>>(grid, block, shared, stream, program, size, upstream, targets)
                 : launch<&expression_backward_kernel<false>>(grid, block, shared, stream, program, size, upstream, targets);
}

/// *result = factor * sum. workspace: SumPlan(size).workspace() floats.
inline cudaError_t expression_sum(cudaStream_t stream, const ExpressionProgram& expression, std::int64_t size, float factor,
                                  float* workspace, float* result) {
  const Program program(expression);
  const SumPlan plan(size);
  if (plan.blocks > 0) {
    const dim3 grid{unsigned(plan.blocks)}, block(128);
    const std::size_t shared = sizeof(float4) * std::size_t(program.depth * 128);
    const cudaError_t status =
        program.aligned
            ? launch<&expression_sum_kernel<true>>(grid, block, shared, stream, program, size, plan.chunk, workspace)
            : launch<&expression_sum_kernel<false>>(grid, block, shared, stream, program, size, plan.chunk, workspace);
    if (status != cudaSuccess) return status;
  }
  return launch<&sum_partials<WriteTotal>>(dim3(1), dim3(sum_block), 0, stream, int(plan.blocks), workspace,
                                           WriteTotal{factor, result});
}

}  // namespace strata::inline STRATA_ABI::cuda
