// What a training program shows while it runs, and how it is stopped.
//
//     const st::Interrupt interrupt;                    // Ctrl-C and its like are asked for, and not the end
//     st::Progress progress("epoch 3/50", loader.size());
//     progress.update(done, "loss 0.0123");             // a bar in a terminal; elsewhere a line now and then
//     if (interrupt.requested()) ...
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// Seconds since it was made.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Whether the run was asked to stop: by Ctrl-C, a polite kill, the end of its terminal, or the end of whoever read its
/// output (as tee ends at Ctrl-C, before the run has saved its state). A second Ctrl-C ends the program at once. It
/// handles the process's signals from when it is made, so a program makes one, and one that has a handling of its own
/// makes none.
class Interrupt {
 public:
  Interrupt() {
    std::signal(SIGINT, handle);
    std::signal(SIGTERM, handle);
    for (const int number : {SIGHUP, SIGPIPE})
      if (std::signal(number, handle) == SIG_IGN) std::signal(number, SIG_IGN);  // as under nohup: it goes on
    std::signal(SIGXFSZ, SIG_IGN);  // a file that becomes too large is an error with a text
  }
  bool requested() const { return signal() != 0; }
  /// The exit status of a program that was stopped, as shells have it; also where another rank was.
  int exit_status() const { return 128 + (signal() != 0 ? int(signal()) : SIGINT); }

 private:
  static volatile std::sig_atomic_t& signal() {
    static volatile std::sig_atomic_t number = 0;
    return number;
  }
  static void handle(int number) {
    if (signal() == 0) signal() = number;
    if (number == SIGINT) std::signal(SIGINT, SIG_DFL);
  }
};

/// 3725 -> "1:02:05".
inline std::string clock_text(double seconds) {
  const auto whole = std::int64_t(std::max(0.0, seconds) + 0.5);
  char text[48];
  if (whole >= 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", static_cast<long long>(whole / 3600),
                  static_cast<long long>(whole / 60 % 60), static_cast<long long>(whole % 60));
  else
    std::snprintf(text, sizeof text, "%lld:%02lld", static_cast<long long>(whole / 60),
                  static_cast<long long>(whole % 60));
  return text;
}

/// A bar on a terminal; elsewhere a line now and then.
class Progress {
 public:
  /// plain_lines = false: nothing elsewhere than in a terminal, for who writes lines of his own.
  Progress(std::string title, std::int64_t total, bool plain_lines = true)
      : title_(std::move(title)), total_(total), plain_lines_(plain_lines) {}

  /// `done` of the total are ready; `text` says how it goes.
  void update(std::int64_t done, const std::string& text) {
    const double now = watch_.seconds();
    if (done < total_ && now < next_) return;
    if (terminal_) {
      constexpr int width = 24;
      const int filled = int(std::int64_t{width} * std::min(done, total_) / std::max<std::int64_t>(total_, 1));
      std::string bar(std::size_t(filled), '=');
      if (filled < width) bar += '>';
      bar.resize(width, ' ');
      std::printf("\r\033[K%s [%s] %lld/%lld  %s", title_.c_str(), bar.c_str(), static_cast<long long>(done),
                  static_cast<long long>(total_), text.c_str());
      next_ = now + 0.1;
    } else if (plain_lines_) {
      std::printf("%s %lld/%lld  %s\n", title_.c_str(), static_cast<long long>(done), static_cast<long long>(total_),
                  text.c_str());
      next_ = now + 10;
    }
    std::fflush(stdout);
  }

  /// Clears the bar, so that an ordinary line can follow.
  void finish() const {
    if (terminal_) std::printf("\r\033[K");
  }

 private:
  std::string title_;
  std::int64_t total_;
  bool plain_lines_;
  Stopwatch watch_;
  bool terminal_ = isatty(STDOUT_FILENO) != 0;
  double next_ = terminal_ ? 0 : 10;
};

}  // namespace strata::inline STRATA_ABI
