// Ready networks (strata/networks/) as work to be timed: a step of training, and inference with what can be folded.
#pragma once

#include <cstdint>
#include <functional>

#include "../networks.hpp"
#include "serve.hpp"

namespace bench {

/// Learns nothing, so that random targets make no network diverge; it costs the same.
template <class Net>
struct ReadyStep : TrainingStep<Net> {
  ReadyStep(std::int64_t n, std::int64_t h, std::int64_t w) : TrainingStep<Net>(n, h, w, st::Precision::fp32, 0.0) {}
};

/// The work, where the request names this network.
template <class Net>
bool take(const Request& request, const char* name, std::function<void()>& work) {
  if (request.network != name) return false;
  work = work_of<ReadyStep<Net>, Inference<st::deploy_t<Net>>>(request);
  return true;
}

// One for each file, so that none takes long to compile.
std::function<void()> ready_classifiers(const Request& request);
std::function<void()> ready_restoration(const Request& request);
std::function<void()> ready_generators(const Request& request);

}  // namespace bench
