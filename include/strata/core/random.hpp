// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// The numbers of a stream depend on its key alone, never on threads or on what was drawn elsewhere.
//
//     st::Rng rng(seed, epoch, index);     // the stream of one sample
//     float x = rng.normal();
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "strata/core/box_muller.hpp"
#include "strata/core/config.hpp"
#include "strata/core/rounded.hpp"

namespace strata { inline namespace STRATA_ABI {

/// One Philox4x32-10 block: four random words from a counter and a key.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) {
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

namespace detail {

/// The 32 words of blocks first to first + 7 of a stream, in order, as doubles. For processors whose vectors hold
/// eight.
inline void philox_eight_blocks(std::uint64_t first, const std::array<std::uint32_t, 2>& stream,
                                std::array<std::uint32_t, 2> key, double* words) {
  using U = simd::Vector<std::uint64_t>;
  using V = simd::Vector<double>;
  constexpr std::uint64_t low = 0xFFFFFFFF;
  U counter{};
  for (int k = 0; k < simd::lanes<U>; ++k) counter[k] = first + std::uint64_t(k);
  U c0 = counter & low, c1 = counter >> 32, c2 = U{} + stream[0], c3 = U{} + stream[1];
  for (int round = 0; round < 10; ++round) {
    const U a = c0 * 0xD2511F53, b = c2 * 0xCD9E8D57;
    c0 = (b >> 32) ^ c1 ^ key[0];
    c1 = b & low;
    c2 = (a >> 32) ^ c3 ^ key[1];
    c3 = a & low;
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  const auto number = [](U word) { return std::bit_cast<V>(word | 0x4330000000000000) - 0x1p52; };  // exact
  const auto [even_low, even_high] = simd::interleaved(number(c0), number(c2));
  const auto [odd_low, odd_high] = simd::interleaved(number(c1), number(c3));
  const auto [w0, w1] = simd::interleaved(even_low, odd_low);
  const auto [w2, w3] = simd::interleaved(even_high, odd_high);
  constexpr int step = simd::lanes<V>;
  simd::store<V>(words, w0);
  simd::store<V>(words + step, w1);
  simd::store<V>(words + 2 * step, w2);
  simd::store<V>(words + 3 * step, w3);
}

}  // namespace detail

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
  constexpr float uniform(float low, float high) { return low + detail::rounded((high - low) * uniform()); }

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
    const double first = double(bits()), second = double(bits());
    const auto [x, y] = detail::box_muller(first, second);
    spare_ = float(y);
    has_spare_ = true;
    return float(x);
  }

  /// mean + stddev * normal() for every element, the same numbers as one after another, several at a time.
  void fill_normal(std::span<float> out, float mean, float stddev) {
    using V = simd::Vector<double>;
    const auto scaled = [&](auto x) { return mean + detail::rounded(stddev * x); };
    std::size_t i = 0;
    if (has_spare_ && i < out.size()) out[i++] = scaled(normal());
    for (; i + some <= out.size(); i += some) {
      double words[some + 4];  // the words of many pairs, then the arithmetic: both keep the processor busy
      next_words(words);
      simd::unroll<int(some) / simd::lanes<simd::Vector<float>>>([&](auto part) STRATA_INLINED {
        constexpr std::size_t at = std::size_t(part) * std::size_t(simd::lanes<simd::Vector<float>>);
        const V a = simd::load<V>(words + at), b = simd::load<V>(words + at + simd::lanes<V>);
        const auto pairs = detail::box_muller(simd::even_elements(a, b), simd::odd_elements(a, b));
        simd::store<simd::Vector<float>>(out.data() + i + at, scaled(detail::interleaved(pairs)));
      });
    }
    for (; i < out.size(); ++i) out[i] = scaled(normal());
  }

 private:
  static constexpr std::size_t some = 32;  // words: eight blocks

  /// words[0] to words[some - 1] = what bits() would give.
  void next_words(double* words) {
    if constexpr (simd::lanes<simd::Vector<std::uint64_t>> == 8) {
      for (int k = used_; k < 4; ++k) *words++ = double(block_[std::size_t(k)]);
      detail::philox_eight_blocks(counter_, stream_, key_, words);
      counter_ += 8;
      // as many of them wait as before
      for (std::size_t k = 0; k < 4; ++k) block_[k] = std::uint32_t(words[some - 4 + k]);
    } else {
      for (std::size_t k = 0; k < some; ++k) words[k] = double(bits());
    }
  }

  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 2> stream_;
  std::array<std::uint32_t, 4> block_{};
  std::uint64_t counter_ = 0;
  int used_ = 4;
  float spare_ = 0;
  bool has_spare_ = false;
};

}}  // namespace strata::STRATA_ABI
