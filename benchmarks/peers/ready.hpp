// Ready networks (strata/networks/) as work to be timed: a step of training, and inference with what can be folded.
#pragma once

#include <cstdint>
#include <functional>

#include "../networks.hpp"
#include "serve.hpp"

namespace bench {

/// A network with its data and optimiser; it learns to give random numbers.
template <class Net>
class ReadyStep {
 public:
  ReadyStep(std::int64_t n, std::int64_t h, std::int64_t w) : input_(random_images<Net>(n, h, w, 1)) {
    st::Infer pass;
    target_ = st::as_var(net_(pass, input_)).value();
    st::Rng rng(2);
    for (float& number : target_.span()) number = rng.uniform();
  }
  void operator()() {
    st::Train pass({.seed = 1, .step = step_++});
    const auto loss = mse_(net_(pass, input_), target_);
    sgd_.zero_grad();
    pass.backward(loss);
    sgd_.step();
  }

 private:
  Net net_;
  st::SGD sgd_{net_, {.lr = 1e-4, .momentum = 0.9}};
  st::MSELoss mse_;
  st::Image<Net::io::in> input_;
  st::Image<Net::io::out> target_;
  std::int64_t step_ = 0;
};

template <class Net>
class ReadyInference {
 public:
  ReadyInference(std::int64_t n, std::int64_t h, std::int64_t w) : input_(random_images<Net>(n, h, w, 1)) {}
  void operator()() {
    st::Infer pass;
    last_ = st::as_var(net_(pass, input_)).value().data()[0];
  }

 private:
  const decltype(st::fold(Net())) net_ = st::fold(Net());
  st::Image<Net::io::in> input_;
  volatile float last_ = 0;
};

/// The work, where the request names this network.
template <class Net>
bool take(const Request& request, const char* name, std::function<void()>& work) {
  if (request.network != name) return false;
  work = work_of<ReadyStep<Net>, ReadyInference<Net>>(request);
  return true;
}

// One for each file, so that none takes long to compile.
std::function<void()> ready_classifiers(const Request& request);
std::function<void()> ready_restoration(const Request& request);
std::function<void()> ready_generators(const Request& request);

}  // namespace bench
