// strata-restore: takes noise out of pictures, or doubles their size. One file, nothing to install.
//
//     strata-restore denoise noisy.png -o clean.png                  # finds out the noise level by itself
//     strata-restore denoise photos --sigma 15 -o clean              # a folder to a folder
//     strata-restore upscale small.jpg -o large.png --compare both.png
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../common/console.hpp"
#include "../common/outputs.hpp"
#include "built_in.hpp"
#include "engine.hpp"
#include "memory.hpp"
#include "networks.hpp"
#include "options.hpp"
#include "pictures.hpp"
#include "strata/strata.hpp"
#include "weights.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {

namespace fs = std::filesystem;
namespace st = strata;
using restore::Options;
using restore::Task;

struct InstructionSet {
  const char* name;
  bool there;
  std::int64_t (*run)(const restore::Request&);
};
std::vector<InstructionSet> instruction_sets() {
  return {
#if defined(__x86_64__)
    {"avx512",
     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512cd"),
     restore::run_avx512},
        {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"),
         restore::run_avx2},
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

const char* model_name(Task task) {
  return task == Task::denoise_grey ? "grey" : task == Task::denoise_colour ? "colour" : "x2";
}

/// A picture, where its result goes, and where the two beside one another do (or nothing).
struct Job {
  fs::path input, output, compare;
};

class Program {
 public:
  explicit Program(const Options& options)
      : options_(options), set_(chosen(options.isa)), max_bytes_(restore::bytes_of(options.max_memory)),
        sigma_(restore::sigma_of(options.sigma)) {
    if (options.threads > 0) st::set_num_threads(options.threads);
  }

  void restore_file(const Job& job) {
    const auto& [input, output, compare] = job;
    const console::Stopwatch watch;
    for (const fs::path& path : {output, compare})
      if (!path.empty()) outputs::check_place(path, options_.overwrite);
    const st::ImageInfo info = st::read_image_info(input);
    for (const fs::path& path : {output, compare})
      if (!path.empty() && st::detail::format_of_name(path) != st::ImageFormat::png &&
          (info.bits != 8 || info.has_alpha()))
        throw st::ValueError(st::concat(path.string(), ": the picture has ", info.bits, " bits and ", info.channels,
                                        " channels, which only a .png holds"));
    const bool upscaling = options_.task == "upscale";
    Task task = upscaling ? Task::upscale : info.channels >= 3 ? Task::denoise_colour : Task::denoise_grey;
    const restore::Memory memory = restore::memory_for(info, std::int64_t(fs::file_size(input)), task, set_.run,
                                                       options_.ensemble, !compare.empty());
    if (memory.least() > max_bytes_)
      throw st::ValueError(st::concat("--max-memory ", options_.max_memory, " is too little for ", input.string(), ", ",
                                      info.w, "x", info.h, " pixels: it takes ", (memory.least() + (1 << 20) - 1) >> 20,
                                      "M at least"));
    if (!upscaling && !sigma_ && std::min(info.h, info.w) < 16)
      throw st::ValueError(st::concat(input.string(), ": has ", info.w, "x", info.h,
                                      " pixels, too small to find its noise level: give it, as --sigma 15"));
    const bool may_be_grey = task == Task::denoise_colour && (options_.model.empty() || options_.model == "grey");
    if (!may_be_grey) weights(task, input);  // before the work
    st::RawImage picture = st::load_raw_image(input, std::numeric_limits<std::int64_t>::max());  // the memory is known
    const bool grey_in_rgb = picture.channels >= 3 && st::is_grey(picture);
    if (may_be_grey && grey_in_rgb) task = Task::denoise_grey;
    const std::vector<float>& numbers = weights(task, input);
    const char* const kind = grey_in_rgb ? " grey in RGB" : picture.channels >= 3 ? " colour" : " grey";
    std::string how =
        st::concat(picture.w, "x", picture.h, kind, picture.has_alpha() ? " with alpha, " : ", ", picture.bits, " bit");
    if (picture.orientation != 1) how += st::concat(", turned upright (EXIF orientation ", picture.orientation, ")");
    float sigma = 0;
    if (!upscaling) {
      sigma = sigma_ ? *sigma_ : restore::estimated_sigma(picture);
      how += st::concat(", noise level ", std::round(10 * double(sigma)) / 10, sigma_ ? "" : " (estimated)");
      if (sigma > 55) how += ", above 55: treated as 55";
      sigma = std::min(sigma, 55.0f);
    }
    const std::vector<std::string> lost = st::left_out(output, picture);
    for (const std::string& name : lost) how += (&name == &lost.front() ? ", without its " : ", ") + name;
    console::Progress bar(input.filename().string(), 1000);
    const restore::Settings settings{
        .run = set_.run, .weights = numbers, .max_bytes = max_bytes_ - (memory.running - memory.network),
        .threads = options_.threads, .ensemble = options_.ensemble,
        .progress = [&](double part) { bar.update(std::int64_t(std::min(999.0, 1000 * part)), ""); }};
    st::RawImage before;
    if (!compare.empty()) before = picture;
    st::RawImage result;
    try {
      result = upscaling ? restore::upscale(std::move(picture), settings)
                         : restore::denoise(std::move(picture), sigma, task, settings);
    } catch (const st::NumericError&) {
      throw st::NumericError(st::concat(input.string(), ": the model ",
                                        options_.model.empty() ? model_name(task) : options_.model,
                                        " makes values of it that are not finite; choose another model"));
    }
    bar.finish();
    picture = {};
    st::cpu_pool().trim();
    if (!compare.empty()) st::save_raw_image(compare, restore::side_by_side(before, result));
    before = {};
    st::save_raw_image(output, std::move(result));
    std::printf("%s -> %s  %s, %s, %.1f s\n", input.c_str(), output.c_str(), how.c_str(), set_.name, watch.seconds());
    std::fflush(stdout);
  }

  /// The weights file of --model, or nothing.
  fs::path model_file() const { return is_built_in(options_.model) ? fs::path() : fs::path(options_.model); }

 private:
  static bool is_built_in(const std::string& name) {
    return name.empty() || name == "grey" || name == "colour" || name == "x2";
  }

  /// Throws what says why `input` cannot be done with them.
  const std::vector<float>& weights(Task task, const fs::path& input) {
    auto& kept = weights_[task];
    if (!kept.empty()) return kept;
    if (!is_built_in(options_.model)) {
      std::vector<float> numbers = weights_of_file(task);
      for (const float number : numbers)
        if (!std::isfinite(number))
          throw st::FileError(st::concat(
              input.string(), ": --model ", options_.model,
              " holds numbers that are not finite (NaN or infinity), and so would the result; choose another"));
      kept = std::move(numbers);
    } else if (!options_.model.empty() && options_.model != model_name(task)) {
      throw st::ValueError(st::concat(input.string(), ": --model ", options_.model,
                                      " is not for this picture and task; that is ", model_name(task)));
    } else {
      kept = restore::load_built_in(task, restore::built_in(task));
    }
    return kept;
  }

  std::vector<float> weights_of_file(Task task) const {
    try {
      return restore::load(task, options_.model);
    } catch (const st::Error& error) {  // its first line: a list of tensors is for those who train
      const std::string text = error.what();
      throw st::FileError(st::concat("--model ", text.substr(0, text.find('\n')),
                                     " (wanted: grey, colour, x2, or weights of the ",
                                     task == Task::upscale        ? "upscaler, as super_resolution_train"
                                     : task == Task::denoise_grey ? "grey denoiser, as ffdnet_train --channels 1"
                                                                  : "colour denoiser, as ffdnet_train --channels 3",
                                     " writes them)"));
    }
  }

  const Options& options_;
  InstructionSet set_;
  std::int64_t max_bytes_;
  std::optional<float> sigma_;
  std::map<Task, std::vector<float>> weights_;
};

int run(const Options& options) {
  if (options.task == "upscale" && options.sigma != "auto")
    throw st::ValueError("--sigma is for denoise; upscale takes none");
  Program program(options);
  std::vector<fs::path> files, folders;
  bool many = options.inputs.size() > 1 || outputs::is_folder(options.output);
  for (const fs::path& input : options.inputs) {
    if (!outputs::is_folder(input)) {
      files.push_back(input);
      continue;
    }
    many = true;
    folders.push_back(input);
    for (fs::path& file : st::list_images(input)) files.push_back(std::move(file));
  }
  std::vector<Job> jobs;
  if (!many) {
    if (!options.compare.empty() && outputs::identity(options.compare) == outputs::identity(options.output))
      throw st::ValueError(
          st::concat("--compare ", options.compare.string(), ": is the output itself; choose another name"));
    jobs.push_back({files.front(), options.output, options.compare});
  } else {
    for (const fs::path& folder : {options.output, options.compare})
      if (!folder.empty()) outputs::make_folder(folder, folders);
    for (const fs::path& file : files) {
      const fs::path name = file.filename().replace_extension(".png");
      jobs.push_back({file, options.output / name, options.compare.empty() ? fs::path() : options.compare / name});
    }
  }
  std::vector<fs::path> read = files;
  if (!program.model_file().empty()) read.push_back(program.model_file());
  std::vector<outputs::Output> written;
  for (const Job& job : jobs) {
    written.push_back({job.input, job.output});
    if (!job.compare.empty()) written.push_back({job.input, job.compare});
  }
  outputs::check_apart(read, written);
  if (!many) {
    program.restore_file(jobs.front());
    return 0;
  }
  int failures = 0;
  for (const Job& job : jobs) try {
      program.restore_file(job);
    } catch (const std::exception& error) {  // the others are still worth doing
      std::fprintf(stderr, "strata-restore: %s\n", error.what());
      ++failures;
    }
  if (failures > 0) std::fprintf(stderr, "strata-restore: %d of %zu pictures failed\n", failures, jobs.size());
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Takes noise out of pictures, or doubles their size.");
  restore::add_options(app, options);
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
