// The files tests read. Golden files are part of the repository; the research data is not, and a test that wants it
// where it is absent ends as skipped, which CTest shows, and never as passed:
//
//     const auto folder = strata_test::research_data("data/Set12");   // tests/<folder>/<name>_data_test.cpp
//     if (!folder) return;
//
// The environment variable STRATA_TEST_DATA names the folder of the research data, with data/Set12, data/Train400 and
// weights/ in it; CTest sets it from the CMake variable of the same name.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace strata_test {

/// What a test program returns when nothing failed but data was missing; CTest counts that as skipped.
inline constexpr int skipped = 77;

/// What was asked for and is not there.
inline std::vector<std::string>& missing_data() {
  static std::vector<std::string> names;
  return names;
}

/// The path of a file or folder of the research data; nothing, and the program ends as skipped, when it is absent.
inline std::optional<std::filesystem::path> research_data(std::string_view name) {
  const char* folder = std::getenv("STRATA_TEST_DATA");
  if (folder != nullptr && *folder != '\0') {
    const std::filesystem::path path = std::filesystem::path(folder) / name;
    if (std::filesystem::exists(path)) return path;
  }
  missing_data().emplace_back(name);
  return std::nullopt;
}

/// The path of a file below tests/, for example golden("nn/golden/batch_norm.safetensors").
inline std::filesystem::path golden(std::string_view name) { return std::filesystem::path(STRATA_TESTS_FOLDER) / name; }

}  // namespace strata_test
