// What stands between the program, which runs on every processor, and the networks, which are compiled once for each
// instruction set. Nothing but plain types crosses: an inline function compiled for AVX-512 must never be the one that
// the rest of the program calls.
#pragma once

#include <cstddef>
#include <cstdint>

namespace restore {

enum class Task : int { denoise_grey, denoise_colour, upscale };

/// Where rows come from and go to.
class Rows {
 public:
  /// Writes `count` rows from y on: floats, channels innermost, a noise level as the last channel where one is wanted.
  virtual void read(std::int64_t y, std::int64_t count, float* rows) = 0;
  /// Takes `count` rows of the result.
  virtual void write(std::int64_t y, std::int64_t count, const float* rows) = 0;

 protected:
  ~Rows() = default;
};

struct Request {
  Task task;
  const float* weights;       ///< of the deploy form, in the order of its lists, as they lie in memory
  std::size_t weight_count;
  std::int64_t h, w;          ///< of the input
  std::int64_t max_bytes;     ///< for all that the network takes
  int threads;                ///< 0: all it may use
  Rows* rows;
};

/// Runs a network over an image, each row read once and before the row of the result at its place is written. Returns
/// the least max_bytes that does; with less nothing is run. Throws what derives from std::exception.
std::int64_t run_avx512(const Request&);
std::int64_t run_avx2(const Request&);
std::int64_t run_baseline(const Request&);

}  // namespace restore
