// Samples per second of the data loader on noisy patches of 40 x 40 in batches, orientations and noise included.
//
//     bench_loader FOLDER files|memory WORKERS SAMPLES BATCH   # files: every image is decoded whenever it is asked for
//
// For each line on standard input one epoch is gone through and its samples per second are printed; the first batch,
// which waits for the workers to start, does not count. benchmarks/peers/loader.py runs it beside PyTorch's DataLoader.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>

#include "strata/data/data_loader.hpp"
#include "strata/data/image_folder.hpp"
#include "strata/data/noisy_patches.hpp"

namespace st = strata;

int main(int argc, char** argv) try {
  if (argc != 6) {
    std::cerr << "bench_loader FOLDER files|memory WORKERS SAMPLES BATCH\n";
    return 2;
  }
  const std::int64_t samples = std::atoll(argv[4]), batch = std::atoll(argv[5]);
  const st::NoisyPatches patches(st::ImageFolder<1>(argv[1], {.in_memory = std::string(argv[2]) == "memory"}),
                                 {.patch_size = 40, .size = samples, .sigma = 25});
  const st::DataLoader loader(
      patches, {.batch_size = batch, .shuffle = true, .num_workers = std::atoi(argv[3]), .drop_last = true});
  std::string line;
  for (std::int64_t epoch = 0; std::getline(std::cin, line); ++epoch) {
    std::int64_t batches = 0;
    std::chrono::steady_clock::time_point start;
    for ([[maybe_unused]] const auto& made : loader.epoch(epoch))
      if (++batches == 1) start = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::cout << double((batches - 1) * batch) / seconds << std::endl;
  }
} catch (const std::exception& error) {
  std::cerr << "bench_loader: " << error.what() << '\n';
  return 1;
}
