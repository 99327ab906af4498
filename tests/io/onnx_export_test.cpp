#include <doctest/doctest.h>

#include <protozero/pbf_reader.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "io/io_test_net.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/io/onnx_export.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/adaptive_max_pool.hpp"
#include "strata/nn/add.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/checkpoint.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/group_norm.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/softmax.hpp"
#include "strata/nn/spectral_norm.hpp"
#include "strata/nn/upsample.hpp"

namespace st = strata;
using io_test::contains;

namespace {

struct Node {
  std::string op;
  std::vector<std::string> inputs, outputs;
  std::map<std::string, std::vector<std::int64_t>> whole;  // attributes of whole numbers
};
struct Tensor {
  std::vector<std::int64_t> shape;
  std::vector<float> numbers;
};
struct Model {
  std::vector<Node> nodes;
  std::map<std::string, Tensor> tensors;
  std::vector<std::string> input, output;  // name, then extents
  std::map<std::string, std::string> metadata;
  std::int64_t opset = 0;

  std::string ops() const {
    std::string text;
    for (const Node& node : nodes) text += node.op + " ";
    return text;
  }
};

Node read_node(protozero::pbf_reader in) {
  Node node;
  while (in.next()) {
    if (in.tag() == 1) {
      node.inputs.push_back(in.get_string());
    } else if (in.tag() == 2) {
      node.outputs.push_back(in.get_string());
    } else if (in.tag() == 4) {
      node.op = in.get_string();
    } else if (in.tag() == 5) {
      protozero::pbf_reader attribute = in.get_message();
      std::string name;
      while (attribute.next()) {
        if (attribute.tag() == 1)
          name = attribute.get_string();
        else if (attribute.tag() == 3 || attribute.tag() == 8)
          node.whole[name].push_back(attribute.get_int64());
        else
          attribute.skip();
      }
    } else {
      in.skip();
    }
  }
  return node;
}

Tensor read_tensor(protozero::pbf_reader in, std::string& name) {
  Tensor tensor;
  int type = 0;
  while (in.next()) {
    if (in.tag() == 1) tensor.shape.push_back(in.get_int64());
    else if (in.tag() == 2) type = in.get_int32();
    else if (in.tag() == 8) name = in.get_string();
    else if (in.tag() == 9) {
      const std::string bytes = in.get_string();
      if (type == 1) tensor.numbers.resize(bytes.size() / sizeof(float));
      if (type == 1 && !bytes.empty()) std::memcpy(tensor.numbers.data(), bytes.data(), bytes.size());
    } else in.skip();
  }
  return tensor;
}

std::vector<std::string> read_value(protozero::pbf_reader in) {
  std::vector<std::string> value;
  while (in.next()) {
    if (in.tag() == 1) {
      value.push_back(in.get_string());
      continue;
    }
    protozero::pbf_reader type = in.get_message();
    REQUIRE(type.next(1));
    protozero::pbf_reader tensor = type.get_message();
    REQUIRE(tensor.next(2));
    protozero::pbf_reader shape = tensor.get_message();
    while (shape.next(1)) {
      protozero::pbf_reader extent = shape.get_message();
      REQUIRE(extent.next());
      value.push_back(extent.tag() == 2 ? extent.get_string() : std::to_string(extent.get_int64()));
    }
  }
  return value;
}

Model read_model(const std::filesystem::path& path) {
  const std::string bytes = io_test::read_bytes(path);
  Model model;
  protozero::pbf_reader in(bytes);
  while (in.next()) {
    if (in.tag() == 8) {
      protozero::pbf_reader opset = in.get_message();
      REQUIRE(opset.next(2));
      model.opset = opset.get_int64();
    } else if (in.tag() == 14) {
      protozero::pbf_reader entry = in.get_message();
      REQUIRE(entry.next(1));
      const std::string key = entry.get_string();
      REQUIRE(entry.next(2));
      model.metadata[key] = entry.get_string();
    } else if (in.tag() == 7) {
      protozero::pbf_reader graph = in.get_message();
      while (graph.next()) {
        std::string name;
        if (graph.tag() == 1) model.nodes.push_back(read_node(graph.get_message()));
        else if (graph.tag() == 5) {
          const Tensor tensor = read_tensor(graph.get_message(), name);
          model.tensors[name] = tensor;
        } else if (graph.tag() == 11)
          model.input = read_value(graph.get_message());
        else if (graph.tag() == 12) model.output = read_value(graph.get_message());
        else graph.skip();
      }
    } else {
      in.skip();
    }
  }
  return model;
}

using Block = st::Sequential<st::Conv2d<2, 2, 3, st::no_bias>, st::BatchNorm2d<2>, st::ReLU>;
struct Gated : st::Layer<Gated> {
  using io = st::maps<1, 1>;
  st::Conv2d<1, 1> body;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  static constexpr auto forward(auto& self, auto& pass, const auto& x) { return x * sigmoid(self.body(pass, x)); }
};
using Net = st::Residual<st::Sequential<st::Conv2d<1, 2, 1>, st::Repeat<2, Block>,
                                        st::Conv2d<2, 1, 3, st::Conv2dOptions{.padding = 2, .dilation = 2}>>>;

struct BadName {
  using io = st::maps<1, 1>;
  st::Conv2d<1, 1> conv;
  st::Parameter output{st::Shape{1}};
  static constexpr void visit(auto& self, auto&& f) {
    f("conv", self.conv);
    f("output", self.output);
  }
  auto operator()(st::Infer& pass, const auto& x) const { return conv(pass, x); }
};

/// A U-Net of five levels below the image, with shared layers.
struct Levels {
  using io = st::maps<1, 1>;
  st::ConvTranspose2d<1, 1, 2> up;
  st::Conv2d<2, 1> join;
  static constexpr void visit(auto& self, auto&& f) {
    f("up", self.up);
    f("join", self.join);
  }
  auto operator()(st::Infer& pass, const auto& x) const {
    auto h = st::as_var(x);
    std::vector<decltype(h)> kept;
    for (int level = 0; level < 5; ++level) {
      kept.push_back(h);
      h = st::MaxPool2d<2>()(pass, h);
    }
    for (; !kept.empty(); kept.pop_back()) h = join(pass, st::cat(pass, up(pass, h), kept.back()));
    return h;
  }
};

/// The convolution's output goes two ways, so its batch norm cannot be folded. And a module with a form of its own.
struct Softplus {
  using io = st::maps<2, 2>;
  st::Parameter scale{st::Shape{2}, 0.5f};
  static constexpr void visit(auto& self, auto&& f) { f("scale", self.scale); }
  template <st::Pass P>
  auto operator()(P& pass, const st::Var<2>& x) const {
    st::Image<2> y(x.n(), x.h(), x.w());
    for (std::int64_t i = 0; i < y.size(); ++i)
      y.data()[i] = scale.value().data()[i % 2] * std::log1p(std::exp(x.data()[i]));
    return pass.output(y);
  }
  auto operator()(st::Infer&, const st::Symbolic auto& x) const {
    return x.template node<2>("Softplus").template node<2>("Mul", {x.tensor(scale, {2, 1, 1})});
  }
};
struct TwoWays {
  using io = st::maps<1, 2>;
  st::Conv2d<1, 2> conv;
  st::BatchNorm2d<2> norm;
  Softplus softplus;
  static constexpr void visit(auto& self, auto&& f) {
    f("conv", self.conv);
    f("norm", self.norm);
    f("softplus", self.softplus);
  }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const {
    const auto y = conv(pass, x);
    return softplus(pass, st::as_var(y - norm(pass, y)));
  }
};

/// Expressions as operands of cat and expand_as: each becomes nodes when it is read.
struct Branches {
  using io = st::maps<1, 2>;
  st::GlobalAvgPool2d pool;
  static constexpr bool has_state = false;
  auto operator()(st::Infer& pass, const auto& x) const {
    const auto parts = st::cat(pass, exp(x), sqrt(x));
    return st::expand_as(pass, sigmoid(pool(pass, parts)), tanh(parts));
  }
};

}  // namespace

TEST_CASE("a network as an ONNX graph: operators, attributes, names, PyTorch's memory order, open extents") {
  const io_test::Folder folder;
  Net net;
  io_test::number(net);
  st::export_onnx(folder / "net.onnx", net, {.metadata = {{"a", "b"}}, .sample_n = 2, .sample_h = 5, .sample_w = 7});
  const Model model = read_model(folder / "net.onnx");
  CHECK(model.opset == 17);
  CHECK(model.metadata == std::map<std::string, std::string>{{"a", "b"}});
  CHECK(model.ops() == "Conv Conv BatchNormalization Relu Conv BatchNormalization Relu Conv Sub ");
  CHECK(model.input == std::vector<std::string>{"input", "batch", "1", "height", "width"});
  CHECK(model.output == std::vector<std::string>{"output", "batch", "1", "height", "width"});
  CHECK(model.nodes[1].inputs == std::vector<std::string>{model.nodes[0].outputs[0], "body.1.0.0.weight"});
  CHECK(model.nodes[7].whole.at("dilations") == std::vector<std::int64_t>{2, 2});
  CHECK(model.nodes[7].whole.at("pads") == std::vector<std::int64_t>{2, 2, 2, 2});
  CHECK(model.nodes[8].inputs[0] == "input");
  const Tensor& weight = model.tensors.at("body.1.0.0.weight");
  CHECK(weight.shape == std::vector<std::int64_t>{2, 2, 3, 3});
  CHECK(weight.numbers == st::to_nchw(net.body.layer<1>().blocks[0].layer<0>().weight.value()));
  CHECK(model.tensors.size() == 14);  // 2 + 2 (1 + 4) + 2; num_batches_tracked is not needed

  std::string name;
  const std::string bytes = io_test::read_bytes(folder / "net.input.pb");
  const Tensor x = read_tensor(protozero::pbf_reader(bytes), name);
  CHECK(name == "input");
  CHECK(x.shape == std::vector<std::int64_t>{2, 1, 5, 7});
  CHECK(x.numbers.size() == 70);
  CHECK(std::filesystem::exists(folder / "net.output.pb"));
  CHECK(folder.files() == 3);
}

TEST_CASE("batch norms are folded where nothing else looks at the convolution before them") {
  const io_test::Folder folder;
  Net net;
  io_test::number(net);
  st::export_onnx(folder / "net.onnx", net, {.fold_batch_norm = true, .names = st::Names::spliced, .sample = false});
  Model model = read_model(folder / "net.onnx");
  CHECK(model.ops() == "Conv Conv Relu Conv Relu Conv Sub ");
  CHECK(model.tensors.size() == 8);
  CHECK(model.nodes[1].inputs[1] == "body.1.weight");
  CHECK(folder.files() == 1);
  const auto& block = net.body.layer<1>().blocks[0];
  const auto& norm = block.layer<1>();
  const auto number = [](const auto& leaf, int i) { return double(leaf.template value<float>().data()[i]); };
  const double scale = number(norm.weight, 1) / std::sqrt(number(norm.running_var, 1) + 1e-5);
  const std::vector<float> before = st::to_nchw(block.layer<0>().weight.value());
  CHECK(model.tensors.at("body.1.weight").numbers[20] == doctest::Approx(before[20] * scale));
  CHECK(model.tensors.at(model.nodes[1].inputs[2]).numbers[1] ==
        doctest::Approx(number(norm.bias, 1) - number(norm.running_mean, 1) * scale));

  TwoWays two;
  st::export_onnx(folder / "two.onnx", two, {.fold_batch_norm = true});
  model = read_model(folder / "two.onnx");
  CHECK(model.ops() == "Conv BatchNormalization Sub Softplus Mul ");
  CHECK(model.nodes[4].inputs[1] == "softplus.scale");
  CHECK(model.tensors.at("softplus.scale").shape == std::vector<std::int64_t>{2, 1, 1});
}

TEST_CASE("what is run again in training is exported as it is") {
  const io_test::Folder folder;
  st::Sequential<st::Conv2d<1, 2, 1>, st::Checkpoint<Block>> again;
  st::Sequential<st::Conv2d<1, 2, 1>, Block> kept;
  io_test::number(again);
  io_test::number(kept);
  for (const bool fold : {false, true}) {
    st::export_onnx(folder / "again.onnx", again, {.fold_batch_norm = fold, .sample = false});
    st::export_onnx(folder / "kept.onnx", kept, {.fold_batch_norm = fold, .sample = false});
    CHECK(io_test::read_bytes(folder / "again.onnx") == io_test::read_bytes(folder / "kept.onnx"));
  }
}

TEST_CASE("an exported network of other sizes and ranks says so") {
  const io_test::Folder folder;
  st::Sequential<st::Conv2d<1, 4>, st::PixelShuffle<4, 2>> up;
  st::export_onnx(folder / "up.onnx", up);
  CHECK(read_model(folder / "up.onnx").output ==
        std::vector<std::string>{"output", "batch", "1", "out_height", "out_width"});
  st::Sequential<st::GlobalAvgPool2d, st::Linear<3, 2>> classes;
  st::export_onnx(folder / "classes.onnx", classes);
  CHECK(read_model(folder / "classes.onnx").ops() == "GlobalAveragePool Flatten Gemm ");
  CHECK(read_model(folder / "classes.onnx").output == std::vector<std::string>{"output", "batch", "2"});
  st::Sequential<st::Repeat<1, st::Dropout>, st::Residual<st::Conv2d<1, 1>>, st::Dropout> dropped;
  st::export_onnx(folder / "dropped.onnx", dropped);
  CHECK(read_model(folder / "dropped.onnx").ops() == "Conv Sub ");
}

TEST_CASE("a layer of images behind a Linear takes its vector as an image of one pixel") {
  const io_test::Folder folder;
  const auto behind = [&]<class... Layers>(std::type_identity<std::tuple<Layers...>>, bool fold = false) {
    st::Sequential<st::GlobalAvgPool2d, st::Linear<3, 4>, Layers...> net;
    io_test::number(net);
    if (fold) {
      auto folded = st::fold(net);
      st::export_onnx(folder / "net.onnx", folded, {.sample = false});
    } else {
      st::export_onnx(folder / "net.onnx", net, {.sample = false});
    }
    const Model model = read_model(folder / "net.onnx");
    CHECK(model.output.size() == 5);  // a name and four extents
    const std::string ops = model.ops(), start = "GlobalAveragePool Flatten Gemm Reshape ";
    CHECK_MESSAGE(ops.starts_with(start), ops);
    return ops.substr(std::min(ops.size(), start.size()));
  };
  using std::tuple, std::type_identity;
  CHECK(behind(type_identity<tuple<st::GroupNorm<2, 4>>>{}).starts_with("Shape Reshape InstanceNormalization "));
  CHECK(behind(type_identity<tuple<st::InstanceNorm2d<4>>>{}) == "InstanceNormalization ");
  CHECK(behind(type_identity<tuple<st::LayerNorm2d<4>>>{}) == "Transpose LayerNormalization Transpose ");
  CHECK(behind(type_identity<tuple<st::Upsample<2>>>{}) == "Resize ");
  CHECK(behind(type_identity<tuple<st::PReLU<4>>>{}) == "PRelu ");
  CHECK(behind(type_identity<tuple<st::BatchNorm2d<4>, st::ReLU>>{}, true) == "Mul Add Relu ");
  CHECK(behind(type_identity<tuple<st::Conv2d<4, 2, 1>>>{}) == "Conv ");
}

TEST_CASE("skip connections and modules with one forward are followed") {
  const io_test::Folder folder;
  st::Sequential<st::Add<st::Conv2d<1, 1>>, st::Add<st::Conv2d<1, 1>, std::ratio<1, 2>>, Gated> net;
  st::export_onnx(folder / "net.onnx", net);
  CHECK(read_model(folder / "net.onnx").ops() == "Conv Add Conv Mul Add Conv Sigmoid Mul ");
}

TEST_CASE("layers whose weights are made of others are exported as the layers that they come to") {
  const io_test::Folder folder;
  st::Sequential<st::SpectralNorm<st::Conv2d<1, 4>>, st::ReLU, st::WeightNorm<st::Conv2d<4, 4, 3, st::no_bias>>,
                 st::SpectralNorm<st::ConvTranspose2d<4, 1, 4>>>
      net;
  st::initialize(net, 2);
  auto deployed = st::fold(net);
  st::export_onnx(folder / "net.onnx", net);
  st::export_onnx(folder / "deployed.onnx", deployed);
  const Model model = read_model(folder / "net.onnx"), wanted = read_model(folder / "deployed.onnx");
  CHECK(model.ops() == "Conv Relu Conv ConvTranspose ");
  CHECK(model.tensors.size() == 5);
  for (const std::string name : {"0.weight", "0.bias", "2.weight", "3.weight", "3.bias"}) {
    CAPTURE(name);
    REQUIRE(model.tensors.contains(name));
    CHECK(model.tensors.at(name).shape == wanted.tensors.at(name).shape);
    CHECK(model.tensors.at(name).numbers == wanted.tensors.at(name).numbers);
  }
}

namespace {
struct MaskedByOne {
  using io = st::maps<2, 2>;
  st::Conv2d<2, 1> mask;
  static constexpr void visit(auto& self, auto&& f) { f("mask", self.mask); }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const {
    const auto one = mask(pass, x);
    return maximum(x * sigmoid(one), one) + st::gelu<st::Approximate::tanh>(x);
  }
};
}  // namespace

TEST_CASE("one channel beside several, parts' maxima and logarithms as nodes") {
  const io_test::Folder folder;
  st::Sequential<MaskedByOne, st::AdaptiveMaxPool2d<2, 1>, st::LogSoftmax2d, st::AdaptiveMaxPool2d<1>> net;
  io_test::number(net);
  st::export_onnx(folder / "net.onnx", net);
  const std::string part = "Mul Mul Div Add Div Slice ReduceMax ";
  CHECK(read_model(folder / "net.onnx").ops() ==
        "Conv Sigmoid Mul Max Mul Mul Mul Add Mul Tanh Mul Add Mul Add Shape Gather " + part + part +
            "Concat Shape Gather " + part + "Concat LogSoftmax GlobalMaxPool ");
}

TEST_CASE("padding that is made of the image comes before the convolution") {
  const io_test::Folder folder;
  using st::Conv2dOptions, st::PaddingMode;
  st::Sequential<
      st::Conv2d<2, 2, 3, Conv2dOptions{.padding_mode = PaddingMode::reflect}>,
      st::Conv2d<2, 4, st::KernelSize{1, 5}, Conv2dOptions{.groups = 2, .padding_mode = PaddingMode::replicate}>,
      st::Conv2d<4, 1, 3, Conv2dOptions{.padding_mode = PaddingMode::circular}>>
      net;
  io_test::number(net);
  st::export_onnx(folder / "net.onnx", net);
  const Model model = read_model(folder / "net.onnx");
  CHECK(model.ops() == "Pad Conv Pad Conv Slice Slice Concat Slice Slice Concat Conv ");
  CHECK(model.nodes[1].whole.at("pads") == std::vector<std::int64_t>{0, 0, 0, 0});
  CHECK(model.nodes[3].whole.at("kernel_shape") == std::vector<std::int64_t>{1, 5});
}

TEST_CASE("a depthwise convolution is one with groups") {
  const io_test::Folder folder;
  st::Sequential<st::DepthwiseConv2d<3, 5, st::Conv2dOptions{.stride = 2, .bias = false}>, st::BatchNorm2d<3>, st::ReLU>
      net;
  io_test::number(net);
  st::export_onnx(folder / "net.onnx", net);
  Model model = read_model(folder / "net.onnx");
  CHECK(model.ops() == "Conv BatchNormalization Relu ");
  CHECK(model.nodes[0].whole.at("group") == std::vector<std::int64_t>{3});
  CHECK(model.nodes[0].whole.at("strides") == std::vector<std::int64_t>{2, 2});
  CHECK(model.nodes[0].whole.at("pads") == std::vector<std::int64_t>{2, 2, 2, 2});
  CHECK(model.tensors.at("0.weight").shape == std::vector<std::int64_t>{3, 1, 5, 5});
  CHECK(model.tensors.at("0.weight").numbers == st::to_nchw(net.layer<0>().weight.value()));
  auto deployed = st::fold(net);
  st::export_onnx(folder / "deployed.onnx", deployed);
  model = read_model(folder / "deployed.onnx");
  CHECK(model.ops() == "Conv Relu ");
  CHECK(model.nodes[0].inputs.size() == 3);
  CHECK(model.nodes[0].whole.at("group") == std::vector<std::int64_t>{3});
}

TEST_CASE("operands become nodes from left to right, with every compiler") {
  const io_test::Folder folder;
  Branches net;
  st::export_onnx(folder / "branches.onnx", net);
  CHECK(read_model(folder / "branches.onnx").ops() == "Exp Sqrt Concat GlobalAveragePool Sigmoid Tanh Shape Expand ");
}

TEST_CASE("what cannot be exported is an error") {
  const io_test::Folder folder;
  Net net;
  CHECK_THROWS_AS(st::export_onnx(folder / "none/net.onnx", net), st::FileError);
  st::Sequential<st::Flatten<1, 4, 4>, st::Linear<16, 2>> fixed;
  CHECK_THROWS_WITH_AS(st::export_onnx(folder / "fixed.onnx", fixed), doctest::Contains("OnnxOptions::sample_h"),
                       st::ShapeError);
  CHECK_NOTHROW(st::export_onnx(folder / "fixed.onnx", fixed, {.sample_h = 4, .sample_w = 4}));
  Levels levels;
  CHECK_NOTHROW(st::export_onnx(folder / "levels.onnx", levels));  // the sample suits what halves an image five times
  BadName bad_name;
  CHECK_THROWS_WITH_AS(st::export_onnx(folder / "bad.onnx", bad_name), doctest::Contains("is called 'output'"),
                       st::ValueError);
  st::to<double>(net);
  CHECK_THROWS_WITH_AS(st::export_onnx(folder / "net.onnx", net),
                       doctest::Contains("holds float64, was used as float32"), st::Error);
  CHECK_FALSE(std::filesystem::exists(folder / "net.onnx"));
}
