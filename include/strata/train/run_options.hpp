// What a run is told: its name, its columns, what it keeps, and whom it calls. See train/run.hpp.
//
//     st::Run run({.name = "dncnn-s25", .total_steps = 80000, .metrics = {{"Set12/psnr"}},
//                  .hooks = {.saved = [](const st::CheckpointInfo&, const std::filesystem::path& file) {
//                    upload(file);
//                  }}});
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "strata/io/checkpoint.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Something that validations measure, as {"Set12/psnr"} or {.name = "val/loss", .higher_is_better = false}.
struct RunMetric {
  std::string name;
  bool higher_is_better = true;
};

using NamedNumbers = std::vector<std::pair<std::string, double>>;

/// What a step of the optimiser did.
struct StepRecord {
  double lr = 0;
  NamedNumbers losses = {};  ///< the same names each time; the log has their means since its last line
  double data_seconds = 0;   ///< seconds that the epoch has waited for data so far: loader.wait_seconds()
};

/// Called after what they are named for; empty ones are not.
struct RunHooks {
  std::function<void(const CheckpointInfo&, const StepRecord&)> step = {};
  std::function<void(const CheckpointInfo&, const NamedNumbers&)> validated = {};
  std::function<void(const CheckpointInfo&, const std::filesystem::path&)> saved = {};
};

struct RunOptions {
  std::string name;                            ///< the folder's; where it is taken the time is added
  std::filesystem::path root = "experiments";  ///< where the folder is
  bool resume = false;                         ///< go on in the folder `name`, from its latest checkpoint
  std::int64_t total_steps = 0;                ///< for the time that is left; 0: not known
  std::int64_t log_interval = 100;             ///< steps between two lines of the log
  int keep = 3;                                ///< checkpoints, besides the best
  std::vector<std::string> losses = {"loss"};  ///< columns of log.csv
  std::vector<RunMetric> metrics = {};         ///< more columns; best.safetensors is the best by the first
  bool tensorboard = true;
  bool quiet = false;  ///< nothing on the terminal
  RunHooks hooks = {};
};

}}  // namespace strata::STRATA_ABI
