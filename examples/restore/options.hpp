// The command line of strata-restore.
#pragma once

#include <CLI/CLI.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "strata/core/error.hpp"

namespace restore {

struct Options {
  std::string task, sigma = "auto", model, max_memory = "512M", isa = "best";
  std::vector<std::filesystem::path> inputs;
  std::filesystem::path output, compare;
  bool ensemble = false, overwrite = false;
  int threads = 0;
};

inline void add_options(CLI::App& app, Options& options) {
  const CLI::Validator given(
      [](const std::string& path) { return path.empty() ? std::string("wanted a path, got an empty word") : ""; }, "");
  app.option_defaults()->always_capture_default();
  app.add_option("task", options.task, "denoise or upscale")->required()->check(CLI::IsMember({"denoise", "upscale"}));
  app.add_option("input", options.inputs, "pictures (.png, .jpg, .bmp) or folders of them")->required()->check(given);
  app.add_option("-o,--output", options.output, "picture, or folder (which gets .png files)")->required()->check(given);
  app.add_flag("--overwrite", options.overwrite, "replace outputs that are there already");
  app.add_option("--sigma", options.sigma, "noise level from 0 to 55 on the scale of 0 to 255, or auto");
  app.add_option("--model", options.model,
                 "grey, colour, x2, or a safetensors file [what the picture and task ask for]");
  app.add_option("--max-memory", options.max_memory, "limit, as 512M or 2G");
  app.add_flag("--ensemble", options.ensemble, "mean of eight orientations: slower, a little better");
  app.add_option("--compare", options.compare,
                 "also write before and after side by side (picture, or folder for many)");
  app.add_option("--threads", options.threads, "[all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--isa", options.isa, "instruction set: best, avx512, avx2 or baseline");
}

/// "512M" -> bytes.
inline std::int64_t bytes_of(const std::string& text) {
  std::size_t used = 0;
  double number = 0;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  const std::string unit = text.substr(used);
  const double factor = unit == "K" ? 1 << 10 : unit == "M" ? 1 << 20 : unit == "G" ? 1 << 30 : 0;
  if (used == 0 || factor == 0 || !(number > 0 && number * factor < 1e15))
    throw strata::ValueError(strata::concat("--max-memory: got '", text, "', wanted a size as 512M or 2G"));
  return std::int64_t(number * factor);
}

/// The level given, or nothing for auto.
inline std::optional<float> sigma_of(const std::string& text) {
  if (text == "auto") return std::nullopt;
  std::size_t used = 0;
  float sigma = -1;
  try {
    sigma = std::stof(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != text.size() || !(sigma >= 0 && sigma <= 55))
    throw strata::ValueError(strata::concat("--sigma: got '", text, "', wanted auto or a number from 0 to 55"));
  return sigma;
}

}  // namespace restore
