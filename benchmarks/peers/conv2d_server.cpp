// Runs Strata's convolutions for conv2d.py, so that both sides are timed in turn. Reads lines of
//
//     fwd|dx|dw n h in out kernel stride padding dilation repetitions
//
// and answers each with the milliseconds of every repetition. Images are h x h; NT in the environment sets the threads.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

#include "strata/core/parallel.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/conv2d.hpp"
#include "strata/tensor/storage.hpp"

namespace st = strata;

namespace {

// From the pool, as the layers' images are: aligned to cache lines, in huge pages.
st::Scratch<float> random_numbers(std::int64_t count) {
  st::Rng rng(std::uint64_t(count), 0, 0);
  st::Scratch<float> numbers{std::size_t(count)};
  for (std::int64_t i = 0; i < count; ++i) numbers.data()[i] = rng.uniform(-0.5f, 0.5f);
  return numbers;
}

}  // namespace

int main() {
  if (const char* threads = std::getenv("NT")) st::set_num_threads(std::atoi(threads));
  std::string kind;
  st::Conv2dProblem p;
  int repetitions = 0;
  while (std::cin >> kind >> p.n >> p.h >> p.in >> p.out >> p.kernel >> p.stride >> p.padding >>
         p.dilation >> repetitions) {
    p.w = p.h;
    auto x = random_numbers(p.input_size()), y = random_numbers(p.output_size()),
         weight = random_numbers(p.weight_size());
    auto bias = random_numbers(p.out);
    for (int r = 0; r < repetitions; ++r) {
      const auto start = std::chrono::steady_clock::now();
      if (kind == "fwd")
        st::cpu::conv2d_forward(p, x.data(), weight.data(), bias.data(), y.data());
      else if (kind == "dx")
        st::cpu::conv2d_backward_input(p, y.data(), weight.data(), x.data(), false);
      else
        st::cpu::conv2d_backward_weight(p, x.data(), y.data(), weight.data(), bias.data(), false);
      std::cout << std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() << ' ';
    }
    std::cout << std::endl;
  }
}
