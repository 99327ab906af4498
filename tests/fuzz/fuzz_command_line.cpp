// Parses any words, one a line, as the command line of a training program and of strata-restore.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "../../examples/common/training.hpp"
#include "../../examples/restore/options.hpp"

namespace {

/// A program's options and their parser. Making one takes as long as many parses; CLI11 remembers the options of all
/// parses of an App, so that a new one now and then keeps that short.
template <class Options>
class Program {
 public:
  explicit Program(void (*add_options)(CLI::App&, Options&)) : add_options_(add_options) {}

  /// Whether the words are taken. CLI11 wants them from the back.
  bool parse(const std::vector<std::string>& words) {
    if (parses_++ % 100000 == 0) {
      app_ = std::make_unique<CLI::App>();
      add_options_(*app_, options);
    }
    options = {};
    try {
      app_->parse(std::vector<std::string>(words));
      return true;
    } catch (const CLI::ParseError& error) {
      (void)std::string(error.what());
      return false;
    }
  }

  Options options;

 private:
  void (*add_options_)(CLI::App&, Options&);
  std::unique_ptr<CLI::App> app_;
  std::int64_t parses_ = 0;
};

void train(const std::vector<std::string>& words) {
  static Program<training::Options> program(training::add_options);
  const training::Options& options = program.options;
  // What was taken must be what the checks promise.
  if (program.parse(words) &&
      (options.steps < 1 || options.batch_size < 1 || options.patch_size < 16 || options.patch_size > 4096 ||
       !(options.lr > 0) || !(options.minutes >= 0) || options.threads < 0 || options.threads > 1024))
    __builtin_trap();
}

void restore_pictures(const std::vector<std::string>& words) {
  static Program<restore::Options> program(restore::add_options);
  if (!program.parse(words)) return;
  const restore::Options& options = program.options;
  if (options.inputs.empty() || options.output.empty() || options.threads < 0 || options.threads > 1024)
    __builtin_trap();
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
  for (std::size_t end; words.size() < 64 && !text.empty();
       text.remove_prefix(std::min(text.size(), end) + (end < text.size()))) {
    end = std::min(text.find('\n'), text.size());
    words.insert(words.begin(), std::string(text.substr(0, end)));
  }
  train(words);
  restore_pictures(words);
  return 0;
}
