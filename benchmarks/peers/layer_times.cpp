// Times layers: one line each, "name forward_ms forward_and_backward_ms", medians. layers.py compiles and runs it.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "strata/strata.hpp"

namespace {

namespace st = strata;

double median_ms(auto&& work) {
  work();
  std::vector<double> times;
  for (int i = 0; i < 15; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + 7, times.end());
  return times[7];
}

template <class Module>
void time(const char* name, std::int64_t n, std::int64_t size) {
  Module module;
  st::Image<64> x(n, size, size);
  st::Rng(1).fill_normal(x.span(), 0, 1);
  const double forward = median_ms([&] {
    st::Infer pass;
    (void)st::as_var(module(pass, x)).data();
  });
  const double both = median_ms([&] {
    st::Train pass;
    pass.backward(sum(module(pass, pass.watch(x))));
  });
  std::printf("%s %.4f %.4f\n", name, forward, both);
}

}  // namespace

int main() {
  st::set_num_threads(2);
  time<st::DepthwiseConv2d<64>>("depthwise3", 4, 128);
  time<st::DepthwiseConv2d<64, 7>>("depthwise7", 4, 128);
  time<st::GroupNorm<8, 64>>("group_norm", 4, 128);
  time<st::InstanceNorm2d<64>>("instance_norm", 4, 128);
  time<st::LayerNorm2d<64>>("layer_norm", 4, 128);
  time<st::Upsample<2>>("nearest", 4, 64);
  time<st::Upsample<2, st::UpsampleMode::bilinear>>("bilinear", 4, 64);
  time<st::GELU>("gelu", 4, 128);
  time<st::ELU>("elu", 4, 128);
  time<st::Hardswish>("hardswish", 4, 128);
  time<st::Mish>("mish", 4, 128);
}
