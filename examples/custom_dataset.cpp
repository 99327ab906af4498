// A data set of your own, and what the loader makes of it: batches from worker threads, in an order and with contents
// that depend on the seed and the epoch alone.
#include <algorithm>
#include <cstdio>

#include "strata/strata.hpp"

namespace st = strata;

// Any type with size() and get(index, rng) will do. This one makes pairs for inpainting: squares cut out of an image.
class Inpainting {
 public:
  Inpainting(std::size_t count, int hole) : count_(count), hole_(hole) {}

  std::size_t size() const { return count_; }

  st::Sample<3> get(std::size_t index, st::Rng& rng) const {
    auto target = st::Image<3>(1, 32, 32);
    for (int c = 0; c < 3; ++c)
      for (int y = 0; y < 32; ++y)
        for (int x = 0; x < 32; ++x) target(0, c, y, x) = float((x * (c + 1) + y * 3 + int(index)) % 32) / 31.0f;
    auto input = target.clone();  // an Image is a handle: without clone() both would be one
    const auto top = int(rng.below(std::uint32_t(32 - hole_))), left = int(rng.below(std::uint32_t(32 - hole_)));
    for (int c = 0; c < 3; ++c)
      for (int y = top; y < top + hole_; ++y)
        for (int x = left; x < left + hole_; ++x) input(0, c, y, x) = 0.5f;
    return {input, target};
  }

 private:
  std::size_t count_;
  int hole_;
};
static_assert(st::Dataset<Inpainting>);

// The sum of everything an epoch gives, to compare two loaders by.
template <class Loader>
double fingerprint(const Loader& loader, int epoch) {
  double sum = 0, weight = 1;
  for (const auto& [input, target] : loader.epoch(epoch)) {
    for (const float x : input.span()) sum += (weight += 1e-3) * double(x);
    for (const float x : target.span()) sum += (weight += 1e-3) * double(x);
  }
  return sum;
}

int main() {
  const Inpainting data(100, 8);
  const st::DataLoader alone(data, {.batch_size = 16, .shuffle = true, .num_workers = 0, .seed = 7});
  const st::DataLoader threads(data, {.batch_size = 16, .shuffle = true, .num_workers = 4, .seed = 7});
  std::printf("%lld batches; the last has %lld images\n", static_cast<long long>(alone.size()),
              static_cast<long long>(100 - 16 * (alone.size() - 1)));
  bool same = true;
  for (int epoch = 0; epoch < 3; ++epoch) {
    const double a = fingerprint(alone, epoch), b = fingerprint(threads, epoch);
    std::printf("epoch %d: %.6f without workers, %.6f with four\n", epoch, a, b);
    same = same && a == b;
  }
  return same && fingerprint(alone, 0) != fingerprint(alone, 1) ? 0 : 1;
}
