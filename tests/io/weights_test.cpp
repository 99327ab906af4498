#include <doctest/doctest.h>

#include "io/io_test_net.hpp"
#include "strata/io/weights.hpp"
#include "strata/nn/residual.hpp"

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
  CHECK(st::SafetensorsFile(path).find("model.10.bias") != nullptr);
  CHECK(contains(file_error([&] { st::load_weights(path, back); }), "missing from the file (16)"));
  st::load_weights(path, back, {.names = st::Names::spliced, .rename = {{"model", "body"}}});
  CHECK(io_test::numbers(back) == io_test::numbers(other));
  st::save_weights(path, other, {}, {.rename = {{"body", ""}}});
  CHECK(st::SafetensorsFile(path).find("2.1.0.weight") != nullptr);
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

TEST_CASE("the prefix of DataParallel need not be given, unless the network's names have it too") {
  const io_test::Folder folder;
  const auto path = folder / "net.safetensors";
  io_test::Net net, back;
  io_test::number(net);
  st::write_safetensors(path, st::detail::tensors_of(net, "module."));
  st::load_weights(path, back);
  CHECK(io_test::numbers(back) == io_test::numbers(net));
}
