// Parses any words, one a line, as the command line of a training program.
#include <string>
#include <string_view>
#include <vector>

#include "../../examples/common/training.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  std::string_view text(reinterpret_cast<const char*>(bytes), size);
  std::vector<std::string> words;  // CLI11 takes them from the back
  for (std::size_t end; words.size() < 64 && !text.empty(); text.remove_prefix(std::min(text.size(), end) + (end < text.size()))) {
    end = std::min(text.find('\n'), text.size());
    words.insert(words.begin(), std::string(text.substr(0, end)));
  }
  static training::Options options;
  static CLI::App& app = [&]() -> CLI::App& {
    static CLI::App made;
    training::add_options(made, options);
    return made;
  }();
  options = {};
  try {
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    (void)std::string(error.what());
    return 0;
  }
  // What was taken must be what the checks promise.
  if (options.steps < 1 || options.batch_size < 1 || options.patch_size < 16 || options.patch_size > 4096 ||
      !(options.lr > 0) || !(options.minutes >= 0) || options.threads < 0 || options.threads > 1024)
    __builtin_trap();
  return 0;
}
