// Parses any words, one a line, as the command line of a training program and of strata-restore.
#include <string>
#include <string_view>
#include <vector>

#include "../../examples/common/training.hpp"
#include "../../examples/restore/options.hpp"

namespace {

/// Whether the words are taken. CLI11 wants them from the back.
template <class Options>
bool parse(CLI::App& app, Options& options, const std::vector<std::string>& words) {
  options = {};
  try {
    app.parse(std::vector<std::string>(words));
    return true;
  } catch (const CLI::ParseError& error) {
    (void)std::string(error.what());
    return false;
  }
}

void train(const std::vector<std::string>& words) {
  static training::Options options;
  static CLI::App& app = [&]() -> CLI::App& {
    static CLI::App made;
    training::add_options(made, options);
    return made;
  }();
  // What was taken must be what the checks promise.
  if (parse(app, options, words) &&
      (options.steps < 1 || options.batch_size < 1 || options.patch_size < 16 || options.patch_size > 4096 ||
       !(options.lr > 0) || !(options.minutes >= 0) || options.threads < 0 || options.threads > 1024))
    __builtin_trap();
}

void restore_pictures(const std::vector<std::string>& words) {
  static restore::Options options;
  static CLI::App& app = [&]() -> CLI::App& {
    static CLI::App made;
    restore::add_options(made, options);
    return made;
  }();
  if (!parse(app, options, words)) return;
  if (options.inputs.empty() || options.output.empty() || options.threads < 0 || options.threads > 1024) __builtin_trap();
  try {
    if (restore::bytes_of(options.max_memory) < 0) __builtin_trap();
    const auto sigma = restore::sigma_of(options.sigma);
    if (sigma && !(*sigma >= 0 && *sigma <= 55)) __builtin_trap();
  } catch (const strata::ValueError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(bytes), size);
  std::vector<std::string> words;
  for (std::size_t end; words.size() < 64 && !text.empty(); text.remove_prefix(std::min(text.size(), end) + (end < text.size()))) {
    end = std::min(text.find('\n'), text.size());
    words.insert(words.begin(), std::string(text.substr(0, end)));
  }
  train(words);
  restore_pictures(words);
  return 0;
}
