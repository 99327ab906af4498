// A training run: Adam under a cosine schedule with a moving average of the weights, checkpoints that resume bit for
// bit, a log and its curve. The program gives the network, the data, the loss and what "good" means.
//
//     training::Options options;                     // from the command line: training::add_options(app, options)
//     training::Recipe recipe = training::recipe_of(options);
//     recipe.add("channels", channels, training::Change::refused);                  // the program's own options
//     training::RunFolder folder = training::open(options, recipe, app, world);     // the options are settled now
//     return training::run(options, recipe, folder, net, patches, loss, images, [&](const auto& net) { return score; });
#pragma once

#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "console.hpp"
#include "outputs.hpp"
#include "ranks.hpp"
#include "recipe.hpp"
#include "run_folder.hpp"
#include "strata/strata.hpp"

namespace training {

/// How good a network is, over a validation set.
struct Score {
  double psnr = 0, ssim = 0;  ///< means over the set; PSNR in dB
  double baseline = 0;        ///< PSNR of what the network is to beat: the noisy input, or bicubic interpolation
};

/// The means, added in the order of the images.
inline Score mean(const std::vector<Score>& scores) {
  st::AverageMeter psnr, ssim, baseline;
  for (const Score& score : scores) {
    psnr.add(score.psnr);
    ssim.add(score.ssim);
    baseline.add(score.baseline);
  }
  return {psnr.mean(), ssim.mean(), baseline.mean()};
}

struct Options {
  std::string train_dir = "dead-leaves", valid_dir = "dead-leaves";
  std::int64_t steps = 20000, report_interval = 500, save_interval = 100, batch_size = 16, patch_size = 64,
               images = 800;
  double lr = 1e-3, clip = 1;
  int num_workers = 1, threads = 0;
  std::uint64_t seed = 0;
  double minutes = 0;
  fs::path checkpoint_dir = "out";
  bool resume = false;
  std::string device = "cpu";
  ranks::Options ranks;
};

inline void add_options(CLI::App& app, Options& options) {
  app.option_defaults()->always_capture_default();
  app.add_option("--train-dir", options.train_dir, "folder of images, or dead-leaves");
  app.add_option("--valid-dir", options.valid_dir, "folder of images, or dead-leaves");
  app.add_option("--images", options.images, "dead-leaves images to draw")->check(CLI::Range(1, 1000000));
  app.add_option("--steps", options.steps, "of the optimiser; the learning rate falls to 0 over them")
      ->check(CLI::Range(1, 100000000));
  app.add_option("--report-interval", options.report_interval, "steps between validations")
      ->check(CLI::Range(1, 10000000));
  app.add_option("--save-interval", options.save_interval, "steps between checkpoints")->check(CLI::Range(1, 10000000));
  app.add_option("--batch-size", options.batch_size)->check(CLI::Range(1, 65536));
  app.add_option("--patch-size", options.patch_size)->check(CLI::Range(16, 4096));
  app.add_option("--lr", options.lr, "learning rate at the start")->check(CLI::PositiveNumber);
  app.add_option("--clip,--clip-grad", options.clip, "largest norm of the gradient")->check(CLI::PositiveNumber);
  app.add_option("--num-workers,--workers,-j", options.num_workers, "threads that make batches")
      ->check(CLI::Range(0, 256));
  app.add_option("--threads", options.threads, "threads that compute [all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--seed", options.seed);
  app.add_option("--minutes", options.minutes, "stop after this time, 0 for no limit")->check(CLI::NonNegativeNumber);
  app.add_option("--checkpoint-dir,--output", options.checkpoint_dir, "folder of checkpoints and log");
  app.add_flag("--resume", options.resume, "go on from latest.safetensors of --checkpoint-dir");
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  ranks::add_options(app, options.ranks);
}

/// The options that every program has, for it to add its own.
inline Recipe recipe_of(Options& options) {
  Recipe recipe;
  recipe.add("train-dir", options.train_dir);
  recipe.add("valid-dir", options.valid_dir, Change::measures);
  recipe.add("images", options.images);
  recipe.add("steps", options.steps);
  recipe.add("report-interval", options.report_interval);
  recipe.add("batch-size", options.batch_size);
  recipe.add("patch-size", options.patch_size);
  recipe.add("lr", options.lr);
  recipe.add("clip", options.clip);
  recipe.add("seed", options.seed);
  recipe.add("shards", options.ranks.shards);
  recipe.add("device", options.device, Change::of_machine);
  return recipe;
}

/// Opens the run's folder and, where it goes on, gives the options the values of the run.
inline RunFolder open(const Options& options, Recipe& recipe, const CLI::App& app, const st::World& world = {}) {
  outputs::check_run_folder(options.checkpoint_dir, {options.train_dir, options.valid_dir});
  return RunFolder(
      options.checkpoint_dir, "step,lr,loss,psnr,ssim,baseline_psnr,seconds",
      options.resume ? std::optional<std::string>("") : std::nullopt,
      [&](const st::CheckpointInfo& at, const fs::path& file) { recipe.go_on_from(at.extra, file, app); }, world);
}

/// Trains, on the device where the network is, until options.steps are done, the run is asked to stop, or the minutes
/// are over, and returns the program's exit status. `data` gives (input, target) for any index; loss(prediction,
/// target) is a scalar expression; evaluate(const net&) a Score over `valid_images` images, the same on all ranks.
/// Leaves in the folder: latest.safetensors to go on from, best.safetensors with the averaged weights that validated
/// best (and nothing else), log.csv, curve.svg, config.toml.
template <class Net, class Data, class Loss, class Evaluate>
int run(const Options& options, const Recipe& recipe, RunFolder& folder, Net& net, const Data& data,
        const Loss& loss_of, std::size_t valid_images, const Evaluate& evaluate) {
  const st::World& world = folder.world();
  world.check_shards(options.ranks.shards);
  const console::Interrupt& interrupt = folder.interrupt();
  st::Adam adam(net, {.lr = options.lr});
  st::CosineAnnealingLR scheduler(adam, {.t_max = options.steps});
  st::ExponentialMovingAverage ema(net, {.decay = 0.999, .warmup = true});

  st::CheckpointInfo at;
  double seconds_before = 0, loss_sum = 0, losses = 0;  // since the last report
  if (folder.start()) {
    at = folder.load(net, adam, scheduler, ema);
    if (recipe.changed({"lr", "steps"})) scheduler.set_base_lr(options.lr);
    seconds_before = at.number("seconds");
    if (at.extra.contains("losses")) {  // not in checkpoints of before
      loss_sum = at.number("loss_sum");
      losses = at.number("losses");
    }
    std::printf("resumed %s: %lld steps done; %s\n", folder.from().c_str(), static_cast<long long>(at.step),
                recipe.str().c_str());
  }
  at.seed = options.seed;
  recipe.write(at.extra);
  folder.write_config(recipe.toml());

  const console::Stopwatch total;
  const auto save = [&] {
    at.set_number("seconds", seconds_before + total.seconds());
    at.set_number("loss_sum", loss_sum);
    at.set_number("losses", losses);
    folder.save(at, net, adam, scheduler, ema);
  };
  const auto save_best = [&] {
    if (!world.is_first()) return;
    const auto swapped = ema.swap();
    st::save_weights(folder.best(), net,
                     {{"recipe", recipe.str()}, {"best", at.extra.at("best")}, {"step", st::concat(at.step)}});
  };
  ranks::Stop stopping(world);
  const auto stop = [&] {
    stopping.ask(interrupt.requested(), options.minutes > 0 && total.seconds() > 60 * options.minutes);
    return stopping.interrupted() || stopping.late();
  };
  folder.begin(at, st::concat(recipe.str(/*measures_alone=*/true), " images=", valid_images), save_best);

  const st::DataLoader loader(data, ranks::loader_options(options, world));
  st::DataParallel parallel(net, world);
  const auto report = [&] {
    const Score score = [&] {
      const auto swapped = ema.swap();
      if (const std::string name = st::first_not_finite(net); !name.empty())
        throw st::NumericError(st::concat(name, " is not finite after ", at.step, " steps: ", folder.diverged()));
      return evaluate(std::as_const(net));
    }();
    const bool is_best = folder.is_best(at, score.psnr);
    const double mean_loss = loss_sum / losses, seconds = seconds_before + total.seconds();
    folder.add_row(at, st::concat(at.step, ",", adam.lr(), ",", mean_loss, ",", score.psnr, ",", score.ssim, ",",
                                  score.baseline, ",", seconds));
    loss_sum = losses = 0;
    save();
    if (is_best) save_best();
    folder.write_log();
    std::printf("step %6lld  lr %.2e  loss %.6f  PSNR %.3f dB (baseline %.2f, gain %.2f)  SSIM %.4f  %s\n",
                static_cast<long long>(at.step), adam.lr(), mean_loss, score.psnr, score.baseline,
                score.psnr - score.baseline, score.ssim, console::clock_text(seconds).c_str());
    std::fflush(stdout);
  };

  while (at.step < options.steps && !stop()) {
    console::Progress progress(st::concat("steps ", at.step, " to ", options.steps), loader.size());
    const console::Stopwatch watch;
    const std::int64_t first = at.batch;
    for (const auto& batch : loader.epoch(at.epoch, first)) {
      adam.zero_grad();
      try {
        loss_sum += parallel.step(batch, {.seed = options.seed, .step = at.step}, net, loss_of);
      } catch (const st::NumericError& error) {
        throw st::NumericError(st::concat(error.what(), " (step ", at.step + 1, "): ", folder.diverged()));
      }
      st::clip_grad_norm_(net, options.clip);
      adam.step();
      scheduler.step();
      ema.update();
      ++losses;
      ++at.step;
      ++at.batch;
      if (options.ranks.check_ranks > 0 && at.step % options.ranks.check_ranks == 0)
        st::check_equal(world, st::concat("after step ", at.step), net, adam, ema);
      progress.update(at.batch, st::concat("loss ", loss_sum / losses, "  ", watch.seconds() / double(at.batch - first),
                                           " s/step  data ", loader.wait_seconds(), " s"));
      if (at.step % options.report_interval == 0 || at.step == options.steps) {
        progress.finish();
        report();
      } else if (at.step % options.save_interval == 0) {
        save();
      }
      if (at.step >= options.steps || stop()) break;
    }
    progress.finish();
    if (at.batch == std::int64_t(loader.size())) {
      ++at.epoch;
      at.batch = 0;
    }
  }
  save();
  if (at.step < options.steps)
    std::printf("stopped after %lld steps; go on with --resume\n", static_cast<long long>(at.step));
  else
    std::printf("%s; curve: %s\n", folder.conclusion(at).c_str(), folder.curve().c_str());
  return stopping.interrupted() || interrupt.requested() ? interrupt.exit_status() : 0;
}

}  // namespace training
