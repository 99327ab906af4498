// What a run shows in TensorBoard: scalars, images, histograms, texts and hyperparameters, as torch.utils.tensorboard's
// SummaryWriter writes them. It needs no library; TensorBoard itself reads the file while the run goes on.
//
//     #include <strata/train/tensorboard.hpp>          // not part of strata.hpp
//     st::TensorBoard board("out/tb");                 // then: tensorboard --logdir out
//     board.hparams({{"lr", 1e-3}, {"optimizer", "adam"}, {"augment", true}}, {"metrics/psnr"});
//     board.scalar("losses/l_pix", loss.item(), step);
//     board.image("samples/denoised", image, step);
//     board.histogram("weights/head", net.head.weight.value().span(), step);
//     st::TensorBoard again("out/tb", {.resume_step = at.step});   // goes on in the same file
//
// A folder holds one file, which is added to. A run that is resumed at a step goes on in it: what was written for later
// steps is cut off first, and so is the torn end that a killed program may leave. Steps count from 0 and need not be
// told in order.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/io/detail/appended_file.hpp"
#include "strata/io/file.hpp"
#include "strata/tensor/image.hpp"
#include "strata/train/detail/event_format.hpp"
#include "strata/train/detail/png_bytes.hpp"

namespace strata { inline namespace STRATA_ABI {

/// A hyperparameter's value.
class HParam {
 public:
  template <class T>
    requires std::is_arithmetic_v<T>
  HParam(T number) {
    if constexpr (std::is_same_v<T, bool>)
      value_ = number;
    else
      value_ = double(number);
  }
  HParam(const char* text) : value_(std::string(text)) {}
  HParam(std::string text) : value_(std::move(text)) {}
  const std::variant<double, bool, std::string>& value() const& { return value_; }

 private:
  std::variant<double, bool, std::string> value_;
};

struct TensorBoardOptions {
  std::optional<std::int64_t> resume_step = {};  ///< the last step whose events are kept; without, all are
  double flush_seconds = 10;                     ///< events are written when the oldest that waits is so old
};

namespace detail {

/// Limits of the buckets of TensorFlow's histograms: +-1e-12 * 1.1^k up to 1e20, and the largest double.
inline const std::vector<double>& histogram_limits() {
  static const std::vector<double> limits = [] {
    std::vector<double> positive;
    for (double limit = 1e-12; limit < 1e20; limit *= 1.1) positive.push_back(limit);
    positive.push_back(1.7976931348623157e308);
    std::vector<double> all;
    for (auto limit = positive.rbegin(); limit != positive.rend(); ++limit) all.push_back(-*limit);
    all.push_back(0);
    all.insert(all.end(), positive.begin(), positive.end());
    return all;
  }();
  return limits;
}

/// HistogramProto: bucket i counts the values from limit i - 1 up to, not including, limit i. Buckets without values at
/// both ends are left out.
template <class T>
ProtoMessage histogram_message(std::span<const T> values) {
  const std::vector<double>& limits = histogram_limits();
  std::vector<double> counts(limits.size());
  double least = 0, most = 0, sum = 0, squares = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto value = double(values[i]);
    if (!std::isfinite(value))
      throw NumericError(concat("TensorBoard::histogram: value ", i, " is ", value, ", wanted finite numbers"));
    least = i == 0 ? value : std::min(least, value);
    most = i == 0 ? value : std::max(most, value);
    sum += value;
    squares += value * value;
    const auto above = std::upper_bound(limits.begin(), limits.end() - 1, value) - limits.begin();
    ++counts[std::size_t(above)];
  }
  std::size_t first = 0, last = counts.size();
  while (first + 1 < last && counts[first] == 0) ++first;
  while (last > first + 1 && counts[last - 1] == 0) --last;
  ProtoMessage out;
  out.real(1, least).real(2, most).real(3, double(values.size())).real(4, sum).real(5, squares);
  out.reals(6, std::span(limits).subspan(first, last - first))
      .reals(7, std::span<const double>(counts).subspan(first, last - first));
  return out;
}

}  // namespace detail

class TensorBoard {
 public:
  /// Makes the folder if need be. Throws FileError.
  explicit TensorBoard(const std::filesystem::path& folder, const TensorBoardOptions& options = {})
      : options_(options) {
    std::error_code failure;
    std::filesystem::create_directories(folder, failure);
    if (failure) throw FileError(concat(folder.string(), ": the folder cannot be made: ", failure.message()));
    std::string header;
    detail::append_record(header, detail::ProtoMessage().real(1, now()).bytes(3, "brain.Event:2").str());
    file_ = std::make_unique<detail::AppendedFile>(file_of(folder), header);
    cut_to_resume();
  }
  TensorBoard(const TensorBoard&) = delete;
  TensorBoard& operator=(const TensorBoard&) = delete;
  /// Writes what waits. What goes wrong then is printed, since a destructor cannot throw; flush() does.
  ~TensorBoard() {
    try {
      flush();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "TensorBoard: %s\n", error.what());
    }
  }

  const std::filesystem::path& path() const& { return file_->path(); }
  std::filesystem::path path() const&& { return path(); }

  /// A number that becomes a curve. "losses/l_pix": the part before the slash is the group.
  void scalar(std::string_view tag, double value, std::int64_t step) {
    add(step, {named("scalar", tag).real32(2, float(value))});
  }

  /// Pictures, of C = 1 (grey), 2, 3 (RGB) or 4 channels, clamped to [0, 1]. A batch of several gets tags tag/0, tag/1,
  /// ...
  template <int C>
  void image(std::string_view tag, const Image<C>& batch, std::int64_t step) {
    std::vector<detail::ProtoMessage> values;
    for (std::int64_t n = 0; n < std::max<std::int64_t>(batch.n(), 1); ++n) {
      const std::string png = detail::png_bytes("TensorBoard::image", batch, n);
      detail::ProtoMessage picture;
      picture.integer(1, batch.h()).integer(2, batch.w()).integer(3, C).bytes(4, png);
      values.push_back(named("image", batch.n() > 1 ? concat(tag, "/", n) : std::string(tag)).message(4, picture));
    }
    add(step, values);
  }

  /// How numbers are spread, as weights or gradients. Throws NumericError where one is not finite.
  template <class Numbers>
  void histogram(std::string_view tag, const Numbers& numbers, std::int64_t step) {
    const std::span values(numbers);
    add(step, {named("histogram", tag)
                   .message(5, detail::histogram_message(
                                   std::span<const std::remove_cvref_t<decltype(values[0])>>(values)))});
  }

  /// Markdown.
  void text(std::string_view tag, std::string_view markdown, std::int64_t step) {
    detail::ProtoMessage tensor;
    tensor
        .integer(1, 7)  // DT_STRING
        .message(2, detail::ProtoMessage().message(2, detail::ProtoMessage().integer(1, 1)))
        .bytes(8, markdown);
    add(step, {named("text", concat(tag, "/text_summary")).message(9, metadata("text", "")).message(8, tensor)});
  }

  /// What the run was started with, and the tags of scalars to compare runs by, for the tab HPARAMS.
  void hparams(const std::vector<std::pair<std::string, HParam>>& params, const std::vector<std::string>& metrics) {
    detail::ProtoMessage experiment, start;
    experiment.real(3, now());
    for (const auto& [name, param] : params) {
      const auto& value = param.value();
      const int type = value.index() == 0 ? 3 : value.index() == 1 ? 2 : 1;
      experiment.message(4, detail::ProtoMessage().bytes(1, name).integer(4, type));
      detail::ProtoMessage held;
      if (const auto* number = std::get_if<double>(&value))
        held.real(2, *number);
      else if (const auto* flag = std::get_if<bool>(&value))
        held.integer(4, *flag ? 1 : 0);
      else
        held.bytes(3, std::get<std::string>(value));
      start.message(1, detail::ProtoMessage().bytes(1, name).message(2, held));
    }
    for (const std::string& metric : metrics)
      experiment.message(5, detail::ProtoMessage().message(1, detail::ProtoMessage().bytes(2, metric)));
    start.real(5, now());
    const auto record = [&](const char* tag, int field, const detail::ProtoMessage& content) {
      const auto data = detail::ProtoMessage().integer(1, 0).message(field, content);
      const auto nothing = detail::ProtoMessage().integer(1, 1).message(2, detail::ProtoMessage()).real32(5, 0);
      return named("hparams", tag).message(9, metadata("hparams", data.str())).message(8, nothing);
    };
    add(0, {record("_hparams_/experiment", 2, experiment)});
    add(0, {record("_hparams_/session_start_info", 3, start)});
  }

  /// Writes what waits, so that TensorBoard sees it. Throws FileError.
  void flush() {
    if (waiting_.empty()) return;
    const std::string events = std::exchange(waiting_, {});
    file_->append(events);
  }

 private:
  using Clock = std::chrono::steady_clock;

  static double now() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  }

  static detail::ProtoMessage named(const char* what, std::string_view tag) {
    if (tag.empty()) throw ValueError(concat("TensorBoard::", what, ": the tag is empty; give a name as losses/l_pix"));
    return detail::ProtoMessage().bytes(1, tag);
  }
  static detail::ProtoMessage metadata(std::string_view plugin, std::string_view content) {
    return detail::ProtoMessage().message(1, detail::ProtoMessage().bytes(1, plugin).bytes(2, content));
  }

  /// The file of an earlier run in this folder, or a new one's name.
  static std::filesystem::path file_of(const std::filesystem::path& folder) {
    constexpr std::string_view start = "events.out.tfevents.", end = ".strata";
    std::filesystem::path found;
    std::error_code failure;
    for (std::filesystem::directory_iterator entry(folder, failure), none; !failure && entry != none;
         entry.increment(failure)) {
      const std::string name = entry->path().filename().string();
      if (name.starts_with(start) && name.ends_with(end) && (found.empty() || found.filename().string() < name))
        found = entry->path();
    }
    if (failure) throw FileError(concat(folder.string(), ": the folder cannot be read: ", failure.message()));
    if (!found.empty()) return found;
    std::array<char, 256> host{};
    if (::gethostname(host.data(), host.size() - 1) != 0) host = {"host"};
    return folder / concat(start, std::int64_t(now()), ".", host.data(), ".", ::getpid(), end);
  }

  /// Keeps whole records up to the first of a later step.
  void cut_to_resume() {
    const InputFile in(file_->path());
    std::string record;
    std::uint64_t kept = 0;
    const auto read = [&](std::uint64_t bytes) {  // record by record: there may be many pictures
      const std::size_t before = record.size();
      record.resize(bytes);
      in.read(kept + before, std::as_writable_bytes(std::span(record).subspan(before)));
    };
    while (in.size() - kept >= 16) {
      record.clear();
      read(12);
      const std::uint64_t length = detail::record_length(record);
      if (length > in.size() - kept - 16) break;
      read(16 + length);
      std::string_view rest = record, event;
      if (!detail::next_record(rest, event)) break;
      const std::int64_t step = detail::step_of_event(event);
      if (step < 0 || (kept > 0 && options_.resume_step && step > *options_.resume_step))
        break;  // the first is the header
      kept += record.size();
    }
    if (kept == 0 && in.size() > 0)
      throw FileError(concat(file_->path().string(), ": does not begin as TensorBoard's event files do; move it away"));
    file_->cut(kept);
  }

  void add(std::int64_t step, const std::vector<detail::ProtoMessage>& values) {
    if (step < 0) throw ValueError(concat("TensorBoard: got step ", step, ", wanted 0 or more"));
    detail::ProtoMessage summary;
    for (const detail::ProtoMessage& value : values) summary.message(1, value);
    detail::ProtoMessage event;
    event.real(1, now()).integer(2, step).message(5, summary);
    if (waiting_.empty()) oldest_ = Clock::now();
    detail::append_record(waiting_, event.str());
    if (waiting_.size() > (std::size_t{1} << 20) ||
        std::chrono::duration<double>(Clock::now() - oldest_).count() > options_.flush_seconds)
      flush();
  }

  TensorBoardOptions options_;
  std::unique_ptr<detail::AppendedFile> file_;
  std::string waiting_;
  Clock::time_point oldest_;
};

}}  // namespace strata::STRATA_ABI
