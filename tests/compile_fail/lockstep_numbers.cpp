// expect: its own forward cannot read an image's numbers
// expect-context: Block
#include "strata/distributed/data_parallel.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/sync_batch_norm.hpp"

namespace st = strata;

struct Block : st::Layer<Block> {
  using io = st::maps<2, 2>;
  st::SyncBatchNorm2d<2> norm;
  static constexpr void visit(auto& self, auto&& f) { f("norm", self.norm); }
  static auto forward(auto& self, auto& pass, const auto& x) {
#ifdef FAIL
    const float scale = x.data()[0] > 0.5f ? 2.0f : 1.0f;
#else
    const float scale = x.h() > 5 ? 2.0f : 1.0f;
#endif
    return self.norm(pass, scale * x);
  }
};

int main() {
  Block net;
  st::DataParallel parallel(net, st::World());
  const st::LoadedBatch<st::Image<2>, st::Image<2>> batch{{st::Image<2>(4, 3, 3), st::Image<2>(4, 3, 3)}, 2};
  return int(parallel.step(batch, {}, net, st::MSELoss()));
}
