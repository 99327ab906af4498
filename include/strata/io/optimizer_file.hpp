// An optimiser's state by the parameters' names, with PyTorch's words, to and from a training that goes on in PyTorch.
// (To resume a run of one's own there are checkpoints, io/checkpoint.hpp: they keep everything else too.)
//
//     st::save_optimizer("adam.safetensors", adam);  // conv.weight.exp_avg, conv.weight.exp_avg_sq, conv.weight.step
//     st::load_optimizer("adam.safetensors", adam);  // or a .pth with the same dict
//
// In Python, and back:
//
//     state = {f"{name}.{key}": value for name, p in net.named_parameters() for key, value in adam.state[p].items()
//              if torch.is_tensor(value)}
//     safetensors.torch.save_file(state, "adam.safetensors")
//
//     for name, p in net.named_parameters():
//         adam.state[p] = {key[len(name) + 1:]: value for key, value in state.items() if key.rsplit(".", 1)[0] == name}
//
// SGD's velocity is momentum_buffer there; RMSprop's averages are called as here. The learning rate and the options are
// not in such a file. Parameter groups make no difference, since names do not depend on them.
#pragma once

#include <cmath>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/io/safetensors.hpp"
#include "strata/io/weights.hpp"
#include "strata/io/weights_file.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// PyTorch's word for an entry of a state list: "conv.weight.velocity" is "conv.weight.momentum_buffer".
inline std::string torch_state_name(std::string_view name) {
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::string(name);
  const std::string_view last = name.substr(dot + 1);
  return std::string(name.substr(0, dot + 1)) + std::string(last == "velocity" ? "momentum_buffer"
                                                            : last == "steps"  ? "step"
                                                                               : last);
}

class OptimizerStateWriter {
 public:
  std::vector<NamedTensor> tensors;

  void operator()(std::string_view, double) {}  // the learning rate
  void operator()(std::string_view name, std::int64_t steps) {
    if (steps == 0) return;  // no state yet
    steps_.push_back(Tensor<float>::full(Shape{}, float(steps)));
    tensors.push_back({torch_state_name(name), &steps_.back()});
  }
  void operator()(std::string_view name, const AnyTensor& tensor, const AnyTensor&) {
    if (shape_of(tensor) != Shape{0}) tensors.push_back({torch_state_name(name), &tensor});
  }

 private:
  std::deque<AnyTensor> steps_;
};

/// Reads everything and notes what does not fit; apply() then changes the optimiser.
class OptimizerStateReader {
 public:
  explicit OptimizerStateReader(const std::filesystem::path& path) : file_(path) {
    file_.verify_checksums();
    for (const TensorInfo& tensor : file_.tensors()) left_.emplace(tensor.name, &tensor);
  }

  void operator()(std::string_view, double&) {}
  void operator()(std::string_view name, std::int64_t& steps) {
    has_step_ = false;
    std::int64_t value = 0;
    if (const TensorInfo* info = take(torch_state_name(name))) {
      has_step_ = true;
      double number = -1;
      if (info->unreadable.empty() && info->shape.size() == 1) {
        const Tensor<double> read = file_.read<double>(*info);
        number = read.data()[0];
      }
      if (number >= 1 && number == std::floor(number) && number <= 9e15)
        value = std::int64_t(number);
      else
        mismatch_.different(describe(*info) + ": wanted one number of steps, 1 or more");
    }
    counts_.emplace_back(&steps, value);
  }
  void operator()(std::string_view name, AnyTensor& state, const AnyTensor& like) {
    const std::string full = torch_state_name(name);
    const TensorInfo* info = take(full);
    if (info == nullptr) {
      if (has_step_) mismatch_.missing(describe(NamedTensor{full, &like}));
      states_.push_back({&state, nullptr, {}});
    } else if (!info->unreadable.empty() || info->shape != shape_of(like)) {
      mismatch_.different("the file's " + describe(*info) + ", wanted " + describe(NamedTensor{full, &like}));
    } else {
      states_.push_back({&state, info, move_to(like, Device::cpu())});
    }
  }

  void read() {
    const bool any = left_.size() < file_.tensors().size();
    for (const auto& [name, tensor] : left_)
      if (!name.ends_with(".step")) mismatch_.unexpected(describe(*tensor));  // RMSprop and SGD count no steps here
    if (!any) mismatch_.missing("the state of any of the optimiser's parameters");
    mismatch_.throw_if_any(file_.path(), "the optimiser");
    for (Staged& state : states_)
      state.value = state.info == nullptr ? AnyTensor() : file_.read_like(*state.info, state.value);
  }
  void apply() {
    for (Staged& state : states_) *state.target = std::move(state.value);
    for (const auto& [target, value] : counts_) *target = value;
  }

 private:
  struct Staged {
    AnyTensor* target;
    const TensorInfo* info;  // null: no state yet
    AnyTensor value;         // before read(), a tensor of the type that is wanted
  };
  const TensorInfo* take(const std::string& name) {
    const auto found = left_.find(name);
    if (found == left_.end()) return nullptr;
    const TensorInfo* info = found->second;
    left_.erase(found);
    return info;
  }

  WeightsFile file_;
  TensorIndex left_;
  Mismatch mismatch_;
  bool has_step_ = false;
  std::vector<Staged> states_;
  std::vector<std::pair<std::int64_t*, std::int64_t>> counts_;
};

}  // namespace detail

/// Writes an optimiser's state. Throws FileError when it cannot be written.
template <class Optimizer>
void save_optimizer(const std::filesystem::path& path, const Optimizer& optimizer) {
  detail::OptimizerStateWriter writer;
  Optimizer::state(optimizer, writer);
  write_safetensors(path, writer.tensors);
}

/// Reads an optimiser's state. Parameters of which the file says nothing start anew. Throws FileError when the file is
/// damaged or does not fit: then nothing is changed, and the text lists what differs.
template <class Optimizer>
void load_optimizer(const std::filesystem::path& path, Optimizer& optimizer) {
  try {
    detail::OptimizerStateReader reader(path);
    Optimizer::state(optimizer, reader);
    reader.read();
    reader.apply();
  } catch (const std::bad_alloc&) {
    detail::no_memory_for(path);
  }
}

}  // namespace strata::inline STRATA_ABI
