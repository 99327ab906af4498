// What a training program does where several ranks run it: mpirun -n 4 program ... --shards 8
#pragma once

#include <fcntl.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <string>

#include "strata/distributed/data_parallel.hpp"
#include "strata/strata.hpp"

namespace ranks {

namespace st = strata;

struct Options {
  int shards = 1;
  std::int64_t check_ranks = 0;
  double rank_timeout = 300;
};

inline void add_options(CLI::App& app, Options& options) {
  app.add_option("--shards", options.shards,
                 "pieces of a batch, which ranks share; the result depends on it, and not on the ranks")
      ->check(CLI::Range(1, st::most_shards));
  app.add_option("--check-ranks", options.check_ranks, "steps between comparisons of all ranks' weights, 0 for none")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--rank-timeout", options.rank_timeout, "seconds to wait for another rank")
      ->check(CLI::PositiveNumber);
}

/// How a training program loads its batches: whole ones, in a new order each epoch, and of each this rank's part.
/// `options` are the program's.
st::LoaderOptions loader_options(const auto& options, const st::World& world) {
  return {.batch_size = options.batch_size,
          .shuffle = true,
          .num_workers = options.num_workers,
          .drop_last = true,
          .seed = options.seed,
          .shards = options.ranks.shards,
          .world = world};
}

/// The device of this rank, where the user said `name`: of "cuda" each rank of a machine takes one.
inline std::string device_of(const st::World& world, const std::string& name) {
  return name == "cuda" && world.local_size() > 1 ? st::Device::cuda(world.local_rank()).str() : name;
}

/// run(world), where errors of any rank end all with one sentence. Rank 0 alone speaks on the standard output.
template <class Run>
int with(const char* program, const Options& options, int threads, Run&& run) {
  try {
    const st::World world = st::World::from_environment({.timeout = options.rank_timeout});
    if (threads > 0) st::set_num_threads(threads);
    if (!world.is_first())
      if (const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC); nowhere >= 0) {
        ::dup2(nowhere, STDOUT_FILENO);
        ::close(nowhere);
      }
    return world.run(program, [&] { return run(world); });
  } catch (const std::exception& error) {  // there is no world
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return 1;
  }
}

/// Why a run is to stop. Ranks may learn of it at different times, and must do the same: they agree after each step.
class Stop {
 public:
  explicit Stop(const st::World& world) : world_(world) {}
  /// Asks all ranks. Once one was interrupted that stays.
  void ask(bool is_interrupted, bool is_late) {
    const auto said = world_.any_of(std::uint8_t((is_interrupted ? 1 : 0) | (is_late ? 2 : 0)));
    interrupted_ = interrupted_ || (said & 1) != 0;
    late_ = (said & 2) != 0;
  }
  bool interrupted() const { return interrupted_; }
  bool late() const { return late_; }

 private:
  st::World world_;
  bool interrupted_ = false, late_ = false;
};

}  // namespace ranks
