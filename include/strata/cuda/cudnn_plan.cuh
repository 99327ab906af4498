// How cuDNN is to run a graph: its engines as it ranks them, those that the precision and the caller's wishes rule out,
// and the first that it makes a plan of.
//
//     st::cuda::CudnnDevice device(cudnn, json);                                     // or a handle's own device
//     auto plans = st::cuda::make_plans(graph, device, {.precision = st::cuda::Precision::fp32}, 1);
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/cuda/cudnn_graph.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// The device that plans are made for: that of the graph's handle, or one described by its properties, which need not
/// be there: such plans cannot run here.
class CudnnDevice {
 public:
  CudnnDevice() = default;
  /// `properties`: the JSON text that cuDNN reads; its fields are those of cudaDeviceProp, as tests/cudnn_plans writes
  /// them.
  CudnnDevice(const CudnnLibrary& library, std::string_view properties)
      : described_(std::in_place, library, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
    described_->set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, std::span<const char>(properties));
    described_->finalize("a described device");
  }
  const Descriptor* described() const { return described_ ? &*described_ : nullptr; }

 private:
  std::optional<Descriptor> described_;
};

struct CudnnPlanOptions {
  Precision precision = Precision::fp32;
  bool deterministic = false;  ///< only engines that give the same bits each time
  std::size_t max_workspace_bytes = std::size_t{1} << 30;
};

/// A way to run a graph, which must outlive it.
class CudnnPlan {
 public:
  CudnnPlan(Descriptor configuration, Descriptor plan, std::int64_t engine)
      : configuration_(std::move(configuration)),
        plan_(std::move(plan)),
        workspace_bytes_(std::size_t(plan_.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE))),
        engine_(engine) {}

  std::size_t workspace_bytes() const { return workspace_bytes_; }
  /// The number cuDNN gives the engine.
  std::int64_t engine() const { return engine_; }

  struct Address {
    Role role;
    const void* data;
  };
  /// Runs on the handle's stream. Every tensor of the graph needs its address.
  void run(const CudnnLibrary& library, cudnnHandle_t handle, std::span<const Address> addresses,
           void* workspace) const {
    std::vector<std::int64_t> names;
    std::vector<void*> data;
    for (const Address& address : addresses) {
      names.push_back(std::int64_t(address.role));
      data.push_back(const_cast<void*>(address.data));
    }
    Descriptor pack(library, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, std::span<const std::int64_t>(names))
        .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, std::span<void* const>(data))
        .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, workspace);
    pack.finalize("the addresses of a plan");
    library.check(library.execute(handle, plan_.raw(), pack.raw()), "running a plan");
  }

 private:
  Descriptor configuration_;  // cuDNN does not say that a plan can do without
  Descriptor plan_;
  std::size_t workspace_bytes_;
  std::int64_t engine_;
};

namespace detail {

/// The configurations that one of cuDNN's heuristics proposes, best first.
inline std::vector<Descriptor> engine_configurations(const CudnnGraph& graph, const CudnnDevice& device,
                                                     cudnnBackendHeurMode_t mode) {
  Descriptor heuristics(graph.library(), CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.graph()).set(CUDNN_ATTR_ENGINEHEUR_MODE, mode);
  if (device.described() != nullptr) heuristics.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device.described());
  heuristics.finalize(concat(graph.name(), ": the choice of engines"));
  const auto count = heuristics.count(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR);
  std::vector<Descriptor> found;
  for (std::int64_t i = 0; i < count; ++i) found.push_back(graph.make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
  if (count > 0) heuristics.get_into(CUDNN_ATTR_ENGINEHEUR_RESULTS, found);
  return found;
}

/// Whether an engine with these notes computes what was asked for. Inputs are never rounded further than `precision`
/// says.
inline bool suits(const std::vector<cudnnBackendNumericalNote_t>& notes, const CudnnPlanOptions& options) {
  const auto has = [&](cudnnBackendNumericalNote_t note) {
    return std::find(notes.begin(), notes.end(), note) != notes.end();
  };
  if (has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS) || has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION))
    return false;
  if (options.precision == Precision::fp32 && has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE)) return false;
  return !(options.deterministic && has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC));
}

}  // namespace detail

/// Up to `wanted` plans for the graph, best first as cuDNN ranks them. Throws CudnnError, with what cuDNN said last,
/// when it can make none.
inline std::vector<CudnnPlan> make_plans(const CudnnGraph& graph, const CudnnDevice& device,
                                         const CudnnPlanOptions& options, std::size_t wanted) {
  std::vector<CudnnPlan> plans;
  int proposed = 0, unsuitable = 0, too_large = 0;
  std::string refusal;
  cudnnStatus_t status = CUDNN_STATUS_NOT_SUPPORTED;
  for (const cudnnBackendHeurMode_t mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    std::vector<Descriptor> configurations;
    try {
      configurations = detail::engine_configurations(graph, device, mode);
    } catch (const CudnnError& error) {
      refusal = error.what();
      status = error.status();
    }
    for (Descriptor& configuration : configurations) {
      if (plans.size() == wanted) return plans;
      ++proposed;
      std::vector<Descriptor> engine;
      engine.push_back(graph.make(CUDNN_BACKEND_ENGINE_DESCRIPTOR));
      configuration.get_into(CUDNN_ATTR_ENGINECFG_ENGINE, engine);
      const auto number = engine.at(0).get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
      if (!detail::suits(engine[0].get_all<cudnnBackendNumericalNote_t>(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE), options)) {
        ++unsuitable;
        continue;
      }
      Descriptor plan = graph.make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      try {
        plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
        if (device.described() != nullptr)
          plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *device.described());
        else
          plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, graph.handle());
        plan.finalize(concat(graph.name(), ": a plan with engine ", number));
      } catch (const CudnnError& error) {
        refusal = error.what();
        status = error.status();
        continue;
      }
      CudnnPlan ready(std::move(configuration), std::move(plan), number);
      if (ready.workspace_bytes() > options.max_workspace_bytes)
        ++too_large;
      else
        plans.push_back(std::move(ready));
    }
    if (!plans.empty()) return plans;
  }
  if (refusal.empty()) {
    char reason[512] = {};
    graph.library().get_last_error_string(reason, sizeof reason);
    refusal = reason;
  }
  throw CudnnError(concat("cuDNN has no plan for this: ", graph.name(), ": ", proposed, " engines proposed, ",
                          unsuitable, " of another precision", options.deterministic ? " or not deterministic, " : ", ",
                          too_large, " that want more than ", options.max_workspace_bytes >> 20, " MiB of workspace",
                          refusal.empty() ? "" : "; its last words: ", refusal),
                   status);
}

}}}  // namespace strata::STRATA_ABI::cuda
