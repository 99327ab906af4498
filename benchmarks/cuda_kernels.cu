// Times of the CUDA kernels on the machine's device, by CUDA events: Strata's own, and for convolutions cuDNN's beside
// them.
//
//     cuda_kernels [--quick]      --quick: a small batch, a few runs: whether all of it works
//
// Medians of 30 runs after 5 that are not counted, of layers of DnCNN on 128 images of 40 x 40. Convolutions: TFLOP/s
// of the formula's operations (2 for a multiply-add, whatever the algorithm needs), and cuDNN's time over the native
// one: above 1 the native kernel is faster. cuDNN runs the fastest of the plans that it suggests, as with
// torch.backends.cudnn.benchmark. It has no column in fp16 and bf16, since numbers lie in memory as float32 here. All
// else: the bytes that have to be moved, every operand once, in a second, as a part of what a copy on this device
// moves; native unless cuDNN is named.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "strata/cuda.hpp"
#include "strata/cuda/provider.cuh"

namespace {

namespace st = strata;
using st::Activation, st::Conv2dProblem, st::Precision;

int warm_ups = 5, runs = 30;

/// The median of milliseconds that work() takes on the stream.
double time_of(cudaStream_t stream, const std::function<void()>& work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  st::cuda::check_runtime(cudaEventCreate(&begin), "making an event");
  st::cuda::check_runtime(cudaEventCreate(&end), "making an event");
  for (int i = 0; i < warm_ups; ++i) work();
  std::vector<float> times;
  for (int i = 0; i < runs; ++i) {
    st::cuda::check_runtime(cudaEventRecord(begin, stream), "starting the clock");
    work();
    st::cuda::check_runtime(cudaEventRecord(end, stream), "stopping the clock");
    st::cuda::check_runtime(cudaEventSynchronize(end), "waiting for timed work");
    st::cuda::check_runtime(cudaEventElapsedTime(&times.emplace_back(), begin, end), "reading the clock");
  }
  (void)cudaEventDestroy(begin), (void)cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return double(times[std::size_t(runs / 2)]);
}

#if defined(STRATA_CUDA_LIBRARIES)
/// cuDNN, or nothing and the reason.
std::unique_ptr<st::cuda::Cudnn> open_cudnn(cudaStream_t stream) {
  try {
    return std::make_unique<st::cuda::Cudnn>(stream,
                                             st::cuda::CudnnOptions{.deterministic = false, .plans_to_time = 8});
  } catch (const st::Error& error) {
    std::printf("no cuDNN, so its column is empty: %s\n", error.what());
    return nullptr;
  }
}
#endif

void measure() {
  st::cuda::DefaultBackend gpu(0);
  const bool quick = runs < 10;
  const std::int64_t images = quick ? 2 : 128, side = 40, pixels = images * side * side;
  constexpr int channels = 64;
  const std::int64_t size = pixels * channels;
  std::printf("on %s; %lld images of %lld x %lld, medians of %d runs\n\n", gpu.name().c_str(),
              static_cast<long long>(images), static_cast<long long>(side), static_cast<long long>(side), runs);

  std::vector<st::Storage> held;
  const auto array = [&](std::int64_t count) {
    held.push_back(gpu.pool().take(std::size_t(count) * sizeof(float)));
    float* const data = static_cast<float*>(held.back().data());
    gpu.add_normal({.seed = held.size()}, 0.1f, count, nullptr, data);
    return data;
  };
  float *const a = array(size), *const b = array(size), *const c = array(size), *const d = array(size);
  float *const weight = array(25 * channels * channels), *const dweight = array(25 * channels * channels),
               *const rows = array(16 * channels);
  const auto timed = [&](const std::function<void()>& work) { return time_of(gpu.stream(), work); };

#if defined(STRATA_CUDA_LIBRARIES)
  const auto cudnn = open_cudnn(gpu.stream());
  using st::cuda::ConvolutionPass, st::cuda::Role;
#endif
  std::printf("%-34s %10s %9s %10s %8s\n", "convolution", "native ms", "TFLOP/s", "cuDNN ms", "ratio");
  const auto convolution = [&](const char* name, int in, int out, int kernel, Precision precision, const char* suffix) {
    const Conv2dProblem p{
        .n = images, .h = side, .w = side, .in = in, .out = out, .kernel = kernel, .padding = kernel / 2};
    const double operations = 2 * double(p.multiply_adds());
    const auto line = [&](const char* pass, const std::function<void()>& native, const std::function<void()>& library) {
      const double own = timed(native);
      std::printf("%-34s %10.4f %9.2f", st::concat(name, " ", suffix, ", ", pass).c_str(), own,
                  operations / own * 1e-9);
      try {
        if (!library) throw st::Error("no library");
        const double other = timed(library);
        std::printf(" %10.4f %8.2f\n", other, other / own);
      } catch (const st::Error&) {
        std::printf(" %10s %8s\n", "-", "-");
      }
      std::fflush(stdout);
    };
    std::function<void()> forward, input, weights;
#if defined(STRATA_CUDA_LIBRARIES)
    if (cudnn != nullptr && (precision == Precision::fp32 || precision == Precision::tf32)) {
      forward = [&] {
        cudnn->run({.problem = p,
                    .pass = ConvolutionPass::forward,
                    .precision = precision,
                    .bias = true,
                    .activation = Activation::relu},
                   {{Role::x, a}, {Role::weight, weight}, {Role::bias, rows}, {Role::y, b}});
      };
      input = [&] {
        cudnn->run({.problem = p, .pass = ConvolutionPass::backward_input, .precision = precision},
                   {{Role::dy, b}, {Role::weight, weight}, {Role::dx, c}});
      };
      weights = [&] {
        cudnn->run({.problem = p, .pass = ConvolutionPass::backward_weight, .precision = precision},
                   {{Role::x, a}, {Role::dy, b}, {Role::dweight, dweight}});
      };
    }
#endif
    line("forward", [&] { gpu.conv2d_forward(p, a, weight, rows, b, Activation::relu, false, precision); }, forward);
    line("gradient of input", [&] { gpu.conv2d_backward_input(p, b, weight, c, false, precision); }, input);
    line("gradient of weight", [&] { gpu.conv2d_backward_weight(p, a, b, {dweight, false}, {}, precision); }, weights);
  };
  cudaDeviceProp properties{};
  st::cuda::check_runtime(cudaGetDeviceProperties(&properties, 0), "asking what the device is");
  convolution("64-64 3x3", channels, channels, 3, Precision::fp32, "fp32");
  if (properties.major >= 8) {
    convolution("64-64 3x3", channels, channels, 3, Precision::tf32, "tf32");
    convolution("64-64 3x3", channels, channels, 3, Precision::bf16, "bf16");
  }
  convolution("64-64 3x3", channels, channels, 3, Precision::fp16, "fp16");
  convolution("1-64 3x3", 1, channels, 3, Precision::fp32, "fp32");
  convolution("64-1 3x3", channels, 1, 3, Precision::fp32, "fp32");
  convolution("64-64 5x5", channels, channels, 5, Precision::fp32, "fp32");
  convolution("64-64 1x1", channels, channels, 1, Precision::fp32, "fp32");

  const double element = 4 * double(size);  // bytes of an array
  const double copy = 2 * element / timed([&] { gpu.copy(b, a, std::size_t(element)); });
  std::printf("\n%-34s %10s %9s %10s\n", "pass over memory", "native ms", "GB/s", "of a copy");
  const auto pass = [&](const char* name, double bytes, const std::function<void()>& work) {
    const double milliseconds = timed(work);
    std::printf("%-34s %10.4f %9.1f %9.0f%%\n", name, milliseconds, bytes / milliseconds * 1e-6,
                100 * bytes / milliseconds / copy);
  };
  const st::NormalisationRows norm{rows, rows + channels, rows + 2 * channels, rows + 3 * channels};
  float *const mean = rows + 4 * channels, *const variance = rows + 5 * channels, *const gamma = rows + 6 * channels,
               *const beta = rows + 7 * channels, *const one = rows + 8 * channels;
  pass("copy", 2 * element, [&] { gpu.copy(b, a, std::size_t(element)); });
  pass("relu forward", 2 * element, [&] { gpu.relu_forward(size, a, b); });
  pass("relu backward", 3 * element, [&] { gpu.relu_backward(size, a, b, c, false); });
  pass("batch norm statistics", element,
       [&] { gpu.batch_norm_statistics(pixels, channels, a, gamma, beta, 1e-5, 0.1, mean, variance, nullptr, norm); });
  pass("batch norm + relu", 2 * element, [&] { gpu.batch_norm_apply(pixels, channels, a, norm, b, Activation::relu); });
  pass("batch norm + relu backward", 5 * element, [&] {
    gpu.batch_norm_backward(pixels, channels, norm, Activation::relu, a, b, {gamma, false}, {beta, false}, {c, false});
  });
#if defined(STRATA_CUDA_LIBRARIES)
  // cuDNN's training has no ReLU in it, and its backward neither: it does less.
  st::cuda::CudnnBatchNorm whole{.n = images, .h = side, .w = side, .channels = channels};
  float epsilon = 1e-5f, momentum = 0.1f;
  float *const new_mean = rows + 9 * channels, *const new_variance = rows + 10 * channels;
  const auto library_pass = [&](const char* name, double bytes, const std::function<void()>& work) {
    if (cudnn == nullptr) return;
    try {
      pass(name, bytes, work);
    } catch (const st::Error& error) {
      std::printf("%-34s %s\n", name, error.what());
    }
  };
  library_pass("cuDNN: batch norm, training", 3 * element, [&] {
    cudnn->run(whole, {{Role::x, a}, {Role::weight, gamma}, {Role::bias, beta}, {Role::mean, norm.mean},
                       {Role::inverse_std, norm.inverse_std}, {Role::running_mean, mean}, {Role::running_var, variance},
                       {Role::new_running_mean, new_mean}, {Role::new_running_var, new_variance}, {Role::y, b},
                       {Role::epsilon, &epsilon}, {Role::momentum, &momentum}});
  });
  st::cuda::CudnnBatchNorm back = whole;
  back.pass = st::cuda::CudnnBatchNorm::Pass::backward;
  library_pass("cuDNN: batch norm backward", 5 * element, [&] {
    cudnn->run(back, {{Role::x, a},
                      {Role::dy, b},
                      {Role::weight, gamma},
                      {Role::mean, norm.mean},
                      {Role::inverse_std, norm.inverse_std},
                      {Role::dweight, new_mean},
                      {Role::dbias, new_variance},
                      {Role::dx, c}});
  });
#endif
  st::ExpressionProgram squared_difference;
  squared_difference.push_leaf(a), squared_difference.push_leaf(b);
  squared_difference.push(st::Operation::subtract), squared_difference.push(st::Operation::square);
  const st::GradientTarget gradients[] = {{c, false}, {}};
  pass("mse forward", 2 * element, [&] { gpu.expression_sum(squared_difference, size, 1 / double(size), one); });
  pass("mse backward", 3 * element,
       [&] { gpu.expression_backward(squared_difference, size, {.factor = 0.5f}, gradients); });
  const st::TensorUpdate tensor{.size = size, .value = a, .gradient = b, .state1 = c, .state2 = d, .step = 2};
  pass("sgd, momentum", 5 * element, [&] {
    gpu.sgd_update({&tensor, 1}, {.lr = 1e-6, .momentum = 0.9, .weight_decay = 1e-4});
  });
  pass("adam", 7 * element, [&] {
    gpu.adam_update({&tensor, 1}, {.lr = 1e-6, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8});
  });
  gpu.synchronize();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "--quick") == 0) warm_ups = 1, runs = 3;
  if (const std::string reason = st::cuda_missing(); !reason.empty()) {
    std::printf("SKIPPED, nothing was measured: %s\n", reason.c_str());
    return 77;
  }
  try {
    measure();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_kernels: %s\n", error.what());
    return 1;
  }
}
