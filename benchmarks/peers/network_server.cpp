// Strata's side of the comparisons with plain networks: see serve.hpp.
#include "../networks.hpp"
#include "serve.hpp"

int main() {
  return bench::serve("network_server", [](const bench::Request& request) {
    std::function<void()> work;
    bench::for_each_network([&]<class Train, class Infer>(const char* name) {
      if (request.network == name) work = bench::work_of<bench::TrainingStep<Train>, bench::Inference<Infer>>(request);
    });
    return work;
  });
}
