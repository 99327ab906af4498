// An ONNX graph in memory: nodes in the order they run, and the tensors they take. Values go by name.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/core/error.hpp"
#include "strata/nn/protocol.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata::inline STRATA_ABI {

/// A named setting of a node, as {"alpha", 0.1f} or {"pads", std::vector<std::int64_t>{1, 1, 1, 1}}.
struct OnnxAttribute {
  std::string name;
  std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>> value;
};

namespace detail {

struct OnnxNode {
  std::string op, name;
  std::vector<std::string> inputs;
  std::string output;
  std::vector<OnnxAttribute> attributes;

  bool takes_affine = false;  ///< a convolution, whose second input are its weights and whose third is its bias
  std::vector<ScaleShift> affine = {};  ///< of each channel, where it is nothing else
};

/// A constant, in PyTorch's memory order.
struct OnnxTensor {
  std::vector<std::int64_t> shape;
  std::variant<std::vector<float>, std::vector<std::int64_t>> numbers;
};

struct OnnxGraph {
  std::vector<OnnxNode> nodes;
  std::map<std::string, OnnxTensor> tensors;
  std::string input = "input", output;
  std::map<const AnyTensor*, std::string> names;  ///< what the network's parameters and buffers are called
  int grids = 0;                                  ///< different heights and widths so far, besides the input's

  /// A name that begins so and that nothing has yet. It has a slash in front, and the network's tensors have none.
  std::string unused(const std::string& name) {
    const int number = counts_[name]++;
    return number == 0 ? concat("/", name) : concat("/", name, "_", number);
  }

  /// Adds a node and returns its output's name, which is the node's too.
  std::string add(std::string op, const std::string& name, std::vector<std::string> inputs,
                  std::vector<OnnxAttribute> attributes = {}) {
    nodes.push_back({std::move(op), unused(name), std::move(inputs), {}, std::move(attributes), false, {}});
    nodes.back().output = nodes.back().name;
    return nodes.back().output;
  }

  /// Calls the value `from` `to`.
  void rename(const std::string& from, const std::string& to) {
    for (OnnxNode& node : nodes) {
      std::replace(node.inputs.begin(), node.inputs.end(), from, to);
      if (node.output == from) node.output = to;
    }
    if (output == from) output = to;
  }

  std::size_t uses(const std::string& name) const {
    std::size_t count = output == name;
    for (const OnnxNode& node : nodes) count += std::size_t(std::count(node.inputs.begin(), node.inputs.end(), name));
    return count;
  }

  /// Takes nodes that are a scale and a shift of each channel into the convolutions before them (nn/protocol.hpp says
  /// which of both): weights times scale, bias times scale plus shift. Where a convolution's output or weights are used
  /// elsewhere too, the node stays.
  void fold_affines() {
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (nodes[i].affine.empty()) continue;
      const auto conv = std::find_if(nodes.begin(), nodes.end(), [&](const OnnxNode& node) {
        return node.takes_affine && node.output == nodes[i].inputs[0];
      });
      if (conv == nodes.end() || uses(conv->output) != 1 || uses(conv->inputs[1]) != 1) continue;
      if (conv->inputs.size() > 2 && uses(conv->inputs[2]) != 1) continue;
      fold(*conv, nodes[i].affine);
      conv->output = nodes[i].output;
      nodes.erase(nodes.begin() + std::ptrdiff_t(i--));
    }
    std::erase_if(tensors, [&](const auto& tensor) { return uses(tensor.first) == 0; });
  }

 private:
  std::vector<float>& floats(const std::string& name) { return std::get<std::vector<float>>(tensors.at(name).numbers); }

  void fold(OnnxNode& conv, const std::vector<ScaleShift>& affine) {
    if (conv.inputs.size() < 3) {
      const std::string name = conv.name + ".bias";
      tensors[name] = {{std::int64_t(affine.size())}, std::vector<float>(affine.size())};
      conv.inputs.push_back(name);
    }
    std::vector<float>&weight = floats(conv.inputs[1]), &bias = floats(conv.inputs[2]);
    const std::size_t taps = weight.size() / affine.size();
    for (std::size_t c = 0; c < affine.size(); ++c) {
      for (std::size_t k = c * taps; k < (c + 1) * taps; ++k) weight[k] = float(double(weight[k]) * affine[c].scale);
      bias[c] = float(double(bias[c]) * affine[c].scale + affine[c].shift);
    }
  }

  std::map<std::string, int> counts_;
};

}  // namespace detail
}  // namespace strata::inline STRATA_ABI
