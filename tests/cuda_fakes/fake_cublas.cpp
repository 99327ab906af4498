// A cuBLASLt that multiplies on host memory, in double, from the layouts it is given, and checks how it is called. The
// real header declares its functions.
#include <cublasLt.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "cuda_fakes/fake_cublas.hpp"
#include "cuda_fakes/fake_device.hpp"
#include "cuda_fakes/numbers.hpp"

namespace {

using fake_device::Type;

struct Operation {
  cublasComputeType_t compute;
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  cudaDataType_t bias_type = CUDA_R_32F;
};
struct Layout {
  cudaDataType_t type;
  std::int64_t rows, columns, stride;
};
struct Preference {
  std::uint64_t workspace = 0;
  std::uint32_t alignment[4] = {256, 256, 256, 256};
};
/// What the fake writes into the algorithm that it proposes, to know it again.
struct Algorithm {
  std::uint64_t magic;
  std::uint32_t alignment[4];
};
constexpr std::uint64_t magic = 0x537472617461;
constexpr std::size_t workspace_bytes = 2048;

std::set<void*> live, handles;
bool refuses = false;

cublasStatus_t wrong(const std::string& text) {
  fake_device::complain("cuBLASLt: " + text);
  return CUBLAS_STATUS_INVALID_VALUE;
}
template <class T, class Raw>
cublasStatus_t make(Raw* raw, T value) {
  auto* object = new T(value);
  live.insert(object);
  *raw = reinterpret_cast<Raw>(object);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t destroy(void* raw) {
  if (live.erase(raw) == 0) return wrong("destroying no living descriptor");
  delete static_cast<T*>(raw);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t set(T& to, const void* from, std::size_t bytes) {
  if (bytes != sizeof(T)) return wrong("an attribute of " + std::to_string(bytes) + " bytes");
  std::memcpy(&to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

Type type_of(cudaDataType_t type) {
  return type == CUDA_R_16F ? Type::fp16 : type == CUDA_R_16BF ? Type::bf16 : Type::fp32;
}
double read(const Layout& layout, const void* data, std::int64_t row, std::int64_t column) {
  const std::size_t size = fake_device::size_of(type_of(layout.type));
  return fake_device::read(type_of(layout.type),
                           static_cast<const char*>(data) + std::size_t(row + column * layout.stride) * size);
}
bool inside(const Layout& layout, const void* data) {
  const std::int64_t count = layout.stride * (layout.columns - 1) + layout.rows;
  return fake_device::holds(data, std::size_t(count) * fake_device::size_of(type_of(layout.type)));
}

/// Rows and columns of a factor after its transposition.
std::pair<std::int64_t, std::int64_t> extents(const Layout& layout, cublasOperation_t transpose) {
  return transpose == CUBLAS_OP_N ? std::pair(layout.rows, layout.columns) : std::pair(layout.columns, layout.rows);
}
bool fits(const Operation& o, const Layout& a, const Layout& b, const Layout& d) {
  const auto [m, k] = extents(a, o.transpose_a);
  const auto [k2, n] = extents(b, o.transpose_b);
  return k == k2 && m == d.rows && n == d.columns && a.stride >= a.rows && b.stride >= b.rows && d.stride >= d.rows;
}

}  // namespace

extern "C" {

std::size_t fake_cublas_live_descriptors() { return live.size() + handles.size(); }
void fake_cublas_refuse(bool on) { refuses = on; }

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "the functionality requested is not supported"
                                               : "an unsupported value";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new char);
  handles.insert(*handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  if (handles.erase(handle) == 0) return wrong("destroying no handle");
  if (!live.empty()) fake_device::complain("cuBLASLt: the handle goes before its descriptors");
  delete reinterpret_cast<char*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
  if (scale != CUDA_R_32F) return wrong("alpha and beta are not fp32");
  return make(desc, Operation{compute});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return destroy<Operation>(desc); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name,
                                              const void* value, std::size_t bytes) {
  auto& o = *reinterpret_cast<Operation*>(desc);
  switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(o.transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(o.transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(o.epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return set(o.bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return set(o.bias_type, value, bytes);
    default:
      return wrong("an operation's attribute " + std::to_string(name));
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t stride) {
  return make(layout, Layout{type, std::int64_t(rows), std::int64_t(columns), stride});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy<Layout>(layout); }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return make(preference, Preference{});
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy<Preference>(preference);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void* value,
                                                    std::size_t bytes) {
  auto& p = *reinterpret_cast<Preference*>(preference);
  switch (name) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set(p.alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set(p.alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set(p.alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set(p.alignment[3], value, bytes);
    default:
      return wrong("a preference " + std::to_string(name));
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  if (handles.count(handle) == 0) return wrong("a heuristic without a handle");
  for (void* object : {static_cast<void*>(desc), static_cast<void*>(a), static_cast<void*>(b), static_cast<void*>(c),
                       static_cast<void*>(d), static_cast<void*>(preference)})
    if (live.count(object) == 0) return wrong("a heuristic on what is not there");
  *count = 0;
  if (refuses || requested < 1) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!fits(*reinterpret_cast<Operation*>(desc), *reinterpret_cast<Layout*>(a), *reinterpret_cast<Layout*>(b),
            *reinterpret_cast<Layout*>(d)))
    return wrong("the matrices do not fit each other");
  const auto& p = *reinterpret_cast<Preference*>(preference);
  Algorithm algorithm{magic, {}};
  std::copy_n(p.alignment, 4, algorithm.alignment);
  static_assert(sizeof algorithm <= sizeof results[0].algo);
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  results[0].workspaceSize = std::min<std::size_t>(workspace_bytes, p.workspace);
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha, const void* a_data,
                              cublasLtMatrixLayout_t a_layout, const void* b_data, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c_data, cublasLtMatrixLayout_t c_layout, void* d_data,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              std::size_t bytes, cudaStream_t stream) {
  if (handles.count(handle) == 0 || stream != fake_device::stream())
    return wrong("multiplying without a handle on a stream");
  const auto& o = *reinterpret_cast<Operation*>(desc);
  const auto &a = *reinterpret_cast<Layout*>(a_layout), &b = *reinterpret_cast<Layout*>(b_layout),
             &c = *reinterpret_cast<Layout*>(c_layout), &d = *reinterpret_cast<Layout*>(d_layout);
  if (!fits(o, a, b, d) || c.rows != d.rows || c.columns != d.columns)
    return wrong("the matrices do not fit each other");
  if (!inside(a, a_data) || !inside(b, b_data) || !inside(c, c_data) || !inside(d, d_data))
    return wrong("a matrix does not lie inside an allocation");
  Algorithm algorithm;
  std::memcpy(&algorithm, algo, sizeof algorithm);
  if (algorithm.magic != magic) return wrong("an algorithm that was not proposed");
  const void* data[] = {a_data, b_data, c_data, d_data};
  for (int i = 0; i < 4; ++i)
    if (reinterpret_cast<std::uintptr_t>(data[i]) % algorithm.alignment[i] != 0)
      return wrong("a matrix is not aligned as was said");
  if (bytes > 0 && !fake_device::holds(workspace, bytes))
    return wrong("the workspace does not lie inside an allocation");
  if (bytes > 0) std::memset(workspace, 0xFF, bytes);
  const bool has_bias = (o.epilogue & CUBLASLT_EPILOGUE_BIAS) != 0, relu = (o.epilogue & CUBLASLT_EPILOGUE_RELU) != 0;
  const Type bias_type = type_of(o.bias_type), d_type = type_of(d.type);
  if (has_bias && !fake_device::holds(o.bias, std::size_t(d.rows) * fake_device::size_of(bias_type)))
    return wrong("the bias does not lie inside an allocation");
  float alpha_value, beta_value;
  std::memcpy(&alpha_value, alpha, 4);
  std::memcpy(&beta_value, beta, 4);
  const std::int64_t depth = extents(a, o.transpose_a).second;
  const bool tf32 = o.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const auto factor = [&](const Layout& layout, const void* from, bool transpose, std::int64_t row,
                          std::int64_t column) {
    const double value = transpose ? read(layout, from, column, row) : read(layout, from, row, column);
    return tf32 && layout.type == CUDA_R_32F ? fake_device::to_tf32(value) : value;
  };
  for (std::int64_t column = 0; column < d.columns; ++column)
    for (std::int64_t row = 0; row < d.rows; ++row) {
      double sum = 0;
      for (std::int64_t k = 0; k < depth; ++k)
        sum += factor(a, a_data, o.transpose_a != CUBLAS_OP_N, row, k) *
               factor(b, b_data, o.transpose_b != CUBLAS_OP_N, k, column);
      sum *= double(alpha_value);
      if (beta_value != 0) sum += double(beta_value) * read(c, c_data, row, column);
      if (has_bias)
        sum += fake_device::read(bias_type,
                                 static_cast<const char*>(o.bias) + std::size_t(row) * fake_device::size_of(bias_type));
      if (relu && !(sum > 0) && sum == sum) sum = 0;
      fake_device::write(
          d_type, static_cast<char*>(d_data) + std::size_t(row + column * d.stride) * fake_device::size_of(d_type),
          sum);
    }
  fake_device::spend(4);
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
