// strata-restore: takes noise out of pictures, or doubles their size. One file, nothing to install.
//
//     strata-restore denoise noisy.png -o clean.png                  # finds out the noise level by itself
//     strata-restore denoise photos --sigma 15 -o clean              # a folder to a folder
//     strata-restore upscale small.jpg -o large.png --compare both.png
#include <CLI/CLI.hpp>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../common/console.hpp"
#include "built_in.hpp"
#include "engine.hpp"
#include "networks.hpp"
#include "pictures.hpp"
#include "strata/strata.hpp"
#include "weights.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {

namespace fs = std::filesystem;
namespace st = strata;
using restore::Task;

struct Options {
  std::string task, sigma = "auto", model, max_memory = "512M", isa = "best";
  std::vector<fs::path> inputs;
  fs::path output, compare;
  bool ensemble = false;
  int threads = 0;
};

struct InstructionSet {
  const char* name;
  bool there;
  void (*run)(const restore::Request&);
};
std::vector<InstructionSet> instruction_sets() {
  return {
#if defined(__x86_64__)
      {"avx512", __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"), restore::run_avx512},
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"), restore::run_avx2},
#endif
      {"baseline", true, restore::run_baseline},
  };
}
InstructionSet chosen(const std::string& name) {
  for (const InstructionSet& set : instruction_sets()) {
    if (name == "best" && set.there) return set;
    if (name == set.name) {
      if (!set.there) throw st::ValueError(st::concat("--isa ", name, ": this processor does not have it"));
      return set;
    }
  }
  throw st::ValueError(st::concat("--isa ", name, ": wanted best, avx512, avx2 or baseline"));
}

/// "512M" -> bytes.
std::int64_t bytes_of(const std::string& text) {
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
    throw st::ValueError(st::concat("--max-memory: got '", text, "', wanted a size as 512M or 2G"));
  return std::int64_t(number * factor);
}

/// The level given, or nothing for auto.
std::optional<float> sigma_of(const std::string& text) {
  if (text == "auto") return std::nullopt;
  std::size_t used = 0;
  float sigma = -1;
  try {
    sigma = std::stof(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used != text.size() || !(sigma >= 0 && sigma <= 55))
    throw st::ValueError(st::concat("--sigma: got '", text, "', wanted auto or a number from 0 to 55"));
  return sigma;
}

const char* model_name(Task task) {
  return task == Task::denoise_grey ? "grey" : task == Task::denoise_colour ? "colour" : "x2";
}

class Program {
 public:
  explicit Program(const Options& options)
      : options_(options), set_(chosen(options.isa)), max_bytes_(bytes_of(options.max_memory)), sigma_(sigma_of(options.sigma)) {
    if (options.threads > 0) st::set_num_threads(options.threads);
  }

  void restore_file(const fs::path& input, const fs::path& output, const fs::path& compare) {
    const console::Stopwatch watch;
    std::error_code none;
    if (fs::equivalent(input, output, none))
      throw st::FileError(st::concat(output.string(), ": is the input itself; choose another output"));
    st::RawImage picture = st::load_raw_image(input);
    const bool png = st::detail::lower_extension(output) == ".png";
    if (!png && (picture.bits != 8 || picture.has_alpha()))
      throw st::ValueError(st::concat(output.string(), ": the picture has ", picture.bits, " bits and ", picture.channels,
                                      " channels, which only a .png holds"));
    const bool upscaling = options_.task == "upscale";
    const Task task = upscaling ? Task::upscale : picture.channels >= 3 ? Task::denoise_colour : Task::denoise_grey;
    std::string how = st::concat(picture.w, "x", picture.h, picture.channels >= 3 ? " colour" : " grey",
                                 picture.has_alpha() ? " with alpha, " : ", ", picture.bits, " bit");
    if (picture.orientation != 1) how += st::concat(", turned upright (EXIF orientation ", picture.orientation, ")");
    float sigma = 0;
    if (!upscaling) {
      sigma = sigma_ ? *sigma_ : restore::estimated_sigma(picture);
      how += st::concat(", noise level ", std::round(10 * double(sigma)) / 10, sigma_ ? "" : " (estimated)");
      if (sigma > 55) how += ", above 55: treated as 55";
      sigma = std::min(sigma, 55.0f);
    }
    console::Progress bar(input.filename().string(), 1000);
    const restore::Settings settings{
        .run = set_.run, .weights = weights(task), .max_bytes = max_bytes_, .threads = options_.threads, .ensemble = options_.ensemble,
        .progress = [&](double part) { bar.update(std::int64_t(std::min(999.0, 1000 * part)), ""); }};
    const st::RawImage result = upscaling ? restore::upscale(picture, settings) : restore::denoise(picture, sigma, settings);
    bar.finish();
    if (!compare.empty()) st::save_raw_image(compare, restore::side_by_side(picture, result));
    picture = {};  // saving takes memory of its own
    st::cpu_pool().trim();
    st::save_raw_image(output, result);
    std::printf("%s -> %s  %s, %s, %.1f s\n", input.c_str(), output.c_str(), how.c_str(), set_.name, watch.seconds());
    std::fflush(stdout);
  }

 private:
  const std::vector<float>& weights(Task task) {
    auto& kept = weights_[task];
    if (!kept.empty()) return kept;
    const bool named = options_.model.empty() || options_.model == "grey" || options_.model == "colour" || options_.model == "x2";
    if (!named)
      kept = restore::load(task, options_.model);
    else if (!options_.model.empty() && options_.model != model_name(task))
      throw st::ValueError(st::concat("--model ", options_.model, " is not for this picture and task; that is ", model_name(task)));
    else
      kept = restore::load_built_in(task, restore::built_in(task));
    return kept;
  }

  const Options& options_;
  InstructionSet set_;
  std::int64_t max_bytes_;
  std::optional<float> sigma_;
  std::map<Task, std::vector<float>> weights_;
};

int run(const Options& options) {
  if (options.task == "deblock")
    throw st::ValueError("deblock: there is no model for JPEG's blocks yet; denoise --sigma 5 softens weak ones");
  Program program(options);
  std::vector<fs::path> files;
  bool many = options.inputs.size() > 1;
  for (const fs::path& input : options.inputs) {
    if (!fs::is_directory(input)) {
      files.push_back(input);
      continue;
    }
    many = true;
    for (fs::path& file : st::list_images(input)) files.push_back(std::move(file));
  }
  if (!many && !fs::is_directory(options.output)) {
    program.restore_file(files.front(), options.output, options.compare);
    return 0;
  }
  if (!options.compare.empty()) fs::create_directories(options.compare);
  fs::create_directories(options.output);
  std::map<fs::path, fs::path> taken;  // output -> input
  int failures = 0;
  for (const fs::path& file : files) try {
      const fs::path name = file.filename().replace_extension(".png");
      if (const auto [other, is_new] = taken.emplace(options.output / name, file); !is_new)
        throw st::FileError(st::concat(file.string(), ": would write ", other->first.string(), ", as ", other->second.string(), " does"));
      program.restore_file(file, options.output / name, options.compare.empty() ? fs::path() : options.compare / name);
    } catch (const std::exception& error) {  // the others are still worth doing
      std::fprintf(stderr, "strata-restore: %s\n", error.what());
      ++failures;
    }
  if (failures > 0) std::fprintf(stderr, "strata-restore: %d of %zu pictures failed\n", failures, files.size());
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Takes noise out of pictures, or doubles their size.");
  app.option_defaults()->always_capture_default();
  app.add_option("task", options.task, "denoise, upscale or deblock")->required()->check(CLI::IsMember({"denoise", "upscale", "deblock"}));
  app.add_option("input", options.inputs, "pictures (.png, .jpg, .bmp) or folders of them")->required();
  app.add_option("-o,--output", options.output, "picture, or folder (which gets .png files)")->required();
  app.add_option("--sigma", options.sigma, "noise level from 0 to 55 on the scale of 0 to 255, or auto");
  app.add_option("--model", options.model, "grey, colour, x2, or a safetensors file [what the picture and task ask for]");
  app.add_option("--max-memory", options.max_memory, "limit, as 512M or 2G");
  app.add_flag("--ensemble", options.ensemble, "mean of eight orientations: slower, a little better");
  app.add_option("--compare", options.compare, "also write before and after side by side (picture, or folder for many)");
  app.add_option("--threads", options.threads, "[all cores]")->check(CLI::Range(0, 1024));
  app.add_option("--isa", options.isa, "instruction set: best, avx512, avx2 or baseline");
  CLI11_PARSE(app, argc, argv);
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 1 << 20);  // what is freed goes back to the system at once, so that the limit holds
#endif
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "strata-restore: %s\n", error.what());
    return 1;
  }
}
