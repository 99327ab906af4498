// The folder of a training run.
//
//     latest.safetensors   the whole state; latest.safetensors.previous is the one before
//     best.safetensors     what validated best
//     log.csv, curve.svg   how it went
//     config.toml          the options, for --config
//     run.lock             who works here, while somebody does
//
// The truth is in latest.safetensors alone, which is written whole or not at all, and says also which validation was
// the best and what the last line of the log is. The other files are written after it and follow from it: where a run
// was stopped in between, by whatever, they are put right when it is resumed.
//
// Where several ranks train, rank 0 alone reads and writes; the others hear from it what was read.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "console.hpp"
#include "curve.hpp"
#include "recipe.hpp"
#include "strata/distributed/state.hpp"
#include "strata/strata.hpp"

namespace training {

namespace fs = std::filesystem;

class RunFolder {
 public:
  /// Makes the folder if need be, and locks it. `columns` is the first line of the log: it begins with what a run
  /// counts, "epoch" or "step", and loss and psnr are its third and fourth. `resume` is empty for a new run, "" for one
  /// that goes on from the latest checkpoint, or names one; settle(info, file) then hears what that says before
  /// anything else is done, on all ranks of `world`. Throws FileError, and ValueError for a new run where there is one
  /// already.
  template <class Settle>
  RunFolder(fs::path path, std::string columns, const std::optional<std::string>& resume, Settle&& settle,
            st::World world = {})
      : world_(std::move(world)),
        path_(std::move(path)),
        columns_(std::move(columns)),
        unit_(columns_.substr(0, columns_.find(','))) {
    if (world_.is_first()) open(resume);
    std::string from = from_.string();
    st::broadcast(world_, from, start_);
    from_ = from;
    if (!start_) return;
    settle(*start_, from_);
    std::error_code unknown;
    if (world_.is_first() && is_there(latest()) &&
        !fs::equivalent(path_, from_.has_parent_path() ? from_.parent_path() : ".", unknown))
      throw st::ValueError(st::concat(latest().string(), " is of another run, and going on from ", from_.string(),
                                      " would write over it; choose another --checkpoint-dir"));
  }

  const st::World& world() const { return world_; }
  fs::path latest() const { return path_ / "latest.safetensors"; }
  fs::path best() const { return path_ / "best.safetensors"; }
  fs::path curve() const { return path_ / "curve.svg"; }
  const fs::path& path() const { return path_; }
  /// Whether the run is to stop: asked since the folder was opened.
  const console::Interrupt& interrupt() const { return interrupt_; }

  /// The checkpoint to go on from, and what it says; or nothing.
  const std::optional<st::CheckpointInfo>& start() const { return start_; }
  const fs::path& from() const { return from_; }

  /// Loads that checkpoint, and the log of its run up to there.
  template <class Net, class... Objects>
  st::CheckpointInfo load(Net& net, Objects&... objects) {
    st::CheckpointInfo at;
    if (world_.is_first()) at = load_on_first(net, objects...);
    st::broadcast(world_, at, net, objects...);
    return at;
  }

  /// Before a run goes on: sees to it that what `at` says of the best is so, by write() if need be, which writes best()
  /// from the state that was loaded; and writes the log. `measured_by` says how validations are made.
  template <class Write>
  void begin(st::CheckpointInfo& at, const std::string& measured_by, Write&& write) {
    if (!world_.is_first()) return;
    const std::string before = std::exchange(at.extra["validation"], measured_by);
    if (at.best && before != measured_by) {
      forget_best(at, st::concat("validations of now (", measured_by, ") are not comparable with those before (",
                                 before.empty() ? "of unknown images" : before, ")"));
    } else if (at.best && mark_in_best() != at.extra["best"]) {
      const bool just_now = at.extra["best"] == mark(count(at), *at.best) && (unit_ == "step" || at.batch == 0);
      if (just_now) {
        write();
        std::printf("note: %s was behind the checkpoint, and is written again\n", best().c_str());
      } else {
        forget_best(at, st::concat(best().string(), " does not hold the best of the checkpoint"));
      }
    }
    if (!rows_.empty()) write_log();
  }

  /// Writes config.toml, the options in a form that --config takes.
  void write_config(const std::string& toml) const {
    if (world_.is_first()) st::write_file(path_ / "config.toml", toml);
  }

  /// Whether this validation is the best so far. It is then noted in `at`: save() that, and write best() with it after
  /// that.
  bool is_best(st::CheckpointInfo& at, double psnr) const {
    if (std::isnan(psnr) || psnr == -INFINITY)
      throw st::NumericError(
          st::concat("the validation's PSNR is ", psnr, " after ", unit_, " ", count(at), ": ", diverged()));
    if (at.best && !(psnr > *at.best)) return false;
    at.best = psnr;
    at.extra["best"] = mark(count(at), psnr);
    return true;
  }

  /// Adds a line to the log, and to what the next save() keeps. write_log() comes after that.
  void add_row(st::CheckpointInfo& at, const std::string& row) {
    rows_.push_back(row);
    at.extra["log"] = row;
  }
  void write_log() const {
    if (!world_.is_first()) return;
    std::string text = columns_ + "\n";
    curve::Panel loss{.title = "training loss", .logarithmic = true, .unit = unit_};
    curve::Panel psnr{.title = "validation PSNR (dB)", .unit = unit_};
    for (const std::string& row : rows_) {
      text += row + "\n";
      loss.at.push_back(double(number_of(row)));
      psnr.at.push_back(double(number_of(row)));
      loss.values.push_back(field(row, 2));
      psnr.values.push_back(field(row, 3));
    }
    st::write_file(path_ / "log.csv", text);
    curve::write_curves(curve(), {loss, psnr});
  }

  /// Writes latest(). Throws NumericError, and leaves the file that is there, when the run has diverged.
  template <class Net, class... Objects>
  void save(const st::CheckpointInfo& at, const Net& net, const Objects&... objects) const {
    if (!world_.is_first()) return;
    if (const std::string name = st::first_not_finite(net, objects...); !name.empty())
      throw st::NumericError(st::concat(name, " is not finite after ", at.step, " steps: ", diverged()));
    st::save_checkpoint(latest(), at, net, objects...);
  }

  /// What to do, and where the last good state is: the end of a sentence.
  std::string diverged() const {
    const fs::path good = is_there(latest()) ? latest() : from_;
    return st::concat("the run has diverged; lower the learning rate. The last good checkpoint is ",
                      good.empty() ? "none: no step was saved yet" : good.string());
  }

  /// Says what is best, and where it is.
  std::string conclusion(const st::CheckpointInfo& at) const {
    if (!at.best) return st::concat("nothing was validated yet, so there is no best ", unit_);
    char number[32];
    std::snprintf(number, sizeof number, "%.3f", *at.best);
    const bool there = mark_in_best() == at.extra.at("best");
    return st::concat("best PSNR ", number, " dB: ", best().string(), there ? "" : " held it, and is gone");
  }

 private:
  void open(const std::optional<std::string>& resume) {
    lock_.emplace(made(path_));
    if (!lock_->held())
      std::printf("note: there are no locks in %s: see to it that no other run works there\n", path_.c_str());
    const fs::path previous = st::previous_path(latest());
    if (!resume) {
      for (const fs::path& file : {latest(), previous})
        if (is_there(file))
          throw st::ValueError(st::concat(file.string(),
                                          " is there already: go on from it with --resume, or choose "
                                          "another --checkpoint-dir"));
      return;
    }
    if (!resume->empty())
      from_ = *resume;
    else if (is_there(latest()))
      from_ = latest();
    else if (is_there(previous))
      from_ = previous;
    else
      std::printf("note: there is no checkpoint in %s yet: the run starts at its beginning\n", path_.c_str());
    if (!from_.empty()) start_ = st::read_checkpoint_info(from_);
  }

  template <class Net, class... Objects>
  st::CheckpointInfo load_on_first(Net& net, Objects&... objects) {
    st::CheckpointInfo at = st::load_checkpoint(from_, net, objects...);
    if (const std::string name = st::first_not_finite(net, objects...); !name.empty())
      throw st::FileError(st::concat(from_.string(), ": its ", name,
                                     " is not finite, so the run had diverged: go on from another checkpoint"));
    rows_ = read_log(from_.parent_path() / "log.csv", count(at));
    if (const auto last = at.extra.find("log"); last != at.extra.end() && number_of(last->second) > last_number())
      rows_.push_back(last->second);
    return at;
  }

  static bool is_there(const fs::path& path) {
    std::error_code failure;
    const fs::file_type type = fs::status(path, failure).type();
    if (type == fs::file_type::none)
      throw st::FileError(st::concat(path.string(), ": cannot be examined: ", failure.message()));
    return type != fs::file_type::not_found;
  }

  static const fs::path& made(const fs::path& folder) {
    std::error_code failure;
    fs::create_directories(folder, failure);
    if (failure) throw st::FileError(st::concat(folder.string(), ": the folder cannot be made: ", failure.message()));
    return folder;
  }

  std::int64_t count(const st::CheckpointInfo& at) const { return unit_ == "epoch" ? at.epoch : at.step; }
  std::string mark(std::int64_t number, double psnr) const {
    return st::concat(unit_, " ", number, ", ", st::detail::number_text(psnr), " dB");
  }

  /// What best() says it holds; empty where it is not there, or damaged.
  std::string mark_in_best() const {
    if (!is_there(best())) return "";
    try {
      const st::SafetensorsFile file(best());
      if (file.has_checksum()) file.verify_checksum();
      for (const char* key : {"extra.best", "best"})
        if (const auto entry = file.metadata().find(key); entry != file.metadata().end()) return entry->second;
    } catch (const st::FileError& error) {
      std::printf("note: %s\n", error.what());
    }
    return "";
  }

  void forget_best(st::CheckpointInfo& at, const std::string& why) const {
    std::printf("note: %s (%s): the best is looked for anew from here on\n", why.c_str(),
                at.extra.contains("best") ? at.extra["best"].c_str() : st::concat(*at.best, " dB").c_str());
    at.best.reset();
    at.extra.erase("best");
  }

  static double field(std::string_view row, int index) {
    for (; index > 0 && row.find(',') != std::string_view::npos; --index) row.remove_prefix(row.find(',') + 1);
    return std::strtod(std::string(row).c_str(), nullptr);
  }
  static std::int64_t number_of(const std::string& row) { return std::strtoll(row.c_str(), nullptr, 10); }
  std::int64_t last_number() const { return rows_.empty() ? 0 : number_of(rows_.back()); }

  /// The whole lines of a log that belong to the first `last` epochs or steps. Throws FileError where it cannot be
  /// read.
  std::vector<std::string> read_log(const fs::path& path, std::int64_t last) const {
    std::vector<std::string> rows;
    if (!is_there(path)) return rows;
    const st::InputFile file(path);
    std::string text(std::size_t(file.size()), '\0');
    file.read(0, std::as_writable_bytes(std::span(text)));
    const auto commas = [](std::string_view line) { return std::ranges::count(line, ','); };
    for (std::size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string line = text.substr(begin, end - begin);
      const std::int64_t number = number_of(line), before = rows.empty() ? 0 : number_of(rows.back());
      if (number > before && number <= last && commas(line) == commas(columns_)) rows.push_back(line);
    }
    return rows;
  }

  console::Interrupt interrupt_;  // before the lock
  st::World world_;
  fs::path path_;
  std::string columns_, unit_;
  std::optional<st::FolderLock> lock_;  // rank 0's
  fs::path from_;
  std::optional<st::CheckpointInfo> start_;
  std::vector<std::string> rows_;
};

}  // namespace training
