// Convolution and batch normalisation by cuDNN. Plans are made once for each problem and kept.
//
//     st::cuda::Cudnn cudnn(stream);                                         // DeviceError where cuDNN is missing
//     cudnn.run({.problem = {.n = 128, .h = 40, .w = 40, .in = 64, .out = 64}, .precision = st::Precision::tf32},
//               {{Role::x, x}, {Role::weight, weight}, {Role::y, y}});
//
// Addresses are of device memory: fp32 for the precisions fp32 and tf32, 16 bit for fp16 and bf16, results included.
// Work is queued on the stream. One object serves one device, and one thread at a time.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "strata/cuda/cudnn_graph.cuh"
#include "strata/cuda/cudnn_plan.cuh"
#include "strata/cuda/workspace.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

struct CudnnOptions {
  bool deterministic = true;
  std::size_t max_workspace_bytes = std::size_t{1} << 30;
  /// So many of the plans that cuDNN ranks best are timed when a problem is first seen, and the fastest is kept. 1:
  /// none is.
  int plans_to_time = 1;
  /// Problems whose plans are kept; then the one that was not used for longest goes.
  std::size_t max_plans = 512;
  std::string library = CudnnLibrary::default_name();
};

class Cudnn {
 public:
  using Address = CudnnPlan::Address;

  /// Throws DeviceError when the library or a device is missing.
  explicit Cudnn(cudaStream_t stream, CudnnOptions options = {})
      : options_(std::move(options)), library_(options_.library), handle_(library_), workspace_(stream) {
    library_.check(library_.set_stream(handle_.get(), stream), "choosing a stream");
  }

  /// Waits for the plans that still run.
  ~Cudnn() { cudaStreamSynchronize(workspace_.stream()); }

  const CudnnLibrary& library() const { return library_; }

  /// Runs a convolution. The addresses: x, weight, y and with a bias bias; dy, weight, dx; or x, dy, dweight. What the
  /// key says of the alignment is replaced by what the addresses have. Throws CudnnError when cuDNN has no plan for it.
  void run(CudnnConvolution convolution, std::initializer_list<Address> addresses) {
    convolution.alignment = common_alignment(addresses);
    run_plan(convolutions_, convolution, convolution.precision, addresses);
  }
  /// The same for a batch normalisation. The addresses: x, weight, bias, mean, inverse_std, running_mean, running_var,
  /// new_running_mean, new_running_var, y on the device, and epsilon and momentum, floats on the host; x, weight, bias,
  /// y; or x, dy, weight, mean, inverse_std, dweight, dbias, dx. cuDNN has plans for training and backward from compute
  /// capability 8.0 on.
  void run(CudnnBatchNorm batch_norm, std::initializer_list<Address> addresses) {
    batch_norm.alignment = common_alignment(addresses);
    run_plan(batch_norms_, batch_norm, batch_norm.precision, addresses);
  }
  /// Whether cuDNN has a plan for this; makes it.
  bool can_run(const CudnnConvolution& convolution) {
    return has_plan(convolutions_, convolution, convolution.precision);
  }
  bool can_run(const CudnnBatchNorm& batch_norm) { return has_plan(batch_norms_, batch_norm, batch_norm.precision); }

  /// Problems with a plan.
  std::size_t plans() const { return convolutions_.size() + batch_norms_.size(); }

 private:
  class Handle {
   public:
    explicit Handle(const CudnnLibrary& library) : library_(library) {
      library.check(library.create(&handle_), "starting cuDNN");
    }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() { library_.destroy(handle_); }
    cudnnHandle_t get() const { return handle_; }

   private:
    const CudnnLibrary& library_;
    cudnnHandle_t handle_ = nullptr;
  };

  template <class Key>
  struct Entry {
    Key key;
    CudnnGraph graph;
    std::vector<CudnnPlan> plans;  // one, once the best is known; several while they wait to be timed
    std::uint64_t last_use = 0;
  };
  template <class Key>
  using Cache = std::vector<Entry<Key>>;

  static CudnnGraph graph_of(const CudnnLibrary& library, const CudnnConvolution& key, cudnnHandle_t handle) {
    return convolution_graph(library, key, handle);
  }
  static CudnnGraph graph_of(const CudnnLibrary& library, const CudnnBatchNorm& key, cudnnHandle_t handle) {
    return batch_norm_graph(library, key, handle);
  }

  /// The largest power of two up to 16 that divides every address on the device.
  static int common_alignment(std::span<const Address> addresses) {
    std::uintptr_t bits = 16;
    for (const Address& address : addresses)
      if (address.role != Role::epsilon && address.role != Role::momentum)
        bits |= reinterpret_cast<std::uintptr_t>(address.data);
    return int(bits & (~bits + 1));
  }

  template <class Key>
  Entry<Key>& entry(Cache<Key>& cache, const Key& key, Precision precision) {
    const auto found = std::find_if(cache.begin(), cache.end(), [&](const Entry<Key>& e) { return e.key == key; });
    if (found != cache.end()) {
      found->last_use = ++uses_;
      return *found;
    }
    CudnnGraph graph = graph_of(library_, key, handle_.get());
    auto plans = make_plans(graph, CudnnDevice(), {precision, options_.deterministic, options_.max_workspace_bytes},
                            std::size_t(std::max(options_.plans_to_time, 1)));
    if (cache.size() >= options_.max_plans) {
      workspace_.synchronize();  // the plan that goes may still be running
      cache.erase(std::min_element(cache.begin(), cache.end(),
                                   [](const auto& a, const auto& b) { return a.last_use < b.last_use; }));
    }
    cache.push_back({key, std::move(graph), std::move(plans), ++uses_});
    return cache.back();
  }

  template <class Key>
  bool has_plan(Cache<Key>& cache, const Key& key, Precision precision) {
    try {
      entry(cache, key, precision);
      return true;
    } catch (const CudnnError&) {
      return false;
    }
  }

  template <class Key>
  void run_plan(Cache<Key>& cache, const Key& key, Precision precision, std::span<const Address> addresses) {
    Entry<Key>& e = entry(cache, key, precision);
    const auto run = [&](const CudnnPlan& plan) {
      plan.run(library_, handle_.get(), addresses, workspace_.get(plan.workspace_bytes()));
    };
    if (e.plans.size() > 1 && !workspace_.capturing()) keep_fastest(e, addresses);
    run(e.plans.front());
  }

  /// Times the plans on the results' own kind of memory, but not on the results: what is added there must be added
  /// once.
  template <class Key>
  void keep_fastest(Entry<Key>& e, std::span<const Address> addresses) {
    std::vector<Address> scratch(addresses.begin(), addresses.end());
    std::vector<DeviceScratch> results;
    for (Address& address : scratch)
      if (const std::size_t bytes = result_bytes(e.key, address.role); bytes > 0) {
        results.emplace_back(bytes, workspace_.stream());
        address.data = results.back().data();
      }
    std::size_t best = 0;
    float least = 0;
    for (std::size_t i = 0; i < e.plans.size(); ++i) {
      void* workspace = workspace_.get(e.plans[i].workspace_bytes());
      const float time =
          least_milliseconds(workspace_.stream(), [&] { e.plans[i].run(library_, handle_.get(), scratch, workspace); });
      if (i == 0 || time < least) best = i, least = time;
    }
    std::swap(e.plans.front(), e.plans[best]);
    e.plans.erase(e.plans.begin() + 1, e.plans.end());
  }

  /// Bytes of the tensors that a plan writes; 0 for those it reads.
  static std::size_t result_bytes(const CudnnConvolution& key, Role role) {
    const Conv2dProblem& p = key.problem;
    const std::int64_t count = role == Role::y         ? p.output_size()
                               : role == Role::dx      ? p.input_size()
                               : role == Role::dweight ? p.weight_size()
                                                       : 0;
    return std::size_t(count) * size_of(cudnn_type(key.precision));
  }
  static std::size_t result_bytes(const CudnnBatchNorm& key, Role role) {
    switch (role) {
      case Role::y:
      case Role::dx:
        return std::size_t(key.n * key.h * key.w * key.channels) * size_of(cudnn_type(key.precision));
      case Role::mean:
      case Role::inverse_std:
        return key.pass == CudnnBatchNorm::Pass::training ? std::size_t(key.channels) * sizeof(float) : 0;
      case Role::new_running_mean:
      case Role::new_running_var:
      case Role::dweight:
      case Role::dbias:
        return std::size_t(key.channels) * sizeof(float);
      default:
        return 0;
    }
  }
  static std::size_t size_of(cudnnDataType_t type) { return type == CUDNN_DATA_FLOAT ? 4 : 2; }

  CudnnOptions options_;
  CudnnLibrary library_;
  Handle handle_;
  Workspace workspace_;
  Cache<CudnnConvolution> convolutions_;  // before library_ goes, these do
  Cache<CudnnBatchNorm> batch_norms_;
  std::uint64_t uses_ = 0;
};

}}}  // namespace strata::STRATA_ABI::cuda
