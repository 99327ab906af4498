// Strata's side of the comparisons with ready networks: see serve.hpp.
#include "ready.hpp"

int main() {
  return bench::serve("ready_server", [](const bench::Request& request) {
    for (const auto make : {bench::ready_classifiers, bench::ready_restoration, bench::ready_generators})
      if (auto work = make(request)) return work;
    return std::function<void()>();
  });
}
