// Where the time of a pass goes, layer by layer, forward and back:
//
//     st::Profile profile;
//     for (int i = 0; i < 10; ++i) {
//       st::Train pass({.observer = &profile});
//       pass.backward(mse(net(pass, noisy), clean));
//     }
//     std::cout << profile.table(net, {.peak = st::measure_peak()});
//     profile.write_trace("trace.json");                       // for Perfetto or chrome://tracing
//
// A pass that is not given a profile takes none of this time. The first pass of a program pays for memory and prepared
// weights: run one without the profile before.
//
// - A row's time is the layer's own: a module's is what its forward does besides its layers, as an addition. What the
//   loss computes on the way back, and other work outside of layers, has a row at the end.
// - Layers that run as one step are one row (nn/fuse.hpp). A batch norm between two convolutions computes nothing
//   itself in training; the convolution behind it normalises where it reads, and that time is its own.
// - Operations are counted by a layer's definition, a multiply-add as two; the way back has as many for each of the two
//   gradients that it computes. An algorithm that needs fewer, as Winograd's, can be above the peak.
// - The peak of a layer is the roofline: the least time that its operations and the bytes of its input, result and
//   parameters need, of which the longer one counts. A result that is in a cache can be faster.
// - On a device each layer is waited for, so that the sum is larger than the time without a profile.
//
// A profile serves one thread at a time, and lives as long as the passes that have it.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/observer.hpp"
#include "strata/core/output_file.hpp"
#include "strata/kernels/accelerator.hpp"
#include "strata/nn/summary.hpp"
#include "strata/train/machine_peak.hpp"
#include "strata/train/profile_table.hpp"
#include "strata/train/report.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// A module's type without namespaces and template arguments. What a layer calls itself stays as it is.
inline std::string short_type(const std::string& type) {
  const std::size_t arguments = type.find('<');
  if (arguments == std::string::npos && type.find("::") == std::string::npos) return type;
  const std::string name = type.substr(0, arguments);
  const std::size_t scope = name.rfind("::");
  return scope == std::string::npos ? name : name.substr(scope + 2);
}

}  // namespace detail

struct ProfileOptions {
  std::size_t most_events = 200'000;  ///< of the trace, 40 bytes each; what comes later is not in it
};

struct ProfileTableOptions {
  MachinePeak peak = {};                          ///< of what the network runs on; none: no share of it is given
  std::int64_t batch = 0, height = 0, width = 0;  ///< of the network's input; 0: as it was seen in the passes
};

class Profile : public PassObserver {
 public:
  explicit Profile(ProfileOptions options = {}) : options_(options) { clear(); }
  Profile(const Profile&) = delete;

  /// Forgets what it has seen. Not while a pass runs.
  void clear() {
    if (!frames_.empty()) throw Error("Profile::clear: a pass that has this profile is running");
    seen_.assign(1, Seen{});  // of what is in no layer
    places_.clear();
    events_.clear();
    events_.reserve(options_.most_events);
    start_ = Clock::now();
  }

  /// The rows, in the order in which layers first ran, and one of all else at the end. Names and operations are those
  /// of `net`, whose forward is followed (nn/follow.hpp); layers of other networks are in the last row.
  template <class Net>
  std::vector<ProfileRow> rows(const Net& net, const ProfileTableOptions& options = {}) const {
    const Shape input = input_of(&net, &detail::type_mark<Net>, options);
    detail::ListedModules modules;
    detail::list_modules(net, "", modules);
    Facts facts(*this);
    if (input.size() > 0) {
      detail::Following run(input.n(), &facts);
      Infer pass;
      detail::follow(run, net, pass, input.h(), input.w());
      detail::check_fits("Profile", run, input.h(), input.w());
    }
    return rows_of(&modules, &facts);
  }
  /// The same without a network: types of layers and their times.
  std::vector<ProfileRow> rows() const { return rows_of(nullptr, nullptr); }

  /// The rows as a table. Times are milliseconds for each call of the network.
  template <class Net>
  std::string table(const Net& net, const ProfileTableOptions& options = {}) const {
    return detail::profile_text(rows(net, options), calls_of(&net, &detail::type_mark<Net>), options.peak);
  }
  std::string table() const { return detail::profile_text(rows(), most_calls(), {}); }

  /// The rows for the page of a run: run.layers(profile.layers(net)).
  template <class Net>
  LayerTable layers(const Net& net, const ProfileTableOptions& options = {}) const {
    return detail::profile_layers(rows(net, options), calls_of(&net, &detail::type_mark<Net>), options.peak);
  }

  /// Each step by itself, in the trace event format that Perfetto (ui.perfetto.dev) and chrome://tracing show. Throws
  /// FileError.
  void write_trace(const std::filesystem::path& path) const;

  // ---- what a pass says

  void begin(const ObservedStep& step) override;
  void end() noexcept override;
  int place() const override { return frames_.empty() ? 0 : frames_.back().seen; }
  void begin_backward(int place) override;
  void end_backward() noexcept override { end(); }

 private:
  using Clock = std::chrono::steady_clock;
  using Key = std::pair<const void*, const void*>;

  struct Seen {
    ObservedStep step = {};
    std::int64_t calls = 0;
    bool varied = false;  ///< it had inputs of different extents
    Clock::duration forward{}, backward{};
  };
  struct Frame {
    int seen;
    bool backward, again;  ///< again: of the same module as the frame around it
    Clock::time_point start, resumed;
  };
  struct Event {
    int seen;
    bool backward;
    Clock::time_point start, end;
  };

  /// What the network's own forward says of each layer: the sums of its calls, and how many there are.
  class Facts : public detail::FollowSink {
   public:
    struct Of {
      std::string layer, output;
      std::int64_t runs = 0;
      double multiply_adds = 0, input = 0, result = 0;  ///< numbers
    };
    explicit Facts(const Profile& profile) : profile_(profile) {}
    void ran(const detail::Following& run, const detail::FollowedStep& step) override;
    const Of* find(const Key& key) const {
      const auto found = of_.find(key);
      return found == of_.end() ? nullptr : &found->second;
    }

   private:
    const Profile& profile_;
    std::map<Key, Of> of_;
    Of* joined_ = nullptr;     // the step that the next layers run with,
    std::size_t to_join_ = 0;  // and how many
  };

  void push(int seen, bool backward, bool again);
  void wait(Device device) const {
    if (device.kind != DeviceKind::cpu) accelerator(device).synchronize();
  }
  Clock::duration& time_of(const Frame& frame) {
    Seen& seen = seen_[std::size_t(frame.seen)];
    return frame.backward ? seen.backward : seen.forward;
  }
  const Seen* find(const Key& key) const {
    const auto found = places_.find(key);
    return found == places_.end() ? nullptr : &seen_[std::size_t(found->second)];
  }
  std::int64_t most_calls() const {
    std::int64_t most = 0;
    for (const Seen& seen : seen_) most = std::max(most, seen.calls);
    return most;
  }
  std::int64_t calls_of(const void* net, const void* type) const {
    const Seen* seen = find({net, type});
    return seen != nullptr ? seen->calls : most_calls();
  }
  Shape input_of(const void* net, const void* type, const ProfileTableOptions& options) const;
  std::vector<ProfileRow> rows_of(const detail::ListedModules* modules, const Facts* facts) const;

  ProfileOptions options_;
  std::vector<Seen> seen_;
  std::map<Key, int> places_;
  std::vector<Frame> frames_;
  std::vector<Event> events_;
  Clock::time_point start_;
};

inline void Profile::push(int seen, bool backward, bool again) {
  const auto now = Clock::now();
  if (!frames_.empty()) time_of(frames_.back()) += now - frames_.back().resumed;
  frames_.push_back({seen, backward, again, now, now});
}

inline void Profile::begin(const ObservedStep& step) {
  wait(step.device);
  const auto [found, is_new] = places_.try_emplace({step.module, step.type}, int(seen_.size()));
  if (is_new) seen_.push_back({.step = step});
  Seen& seen = seen_[std::size_t(found->second)];
  const bool backward = !frames_.empty() && frames_.back().backward;  // a checkpoint runs its layers again
  const bool again = !frames_.empty() && frames_.back().seen == found->second && !backward;
  if (!again && !backward) {
    ++seen.calls;
    seen.varied = seen.varied || seen.step.input != step.input;
    seen.step = step;
  }
  push(found->second, backward, again);
}

inline void Profile::begin_backward(int place) {
  wait(seen_[std::size_t(std::max(place, 0))].step.device);
  push(std::max(place, 0), true, false);
}

inline void Profile::end() noexcept {
  const Frame frame = frames_.back();
  try {
    wait(seen_[std::size_t(frame.seen)].step.device);
  } catch (...) {  // the device tells of it again when it is next asked for something
  }
  const auto now = Clock::now();
  time_of(frame) += now - frame.resumed;
  frames_.pop_back();
  if (!frames_.empty()) frames_.back().resumed = now;
  if (!frame.again && events_.size() < options_.most_events)
    events_.push_back({frame.seen, frame.backward, frame.start, now});
}

inline void Profile::Facts::ran(const detail::Following& run, const detail::FollowedStep& step) {
  const detail::FollowedImage& y = run.image(step.output);
  const double result = double(run.n() * y.c * y.pixels());
  if (step.name == nullptr) {
    to_join_ = 0;
    return;
  }
  if (to_join_ > 0) {
    --to_join_;
    joined_->multiply_adds += double(step.multiply_adds * run.n());
    if (joined_->runs == 1) joined_->layer += " + " + step.name();
    return;
  }
  const Key key{step.module, step.type};
  Of& of = of_[key];
  if (of.runs++ == 0) {
    of.layer = step.name();
    of.output = run.shape(step.output).str();
  } else if (of.output != run.shape(step.output).str()) {
    of.output = "several";
  }
  of.multiply_adds += double(step.multiply_adds * run.n());
  of.result += result;
  for (const int id : step.inputs) of.input += double(run.n() * run.image(id).c * run.image(id).pixels());
  if (const Seen* seen = profile_.find(key)) joined_ = &of, to_join_ = seen->step.layers - 1;
}

inline Shape Profile::input_of(const void* net, const void* type, const ProfileTableOptions& options) const {
  const Seen* seen = find({net, type});
  const bool known = seen != nullptr && !seen->varied;
  const std::int64_t given[] = {options.batch, options.height, options.width};
  for (const std::int64_t extent : given)
    if (extent < 0) throw ValueError(concat("Profile: got an extent of ", extent, ", wanted one above 0, or 0"));
  const auto choose = [&](std::int64_t extent, std::int64_t seen_extent) {
    return extent > 0 ? extent : known ? seen_extent : 0;
  };
  const Shape input = seen != nullptr ? seen->step.input : Shape{0, 0, 0, 0};
  return {choose(options.batch, input.n()), 1, choose(options.height, input.h()), choose(options.width, input.w())};
}

inline std::vector<ProfileRow> Profile::rows_of(const detail::ListedModules* modules, const Facts* facts) const {
  std::vector<ProfileRow> rows;
  ProfileRow rest{.name = "", .layer = "in no layer", .output = ""};
  double all = 0;
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  for (const Seen& seen : seen_) all += seconds(seen.forward + seen.backward);
  for (std::size_t i = 0; i < seen_.size(); ++i) {
    const Seen& seen = seen_[i];
    const Key key{seen.step.module, seen.step.type};
    ProfileRow row{.name = "-",
                   .calls = seen.calls,
                   .forward_seconds = seconds(seen.forward),
                   .backward_seconds = seconds(seen.backward)};
    const detail::ListedModule* listed = nullptr;
    if (modules != nullptr)
      if (const auto found = modules->find(key); found != modules->end()) listed = &found->second;
    if (listed != nullptr) row.name = listed->name;
    const Facts::Of* known = facts != nullptr ? facts->find(key) : nullptr;
    if (known != nullptr) {
      const double parameters = listed != nullptr ? double(listed->parameters) : 0;
      const double bytes = double(seen.step.element_bytes), runs = double(known->runs);
      const int gradients = int(seen.step.input_gradient) + int(parameters > 0);
      row.layer = known->layer;
      row.output = known->output;
      row.forward_operations = 2 * known->multiply_adds / runs;
      row.backward_operations = gradients * row.forward_operations;
      row.forward_bytes = bytes * ((known->input + known->result) / runs + parameters);
      row.backward_bytes =
          bytes * ((known->result + known->input * (1 + int(seen.step.input_gradient))) / runs + 2 * parameters);
    } else if (seen.step.name != nullptr) {
      row.layer = detail::short_type(seen.step.name());
    }
    // A module that only calls its layers is no row, nor are other networks.
    const bool its_own = modules == nullptr || listed != nullptr || known != nullptr;
    if (i > 0 && its_own && (known != nullptr || row.seconds() >= 0.005 * all)) {
      rows.push_back(std::move(row));
    } else {
      rest.forward_seconds += row.forward_seconds;
      rest.backward_seconds += row.backward_seconds;
    }
  }
  rows.push_back(std::move(rest));
  return rows;
}

inline void Profile::write_trace(const std::filesystem::path& path) const {
  AtomicFile file(path);
  const auto write = [&](const std::string& text) { file.write(std::as_bytes(std::span(text))); };
  const auto microseconds = [](Clock::duration time) {
    return detail::json_number(std::chrono::duration<double, std::micro>(time).count());
  };
  write("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[");
  std::string before = "\n";
  for (const Event& event : events_) {
    const ObservedStep& step = seen_[std::size_t(event.seen)].step;
    const std::string name = step.name != nullptr ? detail::short_type(step.name()) : "in no layer";
    write(concat(before, "{\"name\":", detail::json_text(name), ",\"cat\":\"", event.backward ? "backward" : "forward",
                 "\",\"ph\":\"X\",\"pid\":1,\"tid\":1,\"ts\":", microseconds(event.start - start_),
                 ",\"dur\":", microseconds(event.end - event.start), ",\"args\":{\"input\":",
                 detail::json_text(step.name != nullptr ? step.input.str() : ""), ",\"layers\":", step.layers, "}}"));
    before = ",\n";
  }
  write("\n]}\n");
  file.commit();
}

}}  // namespace strata::STRATA_ABI
