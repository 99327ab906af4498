// What a symbolic run of a network's forward (nn/follow.hpp) writes down: its images and what each is made of. Every
// fact of a network follows from it: extents, costs, receptive field, memory, the table of layers and where an image
// may be cut.
//
// A layer states its part in its own file, and containers and modules none at all, since their forward is followed:
//
//     static constexpr void trace(auto& t) {
//       t.channels(Out);
//       t.window(Kernel, stride, padding, dilation);                                        // what it does to an image
//       t.multiply_adds(t.extents().h * t.extents().w * Out * In * Kernel * Kernel);           // and what it costs
//     }
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/at_run_time.hpp"
#include "strata/core/error.hpp"
#include "strata/core/shape.hpp"
#include "strata/math/pool_problem.hpp"
#include "strata/nn/protocol.hpp"
#include "strata/nn/reads.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The image at one point of a network, and sums over the network.
struct Extents {
  std::int64_t c = 0, h = 0, w = 0;
  std::int64_t multiply_adds = 0;  ///< for one image
  bool whole = false;              ///< a pixel here depends on all of the image
  /// false where the image is too small for a layer, or images of different extents meet
  bool valid = true;
};

/// What a layer's run takes of the memory pool besides its result, in bytes, and what it keeps for the way back.
struct LayerMemory {
  std::size_t forward = 0, weight_gradient = 0, input_gradient = 0;  ///< while each is computed
  std::size_t packed = 0;          ///< from the first Infer pass on,
  std::size_t forward_packed = 0;  ///< and what is taken then in the place of `forward`
  std::size_t kept = 0;                                              ///< by a Train pass, besides images
  bool keeps_input = true, keeps_output = false;
  bool gives_its_input = false;     ///< an Infer pass computes nothing (a layer says so by idle_in_inference)
  /// the gradient for the result becomes that for the input where nobody else asks for it
  bool gradient_in_place = false;
  bool reads_unnormalised = false;  ///< an input that a batch norm has still to compute is not computed for it,
  bool normalises_a_copy = false;   ///< but in memory of its own
  bool normalises_later = false;    ///< the result is computed when somebody asks for it (batch norm)
};

namespace detail {

/// Where a layer stands among those that run as one step with it (nn/fuse.hpp).
struct FusedStep {
  std::size_t place = 0, length = 1;
};

/// An image of a run. Its rows lie as densely as `up` for every `down` of the input.
struct FollowedImage {
  std::int64_t c = 0, h = 0, w = 0;
  std::int64_t up = 1, down = 1;
  bool one = false;  ///< made of the whole image, at no place of it
  std::int64_t pixels() const { return h * w; }
};

/// Which image is made of which.
struct FollowedLink {
  int from, to;
  Reads reads;
  constexpr bool operator==(const FollowedLink&) const = default;
};

/// One step of a run: a layer, or, without a name, arithmetic and the like.
struct FollowedStep {
  const void* module = nullptr;      ///< the layer's address
  const void* type = nullptr;        ///< one for each type of layer
  std::string (*name)() = nullptr;
  std::span<const int> inputs = {};  ///< images
  int output = 0;
  std::int64_t multiply_adds = 0;
  FusedStep in_training = {};        ///< how it runs in a Train pass
  bool fused = false;                ///< whether it runs, in this pass, as one step with the layer before it
  LayerMemory memory = {};
};

class Following;

/// Is told of each step, and of images that nobody holds any longer. At run time only.
class FollowSink {
 public:
  virtual ~FollowSink() = default;
  virtual void ran(const Following& run, const FollowedStep& step) = 0;
  virtual void let_go(int /*image*/) {}
  /// What runs from here on, from image `input`, runs again on the way back; with its result it ends
  /// (nn/checkpoint.hpp).
  virtual void checkpoint(int /*input*/, int /*output*/) {}
};

class Following {
 public:
  constexpr Following(std::int64_t n, FollowSink* sink = nullptr) : n_(n), sink_(sink) {
    images_.reserve(64);
    links_.reserve(64);
  }
  Following(const Following&) = delete;

  // ---- what has been written down

  constexpr std::int64_t n() const { return n_; }
  constexpr const FollowedImage& image(int id) const { return images_[std::size_t(id)]; }
  constexpr const std::vector<FollowedImage>& images() const { return images_; }
  constexpr const std::vector<FollowedLink>& links() const { return links_; }
  constexpr std::int64_t multiply_adds() const { return multiply_adds_; }
  /// Whether every image fitted.
  constexpr bool valid() const { return valid_; }
  /// The first that did not.
  const std::string& problem() const { return *problem_; }
  /// Whether the forward has asked for an image's extents: for others it may be another.
  constexpr bool asked_for_extents() const { return asked_for_extents_; }
  /// Whether images met whose rows do not lie equally densely.
  constexpr bool irregular() const { return irregular_; }
  /// Whether a step is an operator of which nothing is known.
  constexpr bool unknown() const { return unknown_; }
  /// Whether another run took the same steps, with kernels that round alike, on images of other extents.
  constexpr bool same_steps(const Following& other) const {
    if (links_ != other.links_ || images_.size() != other.images_.size()) return false;
    for (std::size_t i = 0; i < images_.size(); ++i) {
      const FollowedImage &a = images_[i], &b = other.images_[i];
      if (a.c != b.c || a.up != b.up || a.down != b.down || a.one != b.one) return false;
    }
    return true;
  }
  Shape shape(int id) const { return {n_, image(id).c, image(id).h, image(id).w}; }

  /// The rows of image `to`, the input unless told otherwise, that rows of image `of` are made of.
  constexpr Rows rows_of(int of, Rows rows, bool rounding, int to = 0) const {
    std::vector<Rows> wanted(images_.size());
    wanted[std::size_t(of)] = rows;
    for (std::size_t i = links_.size(); i-- > 0;) {
      const FollowedLink& link = links_[i];
      if (!wanted[std::size_t(link.to)].none())
        wanted[std::size_t(link.from)].include(link.reads.of(wanted[std::size_t(link.to)], rounding));
    }
    return wanted[std::size_t(to)];
  }

  // ---- what a run writes

  constexpr int add_image(const FollowedImage& image) {
    images_.push_back(image);
    if (sink_ != nullptr) handles_.push_back(0);
    return int(images_.size()) - 1;
  }
  constexpr void add_link(int from, int to, const Reads& reads) { links_.push_back({from, to, reads}); }
  constexpr void add_cost(std::int64_t multiply_adds) { multiply_adds_ += multiply_adds; }
  constexpr void ask_for_extents() { asked_for_extents_ = true; }
  constexpr void meet_the_unknown() { unknown_ = true; }
  template <class Text>
  constexpr void fail(Text&& text) {
    if (valid_ && !std::is_constant_evaluated()) *problem_ = text();
    valid_ = false;
  }
  constexpr void tell(const FollowedStep& step) {
    if (sink_ != nullptr) sink_->ran(*this, step);
  }
  constexpr void checkpoint(int input, int output = -1) {
    if (sink_ != nullptr) sink_->checkpoint(input, output);
  }
  constexpr bool is_told() const { return sink_ != nullptr; }

  /// How the next layer runs: what a Sequential knows of it.
  constexpr void next_runs(FusedStep in_training, bool fused) { next_ = in_training, next_fused_ = fused; }
  constexpr std::pair<FusedStep, bool> take_next() {
    return {std::exchange(next_, FusedStep{}), std::exchange(next_fused_, false)};
  }

  constexpr void retain(int id) {
    if (sink_ != nullptr) ++handles_[std::size_t(id)];
  }
  constexpr void release(int id) {
    if (sink_ != nullptr && --handles_[std::size_t(id)] == 0) sink_->let_go(id);
  }

  /// The result of arithmetic on, or of a joining of, images of equal extents.
  constexpr int join(std::span<const int> inputs, std::int64_t channels, const char* what, bool keeps_inputs) {
    FollowedImage y = image(inputs[0]);
    for (const int id : inputs) {
      const FollowedImage& x = image(id);
      if (x.h != y.h || x.w != y.w)
        fail([&] {
          return concat(what, " of images of different extents: ", shape(inputs[0]).str(), " and ", shape(id).str(),
                        " (N x C x H x W)");
        });
      irregular_ = irregular_ || (!x.one && !y.one && (x.up != y.up || x.down != y.down));
      if (y.one && !x.one) y = x;
    }
    y.c = channels;
    const int out = add_image(y);
    for (const int id : inputs) add_link(id, out, {});
    tell({.inputs = inputs, .output = out, .memory = {.keeps_input = keeps_inputs}});
    return out;
  }

 private:
  std::int64_t n_;
  FollowSink* sink_;
  std::vector<FollowedImage> images_;
  std::vector<FollowedLink> links_;
  std::vector<std::int64_t> handles_;  // of each image, where somebody listens
  std::int64_t multiply_adds_ = 0;
  bool valid_ = true, asked_for_extents_ = false, irregular_ = false, unknown_ = false;
  AtRunTime<std::string> problem_;
  FusedStep next_;
  bool next_fused_ = false;
};

/// What a layer's trace() is given.
class LayerFacts {
 public:
  constexpr LayerFacts(Following& run, int input, std::string (*name)())
      : run_(run), at_(input), image_(run.image(input)), name_(name) {}

  /// Of the image, as far as the layer has said.
  constexpr Extents extents() const { return {.c = image_.c, .h = image_.h, .w = image_.w}; }
  constexpr std::int64_t n() const { return run_.n(); }

  constexpr void channels(std::int64_t c) { image_.c = c; }
  constexpr void multiply_adds(std::int64_t count) { cost_ += count; }
  /// A window of `kernel` taps moved over the image. Where `together` is above 1, so many rows and columns of the
  /// result are computed together, so that the rounding of each depends on what all of them read.
  constexpr void window(int kernel, int stride, int padding, int dilation, int together = 1) {
    window(Window{.kernel = kernel, .stride = stride, .padding = padding, .dilation = dilation}, together);
  }
  /// One that is not square counts, for what a pixel depends on, as the square around it.
  constexpr void window(const Window& rows, int together = 1) {
    const Window columns = rows.columns();
    const auto slide = [](std::int64_t size, const Window& w) {
      return floor_div(size + 2 * w.padding - w.reach(), w.stride) + 1;
    };
    const std::int64_t h = slide(image_.h, rows), w = slide(image_.w, columns);
    if (h < 1 || w < 1) too_small();
    Reads reads{Reads::Way::window, rows.kernel, rows.stride, rows.padding, rows.dilation, together};
    if (!rows.square()) {
      reads.padding = std::max(rows.padding, columns.padding);
      const std::int64_t behind = std::max(rows.reach() - rows.padding, columns.reach() - columns.padding);
      reads.kernel = int(behind + reads.padding), reads.dilation = 1;
    }
    slide_to(h, w, reads);
  }
  /// A pooling's window, of which, with `ceil`, the last may reach beyond the padding.
  constexpr void pooling_window(int kernel, int stride, int padding, bool ceil) {
    const std::int64_t h = PoolProblem::windows(image_.h, kernel, stride, padding, ceil);
    const std::int64_t w = PoolProblem::windows(image_.w, kernel, stride, padding, ceil);
    if (h < 1 || w < 1) too_small();
    slide_to(h, w, {Reads::Way::window, kernel, stride, padding, 1, 1});
  }
  /// A window of `kernel` taps spread over an image that becomes about `stride` times as large: a transposed
  /// convolution.
  constexpr void transposed_window(int kernel, int stride, int padding, int together = 1, int output_padding = 0) {
    const auto spread = [&](std::int64_t size) { return (size - 1) * stride - 2 * padding + kernel + output_padding; };
    const std::int64_t h = spread(image_.h), w = spread(image_.w);
    if (h < 1 || w < 1) too_small();
    image_.h = std::max<std::int64_t>(h, 1), image_.w = std::max<std::int64_t>(w, 1);
    scale(stride, 1);
    step({Reads::Way::spread, kernel, stride, padding, 1, together});
  }
  /// Every pixel becomes factor * factor pixels.
  constexpr void upscale(int factor) { transposed_window(factor, factor, 0); }
  /// All pixels become one, or h x w.
  constexpr void whole_image(std::int64_t h = 1, std::int64_t w = 1) {
    looks_at_whole_image();
    image_.h = h, image_.w = w, image_.up = image_.down = 1;
    image_.one = true;
  }
  /// The image becomes up / down times as large, each pixel made of `taps` on each axis that lie around its middle, or,
  /// of one, the nearest.
  constexpr void resampled(std::int64_t up, std::int64_t down, int taps) {
    const std::int64_t h = image_.h * up / down, w = image_.w * up / down;
    if (h < 1 || w < 1) too_small();
    image_.h = std::max<std::int64_t>(h, 1), image_.w = std::max<std::int64_t>(w, 1);
    scale(up, down);
    step({.way = Reads::Way::resampled, .kernel = taps, .stride = int(down), .dilation = int(up)});
  }
  /// The image has h x w pixels from now on, of which row i shows row i - top and column j column j - left. Rows at the
  /// border may show others, at most `border` further.
  constexpr void shifted(std::int64_t h, std::int64_t w, std::int64_t top, std::int64_t left, std::int64_t border = 0) {
    if (h < 1 || w < 1) too_small();
    image_.h = std::max<std::int64_t>(h, 1), image_.w = std::max<std::int64_t>(w, 1);
    step({.padding = int(top), .border = int(border + std::max(top - left, left - top))});
  }
  /// The image does not suit the layer: text() says why.
  constexpr void fails(auto&& text) { run_.fail(text); }
  /// The result is not made of the image alone: another run, of a part of it, gives other numbers.
  constexpr void draws_random_numbers() { run_.meet_the_unknown(); }
  /// Every pixel depends on all others.
  constexpr void looks_at_whole_image() { step({.way = Reads::Way::all}); }
  /// The image must have these extents.
  constexpr void wants(std::int64_t h, std::int64_t w) {
    if (image_.h != h || image_.w != w)
      run_.fail([&] {
        return concat(name_(), ": the image has ", image_.h, " x ", image_.w, " pixels here, and it wants ", h, " x ",
                      w);
      });
  }
  /// Height and width must be multiples of this.
  constexpr void wants_multiple_of(int factor) {
    if (image_.h % factor != 0 || image_.w % factor != 0)
      run_.fail([&] {
        return concat(name_(), ": the image has ", image_.h, " x ", image_.w,
                      " pixels here, and it wants multiples of ", factor);
      });
  }

  constexpr std::int64_t cost() const { return cost_; }
  /// The result.
  constexpr int finish() {
    const int out = run_.add_image(image_);
    run_.add_link(at_, out, reads_);
    run_.add_cost(cost_);
    return out;
  }

 private:
  constexpr void slide_to(std::int64_t h, std::int64_t w, const Reads& reads) {
    image_.h = std::max<std::int64_t>(h, 1), image_.w = std::max<std::int64_t>(w, 1);
    scale(1, reads.stride);
    step(reads);
  }
  constexpr void step(const Reads& reads) {
    if (std::exchange(stepped_, true)) {  // a second window in one layer
      const int between = run_.add_image(image_);
      run_.add_link(at_, between, reads_);
      at_ = between;
    }
    reads_ = reads;
  }
  constexpr void scale(std::int64_t up, std::int64_t down) {
    up *= image_.up, down *= image_.down;
    const std::int64_t common = std::gcd(up, down);
    image_.up = up / common, image_.down = down / common;
  }
  constexpr void too_small() {
    run_.fail(
        [&] { return concat(name_(), ": the image has ", image_.h, " x ", image_.w, " pixels here, too few for it"); });
  }

  Following& run_;
  int at_;
  FollowedImage image_;
  Reads reads_;
  std::string (*name_)();
  std::int64_t cost_ = 0;
  bool stepped_ = false;
};

}  // namespace detail

}}  // namespace strata::STRATA_ABI
