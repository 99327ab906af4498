// The files of a run's folder: what train/run.hpp writes, and cuts off when a run is resumed.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/output_file.hpp"
#include "strata/io/checkpoint.hpp"
#include "strata/io/detail/appended_file.hpp"
#include "strata/io/folder_lock.hpp"
#include "strata/train/report.hpp"
#include "strata/train/tensorboard.hpp"

namespace strata::inline STRATA_ABI::detail {

/// A number as printf writes it.
inline std::string number(double value, const char* format) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

inline std::string time_text(const char* format) {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  char text[64];
  ::localtime_r(&now, &parts);
  return std::string(text, std::strftime(text, sizeof text, format, &parts));
}

inline std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (byte < 0x20 || byte == 0x7F) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04X", unsigned{byte});
      out += escaped;
    } else {
      if (letter == '"' || letter == '\\') out += '\\';
      out += letter;
    }
  }
  return out + '"';
}
inline std::string toml_value(const HParam& param) {
  if (const auto* value = std::get_if<double>(&param.value())) return number_text(*value);
  if (const auto* flag = std::get_if<bool>(&param.value())) return *flag ? "true" : "false";
  return toml_string(std::get<std::string>(param.value()));
}
inline std::string toml_key(std::string_view key) {
  const bool bare = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  return bare ? std::string(key) : toml_string(key);
}
/// "optim.lr" stands as lr in the table [optim]; what has no dot comes first.
inline std::string toml(const std::vector<std::pair<std::string, HParam>>& values) {
  std::map<std::string, std::string> tables;
  for (const auto& [key, value] : values) {
    const std::size_t dot = key.rfind('.');
    const bool in_table = dot != std::string::npos && dot > 0;
    tables[in_table ? key.substr(0, dot) : ""] +=
        concat(toml_key(in_table ? key.substr(dot + 1) : key), " = ", toml_value(value), "\n");
  }
  std::string text = tables[""];
  for (const auto& [table, lines] : tables) {
    if (table.empty()) continue;
    std::string name;
    for (std::size_t begin = 0; begin <= table.size();) {
      const std::size_t end = std::min(table.find('.', begin), table.size());
      name += (name.empty() ? "" : ".") + toml_key(std::string_view(table).substr(begin, end - begin));
      begin = end + 1;
    }
    text += concat(text.empty() ? "" : "\n", "[", name, "]\n", lines);
  }
  return text;
}

/// Whether a checkpoint's bytes are not those that were written.
inline bool is_damaged(const std::filesystem::path& path) {
  try {
    const SafetensorsFile file(path);
    if (file.has_checksum()) file.verify_checksum();
    return false;
  } catch (const FileError&) {
    return true;
  }
}

class RunFiles {
 public:
  RunFiles(const std::filesystem::path& root, const std::string& name, bool resume, std::vector<std::string> columns)
      : columns_(std::move(columns)), path_(made(root, name, resume)), name_(path_.filename().string()), lock_(path_) {
    for (const char* folder : {"models", "visualization"}) make(path_ / folder);
    std::string header;
    for (const std::string& column : columns_) header += (header.empty() ? "" : ",") + column;
    header += "\n";
    log_ = std::make_unique<AppendedFile>(path_ / "log.txt", "");
    csv_ = std::make_unique<AppendedFile>(path_ / "log.csv", header);
    header_ = header;
  }

  const std::filesystem::path& path() const& { return path_; }
  const std::string& name() const& { return name_; }

  /// The checkpoints by their steps, the latest last.
  std::vector<std::pair<std::int64_t, std::filesystem::path>> checkpoints() const {
    std::vector<std::pair<std::int64_t, std::filesystem::path>> found;
    each_file(path_ / "models", [&](const std::filesystem::path& file) {
      const std::string name = file.filename().string();
      std::string_view stem = name;
      if (!stem.starts_with(checkpoint_start) || !stem.ends_with(checkpoint_end)) return;
      stem.remove_prefix(checkpoint_start.size());
      stem.remove_suffix(std::min(stem.size(), checkpoint_end.size()));
      if (const auto step = parse_number<std::int64_t>(stem); step && *step >= 0 && checkpoint(*step) == file)
        found.emplace_back(*step, file);
    });
    std::sort(found.begin(), found.end());
    return found;
  }
  std::filesystem::path checkpoint(std::int64_t step) const {
    return path_ / "models" / concat(checkpoint_start, step, checkpoint_end);
  }
  bool is_checkpoint_of(const std::filesystem::path& file, std::int64_t step) const {
    try {
      return !is_damaged(file) && read_checkpoint_info(file).step == step;
    } catch (const FileError&) {
      return false;
    }
  }
  void remove_old_checkpoints(int keep) const {
    const auto all = checkpoints();
    for (std::size_t i = 0; i + std::size_t(keep) < all.size(); ++i) {
      std::error_code left;  // one that cannot be removed is tried again after the next
      std::filesystem::remove(all[i].second, left);
      std::filesystem::remove(previous_path(all[i].second), left);
    }
  }

  /// Keeps what belongs to the first `step` steps, and `log_bytes` of the log; of a run that begins, nothing.
  void begin(std::optional<std::int64_t> step, std::uint64_t log_bytes) {
    const std::string text = read_whole(csv_->path());
    std::size_t kept = header_.size();
    if (!text.starts_with(header_))
      throw FileError(concat(csv_->path().string(), ": its columns are not those of this run (",
                             header_.substr(0, header_.size() - 1),
                             "): give the losses and metrics that it had, or another name"));
    const auto at = std::size_t(std::find(columns_.begin(), columns_.end(), "step") - columns_.begin());
    for (std::size_t end = 0; step && (end = text.find('\n', kept)) != std::string::npos; kept = end + 1) {
      const auto row = numbers(std::string_view(text).substr(kept, end - kept));
      if (row.size() != columns_.size() || !(row[at] <= double(*step))) break;
      rows_.push_back(row);
    }
    csv_->cut(kept);
    log_->cut(step ? log_bytes : 0);
    begun_ = true;
    log_->append(std::exchange(waiting_, {}));
    each_picture([&](const std::filesystem::path& file, const std::string&, bool, std::int64_t of) {
      std::error_code left;
      if (!step || of > *step) std::filesystem::remove(file, left);
    });
  }

  void log(const std::string& text) {
    const std::string line = concat(time_text("%Y-%m-%d %H:%M:%S "), text, "\n");
    if (begun_)
      log_->append(line);
    else
      waiting_ += line;
  }
  std::uint64_t log_bytes() const { return log_->size(); }

  /// A row of log.csv; columns that are not given stay empty.
  void add_row(const std::map<std::string, double>& values) {
    std::vector<double> row;
    std::string text;
    for (const std::string& column : columns_) {
      const auto value = values.find(column);
      row.push_back(value == values.end() ? std::numeric_limits<double>::quiet_NaN() : value->second);
      text += concat(row.size() > 1 ? "," : "", value == values.end() ? std::string() : number_text(value->second));
    }
    csv_->append(text + "\n");
    rows_.push_back(std::move(row));
  }

  /// The values of a column where there are some: of many, so many that a page shows them well.
  ReportSeries series(const std::string& column) const {
    constexpr std::size_t most = 2000;
    const auto of = std::size_t(std::find(columns_.begin(), columns_.end(), column) - columns_.begin());
    const auto at = std::size_t(std::find(columns_.begin(), columns_.end(), "step") - columns_.begin());
    ReportSeries all{.tag = column}, some{.tag = column};
    for (const auto& row : rows_)
      if (!std::isnan(row.at(of))) {
        all.steps.push_back(std::int64_t(row[at]));
        all.values.push_back(row[of]);
      }
    const std::size_t every = all.steps.size() / most + 1;
    for (std::size_t i = 0; i < all.steps.size(); ++i)
      if (i % every == 0 || i + 1 == all.steps.size()) {
        some.steps.push_back(all.steps[i]);
        some.values.push_back(all.values[i]);
      }
    return some;
  }

  /// visualization/NAME_STEP_before.png and _after.png; what a file's name cannot hold is an underscore.
  void write_picture(const std::string& what, std::int64_t step, std::string_view before,
                     std::string_view after) const {
    std::string safe = what;
    for (char& letter : safe)
      if (static_cast<unsigned char>(letter) < 0x20 || letter == '/' || letter == '\\' || letter == ':') letter = '_';
    if (safe.empty() || safe[0] == '.' || safe.size() > 120)
      throw ValueError(concat("Run::picture: '", what, "' cannot be a picture's name"));
    const std::string start = concat(safe, "_", number(double(step), "%08.0f"));
    write_file(path_ / "visualization" / (start + "_before.png"), before);
    write_file(path_ / "visualization" / (start + "_after.png"), after);
  }

  /// The latest of each name.
  std::vector<ReportPicture> pictures() const {
    std::map<std::string, ReportPicture> latest;
    each_picture([&](const std::filesystem::path& file, const std::string& what, bool before, std::int64_t step) {
      ReportPicture& picture = latest[what];
      if (picture.step.value_or(-1) > step) return;
      if (picture.step != step) picture = {.name = what, .step = step};
      (before ? picture.before : picture.after) = file.string();
    });
    std::vector<ReportPicture> out;
    for (auto& [what, picture] : latest) {
      if (picture.after.empty()) continue;
      picture.after = read_whole(picture.after);
      if (!picture.before.empty()) picture.before = read_whole(picture.before);
      out.push_back(std::move(picture));
    }
    return out;
  }

 private:
  static constexpr std::string_view checkpoint_start = "checkpoint-", checkpoint_end = ".safetensors";

  static void make(const std::filesystem::path& folder) {
    std::error_code failure;
    std::filesystem::create_directories(folder, failure);
    if (failure) throw FileError(concat(folder.string(), ": the folder cannot be made: ", failure.message()));
  }

  static std::filesystem::path made(const std::filesystem::path& root, const std::string& name, bool resume) {
    make(root);
    std::filesystem::path path = root / name;
    if (resume) {
      make(path);
      return path;
    }
    const std::string time = time_text("_%Y%m%d_%H%M%S");
    for (int tries = 0; tries < 1000; ++tries) {
      std::error_code failure;
      if (std::filesystem::create_directory(path, failure)) return path;
      if (failure && failure != std::errc::file_exists)
        throw FileError(concat(path.string(), ": the folder cannot be made: ", failure.message()));
      path = root / concat(name, time, tries == 0 ? std::string() : concat("_", tries + 1));
    }
    throw FileError(concat(path.string(), ": the folder cannot be made: all such names are taken"));
  }

  template <class Each>
  static void each_file(const std::filesystem::path& folder, Each&& each) {
    std::error_code failure;
    std::vector<std::filesystem::path> files;
    for (std::filesystem::directory_iterator entry(folder, failure), none; !failure && entry != none;
         entry.increment(failure))
      files.push_back(entry->path());
    if (failure) throw FileError(concat(folder.string(), ": the folder cannot be read: ", failure.message()));
    for (const auto& file : files) each(file);
  }

  /// Calls each(file, name, whether it is before, step) for what write_picture wrote.
  template <class Each>
  void each_picture(Each&& each) const {
    each_file(path_ / "visualization", [&](const std::filesystem::path& file) {
      const std::string name = file.filename().string();
      std::string_view stem = name;
      const bool before = stem.ends_with("_before.png");
      if (!before && !stem.ends_with("_after.png")) return;
      stem.remove_suffix(before ? 11 : 10);
      const std::size_t line = stem.rfind('_');
      if (line == std::string_view::npos || stem.size() - line < 9) return;
      std::string_view digits = stem.substr(line + 1);
      const std::size_t first = digits.find_first_not_of('0');
      digits = first == std::string_view::npos ? "0" : digits.substr(first);
      if (const auto step = parse_number<std::int64_t>(digits); step && *step >= 0)
        each(file, std::string(stem.substr(0, line)), before, *step);
    });
  }

  /// The numbers of a row; NaN for those that are not there.
  static std::vector<double> numbers(std::string_view line) {
    std::vector<double> row;
    for (std::size_t begin = 0; begin <= line.size();) {
      const std::size_t end = std::min(line.find(',', begin), line.size());
      row.push_back(
          parse_number<double>(line.substr(begin, end - begin)).value_or(std::numeric_limits<double>::quiet_NaN()));
      begin = end + 1;
    }
    return row;
  }

  std::vector<std::string> columns_;
  std::filesystem::path path_;
  std::string name_;
  FolderLock lock_;
  std::string header_, waiting_;
  std::unique_ptr<AppendedFile> log_, csv_;
  std::vector<std::vector<double>> rows_;
  bool begun_ = false;
};

}  // namespace strata::inline STRATA_ABI::detail
