// The processes that train one network together, and which of them this one is.
//
//     const st::World world = st::World::from_environment();      // one rank, unless mpirun or srun says otherwise
//     const st::DataLoader loader(data, {.batch_size = 128, .shards = 8, .world = world});
//     st::DataParallel parallel(net, world);                       // distributed/data_parallel.hpp
//     ...
//     if (world.is_first()) st::save_weights("net.safetensors", net);
//
// A program that links strata::mpi has more than one rank where it was started so; another one says what is missing.
// With one rank nothing is sent, started or waited for. A World is a handle: copies are of the same processes.
#pragma once

#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/parallel.hpp"
#include "strata/distributed/collectives.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Of a batch: how many random streams a step has room for (TrainOptions::shard).
inline constexpr int most_shards = 1024;

struct WorldOptions {
  /// Seconds to wait for another rank before it counts as lost: longer than anything that one rank does alone, such as
  /// writing a checkpoint.
  double timeout = 300;
  /// Divides the processors that a machine gives to the run among its ranks there: set_num_threads(), with several
  /// ranks only.
  bool divide_processors = true;
};

namespace detail {

/// What the environment says of this process.
struct Launch {
  std::string by;  ///< "mpirun", "srun", "torchrun"; empty where nobody started more than one
  int rank = 0, size = 1;
};

inline int environment_number(const char* name, int missing) {
  const char* text = std::getenv(name);
  if (text == nullptr) return missing;
  const std::string_view digits(text);
  int value = missing;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return failure == std::errc{} && end == digits.data() + digits.size() ? value : missing;
}

/// Open MPI, MPICH and others with its process manager, Slurm's srun, torchrun, in this order: an mpirun inside of a
/// job of Slurm is what counts.
inline Launch launch_from_environment() {
  struct Names {
    const char *by, *rank, *size;
  };
  constexpr Names known[] = {{"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                             {"mpirun", "PMI_RANK", "PMI_SIZE"},
                             {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"},  // sbatch's own script is no step
                             {"torchrun", "RANK", "WORLD_SIZE"}};
  for (const Names& names : known) {
    const Launch launch{names.by, environment_number(names.rank, -1), environment_number(names.size, -1)};
    if (launch.size > 1 && launch.rank >= 0 && launch.rank < launch.size) return launch;
    if (launch.size == 1) return {};
  }
  return {};
}

/// What an engine knows of this process when it has started.
struct Started {
  std::shared_ptr<Communicator> communicator;
  int local_rank = 0, local_size = 1;
  std::vector<std::string> hosts;  ///< of all ranks
  int threads = 0;                 ///< this rank's part of its machine's processors
};

/// The engine that is linked in: a text that says which it is, and what starts it.
struct WorldProvider {
  const char* name = nullptr;
  Started (*start)(const Launch&, const WorldOptions&) = nullptr;
};
inline std::atomic<const WorldProvider*> world_provider{nullptr};

}  // namespace detail

class World {
 public:
  /// This process alone.
  World() = default;

  /// Throws Error, with what to do, where more processes were started than this program can speak with.
  static World from_environment(const WorldOptions& options = {}) {
    const detail::Launch launch = detail::launch_from_environment();
    if (launch.size == 1) return {};
    const detail::WorldProvider* provider = detail::world_provider.load(std::memory_order_acquire);
    if (provider == nullptr)
      throw Error(concat("World: ", launch.by, " started ", launch.size,
                         " processes, and this program was built without MPI: link "
                         "strata::mpi, or start it alone"));
    if (launch.by == "torchrun")
      throw Error(concat("World: torchrun started ", launch.size,
                         " processes, and on CPUs they speak over MPI: start them with "
                         "mpirun -n ",
                         launch.size, ", or srun"));
    World world;
    world.started_ = std::make_shared<detail::Started>(provider->start(launch, options));
    if (options.divide_processors) set_num_threads(world.started_->threads);
    return world;
  }

  /// The processes of an engine of your own.
  static World of(std::shared_ptr<Communicator> communicator, const std::string& host = "localhost") {
    World world;
    if (communicator->size() == 1) return world;
    const int rank = communicator->rank(), size = communicator->size();
    std::vector<std::string> hosts(std::size_t(size), host);
    world.started_ =
        std::make_shared<detail::Started>(detail::Started{std::move(communicator), rank, size, std::move(hosts), 0});
    return world;
  }

  int rank() const { return started_ ? started_->communicator->rank() : 0; }
  int size() const { return started_ ? started_->communicator->size() : 1; }
  /// Among the ranks of this machine.
  int local_rank() const { return started_ ? started_->local_rank : 0; }
  int local_size() const { return started_ ? started_->local_size : 1; }
  /// The name of a rank's machine; empty with one rank.
  std::string host(int rank) const { return started_ ? started_->hosts[std::size_t(rank)] : std::string(); }
  std::string host() const { return host(rank()); }
  /// Whether this is rank 0: the one that writes files, and speaks to the user.
  bool is_first() const { return rank() == 0; }
  /// "rank 2 of 4 on node7"
  std::string name(int rank) const { return concat("rank ", rank, " of ", size(), " on ", host(rank)); }

  /// How ranks speak; none with one rank.
  Communicator* communicator() const { return started_ ? started_->communicator.get() : nullptr; }

  /// Throws ValueError, with what to do, where the ranks do not divide a number of shards.
  void check_shards(int shards) const {
    if (shards < 1 || shards > most_shards)
      throw ValueError(concat("World: got ", shards, " shards, wanted 1 to ", most_shards));
    if (shards % size() != 0)
      throw ValueError(
          concat(size(), " ranks cannot share ", shards, shards == 1 ? " shard" : " shards",
                 ": give .shards (--shards) as a multiple of the ranks, or start as many ranks as divide them"));
  }

  // ---- together: all ranks call these, in the same order

  /// Whether any rank says yes, on all. Ranks must agree before they do different things, as when a run is stopped.
  bool any(bool yes) const { return any_of(yes ? 1 : 0) != 0; }
  /// The same for eight questions at once.
  std::uint8_t any_of(std::uint8_t bits) const { return started_ ? detail::any_of(*communicator(), bits) : bits; }
  /// Waits until all ranks are here.
  void barrier() const { any(false); }
  /// The numbers of all ranks, in the order of ranks, on all.
  template <class T>
  std::vector<T> gather(const std::vector<T>& own) const {
    return started_ ? detail::gather(*communicator(), own) : own;
  }
  /// f(i) for every i < count, each on one rank only, and all results on all, in the order of i: for validations. What
  /// is then summed is the same, to the bit, for any number of ranks. T holds plain numbers.
  template <class F>
  auto each(std::size_t count, F&& f) const {
    using T = decltype(f(std::size_t{}));
    std::vector<T> results;
    const auto ranks = std::size_t(size());
    for (auto i = std::size_t(rank()); i < count; i += ranks) results.push_back(f(i));
    if (ranks == 1) return results;
    results = gather(results);
    std::vector<T> ordered;
    std::vector<std::size_t> next(ranks, 0);  // rank r's results begin after those of the ranks before it
    for (std::size_t r = 1; r < ranks; ++r) next[r] = next[r - 1] + (count + ranks - r) / ranks;
    for (std::size_t i = 0; i < count; ++i) ordered.push_back(results[next[i % ranks]++]);
    return ordered;
  }

  /// Runs body(), which returns the program's exit status. An error on one rank reaches all, wherever they wait; it is
  /// said once, with the program's name, its rank and host, and the status is 1 on all.
  template <class Body>
  int run(const char* program, Body&& body) const {
    try {
      return body();
    } catch (const RankError& error) {
      if (!error.said) std::fprintf(stderr, "%s: %s\n", program, error.what());
      return 1;
    } catch (const std::exception& error) {
      if (!started_) {
        std::fprintf(stderr, "%s: %s\n", program, error.what());
        return 1;
      }
      const std::string text = concat(name(rank()), ": ", error.what());
      if (communicator()->fail(text)) std::fprintf(stderr, "%s: %s\n", program, text.c_str());
      return 1;
    }
  }

 private:
  std::shared_ptr<detail::Started> started_;
};

}}  // namespace strata::STRATA_ABI
