// A network on an image of any size in bounded memory, bit for bit what it gives on the whole image.
//
//     st::Image<1> out = st::run_tiled(net, image, {.max_bytes = 512 << 20});
//
//     st::run_rows(net, h, w,                                                    // nothing but bands of rows in memory
//                  [&](std::int64_t y, st::Image<1>& rows) { ... fill rows y, y + 1, ... of the input ... },
//                  [&](std::int64_t y, const st::Image<1>& rows) { ... rows y, y + 1, ... of the output ... });
//
// Two ways lead there. A network of library layers and of modules y = join(x, body(x)) runs by bands of rows, and
// nothing is computed twice (deploy/row_stages.hpp). Any other network runs on tiles that overlap. Its forward is
// followed (nn/follow.hpp), which tells of every pixel of the result what it depends on, by rounding too: a Winograd
// tile's errors depend on all of the six by six pixels it reads. Each tile is followed as well: where it would not take
// the same steps with the same kernels as the whole image, that is not done. A network that looks at the whole image
// (GlobalAvgPool2d, GroupNorm) cannot be cut: it runs whole where the limit allows, and is refused otherwise.
//
// A module of your own runs by rows when it says how its output follows from its input and its body's output:
//
//     Body body;
//     static constexpr auto join(auto& pass, const auto& x, const auto& y) { return x + y; }          // pixel by pixel
//     static constexpr auto forward(auto& self, auto& pass, const auto& x) {
//       return join(pass, x, self.body(pass, x));
//     }
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "strata/deploy/row_stages.hpp"
#include "strata/nn/memory.hpp"

namespace strata { inline namespace STRATA_ABI {

struct TileOptions {
  /// for everything that run_rows holds at once; the caller's images are not counted
  std::int64_t max_bytes = std::int64_t{512} << 20;
  std::int64_t tile = 0;  ///< rows of a band, or height and width of a tile; 0: as many as max_bytes allows
};

namespace detail {

/// Listens for what forbids cutting, while it keeps account of memory.
class CutAccount : public MemoryAccount {
 public:
  CutAccount() : MemoryAccount(false) {}
  void ran(const Following& run, const FollowedStep& step) override {
    MemoryAccount::ran(run, step);
    for (auto link = run.links().rbegin(); link != run.links().rend() && link->to == step.output; ++link)
      if (link->reads.way == Reads::Way::all && whole_.empty() && step.name != nullptr) whole_ = step.name();
  }
  /// The first layer that looks at the whole image.
  const std::string& whole() const { return whole_; }

 private:
  std::string whole_;
};

/// A network's run on an image of h x w pixels.
template <class Net>
class FollowedRun {
 public:
  FollowedRun(const Net& net, std::int64_t h, std::int64_t w) : run_(1, &account_) {
    Infer pass;
    result_ = follow(run_, net, pass, h, w);
  }
  const Following& run() const { return run_; }
  const FollowedImage& result() const { return run_.image(result_); }
  int result_number() const { return result_; }
  /// Floats of the largest activation per pixel of the input.
  double widest() const {
    double most = 1;
    for (const FollowedImage& image : run_.images())
      most = std::max(most, double(image.c) * double(image.pixels()) / double(run_.image(0).pixels()));
    return most;
  }
  std::int64_t bytes() const { return std::int64_t(account_.peak()); }
  /// Why no part of the image can be run by itself; empty where it can.
  std::string obstacle() const {
    if (run_.unknown()) return "it holds an operator of which nothing is known, or draws random numbers";
    if (run_.asked_for_extents()) return "its forward asks for the image's extents";
    if (run_.irregular()) return "it joins images whose pixels do not lie equally densely";
    if (result().one || run_.rows_of(result_, {0, 0}, false).all())
      return concat("every pixel of its result depends on all of the image", account_.whole().empty() ? "" : ": ",
                    account_.whole());
    return {};
  }

 private:
  CutAccount account_;
  Following run_;
  int result_ = 0;
};

/// Rows at which an image may be cut, so that rows are where they would be in the whole image, at every layer.
inline std::int64_t alignment(const Following& run) {
  std::int64_t align = 1;
  for (const FollowedImage& image : run.images()) align = std::lcm(align, image.down);
  for (const FollowedLink& link : run.links()) {
    const FollowedImage& y = run.image(link.to);
    align = std::lcm(align, y.down * link.reads.together / std::gcd(y.up, std::int64_t{link.reads.together}));
  }
  return align;
}
/// Rows that bands are a multiple of: of Winograd's, at every layer.
inline std::int64_t band_unit(const Following& run) {
  std::int64_t unit = row_step;
  for (const FollowedLink& link : run.links())
    for (const int id : {link.from, link.to}) {
      const FollowedImage& image = run.image(id);
      const std::int64_t dilation = link.reads.way == Reads::Way::window ? link.reads.dilation : 1;
      unit = std::lcm(unit, row_step * dilation * ceil_div(image.down, image.up));
    }
  return unit;
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

  std::int64_t most_rows(std::int64_t bytes) const {
    return std::max<std::int64_t>((bytes - kept_bytes) / row_bytes / unit * unit, 0);
  }
  std::int64_t least_bytes() const { return kept_bytes + unit * row_bytes; }
};
template <class Net, class Stage>
BandPlan plan_bands(const FollowedRun<Net>& whole, const Stage& stage, std::int64_t h, std::int64_t w) {
  const std::int64_t unit = band_unit(whole.run());
  // A band goes through as input, copy with padding and result, with one more where a skip goes around; a half more is
  // what the pool's rounding and blocks of other sizes take. In the end layers hold back some rows more.
  const std::int64_t row_bytes = w * std::int64_t(std::ceil(6 * whole.widest() - 1e-9)) * std::int64_t(sizeof(float));
  const std::int64_t in_the_end = h % unit == 0 ? 2 : 4;
  return {.unit = unit, .row_bytes = row_bytes, .kept_bytes = stage.kept_bytes() + in_the_end * unit * row_bytes};
}

template <class Net, class Image>
auto run_whole(const Net& net, const Image& image) {
  Infer pass;
  return call(net, pass, image).value();
}

/// Rows, or columns, of the result and the part of the image that they are computed from.
struct TileSpan {
  std::int64_t begin, end;    // of the result
  std::int64_t top, bottom;   // of the image
  std::int64_t size() const { return bottom - top; }
};

/// The overlapping tiles of an image.
template <class Net>
class TilePlan {
 public:
  TilePlan(const Net& net, const FollowedRun<Net>& whole, std::int64_t h, std::int64_t w)
      : net_(net), whole_(whole), h_(h), w_(w), align_(alignment(whole.run())) {}

  std::int64_t align() const { return align_; }
  std::int64_t rounded(std::int64_t tile) const { return round_to(std::max<std::int64_t>(tile, 1), align_); }
  /// How far tiles reach beyond what is wanted of them, in both directions together.
  std::int64_t overlap() const {
    const TileSpan inside = span(round_to(4096, align_) / whole_.result().down * whole_.result().up, align_, false, h_);
    return inside.size() - align_;
  }
  /// What tiles that give this many rows and columns of input's worth take, the strip of the image and that of the
  /// result too.
  std::int64_t bytes(std::int64_t tile) const {
    const std::int64_t rows = std::min(h_, tile + overlap()), columns = std::min(w_, tile + overlap());
    return part_bytes(FollowedRun<Net>(net_, rows, columns)) + strip_bytes(rows, tile);
  }
  /// Lays tiles over the image. False where a tile would not be computed as the whole image is.
  bool lay(std::int64_t tile) {
    const FollowedImage& y = whole_.result();
    rows_ = spans(tile, y.h, h_);
    columns_ = spans(tile, y.w, w_);
    // of parts of each size
    std::map<std::pair<std::int64_t, std::int64_t>, std::pair<std::int64_t, std::int64_t>> results;
    for (const TileSpan& r : rows_)
      for (const TileSpan& c : columns_) {
        const auto [found, fresh] = results.try_emplace({r.size(), c.size()});
        if (fresh) {
          const FollowedRun<Net> part(net_, r.size(), c.size());
          if (!part.run().valid() || !part.run().same_steps(whole_.run())) return false;
          found->second = {part.result().h, part.result().w};
        }
        if (found->second.first < r.end - to_result(r.top) || found->second.second < c.end - to_result(c.top))
          return false;
      }
    return true;
  }
  const std::vector<TileSpan>& rows() const { return rows_; }
  const std::vector<TileSpan>& columns() const { return columns_; }
  /// The row of the result at the place of a row of the image, a multiple of align().
  std::int64_t to_result(std::int64_t row) const { return row / whole_.result().down * whole_.result().up; }
  /// The pool may have as much free as is in use.
  static std::int64_t part_bytes(const FollowedRun<Net>& part) { return 2 * part.bytes(); }

 private:
  std::int64_t strip_bytes(std::int64_t rows, std::int64_t tile) const {
    const std::int64_t in = rows * w_ * Net::io::in,
                       out = std::min(to_result(tile), whole_.result().h) * whole_.result().w * Net::io::out;
    return (in + out) * std::int64_t(sizeof(float));
  }
  /// For `count` input rows' worth of the result, from row `begin` of it on.
  TileSpan span(std::int64_t begin, std::int64_t count, bool clipped, std::int64_t size) const {
    return span_to(begin, begin + to_result(count), clipped, size);
  }
  TileSpan span_to(std::int64_t begin, std::int64_t end, bool clipped, std::int64_t size) const {
    const Rows needed = whole_.run().rows_of(whole_.result_number(), {begin, end - 1}, true);
    std::int64_t top = floor_div(needed.none() ? 0 : needed.first, align_) * align_;
    std::int64_t bottom = round_to(needed.none() ? 1 : needed.last + 1, align_);
    if (clipped) {  // to two units at least, since less gets other kernels
      top = std::clamp<std::int64_t>(top, 0, std::max<std::int64_t>(floor_div(size, align_) - 2, 0) * align_);
      bottom = std::min(std::max(bottom, top + 2 * align_), size);
    }
    return {begin, end, top, bottom};
  }
  std::vector<TileSpan> spans(std::int64_t tile, std::int64_t result, std::int64_t size) const {
    std::vector<TileSpan> all;
    const std::int64_t step = to_result(tile), least = 2 * to_result(align_);
    for (std::int64_t begin = 0, end; begin < result; begin = end) {
      // the last takes what would be too little for one of its own
      end = begin + step + least > result ? result : begin + step;
      all.push_back(span_to(begin, end, true, size));
    }
    return all;
  }

  const Net& net_;
  const FollowedRun<Net>& whole_;
  std::int64_t h_, w_, align_;
  std::vector<TileSpan> rows_, columns_;
};

/// Overlapping tiles. `bands` is what bands of rows would take, or 0.
template <class Net, class Read, class Write>
void run_tiles(const Net& net, const FollowedRun<Net>& whole, std::int64_t h, std::int64_t w, Read&& read,
               Write&& write, const TileOptions& options, std::int64_t bands) {
  constexpr int in = Net::io::in, out = Net::io::out;
  const std::int64_t images = (h * w * in + whole.result().h * whole.result().w * out) * std::int64_t(sizeof(float));
  const std::int64_t whole_bytes = TilePlan<Net>::part_bytes(whole) + images;
  const auto run_it_whole = [&](const std::string& obstacle) {
    if (whole_bytes > options.max_bytes) {
      if (!obstacle.empty())
        throw ValueError(concat("run_rows: .max_bytes = ", options.max_bytes, " is too little for an image of ", h,
                                " x ", w, " pixels, and this network cannot run on parts of one, since ", obstacle,
                                ": give ", whole_bytes, " at least, or a smaller image"));
      throw_limit(options.max_bytes, whole_bytes, h, w);
    }
    Image<in> image(1, h, w);
    read(std::int64_t{0}, image);
    write(std::int64_t{0}, run_whole(net, image));
  };
  if (options.tile == 0 && whole_bytes <= options.max_bytes) return run_it_whole("");
  if (const std::string obstacle = whole.obstacle(); !obstacle.empty()) return run_it_whole(obstacle);
  TilePlan<Net> plan(net, whole, h, w);
  const std::int64_t align = plan.align();
  if (std::min(h, w) < 2 * align) return run_it_whole(concat("its parts begin at multiples of ", align, " pixels"));
  // Tiles smaller than their overlap would take more than nine times the time.
  std::int64_t tile = plan.rounded(options.tile > 0 ? options.tile : (plan.overlap() + 1) / 2);
  if (const std::int64_t least = plan.bytes(tile); least > options.max_bytes)
    throw_limit(options.max_bytes, bands > 0 ? std::min(bands, least) : least, h, w);
  if (options.tile == 0) {  // the largest that fits
    std::int64_t more = plan.rounded(std::max(h, w));
    while (more - tile > align) {
      const std::int64_t middle = tile + (more - tile) / align / 2 * align;
      (plan.bytes(middle) <= options.max_bytes ? tile : more) = middle;
    }
  }
  if (!plan.lay(tile) && !plan.lay(tile + align))
    return run_it_whole("its parts would be computed by other kernels than the whole");

  for (const TileSpan& y : plan.rows()) {
    Image<in> strip(1, y.size(), w);
    read(y.top, strip);
    Image<out> rows(1, y.end - y.begin, whole.result().w);
    for (const TileSpan& x : plan.columns()) {
      Image<in> part(1, y.size(), x.size());
      for (std::int64_t i = 0; i < part.h(); ++i) std::copy_n(&strip(0, 0, i, x.top), part.w() * in, &part(0, 0, i, 0));
      const Image<out> result = run_whole(net, part);
      for (std::int64_t i = 0; i < rows.h(); ++i)
        std::copy_n(&result(0, 0, y.begin - plan.to_result(y.top) + i, x.begin - plan.to_result(x.top)),
                    (x.end - x.begin) * out, &rows(0, 0, i, x.begin));
    }
    write(y.begin, rows);
  }
}

}  // namespace detail

/// Runs `net` on an image of h x w pixels. read(y, Image<In>& rows) fills rows y, y + 1, ... of the input, and may be
/// asked for rows again; write(y, const Image<Out>& rows) gets the rows of the output from top to bottom. Every value
/// has the bits of net(pass, image), whatever the options and the number of threads. Throws ValueError when max_bytes
/// is too little.
template <class Net, class Read, class Write>
void run_rows(const Net& net, std::int64_t h, std::int64_t w, Read&& read, Write&& write,
              const TileOptions& options = {}) {
  static_assert(detail::fixes_channels<Net>, "strata: run_rows wants a network with a fixed number of channels");
  constexpr int in = Net::io::in;
  require_host(net, "run_rows");  // bands are cut and put together in the host's memory
  if (h < 1 || w < 1) throw ShapeError(concat("run_rows: got an image of ", h, " x ", w, " pixels"));
  if (options.max_bytes < 1 || options.tile < 0)
    throw ValueError(concat("run_rows: got .max_bytes = ", options.max_bytes, ", .tile = ", options.tile,
                            ", wanted a positive number, and 0 or more"));
  const detail::FollowedRun<Net> whole(net, h, w);
  detail::check_fits("run_rows", whole.run(), h, w);
  using Stage = detail::RowStage<Net, in>;
  std::int64_t least = 0;
  if constexpr (Stage::possible) {
    Stage stage(net, h, w);
    const auto plan = detail::plan_bands(whole, stage, h, w);
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
  detail::run_tiles(net, whole, h, w, read, write, options, least);
}

/// The least .max_bytes with which run_rows goes through an image of h x w pixels in bands of rows; with less it
/// computes overlapping tiles, which takes up to nine times as long, asks for rows again, and ends where the limit is
/// too little for these as well. 0 where the network or the image's size allows no bands.
template <class Net>
std::int64_t least_band_bytes(const Net& net, std::int64_t h, std::int64_t w) {
  using Stage = detail::RowStage<Net, Net::io::in>;
  if constexpr (Stage::possible) {
    const Stage stage(net, h, w);
    if (stage.regular()) return detail::plan_bands(detail::FollowedRun<Net>(net, h, w), stage, h, w).least_bytes();
  }
  return 0;
}

/// The same for an image in memory: a batch of one or more.
template <class Net>
Image<Net::io::out> run_tiled(const Net& net, const Image<Net::io::in>& image, const TileOptions& options = {}) {
  constexpr int in = Net::io::in, out = Net::io::out;
  image.tensor().require_host("run_tiled");
  const Extents extents = output_extents(net, image.h(), image.w());
  if (!extents.valid) facts(net, image.h(), image.w());  // throws, and says why
  Image<out> result(image.n(), extents.h, extents.w);
  for (std::int64_t n = 0; n < image.n(); ++n)
    run_rows(
        net, image.h(), image.w(),
        [&](std::int64_t y, Image<in>& rows) { std::copy_n(&image(n, 0, y, 0), rows.size(), rows.data()); },
        [&](std::int64_t y, const Image<out>& rows) { std::copy_n(rows.data(), rows.size(), &result(n, 0, y, 0)); },
        options);
  return result;
}

}}  // namespace strata::STRATA_ABI
