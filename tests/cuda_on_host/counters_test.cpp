// The counters of the host execution: figures that can be worked out by hand.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "cuda_on_host_control.hpp"
#include "strata/cuda/launch.cuh"

using cuda_on_host::Counters;
using cuda_on_host::DeviceArray;
using strata::cuda::launch, strata::cuda::load_vector, strata::cuda::store_vector;

namespace {

STRATA_GLOBAL void strided(int stride, const float* __restrict__ x, float* __restrict__ y) {
  y[threadIdx.x] = x[stride * int(threadIdx.x)];
}
STRATA_GLOBAL void vectors(const float* __restrict__ x, float* __restrict__ y) {
  store_vector(y + 4 * threadIdx.x, load_vector<float4>(x + 4 * threadIdx.x));
}
STRATA_GLOBAL void same_for_all(const float* __restrict__ x, float* __restrict__ y) { y[threadIdx.x] = x[0]; }
STRATA_GLOBAL void every_second_lane(float* y) {
  if (threadIdx.x % 2 == 0) y[threadIdx.x] = 1.0f;
}
template <int Distance>
STRATA_GLOBAL void transpose_tile(const float* __restrict__ x, float* __restrict__ y) {
  STRATA_SHARED(float, tile, [32 * Distance]);
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  tile[warp * Distance + lane] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[lane * Distance + warp];
}
struct Large {
  float values[24];
};
STRATA_GLOBAL void whole_structs(const Large* __restrict__ x, float* __restrict__ y) {
  const Large mine = x[threadIdx.x];
  float sum = 0;
  for (const float value : mine.values) sum += value;
  y[threadIdx.x] = sum;
}

template <class Launch>
Counters counted(Launch&& body) {
  cuda_on_host::reset_counters();
  cuda_on_host::options().count = true;
  REQUIRE(body() == cudaSuccess);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  cuda_on_host::options() = {};
  REQUIRE(cuda_on_host::counters().size() == 1);
  return cuda_on_host::counters()[0];
}

}  // namespace

TEST_CASE("counters") {
  if (!cuda_on_host::instrumented()) return;  // nothing is seen, so nothing is counted
  const DeviceArray<float> x(std::vector<float>(4096, 1.0f)), y(4096);
  SUBCASE("a stride of two takes twice the sectors, one of eight a sector each") {
    for (const int stride : {1, 2, 8, 16}) {
      const Counters c = counted([&] { return launch<&strided>(1, 64, 0, nullptr, stride, x.data(), y.data()); });
      CHECK(c.kernel == "strided");
      CHECK(c.launches == 1);
      CHECK(c.load_accesses == 2);
      CHECK(c.load_bytes == 256);
      CHECK(c.load_ideal_sectors == 8);
      CHECK(c.load_sectors == 8u * unsigned(std::min(stride, 8)));
      CHECK(c.load_unique_bytes == 32 * c.load_sectors);
      CHECK(c.store_sectors == 8);
      CHECK(c.partial_accesses == 0);
    }
  }
  SUBCASE("vectors of 16 bytes: 16 sectors for a warp") {
    const Counters c = counted([&] { return launch<&vectors>(1, 32, 0, nullptr, x.data(), y.data()); });
    CHECK(c.load_accesses == 1);
    CHECK(c.load_sectors == 16);
    CHECK(c.load_ideal_sectors == 16);
    CHECK(c.store_sectors == 16);
  }
  SUBCASE("one address for all lanes is one sector") {
    const Counters c = counted([&] { return launch<&same_for_all>(1, 96, 0, nullptr, x.data(), y.data()); });
    CHECK(c.load_accesses == 3);
    CHECK(c.load_sectors == 3);
    CHECK(c.load_ideal_sectors == 3);
    CHECK(c.load_unique_bytes == 32);
  }
  SUBCASE("half of the lanes") {
    const Counters c = counted([&] { return launch<&every_second_lane>(1, 32, 0, nullptr, y.data()); });
    CHECK(c.partial_accesses == 1);
    CHECK(c.store_bytes == 64);
    CHECK(c.store_ideal_sectors == 2);
    CHECK(c.store_sectors == 4);
  }
  SUBCASE("a column of 32 words is one bank, of 33 all of them") {
    const Counters same = counted([&] { return launch<&transpose_tile<32>>(1, 1024, 0, nullptr, x.data(), y.data()); });
    CHECK(same.shared_accesses == 64);
    CHECK(same.shared_ideal_wavefronts == 64);
    CHECK(same.shared_wavefronts == 32 + 32 * 32);
    CHECK(same.barriers == 1);
    CHECK(same.shared_bytes == 4096);
    const Counters apart =
        counted([&] { return launch<&transpose_tile<33>>(1, 1024, 0, nullptr, x.data(), y.data()); });
    CHECK(apart.shared_wavefronts == 64);
  }
  SUBCASE("structs of many sectors") {
    const DeviceArray<Large> structs(std::vector<Large>(32));
    const Counters c = counted([&] { return launch<&whole_structs>(1, 32, 0, nullptr, structs.data(), y.data()); });
    CHECK(c.load_unique_bytes == 32 * sizeof(Large));
  }
}
