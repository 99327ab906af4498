// What Strata's sides of the comparisons share: the loop that answers requests, so that all sides are timed in turn. It
// reads lines of
//
//     train|infer NETWORK N H W REPETITIONS VARIANT       (variant: not used here)
//     threads COUNT | peak | copy | latency
//
// and answers each with one line: the milliseconds of every repetition, or one number. What the last line asked for is
// kept, so that the same work again needs no new start. A line that cannot be served ends the program with an error.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include "../machine.hpp"
#include "strata/core/parallel.hpp"

namespace bench {

struct Request {
  std::string work, network;
  std::int64_t n = 0, h = 0, w = 0;
  bool operator==(const Request&) const = default;
};

/// The work of a request, with a network that is trained and one that runs afterwards.
template <class Training, class Inference>
std::function<void()> work_of(const Request& request) {
  if (request.work == "train")
    return [step = std::make_shared<Training>(request.n, request.h, request.w)] { (*step)(); };
  return [run = std::make_shared<Inference>(request.n, request.h, request.w)] { (*run)(); };
}

/// make(request) gives what is to be timed, or nothing where there is no such network. Returns the program's status.
inline int serve(const char* program, const std::function<std::function<void()>(const Request&)>& make) {
  try {
    Request current;
    std::function<void()> work;
    std::string line;
    while (std::getline(std::cin, line)) {
      std::istringstream words(line);
      Request asked;
      words >> asked.work;
      if (asked.work == "peak") {
        std::cout << strata::measure_peak().gflops;
      } else if (asked.work == "copy") {
        std::cout << strata::measure_peak().gbytes;
      } else if (asked.work == "latency") {
        std::cout << core_to_core_nanoseconds();
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
          if (!work) throw std::runtime_error("there is no network " + asked.network);
          current = asked;
        }
        for (int i = 0; i < repetitions; ++i) {
          const auto start = std::chrono::steady_clock::now();
          work();
          std::cout << 1e3 * seconds_since(start) << ' ';
        }
      } else {
        throw std::runtime_error("cannot read the line: " + line);
      }
      std::cout << std::endl;
    }
  } catch (const std::exception& error) {
    std::cerr << program << ": " << error.what() << '\n';
    return 1;
  }
  return 0;
}

}  // namespace bench
