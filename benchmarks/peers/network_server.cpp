// Runs Strata's side of the comparisons, so that all sides are timed in turn. Reads lines of
//
//     train|infer NETWORK N H W REPETITIONS VARIANT       (variant: not used here)
//     threads COUNT | peak | copy | latency
//
// and answers each with one line: the milliseconds of every repetition, or one number. What the last line asked for is
// kept, so that the same work again needs no new start. A line that cannot be served ends the program with an error.
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include "../machine.hpp"
#include "../networks.hpp"

namespace {

struct Request {
  std::string work, network;
  std::int64_t n = 0, h = 0, w = 0;
  bool operator==(const Request&) const = default;
};

std::function<void()> make(const Request& request) {
  std::function<void()> made;
  bench::for_each_network([&]<class Train, class Infer>(const char* name) {
    if (request.network != name) return;
    if (request.work == "train")
      made = [step = std::make_shared<bench::TrainingStep<Train>>(request.n, request.h, request.w)] { (*step)(); };
    else
      made = [run = std::make_shared<bench::Inference<Infer>>(request.n, request.h, request.w)] { (*run)(); };
  });
  if (!made) throw std::runtime_error("there is no network " + request.network);
  return made;
}

}  // namespace

int main() {
  try {
    Request current;
    std::function<void()> work;
    std::string line;
    while (std::getline(std::cin, line)) {
      std::istringstream words(line);
      Request asked;
      words >> asked.work;
      if (asked.work == "peak") {
        std::cout << bench::peak_gflops();
      } else if (asked.work == "copy") {
        std::cout << bench::copy_gigabytes();
      } else if (asked.work == "latency") {
        std::cout << bench::core_to_core_nanoseconds();
      } else if (asked.work == "threads") {
        int threads = 0;
        words >> threads;
        strata::set_num_threads(threads);
        std::cout << threads;
      } else if (asked.work == "train" || asked.work == "infer") {
        int repetitions = 0;
        if (!(words >> asked.network >> asked.n >> asked.h >> asked.w >> repetitions))
          throw std::runtime_error("cannot read the line: " + line);
        if (asked != current) {
          work = nullptr;
          work = make(asked);
          current = asked;
        }
        for (int i = 0; i < repetitions; ++i) {
          const auto start = std::chrono::steady_clock::now();
          work();
          std::cout << 1e3 * bench::seconds_since(start) << ' ';
        }
      } else {
        throw std::runtime_error("cannot read the line: " + line);
      }
      std::cout << std::endl;
    }
  } catch (const std::exception& error) {
    std::cerr << "network_server: " << error.what() << '\n';
    return 1;
  }
}
