// A network on an image by bands of rows in bounded memory, against the same network on the whole image: milliseconds
// per megapixel, in turns, and the most memory that the pool handed out. The result has the same bits.
//
//     build/release/bin/bench_tiled [ROUNDS]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "../examples/ffdnet/networks.hpp"
#include "networks.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/deploy/tile.hpp"

namespace {

namespace st = strata;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <class Net>
void compare(const char* name, std::int64_t h, std::int64_t w, std::int64_t max_bytes, int rounds) {
  constexpr int in = Net::io::in, out = Net::io::out;
  auto trained = std::make_unique<Net>();
  st::initialize(*trained, 1);
  const auto net = std::make_unique<st::deploy_t<Net>>(st::fold(*trained));
  st::Image<in> image(1, h, w);
  st::Rng rng(1);
  for (float& x : image.span()) x = rng.uniform();
  st::Image<out> whole, tiled;
  std::vector<double> times[2];
  std::size_t peaks[2] = {};
  for (int round = 0; round <= rounds; ++round)
    for (const int way : {0, 1}) {
      const std::size_t live = st::cpu_pool().live_bytes();
      st::cpu_pool().reset_peak();
      const auto begin = std::chrono::steady_clock::now();
      if (way == 0) {
        st::Infer pass;
        whole = st::as_var((*net)(pass, image)).value();
      } else {
        tiled = st::run_tiled(*net, image, {.max_bytes = max_bytes});
      }
      const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
      if (round > 0) times[way].push_back(time.count() * 1e6 / double(h * w));
      peaks[way] = std::max(peaks[way], st::cpu_pool().peak_bytes() - live);
    }
  const bool same = std::memcmp(whole.data(), tiled.data(), std::size_t(whole.size()) * sizeof(float)) == 0;
  std::printf(
      "%-12s %5ldx%-5ld  whole %6.1f ms/MP %5.0f MB   bands of %4ld MB %6.1f ms/MP %5.0f MB   ratio %.3f   %s\n", name,
      long(w), long(h), median(times[0]), double(peaks[0]) / (1 << 20), long(max_bytes >> 20), median(times[1]),
      double(peaks[1]) / (1 << 20), median(times[1]) / median(times[0]), same ? "same bits" : "OTHER BITS");
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 5;
  for (const std::int64_t mb : {64, 512}) {
    compare<ffdnet::FFDNet<1>>("ffdnet grey", 1024, 1024, mb << 20, rounds);
    compare<bench::FoldedDnCNN<1, 64, 17>>("dncnn17", 512, 1024, mb << 20, rounds);
  }
  compare<ffdnet::FFDNet<1>>("ffdnet grey", 2448, 3264, std::int64_t{512} << 20, rounds);
  return 0;
}
