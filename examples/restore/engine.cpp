// The networks, for one instruction set. Compiled several times, with RESTORE_RUN as the name of the function and the
// processor's flags; the inline namespace of Strata keeps its own names apart, and the build makes all others local.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "networks.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/deploy/tile.hpp"

namespace restore {

std::int64_t RESTORE_RUN(const Request& request) {
  namespace st = strata;
  if (request.threads > 0) st::set_num_threads(request.threads);
  return with_network(request.task, [&]<class Net>(Net*) {
    using Deployed = st::deploy_t<Net>;
    Deployed net;
    // A picture too small for bands is read whole.
    const std::int64_t least = std::max(st::least_band_bytes(net, request.h, request.w), std::int64_t{4} << 20);
    if (request.max_bytes < least) return least;
    std::size_t taken = 0;
    st::for_each_buffer(net, [&](const std::string& name, st::Buffer& buffer) {
      const auto values = buffer.value<float>().span();
      if (values.size() > request.weight_count - taken)
        throw st::Error(st::concat("the weights end before ", name, " of the network"));
      std::copy_n(request.weights + taken, values.size(), values.data());
      taken += values.size();
    });
    if (taken != request.weight_count)
      throw st::Error(st::concat("got ", request.weight_count, " weights for a network of ", taken));
    constexpr int in = Deployed::io::in, out = Deployed::io::out;
    st::run_rows(
        net, request.h, request.w,
        [&](std::int64_t y, st::Image<in>& rows) { request.rows->read(y, rows.h(), rows.data()); },
        [&](std::int64_t y, const st::Image<out>& rows) { request.rows->write(y, rows.h(), rows.data()); },
        {.max_bytes = request.max_bytes});
    st::cpu_pool().trim();
    return least;
  });
}

}  // namespace restore
