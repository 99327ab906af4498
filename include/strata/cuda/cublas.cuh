// Linear layers, and 1x1 convolutions, by cuBLASLt: products of row-major matrices.
//
//     st::cuda::Cublas blas(stream);                                     // DeviceError where it is missing
//     blas.linear_forward({.rows = 128, .in = 64, .out = 10}, x, weight, bias, y);  // x * transposed(weight) + bias
//
// x is rows x in, weight out x in, y rows x out, all row-major. A 1x1 convolution of stride 1 without padding is the
// same with a row for each pixel. cuBLAS reads memory column by column: a row-major matrix is to it the transposed one,
// so every product below is written for the transposed result. Addresses are of device memory: fp32 for the precisions
// fp32 and tf32, 16 bit for fp16 and bf16; sums are fp32.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/cuda/shared_library.cuh"
#include "strata/cuda/workspace.cuh"
#include "strata/math/activation.hpp"
#include "strata/math/precision.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// The functions have the names of cuBLASLt's without the prefix.
class CublasLibrary {
 public:
  static std::string default_name() { return concat("libcublasLt.so.", CUBLAS_VER_MAJOR); }

  /// Throws DeviceError when the library is missing.
  explicit CublasLibrary(const std::string& name = default_name()) : library_(name) {}
  CublasLibrary(const CublasLibrary&) = delete;
  CublasLibrary& operator=(const CublasLibrary&) = delete;

  void check(cublasStatus_t status, const char* what) const {
    if (status != CUBLAS_STATUS_SUCCESS) throw LibraryError(concat("cuBLASLt: ", what, ": ", status_string(status)));
  }

 private:
  SharedLibrary library_;

 public:
#define STRATA_CUBLAS_FUNCTION(name, symbol) \
  decltype(&symbol) name = library_.function<std::remove_pointer_t<decltype(&symbol)>>(#symbol)
  STRATA_CUBLAS_FUNCTION(create, cublasLtCreate);
  STRATA_CUBLAS_FUNCTION(destroy, cublasLtDestroy);
  STRATA_CUBLAS_FUNCTION(status_string, cublasLtGetStatusString);
  STRATA_CUBLAS_FUNCTION(create_operation, cublasLtMatmulDescCreate);
  STRATA_CUBLAS_FUNCTION(destroy_operation, cublasLtMatmulDescDestroy);
  STRATA_CUBLAS_FUNCTION(set_operation, cublasLtMatmulDescSetAttribute);
  STRATA_CUBLAS_FUNCTION(create_layout, cublasLtMatrixLayoutCreate);
  STRATA_CUBLAS_FUNCTION(destroy_layout, cublasLtMatrixLayoutDestroy);
  STRATA_CUBLAS_FUNCTION(create_preference, cublasLtMatmulPreferenceCreate);
  STRATA_CUBLAS_FUNCTION(destroy_preference, cublasLtMatmulPreferenceDestroy);
  STRATA_CUBLAS_FUNCTION(set_preference, cublasLtMatmulPreferenceSetAttribute);
  STRATA_CUBLAS_FUNCTION(find_algorithms, cublasLtMatmulAlgoGetHeuristic);
  STRATA_CUBLAS_FUNCTION(multiply, cublasLtMatmul);
#undef STRATA_CUBLAS_FUNCTION
};

/// The extents of a linear layer, and what it computes in.
struct LinearProblem {
  std::int64_t rows = 1;
  int in = 1, out = 1;
  Precision precision = Precision::fp32;

  bool operator==(const LinearProblem&) const = default;
};

struct CublasOptions {
  std::size_t max_workspace_bytes = std::size_t{32} << 20;
  std::size_t max_plans = 512;
  std::string library = CublasLibrary::default_name();
};

class Cublas {
 public:
  /// Throws DeviceError when the library or a device is missing.
  explicit Cublas(cudaStream_t stream, CublasOptions options = {})
      : options_(std::move(options)), library_(options_.library), workspace_(stream) {
    library_.check(library_.create(&handle_), "starting cuBLASLt");
  }
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;
  ~Cublas() {
    cudaStreamSynchronize(workspace_.stream());
    plans_.clear();
    library_.destroy(handle_);
  }

  /// y = activation(x * transposed(weight) + bias); bias may be nullptr. With `accumulate` y += x * transposed(weight),
  /// and neither bias nor activation is allowed: ValueError.
  void linear_forward(const LinearProblem& p, const void* x, const void* weight, const void* bias, void* y,
                      Activation activation = Activation::none, bool accumulate = false) {
    if (accumulate && (bias != nullptr || activation != Activation::none))
      throw ValueError("linear_forward: a result that is added takes neither bias nor activation");
    const bool relu = activation == Activation::relu;
    const cublasLtEpilogue_t epilogue = bias != nullptr ? (relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS)
                                                        : (relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT);
    // transposed(y), out x rows = weight, out x in, times transposed(x), in x rows
    run({.m = p.out,
         .n = p.rows,
         .k = p.in,
         .transpose_a = true,
         .transpose_b = false,
         .precision = p.precision,
         .epilogue = epilogue},
        weight, x, bias, y, accumulate);
  }

  /// dx (+)= dy * weight.
  void linear_backward_input(const LinearProblem& p, const void* dy, const void* weight, void* dx, bool accumulate) {
    // transposed(dx), in x rows = transposed(weight), in x out, times transposed(dy), out x rows
    run({.m = p.in, .n = p.rows, .k = p.out, .transpose_a = false, .transpose_b = false, .precision = p.precision},
        weight, dy, nullptr, dx, accumulate);
  }

  /// dweight (+)= transposed(dy) * x.
  void linear_backward_weight(const LinearProblem& p, const void* x, const void* dy, void* dweight, bool accumulate) {
    // transposed(dweight), in x out = transposed(x), in x rows, times dy, rows x out
    run({.m = p.in, .n = p.out, .k = p.rows, .transpose_a = false, .transpose_b = true, .precision = p.precision}, x,
        dy, nullptr, dweight, accumulate);
  }

  /// Products with a plan.
  std::size_t plans() const { return plans_.size(); }

 private:
  /// A product as cuBLAS sees it: D = epilogue(op(A) * op(B) + beta * D), D is m x n, all column-major without gaps.
  struct Product {
    std::int64_t m, n, k;
    bool transpose_a, transpose_b;
    Precision precision;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    std::uint32_t alignment[3] = {};  // of A, B and D, in bytes

    bool operator==(const Product&) const = default;
  };

  /// Owns a descriptor of cuBLASLt.
  template <class Raw>
  class Owned {
   public:
    Owned(Raw raw, cublasStatus_t (*destroy)(Raw)) : raw_(raw), destroy_(destroy) {}
    Owned(Owned&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)), destroy_(other.destroy_) {}
    Owned& operator=(Owned other) noexcept {
      std::swap(raw_, other.raw_);
      std::swap(destroy_, other.destroy_);
      return *this;
    }
    ~Owned() {
      if (raw_ != nullptr) destroy_(raw_);
    }
    Raw get() const { return raw_; }

   private:
    Raw raw_;
    cublasStatus_t (*destroy_)(Raw);
  };

  struct Plan {
    Product product;
    Owned<cublasLtMatmulDesc_t> operation;
    Owned<cublasLtMatrixLayout_t> a, b, d;
    cublasLtMatmulAlgo_t algorithm;
    std::size_t workspace_bytes;
    std::uint64_t last_use;
  };

  static cudaDataType_t type_of(Precision precision) {
    return precision == Precision::fp16 ? CUDA_R_16F : precision == Precision::bf16 ? CUDA_R_16BF : CUDA_R_32F;
  }
  static std::uint32_t alignment_of(const void* address) {
    const std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(address) | 256;
    return std::uint32_t(bits & (~bits + 1));
  }

  Owned<cublasLtMatrixLayout_t> layout(Precision precision, std::int64_t rows, std::int64_t columns) const {
    cublasLtMatrixLayout_t raw = nullptr;
    library_.check(library_.create_layout(&raw, type_of(precision), std::uint64_t(rows), std::uint64_t(columns), rows),
                   "describing a matrix");
    return {raw, library_.destroy_layout};
  }
  template <class T>
  void set(const Owned<cublasLtMatmulDesc_t>& operation, cublasLtMatmulDescAttributes_t name, const T& value) const {
    library_.check(library_.set_operation(operation.get(), name, &value, sizeof value), "describing a product");
  }
  template <class T>
  void set(const Owned<cublasLtMatmulPreference_t>& preference, cublasLtMatmulPreferenceAttributes_t name,
           const T& value) const {
    library_.check(library_.set_preference(preference.get(), name, &value, sizeof value),
                   "saying what a product may use");
  }

  Plan& plan(const Product& p) {
    const auto found = std::find_if(plans_.begin(), plans_.end(), [&](const Plan& plan) { return plan.product == p; });
    if (found != plans_.end()) {
      found->last_use = ++uses_;
      return *found;
    }
    cublasLtMatmulDesc_t raw = nullptr;
    const cublasComputeType_t compute =
        p.precision == Precision::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    library_.check(library_.create_operation(&raw, compute, CUDA_R_32F), "describing a product");
    Owned<cublasLtMatmulDesc_t> operation(raw, library_.destroy_operation);
    set(operation, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(operation, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, p.epilogue);
    if (has_bias(p)) set(operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(p.precision));
    auto a = p.transpose_a ? layout(p.precision, p.k, p.m) : layout(p.precision, p.m, p.k);
    auto b = p.transpose_b ? layout(p.precision, p.n, p.k) : layout(p.precision, p.k, p.n);
    auto d = layout(p.precision, p.m, p.n);

    cublasLtMatmulPreference_t raw_preference = nullptr;
    library_.check(library_.create_preference(&raw_preference), "saying what a product may use");
    const Owned<cublasLtMatmulPreference_t> preference(raw_preference, library_.destroy_preference);
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{options_.max_workspace_bytes});
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p.alignment[0]);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p.alignment[1]);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p.alignment[2]);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p.alignment[2]);
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    const cublasStatus_t status = library_.find_algorithms(handle_, operation.get(), a.get(), b.get(), d.get(), d.get(),
                                                           preference.get(), 1, &result, &count);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0 || result.state != CUBLAS_STATUS_SUCCESS)
      throw LibraryError(
          concat("cuBLASLt has no algorithm for a product of ", p.m, " x ", p.k, " and ", p.k, " x ", p.n, ": ",
                 library_.status_string(status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_NOT_SUPPORTED)));
    if (plans_.size() >= options_.max_plans)
      plans_.erase(std::min_element(plans_.begin(), plans_.end(),
                                    [](const Plan& l, const Plan& r) { return l.last_use < r.last_use; }));
    plans_.push_back({p, std::move(operation), std::move(a), std::move(b), std::move(d), result.algo,
                      result.workspaceSize, ++uses_});
    return plans_.back();
  }

  static bool has_bias(const Product& p) {
    return p.epilogue == CUBLASLT_EPILOGUE_BIAS || p.epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
  }

  void run(Product product, const void* a, const void* b, const void* bias, void* d, bool accumulate) {
    if (product.m < 1 || product.n < 1 || product.k < 1)
      throw ShapeError(concat("linear: a product of ", product.m, " x ", product.k, " and ", product.k, " x ",
                              product.n, "; each extent must be at least 1"));
    product.alignment[0] = alignment_of(a), product.alignment[1] = alignment_of(b),
    product.alignment[2] = alignment_of(d);
    Plan& p = plan(product);
    if (has_bias(product)) set(p.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    const float alpha = 1, beta = accumulate ? 1 : 0;
    library_.check(library_.multiply(handle_, p.operation.get(), &alpha, a, p.a.get(), b, p.b.get(), &beta, d,
                                     p.d.get(), d, p.d.get(), &p.algorithm, workspace_.get(p.workspace_bytes),
                                     p.workspace_bytes, workspace_.stream()),
                   "a product");
  }

  CublasOptions options_;
  CublasLibrary library_;
  cublasLtHandle_t handle_ = nullptr;
  Workspace workspace_;
  std::vector<Plan> plans_;
  std::uint64_t uses_ = 0;
};

}}}  // namespace strata::STRATA_ABI::cuda
