// A training run: Adam under a cosine schedule with a moving average of the weights, checkpoints that resume bit for bit,
// a log and its curve. The program gives the network, the data, the loss and what "good" means.
//
//     training::Options options;                     // from the command line: training::add_options(app, options)
//     return training::run(options, net, patches, "recipe", loss, [&](const auto& net) { return score; });
#pragma once

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "console.hpp"
#include "curve.hpp"
#include "strata/strata.hpp"

namespace training {

namespace st = strata;
namespace fs = std::filesystem;

/// How good a network is, over a validation set.
struct Score {
  double psnr = 0, ssim = 0;  ///< means over the set; PSNR in dB
  double baseline = 0;        ///< PSNR of what the network is to beat: the noisy input, or bicubic interpolation
};

struct Options {
  std::string train_dir = "dead-leaves", valid_dir = "dead-leaves";
  std::int64_t steps = 20000, report_interval = 500, save_interval = 100, batch_size = 16, patch_size = 64, images = 800;
  double lr = 1e-3, clip = 1;
  int num_workers = 1, threads = 0;
  std::uint64_t seed = 0;
  double minutes = 0;
  fs::path checkpoint_dir = "out";
  bool resume = false;
  std::string device = "cpu";
};

inline void add_options(CLI::App& app, Options& options) {
  app.option_defaults()->always_capture_default();
  app.add_option("--train-dir", options.train_dir, "folder of images, or dead-leaves");
  app.add_option("--valid-dir", options.valid_dir, "folder of images, or dead-leaves");
  app.add_option("--images", options.images, "dead-leaves images to draw")->check(CLI::Range(1, 1000000));
  app.add_option("--steps", options.steps, "of the optimiser; the learning rate falls to 0 over them")
      ->check(CLI::Range(1, 100000000));
  app.add_option("--report-interval", options.report_interval, "steps between validations")->check(CLI::Range(1, 10000000));
  app.add_option("--save-interval", options.save_interval, "steps between checkpoints")->check(CLI::Range(1, 10000000));
  app.add_option("--batch-size", options.batch_size)->check(CLI::Range(1, 65536));
  app.add_option("--patch-size", options.patch_size)->check(CLI::Range(16, 4096));
  app.add_option("--lr", options.lr, "learning rate at the start")->check(CLI::PositiveNumber);
  app.add_option("--clip", options.clip, "largest norm of the gradient")->check(CLI::PositiveNumber);
  app.add_option("--num-workers", options.num_workers, "threads that make batches")->check(CLI::Range(0, 256));
  app.add_option("--threads", options.threads, "threads that compute [all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--seed", options.seed);
  app.add_option("--minutes", options.minutes, "stop after this time, 0 for no limit")->check(CLI::NonNegativeNumber);
  app.add_option("--checkpoint-dir", options.checkpoint_dir, "folder of checkpoints and log");
  app.add_flag("--resume", options.resume, "go on from latest.safetensors of --checkpoint-dir");
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
}

/// One line of log.csv.
struct LogLine {
  std::int64_t step = 0;
  double lr = 0, loss = 0;
  Score score;
  double seconds = 0;
};

inline std::vector<LogLine> read_log(const fs::path& path, std::int64_t steps) {
  std::vector<LogLine> log;
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    LogLine l;
    long long step = 0;
    if (std::sscanf(line.c_str(), "%lld,%lf,%lf,%lf,%lf,%lf,%lf", &step, &l.lr, &l.loss, &l.score.psnr, &l.score.ssim,
                    &l.score.baseline, &l.seconds) != 7)
      continue;
    l.step = step;
    if (l.step <= steps) log.push_back(l);
  }
  return log;
}

inline void write_log(const fs::path& folder, const std::vector<LogLine>& log) {
  std::ofstream file(folder / "log.csv");
  file << "step,lr,loss,psnr,ssim,baseline_psnr,seconds\n";
  curve::Panel loss{"training loss, by report", {}, true}, psnr{"validation PSNR (dB), by report", {}};
  for (const LogLine& l : log) {
    file << l.step << ',' << l.lr << ',' << l.loss << ',' << l.score.psnr << ',' << l.score.ssim << ','
         << l.score.baseline << ',' << l.seconds << '\n';
    loss.values.push_back(l.loss);
    psnr.values.push_back(l.score.psnr);
  }
  curve::write_svg(folder / "curve.svg", {loss, psnr});
}

/// Trains, on the device where the network is, until options.steps are done, Ctrl-C, or the minutes are over, and returns the
/// program's exit status. `data`
/// gives (input, target) for any index; loss(prediction, target) is a scalar expression; evaluate(const net&) a Score.
/// Leaves in options.checkpoint_dir: latest.safetensors to go on from, best.safetensors with the averaged weights that
/// validated best (and nothing else), log.csv, curve.svg.
template <class Net, class Data, class Loss, class Evaluate>
int run(const Options& options, Net& net, const Data& data, const std::string& recipe, const Loss& loss_of,
        const Evaluate& evaluate) {
  const st::Device device = st::device_of(net);
  const console::Interrupt interrupt;
  fs::create_directories(options.checkpoint_dir);
  const fs::path latest = options.checkpoint_dir / "latest.safetensors", best = options.checkpoint_dir / "best.safetensors";
  st::Adam adam(net, {.lr = options.lr});
  st::CosineAnnealingLR scheduler(adam, {.t_max = options.steps});
  st::ExponentialMovingAverage ema(net, {.decay = 0.999, .warmup = true});

  const std::string whole_recipe =
      st::concat(recipe, " train-dir=", options.train_dir, " images=", options.images, " steps=", options.steps,
                 " batch-size=", options.batch_size, " patch-size=", options.patch_size, " lr=", options.lr,
                 " clip=", options.clip, " seed=", options.seed);
  st::CheckpointInfo at{.seed = options.seed};
  double seconds_before = 0;
  if (options.resume) {
    at = st::load_checkpoint(latest, net, adam, scheduler, ema);
    if (at.extra["recipe"] != whole_recipe)
      std::printf("note: the recipe differs from that of the checkpoint\n  then: %s\n  now:  %s\n",
                  at.extra["recipe"].c_str(), whole_recipe.c_str());
    seconds_before = at.number("seconds");
    std::printf("resumed %s: %lld steps done\n", latest.c_str(), static_cast<long long>(at.step));
  } else if (fs::exists(latest)) {
    throw st::ValueError(st::concat(latest.string(), " is there already: go on from it with --resume, or choose another "
                                                     "--checkpoint-dir"));
  }
  at.extra["recipe"] = whole_recipe;
  std::vector<LogLine> log = read_log(options.checkpoint_dir / "log.csv", at.step);

  const console::Stopwatch total;
  const auto save = [&] {
    at.set_number("seconds", seconds_before + total.seconds());
    st::save_checkpoint(latest, at, net, adam, scheduler, ema);
  };
  const auto stop = [&] { return interrupt.requested() || (options.minutes > 0 && total.seconds() > 60 * options.minutes); };

  const st::DataLoader loader(data, {.batch_size = options.batch_size, .shuffle = true,
                                     .num_workers = options.num_workers, .drop_last = true, .seed = options.seed});
  st::AverageMeter mean_loss;
  while (at.step < options.steps && !stop()) {
    console::Progress progress(st::concat("steps ", at.step, " to ", options.steps), loader.size());
    const console::Stopwatch watch;
    const std::int64_t first = at.batch;
    for (const auto& [input, target] : loader.epoch(at.epoch, first)) {
      st::Train pass({.seed = options.seed, .step = at.step});
      const auto loss = loss_of(net(pass, input.to(device)), target.to(device));
      adam.zero_grad();
      pass.backward(loss);
      st::clip_grad_norm_(net, options.clip);
      adam.step();
      scheduler.step();
      ema.update();
      mean_loss.add(double(loss.item()));
      ++at.step;
      ++at.batch;
      progress.update(at.batch, st::concat("loss ", mean_loss.mean(), "  ", watch.seconds() / double(at.batch - first),
                                           " s/step  data ", loader.wait_seconds(), " s"));
      if (at.step % options.report_interval == 0 || at.step == options.steps) {
        progress.finish();
        const Score score = [&] {
          const auto swapped = ema.swap();
          const Score found = evaluate(std::as_const(net));
          if (found.psnr > at.best.value_or(-1)) {
            at.best = found.psnr;
            st::save_weights(best, net, {{"recipe", whole_recipe}, {"step", st::concat(at.step)}});
          }
          return found;
        }();
        log.push_back({at.step, adam.lr(), mean_loss.mean(), score, seconds_before + total.seconds()});
        write_log(options.checkpoint_dir, log);
        std::printf("step %6lld  lr %.2e  loss %.6f  PSNR %.3f dB (baseline %.2f, gain %.2f)  SSIM %.4f  %s\n",
                    static_cast<long long>(at.step), adam.lr(), mean_loss.mean(), score.psnr, score.baseline,
                    score.psnr - score.baseline, score.ssim, console::clock_text(seconds_before + total.seconds()).c_str());
        std::fflush(stdout);
        mean_loss.reset();
      }
      if (at.step % options.save_interval == 0) save();
      if (at.step == options.steps || stop()) break;
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
    std::printf("best PSNR %.3f dB: %s\n", at.best.value_or(0), best.c_str());
  return interrupt.requested() ? 130 : 0;
}

}  // namespace training
