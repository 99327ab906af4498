#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "io/io_test_net.hpp"
#include "strata/core/random.hpp"
#include "strata/io/weights.hpp"
#include "test_data.hpp"

namespace st = strata;
using io_test::contains;
using io_test::file_error;
using namespace std::string_view_literals;

namespace {

std::filesystem::path fixture(std::string_view name) {
  return strata_test::golden("golden/pytorch") / name;
}

std::vector<double> counted() {
  io_test::Net net;
  io_test::number(net);
  return io_test::numbers(net);
}

std::string refusal(std::string_view name) {
  return file_error([&] { const st::PytorchFile file(fixture(name)); });
}

/// What reading a pickle of these instructions (protocol 2) throws.
std::string pickle_error(std::string_view instructions) {
  const std::string bytes = "\x80\x02" + std::string(instructions), path = "test";
  return file_error([&] { st::detail::Unpickler(std::as_bytes(std::span(bytes)), path).load(); });
}

/// Reads everything there is in a file; the text of the FileError, if it throws one.
std::string read_all(const std::filesystem::path& path) {
  return file_error([&] {
    const st::PytorchFile file(path);
    for (const st::TensorInfo& tensor : file.tensors()) (void)file.read<float>(tensor);
    file.verify_checksums();
  });
}

}  // namespace

TEST_CASE("what torch.save writes is read: each form, protocol, type and layout") {
  const std::vector<double> wanted = counted();
  for (const std::string_view name : {"zip.pth"sv, "legacy.pth"sv, "protocol_5.pth"sv, "module_prefix.pth"sv, "float64.pth"sv,
                                      "strided.pth"sv, "legacy_strided.pth"sv, "checkpoint.pth"sv, "ema.pth"sv,
                                      "parameters.pth"sv, "no_checksums.pth"sv, "zip64.pth"sv}) {
    CAPTURE(name);
    io_test::Net net;
    REQUIRE_NOTHROW(st::load_weights(fixture(name), net));
    CHECK(io_test::numbers(net) == wanted);
  }
  for (const std::string_view name : {"half.pth"sv, "legacy_half.pth"sv}) {  // whole numbers below 2048 are exact
    io_test::Net net;
    st::load_weights(fixture(name), net);
    CHECK(io_test::numbers(net) == wanted);
  }
  io_test::Net net;
  st::load_weights(fixture("bfloat16.pth"), net);  // eight bits of mantissa
  const std::vector<double> rounded = io_test::numbers(net);
  for (std::size_t i = 0; i < wanted.size(); ++i) CHECK(std::abs(rounded[i] - wanted[i]) <= wanted[i] / 256);
}

TEST_CASE("the dict that is read") {
  CHECK(st::PytorchFile(fixture("zip.pth")).key() == "");
  const st::PytorchFile checkpoint(fixture("checkpoint.pth"));
  CHECK(checkpoint.key() == "state_dict");
  CHECK(checkpoint.others().empty());
  CHECK(checkpoint.tensors().size() == 7);
  CHECK(checkpoint.tensors()[0].name == "head.weight");
  CHECK(st::PytorchFile(fixture("ema.pth")).key() == "params_ema");
  const st::PytorchFile raw(fixture("ema.pth"), {.key = "params"});
  CHECK(raw.read<float>(*raw.find("head.weight")).data()[0] == -1.0f);

  io_test::Net net;
  const std::string text = file_error([&] { st::load_weights(fixture("other_key.pth"), net); });
  CHECK(contains(text, "holds no state dict. It is a dict with 0 tensors\n  'generator': dict with 7 tensors\n  'step': int\n"
                       "Give the key of a dict with tensors"));
  st::load_weights(fixture("other_key.pth"), net, {.key = "generator"});
  CHECK(io_test::numbers(net) == counted());
  CHECK(contains(file_error([&] { st::load_weights(fixture("other_key.pth"), net, {.key = "step"}); }),
                 "holds no state dict under 'step'"));
  CHECK_THROWS_WITH_AS(st::load_weights(fixture("../layers.safetensors"), net, {.key = "params"}),
                       doctest::Contains("has no dict under the key 'params'"), st::ValueError);
}

TEST_CASE("what is no tensor, dict, list, tuple, number or string is refused by name, and nothing is run") {
  for (const std::string_view name : {"malicious.pth"sv, "legacy_malicious.pth"sv}) {
    const std::string text = refusal(name);
    CHECK(text.starts_with(fixture(name).string() + ": holds 'posix.system', and only tensors"));
    CHECK(contains(text, "torch.save(net.state_dict()"));
    CHECK_FALSE(std::filesystem::exists("strata_was_here"));
  }
  for (const std::string_view name : {"whole_module.pth"sv, "legacy_whole_module.pth"sv})
    CHECK(contains(refusal(name), ": holds '__main__.Net': it looks like a whole network, pickled with its Python class"));
  CHECK(contains(refusal("whole_torch_module.pth"), ": holds 'torch.nn.modules.activation.ReLU': it looks like a whole network"));
  CHECK(contains(refusal("torchscript.pth"), "is a TorchScript program"));
  CHECK(contains(refusal("compressed.pth"), "has compressed entries"));
  CHECK(contains(refusal("five_extents.pth"), "tensor 'conv3d.weight': has 5 extents, and at most 4 are supported"));
  CHECK(contains(refusal("complex.pth"), "holds tensors of the type 'torch.ComplexFloatStorage', which is not supported"));
  CHECK(contains(refusal("no_tensors.pth"), "holds no state dict. It is a dict with 0 tensors\n  'epoch': int\n  'names': list"));
  CHECK(contains(file_error([] { const st::PytorchFile file(fixture("../layers.safetensors")); }), "is not a file of torch.save"));
}

TEST_CASE("pickles that lie") {
  const auto refused = [](std::string_view instructions, std::string_view reason) {
    const std::string text = pickle_error(instructions);
    CAPTURE(reason);
    CAPTURE(text);
    CHECK(contains(text, reason));
  };
  refused("", "cut short");
  refused(".", "takes a value where there is none");
  refused("NN.", "values left over");
  refused("N(.", "takes a value where there is none");
  refused("N(0.", "takes a value where there is none");
  refused("t.", "takes a mark where there is none");
  refused("Na.", "where there is none");
  refused("NNa.", "has a None where a list belongs");
  refused("}(Nu.", "key without a value");
  refused("(Nd.", "key without a value");
  refused("h\x01.", "recalls a value that it has not stored");
  refused("X\xFF\xFF\xFF\xFF" "a.", "cut short");
  refused("\x8d\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF.", "cut short");
  refused("]\x94]\x94\x8f.", "holds a set");
  refused("I1\n.", "of protocol 0 or 1");
  refused("cos\nsystem\n.", "holds 'os.system'");
  refused("cbuiltins\neval\n.", "holds 'builtins.eval'");
  refused("X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93."sv, "holds 'os.system'");
  refused("NN\x93.", "has a None where a");
  refused("cos\n\x1b[2J\x07\n.", "holds 'os.?[2J?'");
  refused("N)R.", "has a None where something to call belongs");
  refused("ccollections\nOrderedDict\nNR.", "has a None where a tuple of arguments belongs");
  refused("ccollections\nOrderedDict\nN\x85R.", "OrderedDict of something else than a list");
  refused("ccollections\nOrderedDict\n]Na\x85R.", "something else than pairs");
  refused("NNb.", "has a None where a dict belongs");
  refused("NQ.", "has a None where a storage belongs");
  refused("ctorch\nQInt8Storage\n.", "'torch.QInt8Storage', which is not supported");
  refused("ctorch._utils\n_rebuild_tensor_v2\n)R.", "without storage, offset, shape and stride");
  refused("ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR."sv, "has a None where a tensor's storage belongs");
  CHECK(pickle_error("]q\x00h\x00" "a."sv).empty());  // a list that contains itself
  CHECK(pickle_error(std::string(100'000, '(') + std::string(100'000, 't') + ".").empty());  // deep, and nothing recurses
  refused(std::string(4'000'001, 'N'), "takes more than 4000000 steps");
  // A list of 100,000 pairs made into a dict again and again.
  std::string bomb = "](";
  for (int i = 0; i < 100'000; ++i) bomb += "NN\x86";
  bomb += "eq\x01";
  for (int i = 0; i < 100; ++i) bomb += "ccollections\nOrderedDict\nh\x01\x85R";
  refused(bomb, "takes more than 4000000 steps");
}

TEST_CASE("files cut anywhere are refused; changed bytes do no harm, and the archive's checksums find those in tensors") {
  const io_test::Folder folder;
  const auto damaged = folder / "damaged.pth";
  st::Rng rng(1);
  for (const std::string_view name : {"zip.pth"sv, "zip64.pth"sv, "legacy_strided.pth"sv}) {
    const std::string whole = io_test::read_bytes(fixture(name));
    CAPTURE(name);
    REQUIRE(read_all(fixture(name)).empty());
    for (std::size_t length = 0; length < whole.size(); length += length < 200 || length + 400 > whole.size() ? 1 : 7) {
      if (whole.size() - length <= 4 && name == "zip64.pth"sv) continue;  // its comment
      io_test::write_bytes(damaged, std::string_view(whole).substr(0, length));
      CAPTURE(length);
      CHECK(read_all(damaged).starts_with(damaged.string()));
    }
    for (std::size_t at = 0; at < whole.size(); at += 2) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 + rng.below(255)));
      io_test::write_bytes(damaged, bytes);
      CAPTURE(at);
      const std::string text = read_all(damaged);
      CHECK((text.empty() || text.starts_with(damaged.string())));
    }
  }
  std::string bytes = io_test::read_bytes(fixture("zip.pth"));
  bytes[st::PytorchFile(fixture("zip.pth")).find("head.weight")->begin] ^= 1;
  io_test::write_bytes(damaged, bytes);
  io_test::Net net;
  io_test::number(net, 100);
  const auto before = io_test::numbers(net);
  CHECK(contains(file_error([&] { st::load_weights(damaged, net); }), "the checksum of its entry 'zip/data/0' does not agree"));
  CHECK(io_test::numbers(net) == before);
}
