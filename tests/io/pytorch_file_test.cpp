#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "io/io_test_net.hpp"
#include "io/pickle_words.hpp"
#include "strata/core/random.hpp"
#include "strata/io/detail/pickle.hpp"
#include "strata/io/weights.hpp"
#include "test_data.hpp"

namespace st = strata;
using io_test::contains;
using io_test::dict;
using io_test::file_error;
using io_test::pth;
using io_test::tensor;
using io_test::text;
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
                                      "parameters.pth"sv, "no_checksums.pth"sv, "zip64.pth"sv, "everyday.pth"sv,
                                      "legacy_everyday.pth"sv, "attributes.pth"sv, "malicious.pth"sv, "legacy_malicious.pth"sv}) {
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
  for (const std::string key : {"", "generator"}) {
    CHECK(st::load_weights(fixture("other_key.pth"), net, {.key = key}).key == "generator");
    CHECK(io_test::numbers(net) == counted());
  }
  CHECK(contains(file_error([&] { st::load_weights(fixture("other_key.pth"), net, {.key = "step"}); }),
                 "holds no state dict under 'step'. It is a dict with 0 tensors\n  'generator': dict with 7 tensors\n"
                 "  'step': int\nGive the key of a dict with tensors"));
  CHECK_THROWS_WITH_AS(st::load_weights(fixture("../layers.safetensors"), net, {.key = "params"}),
                       doctest::Contains("has no dict under the key 'params'"), st::ValueError);

  const io_test::Folder folder;
  const auto path = folder / "nested.pth";
  const auto key_of = [&](const std::string& object, const std::string& key = {}) {
    io_test::write_bytes(path, pth("(" + object + "t."));
    return st::PytorchFile(path, {.key = key}).key();
  };
  const auto refusal_of = [&](const std::string& object, const std::string& key = {}) {
    io_test::write_bytes(path, pth(object + "."));
    return file_error([&] { const st::PytorchFile file(path, {.key = key}); });
  };
  const auto dict_key = [&](const std::string& object, const std::string& key = {}) {
    io_test::write_bytes(path, pth(object + "."));
    return st::PytorchFile(path, {.key = key}).key();
  };
  const std::string state = dict({{"w", tensor()}}), none = dict({{"step", "N"}});
  for (const std::string usual : {"state_dict", "model_state_dict", "params_ema", "params", "model", "net", "network", "generator",
                                  "g_ema", "netG", "net_g", "model_state", "module", "weights"})
    CHECK(dict_key(dict({{"discriminator", state}, {usual, state}, {"loss", tensor()}})) == usual);
  CHECK(dict_key(dict({{"unusual", state}, {"optimizer", dict({{"state", none}})}})) == "unusual");
  CHECK(dict_key(dict({{"a", none}, {"b", dict({{"c", state}, {"d", none}})}})) == "b.c");
  CHECK(dict_key(dict({{"model", dict({{"state_dict", state}})}})) == "model.state_dict");
  CHECK(dict_key(dict({{"w", tensor()}, {"a", state}})) == "");
  const std::string two = dict({{"a", dict({{"b", state}})}, {"a.b", dict({{"c", state}})}, {"d", dict({{"e", state}})}});
  CHECK(dict_key(two, "a.b") == "a.b");
  CHECK(dict_key(two, "a.b.c") == "a.b.c");
  CHECK(contains(refusal_of(two), "holds no state dict. It is a dict with 0 tensors\n  'a': dict with 0 tensors\n  'a.b': dict with 0 tensors\n"
                                  "  'd': dict with 0 tensors\n  'a.b': dict with 1 tensors\n  'a.b.c': dict with 1 tensors\n"
                                  "  'd.e': dict with 1 tensors\nGive the key"));
  CHECK(contains(refusal_of(two, "a"), "holds no state dict under 'a'"));
  CHECK(contains(refusal_of(dict({{"a", state}, {"b", dict({{"w", tensor()}})}})), "holds no state dict. It is a dict"));
  CHECK_THROWS_AS(key_of(state), st::FileError);  // a tuple
  // Of equal keys the last counts, in the place of the first; a defaultdict is a dict; keys that are no text are passed over.
  io_test::write_bytes(path, pth("ccollections\ndefaultdict\nc__builtin__\nint\n\x85R(" + text("v") + "N" + text("w") + "N" +
                                 text("w") + tensor() + "u."));
  const st::PytorchFile again(path);
  REQUIRE(again.tensors().size() == 1);
  CHECK(again.find("w") != nullptr);
  CHECK(again.others().size() == 1);
  CHECK(dict_key("}(K\x03N" + text("net") + state + "u") == "net");
  CHECK(contains(refusal_of("}(K\x03N" + text("w") + tensor() + "u"), "with a key that is no str but a int"));

  // What might have been meant as well is said.
  const auto notes = st::load_weights(fixture("ema.pth"), net).notes;
  REQUIRE(notes.size() == 1);
  CHECK(notes[0] == fixture("ema.pth").string() + ": 'params_ema' is read; it has other dicts of tensors: 'params'");
}

TEST_CASE("what nobody asks for does no harm, and nothing is run") {
  for (const std::string_view name : {"malicious.pth"sv, "legacy_malicious.pth"sv}) {
    io_test::Net net;
    const st::LoadReport report = st::load_weights(fixture(name), net);
    CHECK(report.notes == std::vector{fixture(name).string() + ": names Python code, none of which was run: 'posix.system'"});
    CHECK_FALSE(std::filesystem::exists("strata_was_here"));
  }
  const st::PytorchFile everyday(fixture("everyday.pth"));
  CHECK(everyday.unknown_names().size() == 16);
  CHECK(everyday.unknown_names()[0] == "'collections.Counter'");

  // Tensors of other types and kinds: refused by name, when they are wanted.
  for (const std::string_view name : {"other_tensors.pth"sv, "legacy_other_tensors.pth"sv}) {
    CAPTURE(name);
    io_test::Net net;
    std::vector<std::string> unused{"half_precision", "five", "sparse", "quantised", "array"};
    if (name == "other_tensors.pth"sv) unused.push_back("meta");
    st::load_weights(fixture(name), net, {.ignore = unused});
    CHECK(io_test::numbers(net) == counted());
    const std::string text = file_error([&] { st::load_weights(fixture(name), net); });
    CHECK(contains(text, "half_precision.scale (is of the type torch.float8_e4m3fn, which is not read: convert it to float32"));
    CHECK(contains(text, "half_precision.complex (is of the type torch.ComplexFloatStorage, which"));
    CHECK(contains(text, "half_precision.double (is of the type torch.ComplexDoubleStorage, which"));
    CHECK(contains(text, "half_precision.unsigned (is of the type torch.uint64, which"));
    CHECK(contains(text, "five.extents (has 5 extents (1x2x1x1x1), and at most 4 are supported)"));
    CHECK(contains(text, "'sparse.rows' (an object of 'torch._utils._rebuild_sparse_tensor', no tensor)"));
    CHECK(contains(text, "'quantised' (an object of 'torch._utils._rebuild_qtensor', no tensor)"));
    CHECK(contains(text, "'array' (an object of 'numpy"));
    const st::PytorchFile file(fixture(name));
    CHECK(contains(file_error([&] { (void)file.read<float>(*file.find("half_precision.scale")); }),
                   "tensor 'half_precision.scale' is of the type torch.float8_e4m3fn"));
    CHECK(contains(file_error([&] { (void)file.read<float>(*file.find("five.extents")); }), "has 5 extents"));
    for (const auto& [other, said] : {std::pair("half_precision.scale", "the file's half_precision.scale (is of the type torch.float8_e4m3fn"),
                                      std::pair("quantised", "the file's 'quantised' is an object of 'torch._utils._rebuild_qtensor', and no")}) {
      const std::string wanted = file_error([&] {
        st::load_weights(fixture(name), net, {.rename = {{"head.bias", "unused"}, {other, "head.bias"}}});
      });
      CHECK(contains(wanted, "different (1):\n    " + std::string(said)));
      CHECK_FALSE(contains(wanted, "missing from the file"));
    }
  }
  const st::PytorchFile numbers(fixture("numbers.pth"));
  CHECK(numbers.read<float>(*numbers.find("mask")).data()[0] == 1.0f);
  CHECK(numbers.read<std::int64_t>(*numbers.find("bytes")).data()[1] == 255);
  CHECK(numbers.read<std::int64_t>(*numbers.find("unsigned")).data()[1] == 65535);
  CHECK(numbers.read<float>(*numbers.find("expanded")).data()[5] == 1.0f);
}

TEST_CASE("a file in which something else stands for the weights is refused by name") {
  for (const std::string_view name : {"whole_module.pth"sv, "legacy_whole_module.pth"sv})
    CHECK(contains(refusal(name), ": holds '__main__.Net': it looks like a whole network, pickled with its Python class"));
  CHECK(contains(refusal("whole_torch_module.pth"), ": holds 'torch.nn.modules.activation.ReLU': it looks like a whole network"));
  CHECK(contains(refusal("torchscript.pth"), "is a TorchScript program"));
  CHECK(contains(refusal("compressed.pth"), "has compressed entries"));
  CHECK(contains(refusal("no_tensors.pth"), "holds no state dict. It is a dict with 0 tensors\n  'epoch': int\n  'names': list"));
  CHECK(contains(file_error([] { const st::PytorchFile file(fixture("../layers.safetensors")); }), "is not a file of torch.save"));

  const io_test::Folder folder;
  const auto path = folder / "object.pth";
  const auto refused = [&](const std::string& object) {
    io_test::write_bytes(path, pth(object + "."));
    return file_error([&] { const st::PytorchFile file(path); });
  };
  CHECK(contains(refused("cos\nsystem\n" + text("id") + "\x85R"), "holds 'os.system', and only tensors"));
  CHECK(contains(refused("cos\n\x1b[2J\x07\n)R"), "holds 'os.?[2J?', and only tensors"));
  CHECK(contains(refused(dict({{"net", "cmodels\nUNet\n)\x81}b"}, {"epoch", "K\x01"}})), "'net': an object of 'models.UNet'"));
  CHECK(contains(refused(dict({{"net", "c__main__\nUNet\n)\x81}b"}})), "holds '__main__.UNet': it looks like a whole network"));
  CHECK(contains(refused(tensor()), "holds no state dict. It is a tensor"));
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
  refused("0.", "takes a value where there is none");
  refused("t.", "takes a mark where there is none");
  refused("Na.", "where there is none");
  refused("NNa.", "has a None where a list belongs");
  refused("}(Nu.", "key without a value");
  refused("(Nd.", "key without a value");
  refused("h\x01.", "recalls a value that it has not stored");
  refused("X\xFF\xFF\xFF\xFF" "a.", "cut short");
  refused("\x8d\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF.", "cut short");
  refused("I1\n.", "of protocol 0 or 1");
  refused("cos\nsystem", "cut short");
  refused("NN\x93.", "has a None where a");
  refused("N)R.", "has a None where something to call belongs");
  refused("ccollections\nOrderedDict\nNR.", "has a None where a tuple of arguments belongs");
  refused("NNb.", "has a None where a dict belongs");
  refused("NQ.", "has a None where a storage belongs");
  refused("(N\x90.", "takes a value where there is none");
  refused("](N\x90.", "has a list where a set belongs");
  refused("]}b.", "has a list where a dict belongs");
  refused("(o.", "takes a value where there is none");
  refused("ctorch._utils\n_rebuild_tensor_v2\n)R.", "without storage, offset, shape and stride");
  refused("ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR."sv, "has a None where a tensor's storage belongs");
  CHECK(pickle_error("]q\x00h\x00" "a."sv).empty());  // a list that contains itself
  CHECK(pickle_error(std::string(100'000, '(') + std::string(100'000, 't') + ".").empty());  // deep, and nothing recurses
  // Whatever a pickle names or makes of it in protocols 2 to 5 is read to its end.
  for (const std::string_view fine :
       {"cos\nsystem\n)R."sv, "cbuiltins\neval\n."sv, "X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93."sv, "\x8f(K\x01K\x02\x90."sv,
        "(K\x01\x91."sv, "ca\nB\n)\x81}b."sv, "ca\nB\n)}\x92N\x86."sv, "ca\nB\n)R(NNe(NNu(N\x90Na."sv, "(ca\nB\nNo."sv, "(Nia\nB\n."sv,
        "\x82\x01)R."sv, "\x83\x01\x02)R."sv, "\x84\x01\x02\x03\x04)R."sv, "ca\nB\n)RN\x85R."sv, "\x96\x01\x00\x00\x00\x00\x00\x00\x00z."sv,
        "\x97\x98."sv, "B\x01\x00\x00\x00z."sv, "\x8a\x0a"
        "0123456789."sv,
        "ccollections\nOrderedDict\nN\x85R."sv, "ccollections\nOrderedDict\n]Na\x85R."sv, "ctorch\nQInt8Storage\n."sv, "N(0."sv,
        "ctorch._tensor\n_rebuild_from_type_v2\n(NNNNtR."sv, "ca\nB\n}b."sv, "ca\nB\n)\x81q\xff"
        "0h\xff."sv})
    CHECK(pickle_error(fine) == "");
  refused(std::string(4'000'001, 'N'), "takes more than 4000000 steps");
  // A list of 100,000 pairs made into a dict again and again.
  std::string bomb = "](";
  for (int i = 0; i < 100'000; ++i) bomb += "NN\x86";
  bomb += "eq\x01";
  for (int i = 0; i < 100; ++i) bomb += "ccollections\nOrderedDict\nh\x01\x85R";
  refused(bomb, "copies more items than it has bytes");
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
  const st::PytorchFile whole(fixture("zip.pth"));
  bytes[whole.find("head.weight")->begin] ^= 1;
  io_test::write_bytes(damaged, bytes);
  io_test::Net net;
  io_test::number(net, 100);
  const auto before = io_test::numbers(net);
  CHECK(contains(file_error([&] { st::load_weights(damaged, net); }), "the checksum of its entry 'zip/data/0' does not agree"));
  CHECK(io_test::numbers(net) == before);
}
