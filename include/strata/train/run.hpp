// A training run's folder and what is written there, as BasicSR's and timm's users know it:
//
//     experiments/NAME/config.toml       the options of the run
//                      log.txt           what the terminal showed
//                      log.csv           a row for each line of the log and each validation
//                      models/           checkpoint-STEP.safetensors, the last few, and best.safetensors
//                      visualization/    pictures, before and after
//                      tb/               TensorBoard's events
//                      report.html       all of it on one page
//
//     st::Run run({.name = "dncnn-s25", .resume = resume, .total_steps = epochs * loader.size(),
//                  .metrics = {{"Set12/psnr"}}});
//     run.config({{"lr", 1e-3}, {"epochs", 50}});
//     st::CheckpointInfo at = run.start(net, adam, scheduler);         // the latest checkpoint's, if it is resumed
//     while (at.epoch < epochs && !run.stopping()) {
//       for (const auto& [noisy, clean] : loader.epoch(at.epoch, at.batch)) {
//         ...
//         ++at.step, ++at.batch;
//         run.step(at, {.lr = adam.lr(), .losses = {{"loss", loss.item()}}, .data_seconds = loader.wait_seconds()});
//         if (run.stopping()) break;
//       }
//       if (run.stopping()) break;
//       run.validated(at, {{"Set12/psnr", psnr}});
//       ++at.epoch, at.batch = 0;
//       run.save(at, net, adam, scheduler);
//     }
//     run.finish(at, net, adam, scheduler);            // saves where the run was stopped, and says what is best
//
// It decides nothing of the training: the loop is the program's. A run that is stopped, or killed, and resumed has one
// log, one file of events and one report, as if it had never stopped: what was written for steps after the checkpoint
// is cut off. From the first Run on, Ctrl-C and its like are answered by stopping() (train/console.hpp); a second
// Ctrl-C ends the program.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "strata/io/checkpoint.hpp"
#include "strata/io/folder_lock.hpp"
#include "strata/train/console.hpp"
#include "strata/train/detail/run_files.hpp"
#include "strata/train/report.hpp"
#include "strata/train/run_options.hpp"
#include "strata/train/tensorboard.hpp"

namespace strata { inline namespace STRATA_ABI {

class Run {
 public:
  /// Makes the folder, and locks it. Throws FileError, and ValueError for options that cannot be meant.
  explicit Run(RunOptions options)
      : options_(checked(std::move(options))), files_(options_.root, options_.name, options_.resume, columns()) {
    for (const RunMetric& metric : options_.metrics) best_.push_back({metric.name, {}, {}});
    if (files_.name() != options_.name)
      say(concat("note: ", (options_.root / options_.name).string(), " is taken; this run is ", files_.name()));
    report_.name = files_.name();
    report_.environment = environment();
  }

  const std::string& name() const& { return files_.name(); }
  const std::filesystem::path& path() const& { return files_.path(); }
  std::filesystem::path models() const { return path() / "models"; }
  std::filesystem::path best() const { return models() / "best.safetensors"; }
  /// The latest checkpoint, or nothing.
  std::optional<std::filesystem::path> latest() const {
    const auto checkpoints = files_.checkpoints();
    return checkpoints.empty() ? std::nullopt : std::optional(checkpoints.back().second);
  }
  /// Whether the run was asked to stop, by Ctrl-C or its like. Save, and end.
  bool stopping() const { return interrupt_.requested(); }
  int exit_status() const { return interrupt_.requested() ? interrupt_.exit_status() : 0; }

  /// Writes the options to config.toml, a dot in a name as a table: "optim.lr". They are in the report and, as
  /// hyperparameters, in TensorBoard.
  void config(const std::vector<std::pair<std::string, HParam>>& values) {
    config_ = values;
    write_file(path() / "config.toml", detail::toml(values));
    report_.config.clear();
    for (const auto& [key, value] : values) {
      const auto* text = std::get_if<std::string>(&value.value());
      report_.config.emplace_back(key, text != nullptr ? *text : detail::toml_value(value));
    }
  }

  /// The per-layer table of the report, for an image of h x w.
  template <class Net>
  void layers(const Net& net, std::int64_t h, std::int64_t w) {
    report_.layers = layer_table(net, h, w);
  }
  /// Another table in its place, as Profile::layers has it (train/profile.hpp).
  void layers(LayerTable table) { report_.layers = std::move(table); }

  /// Where to begin: at nothing, or, of a run that is resumed, where its latest checkpoint left off; that is loaded. A
  /// checkpoint that is damaged is told of, and the one before it taken. Throws FileError where there are some and none
  /// can be read.
  template <class Net, class... Objects>
  CheckpointInfo start(Net& net, Objects&... objects) {
    CheckpointInfo at;
    auto checkpoints =
        options_.resume ? files_.checkpoints() : std::vector<std::pair<std::int64_t, std::filesystem::path>>();
    if (options_.resume && checkpoints.empty())
      say(concat("note: there is no checkpoint in ", models().string(), " yet: the run starts at its beginning"));
    while (!checkpoints.empty()) {
      const std::filesystem::path file = checkpoints.back().second;
      checkpoints.pop_back();
      try {
        at = load_checkpoint(file, net, objects...);
      } catch (const FileError& error) {
        if (checkpoints.empty() || !detail::is_damaged(file)) throw;
        say(concat("note: ", error.what(), "; taking the one before it"));
        continue;
      }
      resumed_ = true;
      break;
    }
    begin(at);
    if (resumed_) {
      say(concat("resumed: ", at.epoch, " epochs and ", detail::grouped(at.step), " steps done"));
      if (!best_.empty() && best_[0].step && *best_[0].step == at.step && !files_.is_checkpoint_of(best(), at.step))
        save_checkpoint(best(), at, net, objects...);  // the run was killed between the two
    }
    return at;
  }

  /// After a step of the optimiser, with `at` counted up.
  void step(const CheckpointInfo& at, const StepRecord& record) {
    check_started("step");
    const double now = watch_.seconds();
    if (record.losses.size() != options_.losses.size())
      throw ValueError(
          concat("Run::step: got ", record.losses.size(), " losses, and .losses names ", options_.losses.size()));
    for (std::size_t i = 0; i < record.losses.size(); ++i) {
      if (record.losses[i].first != options_.losses[i])
        throw ValueError(concat("Run::step: got the loss ", record.losses[i].first, ", wanted ", options_.losses[i],
                                ", as in .losses"));
      sums_[i] += record.losses[i].second;
    }
    ++steps_;
    ++steps_here_;
    // An epoch's waiting starts at 0 again.
    data_ += record.data_seconds >= data_before_ ? record.data_seconds - data_before_ : record.data_seconds;
    data_before_ = record.data_seconds;
    if (at.step % options_.log_interval == 0 || at.step == options_.total_steps) line(at, record, now);
    if (!options_.quiet && options_.total_steps > 0) {
      progress_->update(at.step,
                        concat(options_.losses.empty() ? std::string()
                                                       : concat(options_.losses[0], " ", record.losses[0].second, "  "),
                               "eta ", eta_text(at.step, now)));
    }
    if (options_.hooks.step) options_.hooks.step(at, record);
  }

  /// After a validation: each of .metrics that was measured, for one or several sets. save() follows, which keeps the
  /// best.
  void validated(const CheckpointInfo& at, const NamedNumbers& values) {
    check_started("validated");
    std::string text =
        concat("[", name(), "][epoch ", at.epoch + 1, ", iter ", detail::grouped(at.step), "] validation:");
    std::map<std::string, double> row;
    for (const auto& [what, value] : values) {
      const auto metric = std::find_if(options_.metrics.begin(), options_.metrics.end(),
                                       [&](const RunMetric& m) { return m.name == what; });
      if (metric == options_.metrics.end()) throw ValueError(concat("Run::validated: .metrics does not name ", what));
      if (std::isnan(value))
        throw NumericError(
            concat("Run::validated: ", what, " is not a number after ", at.step, " steps: the run has diverged"));
      Best& best = best_[std::size_t(metric - options_.metrics.begin())];
      const bool better = !best.value || (metric->higher_is_better ? value > *best.value : value < *best.value);
      if (better) {
        best.value = value;
        best.step = at.step;
        best.epoch = at.epoch + 1;
      }
      row[what] = value;
      if (board_) board_->scalar("metrics/" + what, value, at.step);
      text += concat(" ", what, " ", detail::formatted(value, "%.4f"),
                     better ? std::string(" (best)")
                            : concat(" (best ", detail::formatted(*best.value, "%.4f"), " at iter ",
                                     detail::grouped(*best.step), ")"));
    }
    add_row(at, row);
    say(text);
    if (options_.hooks.validated) options_.hooks.validated(at, values);
  }

  /// Pictures of before and after, of one thing by one name, for visualization/, TensorBoard and the report.
  template <int C>
  void picture(const CheckpointInfo& at, const std::string& what, const Image<C>& before, const Image<C>& after) {
    const std::string first = detail::png_bytes("Run::picture", before),
                      second = detail::png_bytes("Run::picture", after);
    files_.write_picture(what, at.step, first, second);
    if (board_) {
      board_->image(what + "/before", before, at.step);
      board_->image(what + "/after", after, at.step);
    }
  }

  /// Writes models/checkpoint-STEP.safetensors, and best.safetensors where the last validation was the best by the
  /// first metric; takes away the oldest beyond .keep; brings the report up to date. Throws FileError; NumericError,
  /// with nothing written, for a state that is not finite.
  template <class Net, class... Objects>
  void save(CheckpointInfo& at, const Net& net, const Objects&... objects) {
    check_started("save");
    if (const std::string bad = first_not_finite(net, objects...); !bad.empty())
      throw NumericError(concat(bad, " is not finite after ", at.step,
                                " steps: the run has diverged; lower the learning rate. The last good checkpoint is ",
                                latest() ? latest()->string() : "none"));
    if (board_) board_->flush();
    note(at);
    const std::filesystem::path file = files_.checkpoint(at.step);
    save_checkpoint(file, at, net, objects...);
    if (!best_.empty() && best_[0].step && *best_[0].step == at.step) save_checkpoint(best(), at, net, objects...);
    files_.remove_old_checkpoints(options_.keep);
    write_report(at, true);
    if (options_.hooks.saved) options_.hooks.saved(at, file);
  }

  /// At the end, or where the run stops: saves, and says what was best.
  template <class Net, class... Objects>
  void finish(CheckpointInfo& at, const Net& net, const Objects&... objects) {
    if (progress_) progress_->finish();
    if (!saved_as(at)) save(at, net, objects...);
    for (const Best& best : best_)
      if (best.value)
        say(concat("best ", best.name, ": ", detail::formatted(*best.value, "%.4f"), " at iter ",
                   detail::grouped(*best.step)));
    if (stopping())
      say(concat("stopped after ", detail::grouped(at.step), " steps; it goes on with the option resume"));
    note(at);
    write_report(at, false);
  }

  /// A line for the terminal and log.txt.
  void say(const std::string& text) {
    if (!options_.quiet) {
      if (progress_) progress_->finish();
      std::printf("%s\n", text.c_str());
      std::fflush(stdout);
    }
    files_.log(text);
  }

 private:
  struct Best {
    std::string name;
    std::optional<double> value;
    std::optional<std::int64_t> step;
    std::int64_t epoch = 0;
  };

  void check_started(const char* what) const {
    if (!progress_) throw Error(concat("Run::", what, ": call start(net, ...) first, which says where the run begins"));
  }

  static RunOptions checked(RunOptions options) {
    const auto at_least = [](const char* name, std::int64_t value, std::int64_t least) {
      if (value < least) throw ValueError(concat("Run: got .", name, " = ", value, ", wanted at least ", least));
    };
    at_least("log_interval", options.log_interval, 1);
    at_least("keep", options.keep, 1);
    at_least("total_steps", options.total_steps, 0);
    const std::filesystem::path name(options.name);
    if (options.name.empty() || name.filename() != name || options.name == "." || options.name == "..")
      throw ValueError(
          concat("Run: got .name = '", options.name, "', wanted the name of a folder in .root, without a slash"));
    return options;
  }

  std::vector<std::string> columns() const {
    std::vector<std::string> all{"epoch", "step", "lr"};
    all.insert(all.end(), options_.losses.begin(), options_.losses.end());
    for (const RunMetric& metric : options_.metrics) all.push_back(metric.name);
    for (const char* last : {"time", "data", "seconds"}) all.push_back(last);
    for (const std::string& name : all)
      if (name.empty() || name.find_first_of(",\"\n\r") != std::string::npos ||
          std::count(all.begin(), all.end(), name) > 1)
        throw ValueError(concat(
            "Run: '", name, "' cannot be a column of log.csv: names of losses and metrics differ, and have no comma"));
    return all;
  }

  void begin(const CheckpointInfo& at) {
    sums_.assign(options_.losses.size(), 0);
    if (resumed_) {
      seconds_before_ = at.number("run.seconds");
      steps_ = std::int64_t(at.number("run.steps"));
      data_ = at.number("run.data");
      since_before_ = at.number("run.since");
      for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] = at.number("run.sum." + options_.losses[i]);
      for (Best& best : best_)
        if (at.extra.contains("run.best." + best.name)) {
          best.value = at.number("run.best." + best.name);
          best.step = std::int64_t(at.number("run.best_step." + best.name));
          best.epoch = std::int64_t(at.number("run.best_epoch." + best.name));
        }
    }
    files_.begin(resumed_ ? std::optional(at.step) : std::nullopt,
                 resumed_ ? std::uint64_t(at.number("run.log_bytes")) : 0);
    if (options_.tensorboard)
      board_ = std::make_unique<TensorBoard>(path() / "tb", TensorBoardOptions{.resume_step = resumed_ ? at.step : -1});
    if (board_ && !resumed_ && !config_.empty()) {
      std::vector<std::string> tags;
      for (const RunMetric& metric : options_.metrics) tags.push_back("metrics/" + metric.name);
      board_->hparams(config_, tags);
    }
    progress_ = std::make_unique<Progress>(name(), std::max<std::int64_t>(options_.total_steps, 1), false);
    watch_ = Stopwatch();
    last_line_ = -since_before_;
  }

  /// What the next start() needs to know.
  void note(CheckpointInfo& at) {
    const double now = watch_.seconds();
    at.set_number("run.seconds", seconds_before_ + now);
    at.set_number("run.steps", double(steps_));
    at.set_number("run.data", data_);
    at.set_number("run.since", now - last_line_);
    at.set_number("run.log_bytes", double(files_.log_bytes()));
    for (std::size_t i = 0; i < sums_.size(); ++i) at.set_number("run.sum." + options_.losses[i], sums_[i]);
    for (const Best& best : best_)
      if (best.value) {
        at.set_number("run.best." + best.name, *best.value);
        at.set_number("run.best_step." + best.name, double(*best.step));
        at.set_number("run.best_epoch." + best.name, double(best.epoch));
      }
    saved_ = std::pair(at.step, at.batch);
  }
  bool saved_as(const CheckpointInfo& at) const { return saved_ == std::pair(at.step, at.batch); }

  std::string eta_text(std::int64_t step, double now) const {
    if (options_.total_steps <= step || steps_here_ == 0) return options_.total_steps == 0 ? "unknown" : "0:00";
    return clock_text(now / double(steps_here_) * double(options_.total_steps - step));
  }

  /// [NAME][epoch 3, iter 1,200, lr 2.0e-04] [eta 1:02:03, time (data) 0.123 (0.004)] loss 1.2e-02
  void line(const CheckpointInfo& at, const StepRecord& record, double now) {
    const double per_step = (now - last_line_) / double(steps_), data = data_ / double(steps_);
    std::string text = concat("[", name(), "][epoch ", at.epoch + 1, ", iter ", detail::grouped(at.step), ", lr ",
                              detail::formatted(record.lr, "%.1e"), "] [eta ", eta_text(at.step, now), ", time (data) ",
                              detail::formatted(per_step, "%.3f"), " (", detail::formatted(data, "%.3f"), ")]");
    std::map<std::string, double> row{{"lr", record.lr}, {"time", per_step}, {"data", data}};
    for (std::size_t i = 0; i < sums_.size(); ++i) {
      const double mean = sums_[i] / double(steps_);
      text += concat(" ", options_.losses[i], " ", detail::formatted(mean, "%.1e"));
      row[options_.losses[i]] = mean;
      if (board_) board_->scalar("losses/" + options_.losses[i], mean, at.step);
      sums_[i] = 0;
    }
    if (board_) board_->scalar("lr", record.lr, at.step);
    steps_ = 0;
    data_ = 0;
    last_line_ = now;
    add_row(at, row);
    say(text);
  }

  void add_row(const CheckpointInfo& at, std::map<std::string, double> row) {
    row["epoch"] = double(at.epoch + 1);
    row["step"] = double(at.step);
    row["seconds"] = seconds_before_ + watch_.seconds();
    files_.add_row(row);
  }

  void write_report(const CheckpointInfo& at, bool running) {
    report_.running = running;
    report_.state =
        concat("step ", detail::grouped(at.step),
               options_.total_steps > 0 ? concat(" of ", detail::grouped(options_.total_steps)) : std::string(), ", ",
               clock_text(seconds_before_ + watch_.seconds()), " so far");
    report_.best.clear();
    for (const Best& best : best_)
      if (best.value)
        report_.best.push_back(
            {best.name, *best.value, concat("epoch ", best.epoch, ", step ", detail::grouped(*best.step))});
    report_.series.clear();
    std::vector<std::string> curves = options_.losses;
    for (const RunMetric& metric : options_.metrics) curves.push_back(metric.name);
    curves.push_back("lr");
    for (const std::string& curve : curves) report_.series.push_back(files_.series(curve));
    report_.pictures = files_.pictures();
    strata::write_report(path() / "report.html", report_);
  }

  RunOptions options_;
  Interrupt interrupt_;  // before the lock
  detail::RunFiles files_;
  std::vector<Best> best_;
  std::vector<std::pair<std::string, HParam>> config_;
  Report report_;
  std::unique_ptr<TensorBoard> board_;
  std::unique_ptr<Progress> progress_;
  Stopwatch watch_;                                               // of this process
  double seconds_before_ = 0, since_before_ = 0, last_line_ = 0;  // seconds; the last on watch_
  double data_ = 0, data_before_ = 0;        // of waiting for data, since the last line; of the epoch
  std::vector<double> sums_;                 // of the losses since the last line
  std::int64_t steps_ = 0, steps_here_ = 0;  // since the last line; since start()
  std::optional<std::pair<std::int64_t, std::int64_t>> saved_;  // step and batch
  bool resumed_ = false;
};

}}  // namespace strata::STRATA_ABI
