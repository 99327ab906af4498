// The choice between Strata's own kernels and the vendor's libraries, for each convolution of a device.
//
//     st::cuda::WithLibraries<st::cuda::Backend> gpu(0);
//     gpu.set_engine({.engine = st::Engine::benchmark});
//
// The libraries are looked for when set_engine first asks for them. In benchmark mode both ways are run the first time
// a problem is seen, on memory of their own, and the faster one serves that problem from then on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "strata/cuda/cublas.cuh"
#include "strata/cuda/cudnn.cuh"
#include "strata/cuda/workspace.cuh"
#include "strata/kernels/accelerator.hpp"
#include "strata/math/engine_options.hpp"

namespace strata::inline STRATA_ABI::cuda {

/// An accelerator `Native` that can hand its convolutions to cuDNN and cuBLASLt. Native has a member stream().
template <class Native>
class WithLibraries : public Native {
 public:
  using Native::Native;

  /// Throws DeviceError when the engine needs a library that is missing; the engine is then as before.
  void set_engine(const EngineOptions& options) override {
    set_engine(options, CudnnLibrary::default_name(), CublasLibrary::default_name());
  }
  /// The same with libraries of other names.
  void set_engine(const EngineOptions& options, const std::string& cudnn_name, const std::string& cublas_name) {
    std::optional<Libraries> wanted;
    if (options.engine != Engine::native)
      wanted.emplace(
          std::make_unique<Cudnn>(this->stream(),
                                  CudnnOptions{.deterministic = options.deterministic,
                                               .max_workspace_bytes = options.max_workspace_bytes,
                                               .plans_to_time = options.engine == Engine::benchmark ? 5 : 1,
                                               .library = cudnn_name}),
          std::make_unique<Cublas>(this->stream(), CublasOptions{.max_workspace_bytes = options.max_workspace_bytes,
                                                                 .library = cublas_name}));
    libraries_ = std::move(wanted);
    engine_ = options.engine;
    decisions_.clear();
  }

  void conv2d_forward(const Conv2dProblem& problem, const float* x, const float* weight, const float* bias, float* y,
                      Activation activation, bool accumulate, Precision precision) override {
    if (problem.general()) return Native::conv2d_forward(problem, x, weight, bias, y, activation, accumulate, precision);
    const CudnnConvolution key{.problem = problem,
                               .pass = ConvolutionPass::forward,
                               .precision = precision,
                               .bias = bias != nullptr,
                               .activation = activation,
                               .accumulate = accumulate};
    const auto native = [&](float* to) {
      Native::conv2d_forward(problem, x, weight, bias, to, activation, accumulate, precision);
    };
    const auto library = [&](float* to) {
      if (is_product(problem))
        libraries_->cublas->linear_forward(product(problem, precision), x, weight, bias, to, activation, accumulate);
      else if (bias != nullptr)
        libraries_->cudnn->run(key, {{Role::x, x}, {Role::weight, weight}, {Role::bias, bias}, {Role::y, to}});
      else
        libraries_->cudnn->run(key, {{Role::x, x}, {Role::weight, weight}, {Role::y, to}});
    };
    choose(key, y, problem.output_size(), native, library);
  }

  void conv2d_backward_input(const Conv2dProblem& problem, const float* dy, const float* weight, float* dx,
                             bool accumulate, Precision precision) override {
    if (problem.general()) return Native::conv2d_backward_input(problem, dy, weight, dx, accumulate, precision);
    const CudnnConvolution key{
        .problem = problem, .pass = ConvolutionPass::backward_input, .precision = precision, .accumulate = accumulate};
    const auto native = [&](float* to) {
      Native::conv2d_backward_input(problem, dy, weight, to, accumulate, precision);
    };
    const auto library = [&](float* to) {
      if (is_product(problem))
        libraries_->cublas->linear_backward_input(product(problem, precision), dy, weight, to, accumulate);
      else
        libraries_->cudnn->run(key, {{Role::dy, dy}, {Role::weight, weight}, {Role::dx, to}});
    };
    choose(key, dx, problem.input_size(), native, library);
  }

  /// The gradient for the bias is native always: a sum over pixels, which the libraries do not fuse.
  void conv2d_backward_weight(const Conv2dProblem& problem, const float* x, const float* dy, GradientTarget<> dweight,
                              GradientTarget<> dbias, Precision precision) override {
    if (!dweight || problem.general()) return Native::conv2d_backward_weight(problem, x, dy, dweight, dbias, precision);
    const CudnnConvolution key{.problem = problem,
                               .pass = ConvolutionPass::backward_weight,
                               .precision = precision,
                               .bias = false,
                               .accumulate = dweight.accumulate};
    const auto native = [&](float* to) {
      Native::conv2d_backward_weight(problem, x, dy, {to, dweight.accumulate}, {}, precision);
    };
    const auto library = [&](float* to) {
      if (is_product(problem))
        libraries_->cublas->linear_backward_weight(product(problem, precision), x, dy, to, dweight.accumulate);
      else
        libraries_->cudnn->run(key, {{Role::x, x}, {Role::dy, dy}, {Role::dweight, to}});
    };
    if (!uses_library(key, problem.weight_size(), native, library))
      return Native::conv2d_backward_weight(problem, x, dy, dweight, dbias, precision);
    library(dweight.data);
    if (dbias) Native::conv2d_backward_weight(problem, x, dy, {}, dbias, precision);
  }

 private:
  struct Libraries {
    std::unique_ptr<Cudnn> cudnn;
    std::unique_ptr<Cublas> cublas;
    Libraries(std::unique_ptr<Cudnn> dnn, std::unique_ptr<Cublas> blas)
        : cudnn(std::move(dnn)), cublas(std::move(blas)) {}
  };
  struct Decision {
    CudnnConvolution key;
    bool library;
  };

  static bool is_product(const Conv2dProblem& p) { return p.kernel == 1 && p.stride == 1 && p.padding == 0; }
  static LinearProblem product(const Conv2dProblem& p, Precision precision) {
    return {.rows = p.n * p.h * p.w, .in = p.in, .out = p.out, .precision = precision};
  }

  template <class OnNative, class OnLibrary>
  void choose(const CudnnConvolution& key, float* result, std::int64_t size, OnNative&& native, OnLibrary&& library) {
    if (uses_library(key, size, native, library))
      library(result);
    else
      native(result);
  }

  /// Whether the library computes this problem. native(to) and library(to) each do, into `size` numbers.
  template <class OnNative, class OnLibrary>
  bool uses_library(const CudnnConvolution& key, std::int64_t size, OnNative&& native, OnLibrary&& library) {
    if (engine_ == Engine::native || key.precision == Precision::fp16 || key.precision == Precision::bf16) return false;
    if (engine_ == Engine::library) return true;
    const auto known =
        std::find_if(decisions_.begin(), decisions_.end(), [&](const Decision& d) { return d.key == key; });
    if (known != decisions_.end()) return known->library;
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_runtime(cudaStreamIsCapturing(this->stream(), &status), "asking a stream whether it is recorded");
    if (status != cudaStreamCaptureStatusNone) return false;  // nothing can be timed now; the next time decides
    const DeviceScratch result(std::size_t(size) * sizeof(float), this->stream());
    float* to = static_cast<float*>(result.data());
    bool faster = false;
    try {
      const float library_time = least_milliseconds(this->stream(), [&] { library(to); });
      faster = library_time < least_milliseconds(this->stream(), [&] { native(to); });
    } catch (const LibraryError&) {
      // the library cannot do it
    }
    decisions_.push_back({key, faster});
    return faster;
  }

  Engine engine_ = Engine::native;
  std::optional<Libraries> libraries_;
  std::vector<Decision> decisions_;
};

}  // namespace strata::inline STRATA_ABI::cuda
