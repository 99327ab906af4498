// Trains a DnCNN denoiser.
//
//     dncnn_train --train-dir dead-leaves --valid-dir dead-leaves --checkpoint-dir out --epochs 10
//     dncnn_train --train-dir Train400 --valid-dir Set12 --sigma 25 --depth 17 --epochs 50 --checkpoint-dir out
//     dncnn_train --checkpoint-dir out --resume           # goes on from out/latest.safetensors, bit for bit
//     mpirun -n 4 dncnn_train ... --shards 8          # several processes; the shards decide the bits, not their number
//     dncnn_train ... --device cuda --precision tf32      # where the program was built with strata::cuda; fp16 scales
//     the loss
//     dncnn_train ... --device cuda --graph               # a step is recorded and replayed: one launch for all of it
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "../common/command_line.hpp"
#include "../common/console.hpp"
#include "../common/device.hpp"
#include "../common/picture.hpp"
#include "../common/ranks.hpp"
#include "../common/recipe.hpp"
#include "../common/outputs.hpp"
#include "../common/run_folder.hpp"
#include "criterion.hpp"
#include "datasets.hpp"
#include "losses.hpp"
#include "networks.hpp"
#include "strata/train/recorded_step.hpp"

namespace {

namespace fs = std::filesystem;

struct Options {
  std::string train_dir = sources::dead_leaves, valid_dir = sources::dead_leaves;
  float sigma = 25;
  int depth = 17, width = 64;
  std::int64_t epochs = 50, steps_per_epoch = 400, batch_size = 64, patch_size = 40, save_interval = 200;
  std::string loss = "mse", optimizer = "adam", device = "cpu";
  st::Precision precision = st::Precision::fp32;
  std::optional<double> init_lr;
  double momentum = 0.9, weight_decay = 0, gamma = 0.1, clip = 0;
  std::vector<std::int64_t> milestones;
  int num_workers = 1, threads = 0;
  std::uint64_t seed = 0;
  double minutes = 0;
  fs::path checkpoint_dir = "dncnn_out";
  std::optional<std::string> resume;
  bool graph = false;
  ranks::Options ranks;

  double lr() const { return init_lr.value_or(optimizer == "sgd" ? 0.1 : 1e-3); }
  training::Recipe recipe() {
    using training::Change;
    training::Recipe recipe;
    recipe.add("train-dir", train_dir);
    recipe.add("valid-dir", valid_dir, Change::measures);
    recipe.add("sigma", sigma, Change::measures);
    recipe.add("depth", depth, Change::refused);
    recipe.add("width", width, Change::refused);
    recipe.add("epochs", epochs);
    recipe.add("steps-per-epoch", steps_per_epoch);
    recipe.add("batch-size", batch_size);
    recipe.add("patch-size", patch_size);
    recipe.add("loss", loss);
    recipe.add("optimizer", optimizer, Change::refused);
    recipe.add(
        "init-lr", Change::counts, [this] { return training::detail::option_text(lr()); },
        [this](const std::string& text) { return training::detail::read_option(text, init_lr.emplace()); });
    recipe.add("momentum", momentum);
    recipe.add("weight-decay", weight_decay);
    recipe.add("clip", clip);
    recipe.add("milestones", milestones);
    recipe.add("gamma", gamma);
    recipe.add(
        "precision", Change::counts, [this] { return ::device::name_of(precision); },
        [this](const std::string& text) { return ::device::find_precision(text, precision); });
    recipe.add("seed", seed);
    recipe.add("shards", ranks.shards);
    recipe.add("device", device, Change::of_machine);
    return recipe;
  }
};

template <class Net, class Optimizer>
int train(const Options& options, const training::Recipe& recipe, training::RunFolder& folder, Net& net,
          Optimizer& optimizer) {
  const st::World& world = folder.world();
  const console::Interrupt& interrupt = folder.interrupt();
  st::GradScaler scaler({.enabled = options.precision == st::Precision::fp16});
  st::MultiStepLR scheduler(optimizer, {.milestones = options.milestones, .gamma = options.gamma});
  const st::NoisyPatches<1> patches = dncnn::training_data<1>(
      options.train_dir, options.steps_per_epoch * options.batch_size, options.patch_size, options.sigma);
  const st::NoisyImages<1> valid = dncnn::test_data<1>(options.valid_dir, {.sigma = options.sigma});
  const st::DataLoader loader(patches, ranks::loader_options(options, world));
  st::DataParallel parallel(net, world);

  st::CheckpointInfo at;                    // where the run stands
  double loss_sum = 0, seconds_before = 0;  // of this epoch; of earlier runs
  if (folder.start()) {
    at = folder.load(net, optimizer, scheduler, scaler);
    if (recipe.changed({"init-lr", "milestones", "gamma"})) scheduler.set_base_lr(options.lr());
    loss_sum = at.number("loss_sum");
    seconds_before = at.number("seconds");
    std::printf("resumed %s: %lld epochs and %lld steps done; %s\n", folder.from().c_str(),
                static_cast<long long>(at.epoch), static_cast<long long>(at.batch), recipe.str().c_str());
  }
  at.seed = options.seed;
  recipe.write(at.extra);
  folder.write_config(recipe.toml());
  at.batch = std::min(at.batch, loader.size());

  const console::Stopwatch total;
  const auto out_of_time = [&] { return options.minutes > 0 && total.seconds() > 60 * options.minutes; };
  ranks::Stop stop(world);
  const auto ask = [&] { stop.ask(interrupt.requested(), out_of_time()); };
  std::vector<st::Scalar<>> unread;  // losses of recorded steps: a device that nobody waits for is never idle
  const auto read_losses = [&] {
    for (const st::Scalar<>& loss : unread) loss_sum += double(loss.item());
    unread.clear();
  };
  const auto save = [&] {
    read_losses();
    at.set_number("loss_sum", loss_sum);
    at.set_number("seconds", seconds_before + total.seconds());
    folder.save(at, net, optimizer, scheduler, scaler);
  };
  const auto save_best = [&] {
    if (world.is_first()) st::save_checkpoint(folder.best(), at, net, optimizer, scheduler, scaler);
  };
  folder.begin(at, st::concat(recipe.str(/*measures_alone=*/true), " images=", valid.size()), save_best);

  st::RecordedStep recorded(net, optimizer,
                            {.seed = options.seed,
                             .step = at.step,
                             .precision = options.precision,
                             .clip_grad_norm = options.clip,
                             .scaler = &scaler},
                            [&, device = st::device_of(net)](auto& pass, const auto& noisy, const auto& clean) {
                              return dncnn::loss(options.loss, net(pass, noisy.to(device)), clean.to(device));
                            });

  for (ask(); at.epoch < options.epochs && !stop.late() && !stop.interrupted(); ask()) {
    console::Progress progress(st::concat("epoch ", at.epoch + 1, "/", options.epochs), loader.size());
    const console::Stopwatch watch;
    const std::int64_t first_batch = at.batch;
    for (const auto& batch : loader.epoch(at.epoch, first_batch)) {
      try {
        if (options.graph) {
          unread.push_back(recorded(batch));
          if (unread.size() == 16) read_losses();
        } else {
          optimizer.zero_grad();
          loss_sum += parallel.step(
              batch, {.seed = options.seed, .step = at.step, .precision = options.precision}, net,
              [&](const auto& denoised, const auto& clean) { return dncnn::loss(options.loss, denoised, clean); },
              [&](auto& pass, const auto& of_shard) { parallel.backward(pass, scaler.scale(of_shard)); });
        }
      } catch (const st::NumericError& error) {
        const std::string name = st::first_not_finite(net, optimizer);
        throw st::NumericError(st::concat(error.what(), " (epoch ", at.epoch + 1, ", step ", at.batch + 1,
                                          "; the first number that is not finite is ",
                                          name.empty() ? "the loss itself" : name, "): ", folder.diverged()));
      }
      if (!options.graph) {
        if (options.clip > 0 && scaler.unscale_(optimizer)) st::clip_grad_norm_(net, options.clip);
        scaler.step(optimizer);  // not where fp16 overflowed
        scaler.update();
      }
      ++at.step;
      ++at.batch;
      if (options.ranks.check_ranks > 0 && at.step % options.ranks.check_ranks == 0)
        st::check_equal(world, st::concat("after step ", at.step), net, optimizer);

      const double seconds = watch.seconds(), per_step = seconds / double(at.batch - first_batch);
      char text[160];
      std::snprintf(text, sizeof text, "loss %.6f  %.0f images/s  data %.1f s  ETA %s",
                    loss_sum / std::max(1.0, double(at.batch) - double(unread.size())),
                    double(options.batch_size) / per_step, loader.wait_seconds(),
                    console::clock_text(per_step * double(loader.size() - at.batch)).c_str());
      progress.update(at.batch, text);
      ask();
      if (stop.interrupted()) break;
      if (options.save_interval > 0 && at.step % options.save_interval == 0) save();
      if (stop.late()) break;
    }
    progress.finish();
    if (stop.interrupted()) break;
    read_losses();

    if (const std::string name = st::first_not_finite(net, optimizer); !name.empty())
      throw st::NumericError(st::concat(name, " is not finite after epoch ", at.epoch + 1, ": ", folder.diverged()));
    dncnn::Score score;
    try {
      score = dncnn::evaluate(
          net, valid, [&] { return interrupt.requested(); }, world);
    } catch (...) {
      save();  // the epoch's work is not lost: a resumed run validates first
      throw;
    }
    ask();
    if (stop.interrupted()) break;
    const double lr = optimizer.lr(), mean_loss = loss_sum / double(at.batch);
    scheduler.step();
    ++at.epoch;
    at.batch = 0;
    loss_sum = 0;
    const bool is_best = folder.is_best(at, score.psnr);
    folder.add_row(at, st::concat(at.epoch, ",", lr, ",", mean_loss, ",", score.psnr, ",", score.ssim, ",",
                                  seconds_before + total.seconds()));
    save();
    if (is_best) save_best();
    folder.write_log();
    std::printf("epoch %3lld  lr %.2e  loss %.6f  PSNR %.3f dB (noisy %.2f, gain %.2f)  SSIM %.4f  %s%s\n",
                static_cast<long long>(at.epoch), lr, mean_loss, score.psnr, score.noisy_psnr,
                score.psnr - score.noisy_psnr, score.ssim,
                console::clock_text(seconds_before + total.seconds()).c_str(), is_best ? "  best" : "");
    std::fflush(stdout);
  }
  if (stop.interrupted()) {
    save();
    std::printf("stopped after epoch %lld, step %lld; go on with: dncnn_train --checkpoint-dir %s --resume\n",
                static_cast<long long>(at.epoch), static_cast<long long>(at.batch), folder.path().c_str());
  } else {
    std::printf("%s; curve: %s\n", folder.conclusion(at).c_str(), folder.curve().c_str());
  }
  std::fflush(stdout);
  if (!world.is_first()) return stop.interrupted() ? interrupt.exit_status() : 0;
  try {
    picture::before_after(folder.path() / "before_after.png", net, valid, 0);  // last: all that matters is saved
  } catch (const st::Error& error) {
    if (!stop.interrupted()) throw;
    std::fprintf(stderr, "dncnn_train: %s\n", error.what());
  }
  return stop.interrupted() || interrupt.requested() ? interrupt.exit_status() : 0;
}

template <int Width, int Depth>
int run(const Options& options, const training::Recipe& recipe, training::RunFolder& folder, st::Device device) {
  dncnn::DnCNN<1, Width, Depth> net;
  st::initialize(net, options.seed);
  net.body.template layer<3>().weight.reset();  // zeros: it starts by taking nothing away, which saves many steps
  std::printf("DnCNN: depth %d, width %d, %lld parameters, receptive field %lld; %s, %d threads, %s\n", Depth, Width,
              static_cast<long long>(st::parameter_count<decltype(net)>),
              static_cast<long long>(st::receptive_field<decltype(net)>), device.str().c_str(), st::num_threads(),
              STRATA_ISA);
  st::to(net, device);
  if (options.optimizer == "sgd") {
    st::SGD sgd(net, {.lr = options.lr(), .momentum = options.momentum, .weight_decay = options.weight_decay});
    return train(options, recipe, folder, net, sgd);
  }
  st::Adam adam(net, {.lr = options.lr(), .weight_decay = options.weight_decay});
  return train(options, recipe, folder, net, adam);
}

int run(Options& options, const CLI::App& app, st::Device device, const st::World& world) {
  training::Recipe recipe = options.recipe();
  outputs::check_run_folder(options.checkpoint_dir, {options.train_dir, options.valid_dir});
  training::RunFolder folder(
      options.checkpoint_dir, "epoch,lr,loss,psnr,ssim,seconds", options.resume,
      [&](const st::CheckpointInfo& at, const fs::path& file) { recipe.go_on_from(at.extra, file, app); }, world);
  world.check_shards(options.ranks.shards);
  if (options.precision == st::Precision::fp16 && options.ranks.shards > 1)
    throw st::ValueError(
        "--precision fp16 scales the loss by what the step before found, which shards cannot share: use bf16 "
        "or tf32, or --shards 1");
  if (options.graph && (options.ranks.shards > 1 || world.size() > 1))
    throw st::ValueError(
        "--graph records the step of one process with one shard: leave it out, or --shards and mpirun");
  if (options.depth == 8)
    return options.width == 32 ? run<32, 8>(options, recipe, folder, device)
                               : run<64, 8>(options, recipe, folder, device);
  return options.width == 32 ? run<32, 17>(options, recipe, folder, device)
                             : run<64, 17>(options, recipe, folder, device);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains a DnCNN denoiser.");
  app.option_defaults()->always_capture_default();
  app.add_option("--train-dir", options.train_dir, "folder of images, or dead-leaves");
  app.add_option("--valid-dir", options.valid_dir, "folder of images, or dead-leaves");
  app.add_option("--sigma", options.sigma, "of the noise, on the scale of 0 to 255")->check(CLI::Range(0.0, 255.0));
  app.add_option("--depth", options.depth, "number of convolutions")->check(CLI::IsMember({8, 17}));
  app.add_option("--width", options.width, "channels between them")->check(CLI::IsMember({32, 64}));
  app.add_option("--epochs", options.epochs)->check(CLI::Range(1, 1000000));
  app.add_option("--steps-per-epoch", options.steps_per_epoch)->check(CLI::Range(1, 10000000));
  app.add_option("--batch-size", options.batch_size)->check(CLI::Range(1, 65536));
  app.add_option("--patch-size", options.patch_size)->check(CLI::Range(8, 4096));
  app.add_option("--loss", options.loss)->check(CLI::IsMember({"mse", "half-sum", "l1", "charbonnier"}));
  app.add_option("--optimizer,--opt", options.optimizer)->check(CLI::IsMember({"sgd", "adam"}));
  app.add_option("--init-lr,--lr", options.init_lr, "learning rate at the start [0.001 for adam, 0.1 for sgd]")
      ->check(CLI::PositiveNumber);
  app.add_option("--momentum", options.momentum, "of sgd")->check(CLI::Range(0.0, 0.9999));
  app.add_option("--weight-decay", options.weight_decay)->check(CLI::NonNegativeNumber);
  app.add_option("--clip,--clip-grad", options.clip, "largest norm of the gradient, 0 for no limit")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--milestones", options.milestones, "epochs after which the learning rate falls")->delimiter(',');
  app.add_option("--gamma", options.gamma, "by this factor")->check(CLI::PositiveNumber);
  app.add_option("--num-workers,--workers,-j", options.num_workers, "threads that make batches")
      ->check(CLI::Range(0, 256));
  app.add_option("--seed", options.seed);
  app.add_option("--save-interval", options.save_interval, "steps between checkpoints inside an epoch, 0 for none")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--minutes", options.minutes, "stop after this time, 0 for no limit")->check(CLI::NonNegativeNumber);
  app.add_option("--checkpoint-dir,--output", options.checkpoint_dir, "folder of checkpoints, log and pictures");
  app.add_option("--resume", options.resume, "go on from this checkpoint [latest of --checkpoint-dir]")->expected(0, 1);
  app.add_option("--threads", options.threads, "threads that compute [all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  device::add_precision(app, options.precision);
  app.add_flag("--graph", options.graph, "records a training step and replays it: one launch instead of hundreds");
  ranks::add_options(app, options.ranks);
  if (const auto status = command_line::parse(app, argc, argv)) return *status;
  if (app.count("--resume") > 0 && !options.resume) options.resume = "";
  return ranks::with("dncnn_train", options.ranks, options.threads, [&](const st::World& world) {
    return device::with("dncnn_train", ranks::device_of(world, options.device),
                        [&](st::Device device) { return run(options, app, device, world); });
  });
}
