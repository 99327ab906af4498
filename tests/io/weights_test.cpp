#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include "io/io_test_net.hpp"
#include "strata/io/detail/weights_match.hpp"
#include "strata/io/weights.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "test_data.hpp"

namespace st = strata;
using io_test::contains;
using io_test::file_error;

namespace io_test {

/// One conv and one norm under other names, as a Sequential gives them.
struct Sequence {
  Conv first;
  Norm second;
  Conv third;
  static constexpr void visit(auto& self, auto&& f) {
    f("10", self.third);
    f("2", self.second);
    f("0", self.first);
  }
};

struct OtherNet {
  Conv head;
  strata::Parameter scale{strata::Shape{5}};
  static constexpr void visit(auto& self, auto&& f) {
    f("head", self.head);
    f("scale", self.scale);
  }
};

struct WideConv {
  strata::Parameter weight{strata::Shape{3, 4, 3, 3}};
  strata::Parameter bias{strata::Shape{3}};
  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("bias", self.bias);
  }
};

struct WideNet {
  WideConv head;
  Norm norm;
  Conv tail;
  static constexpr void visit(auto& self, auto&& f) {
    f("head", self.head);
    f("norm", self.norm);
    f("tail", self.tail);
  }
};

/// As a network in files of PyTorch: a chain in a chain.
using Block = strata::Sequential<strata::Conv2d<2, 2, 1, strata::no_bias>, strata::BatchNorm2d<2>, strata::ReLU>;
using Chain = strata::Residual<strata::Sequential<strata::Conv2d<1, 2, 1>, strata::ReLU, strata::Repeat<2, Block>,
                                                  strata::Repeat<2, strata::PReLU<>>, strata::Conv2d<2, 1, 1>>>;

struct Doubles {
  strata::Parameter weight{strata::Shape{2}};
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
};

struct Wrapped {
  Net _orig_mod, module;
  static constexpr void visit(auto& self, auto&& f) {
    f("_orig_mod", self._orig_mod);
    f("module", self.module);
  }
};

struct Inside {
  Net body;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
};

struct Layer {
  strata::Parameter weight{strata::Shape{2, 3, 1, 2}};
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
};

/// One that keeps a length and a direction itself.
struct Halves {
  strata::Parameter weight_g{strata::Shape{2, 1, 1, 1}}, weight_v{strata::Shape{2, 3, 1, 2}};
  static constexpr void visit(auto& self, auto&& f) {
    f("weight_g", self.weight_g);
    f("weight_v", self.weight_v);
  }
};

/// With a norm that has a bias of its own, which says nothing of convolutions.
struct Biased {
  Net net;
  strata::Parameter weight{strata::Shape{3}}, bias{strata::Shape{3}};
  static constexpr void visit(auto& self, auto&& f) {
    f("net", self.net);
    f("weight", self.weight);
    f("bias", self.bias);
  }
};

}  // namespace io_test

TEST_CASE("weights come back, with metadata, in place") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net, back;
  io_test::number(net);
  const st::Tensor<float> handle = back.head.weight.value();
  st::save_weights(path, net, {{"made", "by a test"}});
  const st::Metadata metadata = st::load_weights(path, back);
  CHECK(metadata == st::Metadata{{"made", "by a test"}});
  CHECK(io_test::numbers(back) == io_test::numbers(net));
  CHECK(handle.data()[5] == net.head.weight.value().data()[5]);
  CHECK(back.norm.num_batches_tracked.value<std::int64_t>().data()[0] ==
        net.norm.num_batches_tracked.value<std::int64_t>().data()[0]);
}

TEST_CASE("weights of another float type are converted; doubles stay doubles in a file") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Doubles net, single;
  st::to<double>(net);
  net.weight.value<double>().fill(0.1);
  st::save_weights(path, net);
  st::load_weights(path, single);
  CHECK(single.weight.value().data()[1] == 0.1f);
  net.weight.value<double>().fill(0);
  st::load_weights(path, net);
  CHECK(net.weight.value<double>().data()[1] == 0.1);
}

TEST_CASE("a file that does not fit is told as a list of differences and changes nothing") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net;
  io_test::number(net);
  st::save_weights(path, net);

  io_test::OtherNet other;
  io_test::number(other, 100);
  auto before = io_test::numbers(other);
  std::string text = file_error([&] { st::load_weights(path, other); });
  CHECK(text.starts_with(path.string() + ": does not fit the network; nothing was changed."));
  CHECK(contains(text, "missing from the file (1):\n    scale (5 F32)"));
  CHECK(contains(text, "unexpected in the file (5):\n    norm.num_batches_tracked (scalar I64)"));
  CHECK(io_test::numbers(other) == before);

  io_test::WideNet wide;
  io_test::number(wide, 100);
  before = io_test::numbers(wide);
  text = file_error([&] { st::load_weights(path, wide); });
  CHECK(contains(text, "different (1):\n    the file's head.weight (3x2x3x3 F32), the network's head.weight (3x4x3x3"));
  CHECK(io_test::numbers(wide) == before);

  // fits by name and shape, but the last tensor read is of a type that does not do
  std::vector<st::NamedTensor> tensors = st::detail::tensors_of(net);
  const st::AnyTensor fraction = st::Tensor<float>::full(st::Shape{}, 0.5f);
  for (auto& tensor : tensors)
    if (tensor.name == "norm.num_batches_tracked") tensor.tensor = &fraction;
  st::write_safetensors(path, tensors);
  io_test::Net back;
  io_test::number(back, 100);
  before = io_test::numbers(back);
  CHECK(contains(file_error([&] { st::load_weights(path, back); }), "wanted whole numbers"));
  CHECK(io_test::numbers(back) == before);
}

TEST_CASE("num_batches_tracked alone may be missing") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net, back;
  io_test::number(net);
  std::vector<st::NamedTensor> tensors = st::detail::tensors_of(net);
  std::erase_if(tensors, [](const auto& tensor) { return tensor.name == "norm.num_batches_tracked"; });
  st::write_safetensors(path, tensors);
  for (const auto match : {st::Match::by_name, st::Match::by_order}) {
    io_test::number(back, 100);
    const auto tracked = back.norm.num_batches_tracked.value<std::int64_t>().data()[0];
    st::load_weights(path, back, {.match = match});
    CHECK(back.norm.num_batches_tracked.value<std::int64_t>().data()[0] == tracked);
    CHECK(back.tail.bias.value().data()[2] == net.tail.bias.value().data()[2]);
  }
  std::erase_if(tensors, [](const auto& tensor) { return tensor.name == "norm.running_mean"; });
  st::write_safetensors(path, tensors);
  CHECK(contains(file_error([&] { st::load_weights(path, back); }), "file (1):\n    norm.running_mean (3 F32)"));
}

TEST_CASE("by order: the file's layers in natural order go to the network's in list order") {
  const io_test::Folder folder;
  const auto path = folder / "sequence.safetensors";
  io_test::Sequence sequence;  // its names sort as 0, 10, 2 and count as 0, 2, 10
  io_test::number(sequence);
  st::save_weights(path, sequence);
  io_test::Net net;
  CHECK(contains(file_error([&] { st::load_weights(path, net); }), "missing from the file (6)"));
  st::load_weights(path, net, {.match = st::Match::by_order});
  CHECK(io_test::numbers(net.head) == io_test::numbers(sequence.first));
  CHECK(io_test::numbers(net.norm) == io_test::numbers(sequence.second));
  CHECK(io_test::numbers(net.tail) == io_test::numbers(sequence.third));

  io_test::OtherNet other;
  io_test::number(other, 100);
  const auto before = io_test::numbers(other);
  const std::string text = file_error([&] { st::load_weights(path, other, {.match = st::Match::by_order}); });
  CHECK(contains(text, "scale (5 F32), from layer '2' of the file"));
  CHECK(contains(text, "2.running_mean (3 F32), for layer '' of the network"));
  CHECK(contains(text, "10.weight (3x2x3x3 F32): the network has no layer left"));
  CHECK(io_test::numbers(other) == before);

  io_test::Conv conv;
  st::save_weights(path, conv);
  CHECK(contains(file_error([&] { st::load_weights(path, net, {.match = st::Match::by_order}); }),
                 "tail.bias (3 F32): the file has no layer left"));
  io_test::WideNet wide;
  st::save_weights(path, sequence);
  CHECK(contains(file_error([&] { st::load_weights(path, wide, {.match = st::Match::by_order}); }),
                 "the file's 0.weight (3x2x3x3 F32), the network's head.weight (3x4x3x3 F32)"));
}

TEST_CASE("natural order") {
  const auto before = [](auto a, auto b) { return st::detail::natural_before(a, b); };
  CHECK(before("model.2", "model.10"));
  CHECK_FALSE(before("model.10", "model.2"));
  CHECK(before("a.2.b.11", "a.2.c.1"));
  CHECK(before("a", "a.0"));
  CHECK(before("a.9", "a.b"));
  CHECK(before("a.2", "a.99999999999999999999999999"));
  CHECK_FALSE(before("a.1", "a.1"));
  CHECK(before("a.01", "a.1") != before("a.1", "a.01"));  // not the same name
}

TEST_CASE("a prefix selects and is dropped") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net, back;
  io_test::number(net);
  auto tensors = st::detail::tensors_of(net, "module.");
  const st::AnyTensor other = st::Tensor<float>::full(st::Shape{1}, 1);
  tensors.push_back({"optimizer", &other});
  st::write_safetensors(path, tensors);
  st::load_weights(path, back, {.prefix = "module."});
  CHECK(io_test::numbers(back) == io_test::numbers(net));
  CHECK(contains(file_error([&] { st::load_weights(path, back); }), "unexpected in the file"));
  CHECK(contains(file_error([&] { st::load_weights(path, back, {.prefix = "net."}); }),
                 "none of its 8 tensors begins with 'net.'"));
}

TEST_CASE("names of a chain in a chain: nested and spliced, as PyTorch's for either way of writing it") {
  const io_test::Chain net;
  const auto names = [&](st::Names how) {
    std::string text;
    for (const st::NamedTensor& tensor : st::detail::tensors_of(net, "", how))
      if (tensor.name.ends_with("weight")) text += tensor.name + " ";
    return text;
  };
  CHECK(names(st::Names::nested) == "body.0.weight body.2.0.0.weight body.2.0.1.weight body.2.1.0.weight body.2.1.1.weight "
                                    "body.3.0.weight body.3.1.weight body.4.weight ");
  CHECK(names(st::Names::spliced) == "body.0.weight body.2.weight body.3.weight body.5.weight body.6.weight "
                                     "body.8.weight body.9.weight body.10.weight ");

  const io_test::Folder folder;
  const auto path = folder / "chain.safetensors";
  io_test::Chain other, back;
  io_test::number(other);
  st::save_weights(path, other, {}, {.names = st::Names::spliced, .rename = {{"body", "model"}}});
  const auto holds = [&](const std::string& name) {
    const st::SafetensorsFile file(path);
    return file.find(name) != nullptr;
  };
  CHECK(holds("model.10.bias"));
  CHECK(contains(file_error([&] { st::load_weights(path, back); }), "missing from the file (16)"));
  st::load_weights(path, back, {.names = st::Names::spliced, .rename = {{"model", "body"}}});
  CHECK(io_test::numbers(back) == io_test::numbers(other));
  st::save_weights(path, other, {}, {.rename = {{"body", ""}}});
  CHECK(holds("2.1.0.weight"));
  st::load_weights(path, back.body);
}

TEST_CASE("renaming and leaving out are checked") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net, back;
  io_test::number(net);
  auto tensors = st::detail::tensors_of(net);
  const st::AnyTensor other = st::Tensor<float>::full(st::Shape{1}, 1);
  tensors.push_back({"head.extra", &other});
  tensors.push_back({"headless", &other});
  tensors[0].name = "first.weight";
  st::write_safetensors(path, tensors);
  const auto load = [&](st::LoadWeightsOptions options) { st::load_weights(path, back, options); };
  load({.rename = {{"first.weight", "head.weight"}}, .ignore = {"head.extra", "headless"}});
  CHECK(io_test::numbers(back) == io_test::numbers(net));
  CHECK(contains(file_error([&] { load({.rename = {{"first", "head"}}, .ignore = {"headless"}}); }),
                 "unexpected in the file (1):\n    head.extra"));
  CHECK_THROWS_WITH_AS(load({.rename = {{"firs", "head"}}}), doctest::Contains("no name begins with 'firs', which the option rename"),
                       st::ValueError);
  CHECK_THROWS_WITH_AS(load({.ignore = {"tail.w"}}), doctest::Contains("no name begins with 'tail.w', which the option ignore"),
                       st::ValueError);
  CHECK_THROWS_WITH_AS(load({.rename = {{"first.weight", "head.bias"}}}), doctest::Contains("makes 'head.bias' of both"),
                       st::ValueError);
  CHECK_THROWS_AS(st::save_weights(path, net, {}, {.rename = {{"heads", "x"}}}), st::ValueError);
  CHECK_THROWS_AS(st::save_weights(path, net, {}, {.rename = {{"head", "tail"}}}), st::ValueError);
}

TEST_CASE("what wrappers add to names need not be given, unless the network's names have it too; the report says so") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net, back;
  io_test::number(net);
  const auto said = [&](auto change, const st::LoadWeightsOptions& options = {}) {
    auto tensors = st::detail::tensors_of(net);
    for (auto& tensor : tensors) tensor.name = change(tensor.name);
    st::write_safetensors(path, tensors);
    io_test::number(back, 100);
    std::string notes;
    for (const std::string& note : st::load_weights(path, back, options).notes) {
      CHECK(note.starts_with(path.string() + ": "));
      notes += note.substr(path.string().size() + 2) + "\n";
    }
    CHECK(io_test::numbers(back) == io_test::numbers(net));
    return notes;
  };
  CHECK(said([](std::string name) { return name; }) == "");
  CHECK(said([](std::string name) { return "module." + name; }) == "names are read without 'module.'\n");
  const std::string compiled = "names are read without '_orig_mod.', which a wrapper of PyTorch added\n";
  CHECK(said([](std::string name) { return "_orig_mod." + name; }) == compiled);
  CHECK(said([](std::string name) { return name.insert(name.find('.') + 1, "_orig_mod."); }) == compiled);
  CHECK(said([](std::string name) { return "module._orig_mod." + name; }) == compiled + "names are read without 'module.'\n");
  CHECK(said([](std::string name) { return "_orig_mod.module." + name; }) == compiled + "names are read without 'module.'\n");
  CHECK(said([](std::string name) { return "_orig_mod." + name; }, {.prefix = "_orig_mod."}) == "");
  CHECK(said([](std::string name) { return "_orig_mod." + name; }, {.rename = {{"_orig_mod", ""}}}) == "");
  CHECK(said([](std::string name) { return "_fsdp_wrapped_module._checkpoint_wrapped_module." + name; }) ==
        "names are read without '_fsdp_wrapped_module.', which a wrapper of PyTorch added\n"
        "names are read without '_checkpoint_wrapped_module.', which a wrapper of PyTorch added\n");
  for (const std::string prefix : {"model.", "net.", "generator.", "ema.model."})  // Lightning's, and others'
    CHECK(said([&](std::string name) { return prefix + name; }) ==
          "names are read without '" + prefix + "', which all of them begin with\n");

  io_test::Wrapped wrapped, again;
  io_test::number(wrapped);
  st::save_weights(path, wrapped);
  CHECK(st::load_weights(path, again).notes.empty());
  CHECK(io_test::numbers(again) == io_test::numbers(wrapped));
  st::write_safetensors(path, st::detail::tensors_of(wrapped, "module."));
  CHECK(contains(file_error([&] { st::load_weights(path, again.module); }), "unexpected in the file"));

  // AveragedModel has a count beside its module.
  auto tensors = st::detail::tensors_of(net, "module.");
  const st::AnyTensor count = st::Tensor<std::int64_t>::full(st::Shape{}, 3), other = st::Tensor<float>::full(st::Shape{1}, 1);
  tensors.push_back({"n_averaged", &count});
  st::write_safetensors(path, tensors);
  st::load_weights(path, back);
  CHECK(io_test::numbers(back) == io_test::numbers(net));
  tensors.back() = {"other", &other};
  st::write_safetensors(path, tensors);
  CHECK(contains(file_error([&] { st::load_weights(path, back); }), "It fits with {.prefix = \"module.\"}"));
}

TEST_CASE("the text of an error names the option that helps") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net;
  io_test::number(net, 100);
  const auto before = io_test::numbers(net);
  const auto hint = [&](auto& given, auto change, auto& taker, const st::LoadWeightsOptions& options = {}) {
    auto tensors = st::detail::tensors_of(given);
    for (auto& tensor : tensors) tensor.name = change(tensor.name);
    const st::AnyTensor other = st::Tensor<float>::full(st::Shape{1}, 1);
    tensors.push_back({"loss", &other});
    st::write_safetensors(path, tensors);
    const std::string text = file_error([&] { st::load_weights(path, taker, options); });
    CHECK(contains(text, "nothing was changed"));
    const std::size_t at = text.find("It fits with ");
    return at == std::string::npos ? std::string() : text.substr(at);
  };
  CHECK(hint(net, [](std::string name) { return "model." + name; }, net) == "It fits with {.prefix = \"model.\"}");
  CHECK(hint(net, [](std::string name) { return "first." + name; }, net, {.ignore = {"loss"}}) == "It fits with {.prefix = \"first.\"}");
  CHECK(hint(net, [](std::string name) { return name.replace(0, 4, std::string(1, name[0] == 'h' ? '0' : name[0] == 'n' ? '1' : '2')); },
             net, {.ignore = {"loss"}}) == "It fits with {.match = st::Match::by_order}");
  CHECK(hint(net, [](std::string name) { return name + "x"; }, net) == "");
  io_test::Inside inside;
  CHECK(hint(net, [](std::string name) { return name; }, inside, {.ignore = {"loss"}}) == "It fits with {.rename = {{\"\", \"body\"}}}");
  CHECK(hint(net, [](std::string name) { return "a.b." + name; }, inside, {.ignore = {"loss"}}) ==
        "It fits with {.rename = {{\"a.b\", \"body\"}}}");
  CHECK(hint(net, [](std::string name) { return name; }, net) == "It fits with {.ignore = {\"loss\"}}");
  CHECK(io_test::numbers(net) == before);

  io_test::Chain chain, other;
  const auto spliced = [&](st::SaveWeightsOptions options) {
    st::save_weights(path, chain, {}, options);
    const std::string text = file_error([&] { st::load_weights(path, other); });
    return text.substr(std::min(text.size(), text.find("It fits with ")));
  };
  CHECK(spliced({.names = st::Names::spliced}) == "It fits with {.names = st::Names::spliced}");
  CHECK(spliced({.names = st::Names::spliced, .rename = {{"body", "model"}}}) ==
        "It fits with {.names = st::Names::spliced, .rename = {{\"model\", \"body\"}}}");
  CHECK(spliced({.rename = {{"body.0", "start"}}}) == "It fits with {.rename = {{\"start\", \"body.0\"}}}");
}

TEST_CASE("weight_norm's halves become the weight, in either form; spectral_norm's are told what to do") {
  const auto folder = strata_test::golden("golden/pytorch");
  io_test::Net expected;
  io_test::number(expected);
  for (const std::string name : {"weight_norm.pth", "parametrized.pth"}) {
    for (const st::Match match : {st::Match::by_name, st::Match::by_order}) {
      CAPTURE(name);
      io_test::Net net;
      const st::LoadReport report = st::load_weights(folder / name, net, {.match = match});
      CHECK(report.notes == std::vector{(folder / name).string() + ": weight_norm: 2 weights are made of a direction and a length each"});
      const auto numbers = io_test::numbers(net), wanted = io_test::numbers(expected);
      for (std::size_t i = 0; i < numbers.size(); ++i) {  // 1.5 times in the convolutions, as the script made them
        const bool norm = i >= 57 && i < 64;
        CHECK(numbers[i] == doctest::Approx(norm ? wanted[i] : 1.5 * wanted[i]).epsilon(3e-7));
      }
    }
  }
  io_test::Net net;
  io_test::number(net, 100);
  const auto before = io_test::numbers(net);
  const std::string text = file_error([&] { st::load_weights(folder / "spectral_norm.pth", net); });
  CHECK(contains(text, "torch.nn.utils.remove_spectral_norm(layer)"));
  CHECK(io_test::numbers(net) == before);

  // Lengths along any axis, or one of all; a part without a direction; halves that do not fit; a network that keeps halves itself.
  const io_test::Folder temporary;
  const auto path = temporary / "halves.safetensors";
  io_test::Layer layer;
  io_test::number(layer);
  st::AnyTensor direction = st::Tensor<float>(st::Shape{2, 3, 1, 2});
  st::detail::copy_into(direction, layer.weight.any_value());
  for (const auto& [shape, axis] : {std::pair(st::Shape{2, 1, 1, 1}, 0), {st::Shape{1, 3, 1, 1}, 1}, {st::Shape{1, 1, 1, 2}, 3},
                                    {st::Shape{}, -1}, {st::Shape{1, 1, 1, 1}, -1}}) {
    CAPTURE(axis);
    st::Tensor<float> length(shape);
    for (std::int64_t i = 0; i < length.size(); ++i) length.data()[i] = float(10 + i);
    const st::AnyTensor lengths = length;
    st::write_safetensors(path, {{"weight_g", &lengths}, {"weight_v", &direction}});
    st::load_weights(path, layer);
    const auto at = [&](const st::Tensor<float>& tensor, std::int64_t o, std::int64_t c, std::int64_t w) {
      return double(tensor.data()[(o * 2 + w) * 3 + c]);  // N,H,W,C in memory
    };
    for (std::int64_t k = 0; k < length.size(); ++k) {
      double ours = 0, theirs = 0, product = 0;
      for (std::int64_t o = 0; o < 2; ++o)
        for (std::int64_t c = 0; c < 3; ++c)
          for (std::int64_t w = 0; w < 2; ++w) {
            if (axis >= 0 && std::array{o, c, std::int64_t{0}, w}[std::size_t(axis)] != k) continue;
            const double a = at(layer.weight.value(), o, c, w), b = at(std::get<st::Tensor<float>>(direction), o, c, w);
            ours += a * a, theirs += b * b, product += a * b;
          }
      CHECK(std::sqrt(ours) == doctest::Approx(10.0 + double(k)).epsilon(1e-6));
      CHECK(product / std::sqrt(ours * theirs) == doctest::Approx(1).epsilon(1e-6));
    }
  }
  const st::AnyTensor zero = st::Tensor<float>::full(st::Shape{2, 3, 1, 2}, 0), two = st::Tensor<float>::full(st::Shape{2, 1, 1, 1}, 1),
                      four = st::Tensor<float>::full(st::Shape{4, 1, 1, 1}, 1), both = st::Tensor<float>::full(st::Shape{2, 3, 1, 1}, 1);
  const auto refused = [&](const st::AnyTensor& length, const st::AnyTensor& part) {
    st::write_safetensors(path, {{"weight_g", &length}, {"weight_v", &part}});
    return file_error([&] { st::load_weights(path, layer); });
  };
  CHECK(contains(refused(two, zero), "'weight_v': a part of it is zero, which has no direction"));
  CHECK(contains(refused(four, direction), "weight_g (4x1x1x1 F32)"));
  CHECK(contains(refused(both, direction), "kept as weight_norm has them"));
  io_test::Halves halves, same;
  io_test::number(halves);
  st::save_weights(path, halves);
  st::load_weights(path, same);
  CHECK(io_test::numbers(same) == io_test::numbers(halves));
}

TEST_CASE("biases of a file that has none are zero, and said; one that is missing among others is missing") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net, back;
  io_test::number(net);
  io_test::Biased given, taker;
  io_test::number(given);
  const auto write = [&](auto leave_out) {
    auto tensors = st::detail::tensors_of(given);
    std::erase_if(tensors, [&](const auto& tensor) { return leave_out(tensor.name); });
    st::write_safetensors(path, tensors);
    io_test::number(taker, 100);
  };
  const auto is_conv_bias = [](const std::string& name) { return name == "net.head.bias" || name == "net.tail.bias"; };
  {
    write(is_conv_bias);
    const st::LoadReport report = st::load_weights(path, taker);
    CHECK(report.notes == std::vector{path.string() + ": has no bias of a convolution or linear layer: net.head.bias and 1 more are zero"});
    CHECK(taker.net.head.bias.value().data()[2] == 0.0f);
    CHECK(taker.net.tail.bias.value().data()[0] == 0.0f);
    CHECK(taker.net.tail.weight.value().data()[53] == given.net.tail.weight.value().data()[53]);
    CHECK(taker.bias.value().data()[2] == given.bias.value().data()[2]);
  }
  auto tensors = st::detail::tensors_of(net, "x.");
  std::erase_if(tensors, [](const auto& tensor) { return tensor.name.ends_with(".bias"); });
  st::write_safetensors(path, tensors);
  io_test::number(back, 100);
  CHECK(st::load_weights(path, back, {.match = st::Match::by_order}).notes.size() == 1);
  CHECK(back.head.bias.value().data()[0] == 0.0f);
  CHECK(back.tail.weight.value().data()[53] == net.tail.weight.value().data()[53]);
  // A file that has lost something: another bias is there, or the weight is gone as well, or it is a norm's.
  const auto refused = [&](auto leave_out, const st::LoadWeightsOptions& options = {}) {
    write(leave_out);
    const auto before = io_test::numbers(taker);
    const std::string text = file_error([&] { st::load_weights(path, taker, options); });
    CHECK(io_test::numbers(taker) == before);
    return text;
  };
  CHECK(contains(refused([](const std::string& name) { return name == "net.tail.bias"; }),
                 "missing from the file (1):\n    net.tail.bias (3 F32)\n  It fits with {.zero = {\"net.tail.bias\"}}"));
  CHECK(contains(refused([&](const std::string& name) { return is_conv_bias(name) || name == "net.head.weight"; }),
                 "file (2):\n    net.head.weight (3x2x3x3 F32)\n    net.head.bias"));
  CHECK(contains(refused([&](const std::string& name) { return is_conv_bias(name) || name == "bias"; }), "file (1):\n    bias (3 F32)"));
  CHECK(contains(refused([](const std::string& name) { return name == "net.tail.weight"; }), "file (1):\n    net.tail.weight"));
  CHECK(refused([](const std::string& name) { return name == "net.tail.bias"; }, {.ignore = {"net.head.bias"}}) != "");

  write([](const std::string& name) { return name == "net.tail.bias"; });
  st::load_weights(path, taker, {.zero = {"net.tail.bias"}});
  CHECK(taker.net.tail.bias.value().data()[0] == 0.0f);
  CHECK(io_test::numbers(taker.net.head) == io_test::numbers(given.net.head));
  CHECK_THROWS_WITH_AS(st::load_weights(path, taker, {.zero = {"net.tail.bias", "net.head"}}),
                       doctest::Contains("nothing that is missing begins with 'net.head', which the option zero"), st::ValueError);
}
