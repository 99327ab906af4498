// How much memory a network will take, told before it runs:
//
//     st::training_bytes<Net>(128, 40, 40);       // a training step on 128 images of 40 x 40
//     st::inference_bytes<Net>(1, 480, 640);      // one image in an Infer pass
//     st::training_bytes(net, 128, 40, 40);       // of this object
//
// What is counted is what the pool of host memory (tensor/storage.hpp) hands out at the same time at most: parameters
// with their gradients or the form that kernels read, activations, gradients of activations, and workspaces. Not
// counted are the batch itself and an optimiser's state. The forward is followed (nn/follow.hpp), and so who holds
// which image for how long: it is exact to 5 percent for the library's layers in chains, and to 10 percent in modules
// of one's own, where small images and copies that nobody else counts weigh more.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "strata/nn/facts.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// Keeps account of what is alive while a pass runs, and while it goes back.
class MemoryAccount : public FollowSink {
 public:
  explicit MemoryAccount(bool training) : training_(training) {}

  void ran(const Following& run, const FollowedStep& step) override {
    while (images_.size() < run.images().size()) add_image(run, int(images_.size()));
    perform(step);
  }
  void let_go(int id) override {
    if (std::size_t(id) >= images_.size()) return;
    if (depth_ > 0) write_down({.image = id});
    drop(id);
  }
  /// Between the two calls nothing is kept, and what happens is written down, to happen again on the way back.
  void checkpoint(int input, int output) override {
    if (!training_) return;
    if (output < 0) {
      if (depth_++ == 0)
        again_ = std::make_shared<Segment>(input);
      else
        write_down({.image = input, .begins = true});
    } else if (--depth_ > 0) {
      write_down({.image = input, .output = output});
    } else if (output != input) {
      Step back{.output = output, .inputs = {input}, .memory = {}, .again = std::exchange(again_, nullptr)};
      keep(back, input);
      steps_.push_back(std::move(back));
    }
  }

  /// The way back from a loss that is an expression of these images.
  void go_back(const std::vector<int>& leaves);
  std::size_t peak() const { return peak_ + packed(); }

 private:
  struct Event {  // of what runs again: a step, a Checkpoint's begin or end, or an image that is let go
    int image = -1;
    bool begins = false;
    int output = -1;
    FollowedStep step = {};
    std::vector<int> inputs = {};
  };
  struct Segment {
    explicit Segment(int from) : input(from) {}
    int input;
    std::vector<Event> events = {};
  };
  void write_down(Event event) { again_->events.push_back(std::move(event)); }

  void perform(const FollowedStep& step) {
    if (depth_ > 0)
      write_down({.output = step.output, .step = step, .inputs = {step.inputs.begin(), step.inputs.end()}});
    const bool keeps = training_ && depth_ == 0;
    const LayerMemory& memory = step.memory;
    const int x = step.inputs[0], y = step.output;
    const bool normalises = training_ && memory.normalises_later;
    if (step.fused || (!training_ && memory.gives_its_input)) {  // y is in x's place
      share(x, y);
      if (keeps) join_group(step, normalises);
      if (normalises || pending(x)) image(y).pending = true;
      hold(y);
      return;
    }
    Step back{.output = y, .inputs = {step.inputs.begin(), step.inputs.end()}, .memory = memory};
    const bool packed = !training_ && memory.packed > 0;
    std::size_t forward = packed ? memory.forward_packed : memory.forward;
    for (const int input : step.inputs) {
      if (!pending(input)) continue;
      if (!memory.reads_unnormalised) {
        compute(input);
      } else if (memory.normalises_a_copy) {
        forward += image(input).bytes;
        back.memory.weight_gradient += image(input).bytes;
      }
    }
    if (packed) {
      std::size_t& most = packed_[{step.module, step.type}];
      most = std::max(most, memory.packed);
    }
    if (normalises) {
      share(x, y);
      image(y).pending = true;
    } else {
      own(y);
    }
    hold(y);
    reach(live_ + forward);
    if (!keeps) return;
    if (memory.keeps_input)
      for (const int input : step.inputs) keep(back, input);
    if (memory.keeps_output) keep(back, y);
    back.kept_bytes = memory.kept;
    take(memory.kept);
    steps_.push_back(std::move(back));
  }
  struct Block {
    std::size_t bytes = 0;
    int holders = 0;
  };
  struct Held {                            // an image
    std::size_t bytes = 0;                 // what it takes where it has a block of its own
    std::array<int, 2> blocks{-1, -1};     // its own, and that of what it is to be computed from
    int holders = 0;
    bool pending = false;                  // a batch norm's result that nobody has asked for
    bool input = false;
    bool has_gradient = false;
  };
  struct Step {                            // on the tape
    int output;
    std::vector<int> inputs;
    LayerMemory memory;
    std::vector<int> kept = {};
    std::size_t kept_bytes = 0;
    std::shared_ptr<Segment> again = nullptr;  // of a Checkpoint
  };

  Held& image(int id) { return images_[std::size_t(id)]; }
  bool pending(int id) { return image(id).pending; }
  void add_image(const Following& run, int id) {
    const FollowedImage& i = run.image(id);
    images_.push_back(
        {.bytes = MemoryPool::block_bytes(std::size_t(run.n() * i.c * i.h * i.w) * sizeof(float)), .input = id == 0});
  }
  void reach(std::size_t bytes) { peak_ = std::max(peak_, bytes); }
  void take(std::size_t bytes) { reach(live_ += bytes); }
  void give(std::size_t bytes) { live_ -= bytes; }

  /// A block for the image.
  void own(int id) {
    image(id).blocks[0] = int(blocks_.size());
    blocks_.push_back({image(id).bytes, 0});
    for (int i = 0; i < image(id).holders; ++i) hold_block(image(id).blocks[0]);
  }
  /// y lies where x lies.
  void share(int x, int y) { image(y).blocks = image(x).blocks; }
  /// Somebody asks for what a batch norm has not computed.
  void compute(int id) {
    image(id).pending = false;
    image(id).blocks[1] = image(id).blocks[0];
    own(id);
  }
  void hold_block(int block) {
    if (block >= 0 && blocks_[std::size_t(block)].holders++ == 0) take(blocks_[std::size_t(block)].bytes);
  }
  void drop_block(int block) {
    if (block >= 0 && --blocks_[std::size_t(block)].holders == 0) give(blocks_[std::size_t(block)].bytes);
  }
  void hold(int id) {
    ++image(id).holders;
    for (const int block : image(id).blocks) hold_block(block);
  }
  void drop(int id) {
    if (image(id).holders == 0) return;  // the network's input, which the caller holds
    --image(id).holders;
    for (const int block : image(id).blocks) drop_block(block);
  }
  void keep(Step& step, int id) {
    step.kept.push_back(id);
    hold(id);
  }
  /// A layer that runs as one step with those before it.
  void join_group(const FollowedStep& step, bool normalises) {
    if (steps_.empty()) return;
    Step& group = steps_.back();
    if (normalises || (step.memory.keeps_output && !pending(step.inputs[0])))
      keep(group, normalises ? step.inputs[0] : step.output);
    group.output = step.output;
  }
  void want_gradient(int id) {
    if (image(id).input || std::exchange(image(id).has_gradient, true)) return;
    take(image(id).bytes);
  }
  void go_back();
  void run_again(const Segment& segment, int output);
  std::size_t packed() const {
    std::size_t bytes = 0;
    for (const auto& [module, packed] : packed_) bytes += packed;
    return bytes;
  }

  bool training_;
  int depth_ = 0;                     // of Checkpoints, one in another
  std::shared_ptr<Segment> again_;    // what the outermost of them holds
  std::vector<Held> images_;
  std::vector<Block> blocks_;
  std::vector<Step> steps_;
  std::map<std::pair<const void*, const void*>, std::size_t> packed_;  // of each layer
  std::size_t live_ = 0, peak_ = 0;
};

inline void MemoryAccount::go_back(const std::vector<int>& leaves) {
  for (const int leaf : leaves) {
    if (pending(leaf)) compute(leaf);
    hold(leaf);
  }
  for (const int leaf : leaves) want_gradient(leaf);
  // The loss holds its images until it has gone back; those who called the network have let go.
  for (const int leaf : leaves) drop(leaf), drop(leaf);
  go_back();
}

inline void MemoryAccount::go_back() {
  for (; !steps_.empty(); steps_.pop_back()) {
    const Step step = steps_.back();
    if (step.again != nullptr) {
      if (image(step.output).has_gradient) run_again(*step.again, step.output);
    } else if (image(step.output).has_gradient) {
      reach(live_ + step.memory.weight_gradient);
      const int x = step.inputs[0];
      const bool moves = step.memory.gradient_in_place && !image(x).input && !image(x).has_gradient;
      if (moves)
        image(x).has_gradient = true;
      else
        for (const int input : step.inputs) want_gradient(input);
      reach(live_ + step.memory.input_gradient);
      if (!moves) give(image(step.output).bytes);
      image(step.output).has_gradient = false;
    }
    for (const int id : step.kept) drop(id);
    give(step.kept_bytes);
  }
}

/// The images of the second run are others, and the gradients of its input and result are those of the first's.
inline void MemoryAccount::run_again(const Segment& segment, int output) {
  const std::vector<Step> before = std::exchange(steps_, {});
  std::map<int, int> ids{{segment.input, segment.input}};
  const auto second = [&](int id) {
    const auto [place, is_new] = ids.emplace(id, int(images_.size()));
    if (is_new) {
      Held again{.bytes = image(id).bytes};
      images_.push_back(again);
    }
    return place->second;
  };
  for (const Event& event : segment.events) {
    if (event.begins) {
      checkpoint(second(event.image), -1);
    } else if (event.image >= 0 && event.output >= 0) {
      checkpoint(second(event.image), second(event.output));
    } else if (event.image >= 0) {
      if (event.image != segment.input) let_go(second(event.image));
    } else {
      std::vector<int> inputs;
      for (const int input : event.inputs) inputs.push_back(second(input));
      FollowedStep step = event.step;
      step.inputs = inputs, step.output = second(event.output);
      perform(step);
    }
  }
  const int result = second(output);
  image(result).has_gradient = std::exchange(image(output).has_gradient, false);
  drop(result);
  go_back();
  steps_ = before;
}

/// What a network's parameters and buffers take, with the gradients of those that are learned.
template <class Net>
std::size_t parameter_bytes(Net& net, bool training) {
  std::size_t bytes = 0;
  for_each_tensor(net, [&](const std::string&, auto& leaf) {
    const std::size_t one = MemoryPool::block_bytes(std::size_t(leaf.shape().size()) * sizeof(float));
    bytes += one;
    if constexpr (requires { leaf.requires_grad; })
      if (training && leaf.requires_grad) bytes += one;
  });
  return bytes;
}

inline void check_batch(const char* who, std::int64_t n, std::int64_t h, std::int64_t w) {
  if (n < 1 || h < 1 || w < 1)
    throw ShapeError(concat(who, ": got ", n, " images of ", h, " x ", w, "; wanted 1 or more"));
}

}  // namespace detail

/// Bytes that a training step on n images of h x w takes at most.
template <class Net>
std::int64_t training_bytes(Net& net, std::int64_t n, std::int64_t h, std::int64_t w) {
  detail::check_batch("training_bytes", n, h, w);
  detail::MemoryAccount account(true);
  {
    detail::Following run(n, &account);
    Train pass;
    constexpr int in = detail::input_channels<Net>();
    const Var<in, Followed> x(detail::FollowedValue(&run, run.add_image({.c = in, .h = h, .w = w})));
    const auto result = [&] {  // an expression may go into the loss as it is
      if constexpr (requires { SymbolicRun<Followed>::module(net, pass, x); })
        return SymbolicRun<Followed>::module(net, pass, x);
      else if constexpr (requires { net(pass, x); })
        return net(pass, x);
      else
        return detail::call(net, pass, x);
    }();
    std::vector<detail::FollowedValue> values;
    if constexpr (detail::is_expression<decltype(result)>)
      detail::collect_leaves(result, values);
    else
      values.push_back(result.symbol());
    detail::check_fits("training_bytes", run, h, w);
    std::vector<int> leaves;
    for (const auto& value : values)
      if (std::find(leaves.begin(), leaves.end(), value.id()) == leaves.end()) leaves.push_back(value.id());
    account.go_back(leaves);
  }
  return std::int64_t(account.peak() + detail::parameter_bytes(net, true));
}
template <class Net>
std::int64_t training_bytes(std::int64_t n, std::int64_t h, std::int64_t w) {
  detail::check_batch("training_bytes", n, h, w);
  const detail::Made<Net> net;
  return training_bytes(*net, n, h, w);
}

/// Bytes that an Infer pass on n images of h x w takes at most, the result included.
template <class Net>
std::int64_t inference_bytes(const Net& net, std::int64_t n, std::int64_t h, std::int64_t w) {
  detail::check_batch("inference_bytes", n, h, w);
  detail::MemoryAccount account(false);
  detail::Following run(n, &account);
  Infer pass;
  detail::follow(run, net, pass, h, w);
  detail::check_fits("inference_bytes", run, h, w);
  return std::int64_t(account.peak() + detail::parameter_bytes(net, false));
}
template <class Net>
std::int64_t inference_bytes(std::int64_t n, std::int64_t h, std::int64_t w) {
  detail::check_batch("inference_bytes", n, h, w);
  const detail::Made<Net> net;
  return inference_bytes(*net, n, h, w);
}

}}  // namespace strata::STRATA_ABI
