// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// The numbers of a stream depend on its key alone, never on threads or on what was drawn elsewhere.
//
//     st::Rng rng(seed, epoch, index);     // the stream of one sample
//     float x = rng.normal();
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// One Philox4x32-10 block: four random words from a counter and a key.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {std::uint32_t(b >> 32) ^ counter[1] ^ key[0], std::uint32_t(b),
               std::uint32_t(a >> 32) ^ counter[3] ^ key[1], std::uint32_t(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// A stream of random numbers. A copy goes on from the same place.
class Rng {
 public:
  /// The stream named by (seed, a, b): seed keys the generator, (a, b) choose one of 2^64 streams of 2^66 words.
  explicit constexpr Rng(std::uint64_t seed = 0, std::uint32_t a = 0, std::uint32_t b = 0)
      : key_{std::uint32_t(seed), std::uint32_t(seed >> 32)}, stream_{a, b} {}

  constexpr std::uint32_t bits() {
    if (used_ == 4) {
      block_ = philox4x32({std::uint32_t(counter_), std::uint32_t(counter_ >> 32), stream_[0], stream_[1]}, key_);
      ++counter_;
      used_ = 0;
    }
    return block_[std::size_t(used_++)];
  }

  /// Goes to the start of block `index` (four words each) of this stream.
  constexpr void seek(std::uint64_t index) {
    counter_ = index;
    used_ = 4;
    has_spare_ = false;
  }

  /// Words drawn so far from the start of the stream.
  constexpr std::uint64_t position() const { return counter_ * 4 - std::uint64_t(4 - used_); }
  constexpr std::uint64_t seed() const { return key_[0] | (std::uint64_t{key_[1]} << 32); }
  constexpr std::array<std::uint32_t, 2> stream() const { return stream_; }

  /// Uniform in [0, 1): 24 bits.
  constexpr float uniform() { return float(bits() >> 8) * 0x1p-24f; }
  constexpr float uniform(float low, float high) { return low + (high - low) * uniform(); }

  /// Uniform in {0, ..., n - 1}, without bias (Lemire's multiplication with rejection). n must not be 0.
  constexpr std::uint32_t below(std::uint32_t n) {
    std::uint64_t product = std::uint64_t{bits()} * n;
    if (std::uint32_t(product) < n) {
      const std::uint32_t threshold = (0u - n) % n;
      while (std::uint32_t(product) < threshold) product = std::uint64_t{bits()} * n;
    }
    return std::uint32_t(product >> 32);
  }

  constexpr bool coin() { return (bits() & 1u) != 0; }

  /// Standard normal (Box-Muller, both values used).
  float normal() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    const double u = (double(bits()) + 1.0) * 0x1p-32;  // (0, 1]
    const double angle = 2.0 * std::numbers::pi * double(bits()) * 0x1p-32;
    const double radius = std::sqrt(-2.0 * std::log(u));
    spare_ = float(radius * std::sin(angle));
    has_spare_ = true;
    return float(radius * std::cos(angle));
  }

  void fill_normal(std::span<float> out, float mean, float stddev) {
    for (float& x : out) x = mean + stddev * normal();
  }

 private:
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 2> stream_;
  std::array<std::uint32_t, 4> block_{};
  std::uint64_t counter_ = 0;
  int used_ = 4;
  float spare_ = 0;
  bool has_spare_ = false;
};

}  // namespace strata::inline STRATA_ABI
