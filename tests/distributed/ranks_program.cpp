// A small training program for ranks.py, which starts several of it:
//
//     ranks_program NET STEPS SHARDS FOLDER [resume] [timeout SECONDS] [pause MS] [fail|hang|leave RANK STEP]
//                   [late RANK MS] [bucket BYTES]
//
// NET is dncnn (batch norm, residual), dropout (batch norm, dropout) or sync (batch norm over all ranks). It goes on
// from FOLDER/latest.safetensors with resume, saves there after every step, and says at the end what a step has sent.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "strata/data/data_loader.hpp"
#include "strata/distributed/data_parallel.hpp"
#include "strata/io/checkpoint.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/sync_batch_norm.hpp"
#include "strata/optim/adam.hpp"
#include "strata/optim/lr_scheduler.hpp"

namespace st = strata;

namespace {

using DnCnn = st::Residual<
    st::Sequential<st::Conv2d<1, 16>, st::ReLU,
                   st::Repeat<2, st::Sequential<st::Conv2d<16, 16, 3, st::no_bias>, st::BatchNorm2d<16>, st::ReLU>>,
                   st::Conv2d<16, 1>>>;
using WithDropout = st::Sequential<st::Conv2d<1, 12>, st::BatchNorm2d<12>, st::ReLU, st::Dropout, st::Conv2d<12, 12>,
                                   st::BatchNorm2d<12>, st::ReLU, st::Dropout, st::Conv2d<12, 1>>;

using Synchronised = st::Residual<
    st::Sequential<st::Conv2d<1, 12>, st::ReLU,
                   st::Repeat<2, st::Sequential<st::Conv2d<12, 12, 3, st::no_bias>, st::SyncBatchNorm2d<12>, st::ReLU>>,
                   st::Dropout, st::Conv2d<12, 1>>>;

struct Noise {
  std::size_t size() const { return 210; }
  st::Sample<1> get(std::size_t, st::Rng& rng) const {
    st::Image<1> clean(1, 12, 12), noisy(1, 12, 12);
    const float level = rng.uniform(0, 1);
    for (float& x : clean.span()) x = level + 0.1f * rng.normal();
    for (std::int64_t i = 0; i < clean.size(); ++i) noisy.data()[i] = clean.data()[i] + 0.2f * rng.normal();
    return {noisy, clean};
  }
};

struct At {
  const char* what;
  int rank = -1;
  std::int64_t step = -1;
  bool here(const st::World& world, std::int64_t now) const { return rank == world.rank() && step == now; }
};

template <class Net>
int train(const st::World& world, std::int64_t steps, int shards, const std::filesystem::path& folder, bool resume,
          const std::vector<At>& faults, int pause, std::size_t bucket_bytes) {
  const std::filesystem::path latest = folder / "latest.safetensors";
  const Noise data;
  const st::DataLoader loader(data, {.batch_size = 16,
                                     .shuffle = true,
                                     .num_workers = 1,
                                     .drop_last = true,
                                     .seed = 3,
                                     .shards = shards,
                                     .world = world});
  Net net;
  st::initialize(net, 5 + std::uint64_t(world.rank()));
  st::DataParallel parallel(net, world, {.bucket_bytes = bucket_bytes});
  st::Adam adam(net, {.lr = 3e-3});
  st::CosineAnnealingLR scheduler(adam, {.t_max = 1000});
  const st::MSELoss mse;
  st::CheckpointInfo at;
  if (resume) {
    if (world.is_first()) at = st::load_checkpoint(latest, net, adam, scheduler);
    st::broadcast(world, at, net, adam, scheduler);
  }
  at.extra["shards"] = std::to_string(shards);
  std::int64_t bytes = 0, messages = 0;
  while (at.step < steps) {
    for (const auto& batch : loader.epoch(at.epoch, at.batch)) {
      for (const At& fault : faults) {
        if (!fault.here(world, at.step)) continue;
        if (fault.what == std::string("fail")) throw st::FileError("photo.png: cannot be read");
        if (fault.what == std::string("leave")) return 0;
        while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
      }
      if (pause > 0) std::this_thread::sleep_for(std::chrono::milliseconds(pause));
      if (const st::Communicator* ranks = world.communicator()) {
        bytes = ranks->bytes_sent();
        messages = ranks->messages_sent();
      }
      adam.zero_grad();
      const double loss = parallel.step(batch, {.seed = 2, .step = at.step}, net, mse);
      if (const st::Communicator* ranks = world.communicator()) {
        bytes = ranks->bytes_sent() - bytes;
        messages = ranks->messages_sent() - messages;
      }
      adam.step();
      scheduler.step();
      ++at.step;
      ++at.batch;
      at.set_number("loss", loss);
      if (world.is_first()) st::save_checkpoint(latest, at, net, adam, scheduler);
      if (at.step == steps) break;
    }
    if (at.batch == loader.size()) {
      ++at.epoch;
      at.batch = 0;
    }
  }
  st::check_equal(world, "at the end", net, adam);
  if (world.is_first()) {
    std::int64_t parameters = 0;
    st::for_each_tensor(net, [&](const std::string&, const auto& leaf) { parameters += leaf.shape().size(); });
    std::printf("done: %d ranks, %d threads, %lld numbers, %lld messages, %lld bytes a step, %.3f early\n",
                world.size(), st::num_threads(), static_cast<long long>(parameters), static_cast<long long>(messages),
                static_cast<long long>(bytes), parallel.early_share());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const std::string net = argv[1];
  bool resume = false;
  double timeout = 30;
  std::size_t bucket_bytes = std::size_t{1} << 20;
  int pause = 0, late_rank = -1, late = 0;
  std::vector<At> faults;
  for (int i = 5; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "resume") resume = true;
    if (word == "timeout") timeout = std::atof(argv[++i]);
    if (word == "pause") pause = std::atoi(argv[++i]);
    if (word == "bucket") bucket_bytes = std::size_t(std::atoll(argv[++i]));
    if (word == "late") {
      late_rank = std::atoi(argv[++i]);
      late = std::atoi(argv[++i]);
    }
    if (word == "fail" || word == "hang" || word == "leave") {
      faults.push_back({argv[i], std::atoi(argv[i + 1]), std::atoll(argv[i + 2])});
      i += 2;
    }
  }
  try {
    const st::World world = st::World::from_environment({.timeout = timeout});
    return world.run("ranks_program", [&] {
      if (world.rank() == late_rank) std::this_thread::sleep_for(std::chrono::milliseconds(late));
      const auto run = net == "dncnn" ? train<DnCnn> : net == "sync" ? train<Synchronised> : train<WithDropout>;
      return run(world, std::atoll(argv[2]), std::atoi(argv[3]), argv[4], resume, faults, pause, bucket_bytes);
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ranks_program: %s\n", error.what());
    return 1;
  }
}
