// How much memory restoring a picture takes, known from its header before anything is read.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine.hpp"
#include "networks.hpp"
#include "pictures.hpp"
#include "strata/data/image_file.hpp"

namespace restore {

/// Bytes. Each part is what there is at one time, the picture included.
struct Memory {
  std::int64_t reading = 0, running = 0, writing = 0;
  std::int64_t network = 0;  ///< of `running`: what the network needs at least, and may have more of

  std::int64_t least() const { return std::max({reading, running, writing}); }
};

/// `run` is the engine's function, `file` the input file's size.
inline Memory memory_for(const strata::ImageInfo& info, std::int64_t file, Task task,
                         std::int64_t (*run)(const Request&), bool ensemble, bool compare) {
  Memory memory;
  if (info.h > (std::int64_t{1} << 40) / info.w) {  // more than there is anywhere
    memory.reading = std::int64_t{1} << 60;
    return memory;
  }
  // The program and its weights, scratch of the threads, and the middle of the picture whose noise is estimated.
  constexpr std::int64_t program = std::int64_t{28} << 20;
  const bool upscaling = task == Task::upscale;
  const std::int64_t scale = upscaling ? super_resolution::factor : 1;
  const std::int64_t pixels = info.h * info.w, samples = pixels * info.channels * (info.bits / 8);
  const std::int64_t result = scale * scale * samples;
  const std::int64_t longest = 2 * scale * std::max(info.w, info.h) * info.channels * (info.bits / 8);  // two rows
  const std::int64_t before = upscaling || compare ? samples : 0;  // what of the input is still there beside the result

  const std::int64_t distances = info.has_alpha() ? pixels : 0;  // of spread_visible_colours
  memory.reading = program + std::max(file + info.decoding_copies * samples, samples + distances);
  // What compresses worst becomes an eighth larger.
  memory.writing = program + result + longest + result / 8 * 9;
  if (compare) memory.writing = program + before + result + 2 * (result + longest + result / 8 * 9);

  const auto needed = [&](std::int64_t h, std::int64_t w) {
    const auto even = [&](std::int64_t size) { return upscaling ? size : (size + 1) / 2 * 2; };
    return run({.task = task,
                .weights = nullptr,
                .weight_count = 0,
                .h = even(h),
                .w = even(w),
                .max_bytes = 0,
                .threads = 0,
                .rows = nullptr});
  };
  memory.network = needed(info.h, info.w);
  if (ensemble)
    memory.network = std::max(memory.network, needed(info.w, info.h));
  const std::int64_t sum =
      ensemble ? pixels * scale * scale * (!upscaling && info.channels >= 3 ? 3 : 1) * std::int64_t(sizeof(float)) : 0;
  const std::int64_t bicubic = upscaling ? bicubic_bytes(info.h, info.w, info.channels) : 0;
  memory.running = program + before + result + sum + memory.network + bicubic;
  return memory;
}

}  // namespace restore
