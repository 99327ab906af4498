// The command line of a training program: its own flags, a file of them, and single ones by name.
//
//     dncnn_train --config out/config.toml --set lr=2e-3 --epochs 20
//
//     CLI::App app("Trains a denoiser.");
//     app.add_option("--epochs", options.epochs);
//     if (const auto status = command_line::parse(app, argc, argv)) return *status;      // in place of CLI11_PARSE
//
// The file is TOML, a line for each flag without its dashes; a run leaves one in its folder. What the command line says
// counts more than the file. --set NAME=VALUE is --NAME=VALUE, for scripts that have names and values. Where timm has
// another name for a flag (--workers, --clip-grad, --opt, --output), that does as well.
#pragma once

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace command_line {

/// The words of a command line without the program's name, each --set NAME=VALUE as --NAME=VALUE.
inline std::vector<std::string> words(int argc, const char* const* argv) {
  std::vector<std::string> all;
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word != "--set" && !word.starts_with("--set=")) {
      all.push_back(std::move(word));
      continue;
    }
    const bool joined = word != "--set";
    if (!joined && i + 1 == argc) throw CLI::ParseError("--set: wants NAME=VALUE", CLI::ExitCodes::ArgumentMismatch);
    const std::string pair = joined ? word.substr(6) : argv[++i];
    const std::size_t equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos || pair.starts_with('-'))
      throw CLI::ParseError("--set: got '" + pair + "', wanted NAME=VALUE, as in --set lr=1e-3",
                            CLI::ExitCodes::ArgumentMismatch);
    all.push_back("--" + pair);
  }
  return all;
}

/// Parses, and gives the program's exit status where it is to end: after --help, and after an error, which is told.
inline std::optional<int> parse(CLI::App& app, int argc, const char* const* argv) {
  if (app.get_name().empty() && argc > 0) app.name(argv[0]);
  app.set_config("--config", "", "a TOML file of options, as a run's config.toml");
  app.allow_config_extras(CLI::config_extras_mode::error);  // a name that is no option
  std::string unused;
  app.add_option("--set", unused, "NAME=VALUE: the option --NAME")->configurable(false);
  try {
    std::vector<std::string> all = words(argc, argv);
    std::reverse(all.begin(), all.end());  // as CLI11 wants them
    app.parse(all);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return std::nullopt;
}

}  // namespace command_line
