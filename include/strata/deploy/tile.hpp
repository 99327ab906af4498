// A network on an image of any size in bounded memory, bit for bit what it gives on the whole image.
//
//     st::Image<1> out = st::run_tiled(net, image, {.max_bytes = 512 << 20});
//
//     st::run_rows(net, h, w,                                                    // nothing but bands of rows in memory
//                  [&](std::int64_t y, st::Image<1>& rows) { ... fill rows y, y + 1, ... of the input ... },
//                  [&](std::int64_t y, const st::Image<1>& rows) { ... rows y, y + 1, ... of the output ... });
//
// Two ways lead there. A network of library layers and of modules y = join(x, body(x)) runs by bands of rows, and nothing
// is computed twice (deploy/row_stages.hpp). Any other network runs on tiles that overlap: by more than its receptive
// field, because a Winograd tile's rounding errors depend on all of the six by six pixels it reads. A network that looks
// at the whole image (GlobalAvgPool2d, GroupNorm) cannot be cut.
//
// A module of your own runs by rows when it says how its output follows from its input and its body's output:
//
//     Body body;
//     auto join(auto& pass, const auto& x, const auto& y) const { return x + y; }            // pixel by pixel
//     auto operator()(st::Infer& pass, const auto& x) const { return join(pass, x, body(pass, x)); }
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <utility>

#include "strata/deploy/row_stages.hpp"

namespace strata::inline STRATA_ABI {

struct TileOptions {
  std::int64_t max_bytes = std::int64_t{512} << 20;  ///< for everything that run_rows holds at once; the caller's images are not counted
  std::int64_t tile = 0;  ///< rows of a band, or height and width of a tile; 0: as many as max_bytes allows
};

namespace detail {

/// How far a tile must reach beyond what is wanted of it, and where it may begin.
struct TileSink {
  double halo = 0, widest = 1;                    // widest: floats per pixel of the input, of the largest activation
  std::int64_t align = row_step;                  // tiles begin at multiples of it
  bool whole = false;                             // a layer looks at the whole image

  constexpr void enter(const auto&, const Extents&) {}
  constexpr void leave() {}
  template <class M>
  constexpr void layer(const Extents& before, const Extents& after, const FusedStep&) {
    std::int64_t dilation = 1;
    if constexpr (requires { M::dilation; }) dilation = M::dilation;
    align = std::lcm(align, row_step * dilation * round_up(std::max({1.0, before.jump, after.jump})));
    const double field = (after.field - before.field) / before.jump;
    // A window may be Winograd's: its result depends, by rounding, on all pixels of its tile.
    if (field > 0) halo += before.jump * std::max(field, field / 2 + double(dilation * (row_step - 1)));
    whole = whole || after.whole;
    widest = std::max(widest, double(after.c) / (after.jump * after.jump));
  }
};
template <class Net>
constexpr TileSink tile_facts() {
  Tracer<TileSink> tracer(Extents{.c = input_channels<Net>(), .h = 1 << 12, .w = 1 << 12});
  tracer.template run<Net>();
  return tracer.sink();
}
/// Output pixels per input pixel, as a fraction, in one direction.
struct OutputScale {
  std::int64_t up = 1, down = 1;
  constexpr std::int64_t of(std::int64_t size) const { return size * up / down; }
};
template <class Net>
constexpr OutputScale output_scale() {
  const std::int64_t h = output_extents<Net>(1 << 12, 1 << 12).h;
  return h >= (1 << 12) ? OutputScale{h >> 12, 1} : OutputScale{1, (1 << 12) / std::max<std::int64_t>(h, 1)};
}

[[noreturn]] inline void throw_limit(std::int64_t limit, std::int64_t least, std::int64_t h, std::int64_t w) {
  throw ValueError(concat("run_rows: .max_bytes = ", limit, " is too little for an image of ", h, " x ", w,
                          " pixels with this network: give ", least, " at least, or cut the image"));
}

/// What bands of rows of an image take, and how thick they may be.
struct BandPlan {
  std::int64_t unit;        // their thickness is a multiple of it
  std::int64_t row_bytes;   // for each row of a band
  std::int64_t kept_bytes;  // whatever the bands

  std::int64_t most_rows(std::int64_t bytes) const { return std::max<std::int64_t>((bytes - kept_bytes) / row_bytes / unit * unit, 0); }
  std::int64_t least_bytes() const { return kept_bytes + unit * row_bytes; }
};
template <class Net, class Stage>
BandPlan plan_bands(const Stage& stage, std::int64_t h, std::int64_t w) {
  constexpr TileSink facts = tile_facts<Net>();
  constexpr std::int64_t unit = facts.align;
  // A band goes through as input, copy with padding and result, with one more where a skip goes around; a half more is what
  // the pool's rounding and blocks of other sizes take. In the end layers hold back some rows more.
  const std::int64_t row_bytes = w * round_up(6 * facts.widest) * std::int64_t(sizeof(float));
  const std::int64_t in_the_end = h % unit == 0 ? 2 : 4;
  return {.unit = unit, .row_bytes = row_bytes, .kept_bytes = stage.kept_bytes() + in_the_end * unit * row_bytes};
}

template <class Net, class Image>
auto run_whole(const Net& net, const Image& image) {
  Infer pass;
  return call(net, pass, image).value();
}

/// Overlapping tiles, for networks whose inside is not known. Only what keeps every extent in proportion can be cut. `bands`
/// is what bands of rows would take, or 0.
template <class Net, class Read, class Write>
void run_tiles(const Net& net, std::int64_t h, std::int64_t w, Read&& read, Write&& write, const TileOptions& options,
               std::int64_t bands) {
  constexpr int in = Net::io::in, out = Net::io::out;
  constexpr TileSink facts = tile_facts<Net>();
  constexpr OutputScale scale = output_scale<Net>();
  constexpr bool proportional = output_extents<Net>(1 << 12, 1 << 12).h == scale.of(1 << 12) &&
                                output_extents<Net>(1 << 11, 1 << 11).h == scale.of(1 << 11);
  constexpr std::int64_t align = facts.align;
  constexpr std::int64_t halo = (round_up(facts.halo) + align - 1) / align * align;
  const auto bytes_of = [&](std::int64_t rows, std::int64_t columns) {  // three activations and what the pool has free, and the strips
    return rows * columns * round_up(6 * facts.widest) * std::int64_t(sizeof(float)) + rows * w * (in + out) * std::int64_t(sizeof(float));
  };
  const auto whole = [&] {
    Image<in> image(1, h, w);
    read(std::int64_t{0}, image);
    write(std::int64_t{0}, run_whole(net, image));
  };
  if (options.tile == 0 && bytes_of(h, w) <= options.max_bytes) return whole();
  // Small images may get other kernels than large ones, and a network that is not proportional cannot be put together.
  if (!proportional || facts.whole || std::min(h, w) < 2 * align) {
    if (bytes_of(h, w) > options.max_bytes) throw_limit(options.max_bytes, bytes_of(h, w), h, w);
    return whole();
  }
  std::int64_t tile = (options.tile + align - 1) / align * align;
  if (options.tile == 0) {
    tile = align;
    while (tile < std::max(h, w) && bytes_of(tile + align + 2 * halo, std::min(w, tile + align + 2 * halo)) <= options.max_bytes) tile += align;
  }
  // Tiles smaller than their overlap would take more than nine times the time.
  const auto bytes_with = [&](std::int64_t size) { return bytes_of(std::min(h, size + 2 * halo), std::min(w, size + 2 * halo)); };
  const std::int64_t least = bytes_with(options.tile > 0 ? tile : halo);
  if (least > options.max_bytes) throw_limit(options.max_bytes, bands > 0 ? std::min(bands, least) : least, h, w);

  // The last tile of a row or column takes what would be too little for one of its own.
  const auto end_of = [&](std::int64_t begin, std::int64_t size) { return begin + tile + 2 * align > size ? size : begin + tile; };
  for (std::int64_t y = 0, y_end; y < h; y = y_end) {
    y_end = end_of(y, h);
    const std::int64_t top = std::max<std::int64_t>(y - halo, 0), bottom = std::min(h, y_end + halo);
    Image<in> strip(1, bottom - top, w);
    read(top, strip);
    Image<out> rows(1, scale.of(y_end) - scale.of(y), scale.of(w));
    for (std::int64_t x = 0, x_end; x < w; x = x_end) {
      x_end = end_of(x, w);
      const std::int64_t left = std::max<std::int64_t>(x - halo, 0), right = std::min(w, x_end + halo);
      Image<in> part(1, strip.h(), right - left);
      for (std::int64_t i = 0; i < part.h(); ++i)
        std::copy_n(&strip(0, 0, i, left), part.w() * in, &part(0, 0, i, 0));
      const Image<out> result = run_whole(net, part);
      for (std::int64_t i = 0; i < rows.h(); ++i)
        std::copy_n(&result(0, 0, scale.of(y) - scale.of(top) + i, scale.of(x) - scale.of(left)),
                    (scale.of(x_end) - scale.of(x)) * out, &rows(0, 0, i, scale.of(x)));
    }
    write(scale.of(y), rows);
  }
}

}  // namespace detail

/// Runs `net` on an image of h x w pixels. read(y, Image<In>& rows) fills rows y, y + 1, ... of the input, and may be asked
/// for rows again; write(y, const Image<Out>& rows) gets the rows of the output from top to bottom. Every value has the
/// bits of net(pass, image), whatever the options and the number of threads. Throws ValueError when max_bytes is too
/// little.
template <class Net, class Read, class Write>
void run_rows(const Net& net, std::int64_t h, std::int64_t w, Read&& read, Write&& write, const TileOptions& options = {}) {
  static_assert(detail::fixes_channels<Net>, "strata: run_rows wants a network with a fixed number of channels");
  constexpr int in = Net::io::in;
  require_host(net, "run_rows");  // bands are cut and put together in the host's memory
  if (h < 1 || w < 1) throw ShapeError(concat("run_rows: got an image of ", h, " x ", w, " pixels"));
  if (options.max_bytes < 1 || options.tile < 0)
    throw ValueError(concat("run_rows: got .max_bytes = ", options.max_bytes, ", .tile = ", options.tile,
                            ", wanted a positive number, and 0 or more"));
  using Stage = detail::RowStage<Net, in>;
  std::int64_t least = 0;
  if constexpr (Stage::possible) {
    Stage stage(net, h, w);
    const auto plan = detail::plan_bands<Net>(stage, h, w);
    const std::int64_t room = plan.most_rows(options.max_bytes);
    if (stage.regular() && (room >= plan.unit || options.tile > 0)) {
      // Bands that stay in the caches are the fastest, if they are not too thin to keep all threads busy.
      const std::int64_t cached = (std::int64_t{8} << 20) / plan.row_bytes / plan.unit * plan.unit;
      std::int64_t band = std::min(room, std::clamp<std::int64_t>(cached, 4 * plan.unit, 64 * plan.unit));
      if (options.tile > 0) band = options.tile;
      const std::size_t before = cpu_pool().live_bytes();
      std::int64_t written = 0;
      bool steady = false;
      for (std::int64_t y = 0; !stage.done(); y = std::min(h, y + band)) {
        Image<in> rows(1, std::min(band, h - y), w);
        if (rows.h() > 0) read(y, rows);
        // The first bands and the last ones ask for other sizes: free blocks of these would add to what is in use.
        if (!steady || rows.h() < band || std::int64_t(cpu_pool().reserved_bytes() - before) > options.max_bytes)
          cpu_pool().free_unused();
        steady = written > 0;
        const auto out = stage.push(std::move(rows), y + band >= h);
        if (out.h() > 0) write(written, out);
        written += out.h();
      }
      return;
    }
    if (stage.regular()) least = plan.least_bytes();
  }
  detail::run_tiles(net, h, w, read, write, options, least);
}

/// The least .max_bytes with which run_rows goes through an image of h x w pixels in bands of rows; with less it computes
/// overlapping tiles, which takes up to nine times as long, asks for rows again, and ends where the limit is too little for
/// these as well.
/// 0 where the network or the image's size allows no bands.
template <class Net>
std::int64_t least_band_bytes(const Net& net, std::int64_t h, std::int64_t w) {
  using Stage = detail::RowStage<Net, Net::io::in>;
  if constexpr (Stage::possible) {
    const Stage stage(net, h, w);
    if (stage.regular()) return detail::plan_bands<Net>(stage, h, w).least_bytes();
  }
  return 0;
}

/// The same for an image in memory: a batch of one or more.
template <class Net>
Image<Net::io::out> run_tiled(const Net& net, const Image<Net::io::in>& image, const TileOptions& options = {}) {
  constexpr int in = Net::io::in, out = Net::io::out;
  image.tensor().require_host("run_tiled");
  const Extents extents = output_extents<Net>(image.h(), image.w());
  Image<out> result(image.n(), extents.h, extents.w);
  for (std::int64_t n = 0; n < image.n(); ++n)
    run_rows(
        net, image.h(), image.w(),
        [&](std::int64_t y, Image<in>& rows) { std::copy_n(&image(n, 0, y, 0), rows.size(), rows.data()); },
        [&](std::int64_t y, const Image<out>& rows) { std::copy_n(rows.data(), rows.size(), &result(n, 0, y, 0)); }, options);
  return result;
}

}  // namespace strata::inline STRATA_ABI
