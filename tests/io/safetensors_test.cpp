#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string_view>
#include <tuple>

#include "io/io_test_net.hpp"
#include "strata/core/random.hpp"
#include "strata/io/safetensors.hpp"

namespace st = strata;
using io_test::contains;
using io_test::file_bytes;
using io_test::file_error;
using namespace std::string_view_literals;

namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::uint32_t slow_crc32c(std::string_view text) {
  std::uint32_t crc = 0xFFFFFFFFu;
  for (const char c : text) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1u) ? 0x82F63B78u : 0u);
  }
  return ~crc;
}

std::string with_entry(std::string_view entry) { return st::concat("{\"a\":", entry, "}"); }

}  // namespace

TEST_CASE("crc32c") {
  CHECK(st::crc32c(bytes_of("123456789")) == 0xE3069283u);  // RFC 3720 and every catalogue of CRCs
  std::string text;
  for (int i = 0; i < 100; ++i) {
    CHECK(st::crc32c(bytes_of(text)) == slow_crc32c(text));
    const std::size_t cut = text.size() / 3;
    const std::string_view view = text;
    CHECK(st::crc32c(bytes_of(view.substr(cut)), st::crc32c(bytes_of(view.substr(0, cut)))) ==
          slow_crc32c(text));
    text += static_cast<char>(i * 37);
  }
}

TEST_CASE("tensors come back as they were, aligned, in PyTorch's order in the file") {
  const io_test::Folder folder;
  const auto path = folder / "a.safetensors";
  st::Tensor<float> conv(st::Shape{2, 3, 1, 2});  // memory: O, KH, KW, I
  for (int i = 0; i < 12; ++i) conv.data()[i] = float(i);
  const st::AnyTensor tensors[] = {conv, st::Tensor<std::int64_t>::full(st::Shape{}, -7),
                                   st::Tensor<double>::full(st::Shape{3}, 0.1), st::Tensor<float>(st::Shape{0, 4})};
  const st::Metadata metadata{{"note \"quoted\"\n", "caf\xC3\xA9 \\ \x01"}, {"epoch", "3"}};
  st::write_safetensors(
      path, {{"conv", &tensors[0]}, {"count", &tensors[1]}, {"d", &tensors[2]}, {"none", &tensors[3]}}, metadata);
  CHECK(folder.files() == 1);
  const st::SafetensorsFile file(path);
  CHECK(file.metadata() == metadata);
  CHECK(file.tensors().size() == 4);
  std::uint64_t header_bytes = 0;
  const std::string bytes = io_test::read_bytes(path);
  std::memcpy(&header_bytes, bytes.data(), 8);
  CHECK(header_bytes % 8 == 0);
  for (const st::TensorInfo& tensor : file.tensors()) {
    CAPTURE(tensor.name);
    CHECK(tensor.begin % std::uint64_t(st::detail::row_of(tensor.dtype).bytes) == 0);
  }
  const st::TensorInfo& info = *file.find("conv");
  CHECK(info.shape == st::Shape{2, 3, 1, 2});
  const auto back = file.read<float>(info);
  for (int i = 0; i < 12; ++i) CHECK(back.data()[i] == float(i));
  float second = 0;  // (o, i, kh, kw) = (0, 0, 0, 1), the second in the file, lies at 3 in memory
  std::memcpy(&second, bytes.data() + 8 + header_bytes + info.begin + 4, 4);
  CHECK(second == 3.0f);
  CHECK(file.read<std::int64_t>(*file.find("count")).data()[0] == -7);
  CHECK(file.read<double>(*file.find("d")).data()[2] == 0.1);
  CHECK(file.read<float>(*file.find("d")).data()[2] == 0.1f);
  CHECK(file.read<float>(*file.find("none")).empty());
  CHECK(file.find("nothing") == nullptr);
  CHECK(contains(file_error([&] { (void)file.read<std::int64_t>(info); }), "whole numbers"));
  CHECK_FALSE(file.has_checksum());
  CHECK(contains(file_error([&] { file.verify_checksum(); }), "has no checksum"));
}

TEST_CASE("all types are converted") {
  const io_test::Folder folder;
  const auto path = folder / "types.safetensors";
  const auto read_as = [&](std::string_view type, std::string_view data, int count) {
    const std::string header = st::concat("{\"x\":{\"dtype\":\"", type, "\",\"shape\":[", count,
                                          "],\"data_offsets\":[0,", data.size(), "]}}");
    io_test::write_bytes(path, file_bytes(header, 0) + std::string(data));
    const st::SafetensorsFile file(path);
    const auto tensor = file.read<double>(*file.find("x"));
    return std::vector<double>(tensor.span().begin(), tensor.span().end());
  };
  using namespace std::string_view_literals;
  using Values = std::vector<double>;
  CHECK(read_as("U8", "\x00\xFF"sv, 2) == Values{0, 255});
  CHECK(read_as("I8", "\x80\x7F"sv, 2) == Values{-128, 127});
  CHECK(read_as("BOOL", "\x00\x01\x02"sv, 3) == Values{0, 1, 1});
  CHECK(read_as("I16", "\x00\x80"sv, 1) == Values{-32768});
  CHECK(read_as("I32", "\xFF\xFF\xFF\xFF"sv, 1) == Values{-1});
  CHECK(read_as("BF16", "\x80\x3F\x00\xC0"sv, 2) == Values{1, -2});
  // 1, -2, the largest (65504), the smallest normal 2^-14, the smallest 2^-24, -2^-24
  CHECK(read_as("F16", "\x00\x3C\x00\xC0\xFF\x7B\x00\x04\x01\x00\x01\x80"sv, 6) ==
        Values{1, -2, 65504, 0x1p-14, 0x1p-24, -0x1p-24});
  const Values special = read_as("F16", "\x00\x7C\x00\xFC\x01\x7E\x00\x80"sv, 4);
  CHECK(special[0] == std::numeric_limits<double>::infinity());
  CHECK(special[1] == -std::numeric_limits<double>::infinity());
  CHECK(std::isnan(special[2]));
  CHECK((special[3] == 0 && std::signbit(special[3])));
}

TEST_CASE("headers that other programs may write are taken") {
  const io_test::Folder folder;
  const auto path = folder / "a.safetensors";
  const auto open = [&](std::string_view header, std::size_t data_bytes) {
    io_test::write_bytes(path, file_bytes(header, data_bytes));
    return st::SafetensorsFile(path);
  };
  CHECK(open("{}", 0).tensors().empty());
  CHECK(open("{ }  \n", 0).tensors().empty());
  CHECK(open("{\"__metadata__\":{}}", 0).metadata().empty());
  // not in the order of their places, with space, keys in another order, escapes in the name
  const auto file = open(R"({"b" : {"shape":[ 2 ], "data_offsets":[4, 6],"dtype":"U8"},
    "\u00e9\ud83d\ude00\"\\\/\b\f\n\r\t": {"dtype":"F32","shape":[],"data_offsets":[0,4]},
    "z":{"dtype":"F32","shape":[0,9],"data_offsets":[4,4]}}     )", 6);
  REQUIRE(file.tensors().size() == 3);
  CHECK(file.tensors()[0].name == "\xC3\xA9\xF0\x9F\x98\x80\"\\/\b\f\n\r\t");
  CHECK(file.tensors()[0].shape == st::Shape{});
  CHECK(file.tensors()[1].name == "z");
  CHECK(file.tensors()[2].name == "b");
}

TEST_CASE("what the reference implementation takes is taken; types and extents that are not read matter when asked for") {
  const io_test::Folder folder;
  const auto path = folder / "a.safetensors";
  const auto open = [&](std::string_view header, std::size_t data_bytes) {
    io_test::write_bytes(path, file_bytes(header, data_bytes));
    return st::SafetensorsFile(path);
  };
  CHECK(open(R"({"__metadata__": null})", 0).metadata().empty());
  const std::string extras = R"("strides":[1],"n":null,"o":{"a":[{},[],{"b":[1,-2.5e+3,0,true]}],"c":"\"}"},"t" : false , "e":1E5)";
  const auto file = open(st::concat(R"({"a":{"dtype":"F32",)", extras, R"(,"shape":[1],"data_offsets":[0,4]},)", R"("b":{"shape":[2],)",
                                    extras, R"(,"data_offsets":[4,6],"dtype":"U8"}})"), 6);
  REQUIRE(file.tensors().size() == 2);
  CHECK(file.find("b")->shape == st::Shape{2});

  int count = 0;
  for (const auto& [type, shape, bytes] :
       {std::tuple("F4", "[2,3]", 3), {"F6_E2M3", "[4]", 3}, {"F6_E3M2", "[8]", 6}, {"F8_E5M2", "[3]", 3}, {"F8_E4M3", "[3]", 3},
        {"F8_E8M0", "[]", 1}, {"F8_E4M3FNUZ", "[1]", 1}, {"F8_E5M2FNUZ", "[1]", 1}, {"C64", "[2]", 16}, {"U64", "[2]", 16},
        {"F32", "[1,2,1,1,1]", 8}, {"F32", "[1,2,1,1,1,0]", 0}}) {
    CAPTURE(type);
    const auto other = open(st::concat("{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"x\":{\"dtype\":\"", type,
                                       "\",\"shape\":", shape, ",\"data_offsets\":[8,", 8 + bytes, "]}}"), std::size_t(8 + bytes));
    CHECK(other.read<float>(*other.find("w")).size() == 2);
    const std::string text = file_error([&] { (void)other.read<float>(*other.find("x")); });
    CHECK(contains(text, type == "F32"sv ? "tensor 'x' has "sv : "tensor 'x' is of the type "sv));
    CHECK((contains(text, type) || contains(text, "1x2x1x1x1")));
    ++count;
  }
  CHECK(count == 12);
  const auto whole = open(R"({"a":{"dtype":"U16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"U32","shape":[1],"data_offsets":[4,8]}})", 8);
  CHECK(whole.read<std::int64_t>(*whole.find("a")).data()[1] == 0x101);
  CHECK(whole.read<double>(*whole.find("b")).data()[0] == 0x1010101);
}

TEST_CASE("headers that lie are file errors that begin with the path") {
  const io_test::Folder folder;
  const auto path = folder / "hostile.safetensors";
  const auto refused = [&](std::string_view header, std::size_t data_bytes, std::string_view reason) {
    io_test::write_bytes(path, file_bytes(header, data_bytes));
    const std::string text = file_error([&] { const st::SafetensorsFile file(path); });
    CAPTURE(header);
    CAPTURE(text);
    CHECK(text.starts_with(path.string()));
    CHECK(contains(text, reason));
  };
  const std::string deep(100'000, '[');
  refused("", 0, "does not begin with '{'");
  refused(" {}", 0, "does not begin with '{'");
  refused("[]", 0, "does not begin with '{'");
  refused("{", 0, "wanted '\"'");
  refused("{}}", 0, "after the closing brace");
  refused(std::string_view("{}\0", 3), 0, "after the closing brace");
  refused("{\"a\"}", 0, "wanted ':'");
  refused("{\"a\":1}", 0, "wanted '{'");
  refused(with_entry(deep), 0, "wanted '{'");
  refused(with_entry("{\"shape\":" + deep), 0, "whole number");
  refused(with_entry("{\"shape\":[1,[2]]"), 0, "whole number");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},})", 4, "wanted '\"'");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],}})", 4, "wanted '\"'");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "wanted ','");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4, "wanted ']'");
  refused(R"({"a":{"dtype":"F32","shape":[1]}})", 4, "wanted dtype, shape and data_offsets");
  refused(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "a key twice");
  refused(R"({"a":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}})", 4, "type 'F7' is not known");
  refused(R"({"a":{"dtype":"other","shape":[1],"data_offsets":[0,4]}})", 4, "type 'other' is not known");
  refused(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1, "does not take");
  refused(R"({"a":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,4]}})", 4, "shape 3 does not take the 4 bytes");
  refused(R"({"__metadata__":nul})", 0, "wanted '{'");
  refused(R"({"__metadata__":{"a":null}})", 0, "wanted '\"'");
  for (const std::string_view value : {"", "nul", "+1", "01", "1.", ".5", "1e", "-", "[1", "[1,]", "[,1]", "{1:2}", "{\"a\":}", "{\"a\" 1}",
                                       "{\"a\":1,}", "[}", "{]", "\"", "'a'", "NaN", "[1 2]"})
    refused(st::concat("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"extra\":", value, "}}"), 4, "not a valid");
  refused(st::concat("{\"a\":{\"x\":", std::string(130, '['), std::string(130, ']'), "}}"), 0, "nested more than 120 deep");
  refused(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "whole number of at least 0");
  refused(R"({"a":{"dtype":"F32","shape":[01],"data_offsets":[0,4]}})", 4, "leading zero");
  refused(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "wanted ']'");
  refused(R"({"a":{"dtype":"F32","shape":[1e9],"data_offsets":[0,4]}})", 4, "wanted ']'");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,-4]}})", 4, "whole number of at least 0");
  refused(R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}})", 4, "above 2^63 - 1");
  refused(R"({"a":{"dtype":"F32","shape":[99999999999999999999999],"data_offsets":[0,4]}})", 4, "above 2^63 - 1");
  refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4, "63 bits");
  refused(R"({"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}})", 4, "does not take");
  refused(R"({"a":{"dtype":"F32","shape":[1,1,1,1,2],"data_offsets":[0,4]}})", 4, "shape 1x1x1x1x2 does not take");
  refused(R"({"a":{"dtype":"F32","shape":[1,1,1,1,4294967296,4294967296],"data_offsets":[0,4]}})", 4, "63 bits");
  refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "does not take");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "ends before it begins");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "gap");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3, "cut short");
  refused(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "bytes too many");
  refused(R"({"a":{"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}})", 4,
          "cut short");
  refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
              "b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})", 6, "overlap");
  refused(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
              "b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4, "overlap");
  refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
              "\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "the name 'a' twice");
  refused(R"({"__metadata__":{"a":"1","a":"2"}})", 0, "metadata key twice");
  refused(R"({"__metadata__":{},"__metadata__":{}})", 0, "twice");
  refused(R"({"__metadata__":{"a":1}})", 0, "wanted '\"'");
  refused(R"({"__metadata__":{"a":{"b":"c"}}})", 0, "wanted '\"'");
  refused("{\"a\n\":{}}", 0, "control character");
  refused("{\"\xFF\":{}}", 0, "invalid UTF-8");
  refused("{\"\xC3\":{}}", 0, "invalid UTF-8");
  refused("{\"\xC0\x80\":{}}", 0, "invalid UTF-8");          // two bytes for what fits one
  refused("{\"\xED\xA0\x80\":{}}", 0, "invalid UTF-8");      // half a surrogate pair
  refused("{\"\xF4\x90\x80\x80\":{}}", 0, "invalid UTF-8");  // beyond the last character
  refused(R"({"\ud800":{}})", 0, "surrogate");
  refused(R"({"\udc00":{}})", 0, "surrogate");
  refused(R"({"\ud800\u0041":{}})", 0, "surrogate");
  refused(R"({"\u00g0":{}})", 0, "hexadecimal");
  refused(R"({"\x":{}})", 0, "escape");
  refused("{\"\\", 0, "escape");
  refused("{\"\\u12", 0, "hexadecimal");
  refused("{\"abc", 0, "without end");
}

TEST_CASE("files that are no safetensors files are file errors") {
  const io_test::Folder folder;
  const auto path = folder / "a.safetensors";
  const auto text_of = [&] { return file_error([&] { const st::SafetensorsFile file(path); }); };
  CHECK(contains(text_of(), "cannot be opened"));
  CHECK(contains(file_error([&] { const st::SafetensorsFile file(folder / ""); }), "not a regular file"));
  io_test::write_bytes(path, "");
  CHECK(contains(text_of(), "too few"));
  io_test::write_bytes(path, std::string(8, '\xFF') + "{}");  // a header of 2^64 - 1 bytes
  CHECK(contains(text_of(), "cut short"));
  io_test::write_bytes(path, std::string("\0\0\0\0\0\0\0\x80{}", 10));
  CHECK(contains(text_of(), "cut short"));
  std::filesystem::resize_file(path, 200'000'000);  // sparse
  io_test::write_bytes(folder / "b", "");
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.write("\x01\xE1\xF5\x05\0\0\0\0", 8);  // 100,000,001
  }
  CHECK(contains(text_of(), "the limit is 100000000"));
}

TEST_CASE("a file cut anywhere is refused; changed bytes and random bytes do no harm, and a checksum finds them all") {
  const io_test::Folder folder;
  const auto path = folder / "whole.safetensors", damaged = folder / "damaged.safetensors";
  const st::AnyTensor tensors[] = {st::Tensor<float>::full(st::Shape{2, 1, 2, 1}, 1.5f),
                                   st::Tensor<std::int64_t>::full(st::Shape{}, 3)};
  st::write_safetensors(path, {{"a.weight", &tensors[0]}, {"b", &tensors[1]}}, {{"k", "v\n"}}, {.checksum = true});
  const std::string whole = io_test::read_bytes(path);
  REQUIRE_NOTHROW(st::SafetensorsFile(path).verify_checksum());
  const auto read_all = [&](bool verify) {
    return file_error([&] {
      const st::SafetensorsFile file(damaged);
      for (const st::TensorInfo& tensor : file.tensors()) (void)file.read<float>(tensor);
      if (verify) file.verify_checksum();
    });
  };
  for (std::size_t length = 0; length < whole.size(); ++length) {
    io_test::write_bytes(damaged, std::string_view(whole).substr(0, length));
    CAPTURE(length);
    CHECK(read_all(false).starts_with(damaged.string()));
  }
  st::Rng rng(1);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ static_cast<char>(1 + rng.below(255)));
    io_test::write_bytes(damaged, bytes);
    CAPTURE(at);
    CHECK(read_all(true).starts_with(damaged.string()));
  }
  for (int round = 0; round < 300; ++round) {  // several changes, only within the header
    std::string bytes = whole;
    for (int change = 0; change < 3; ++change)
      bytes[8 + rng.below(std::uint32_t(whole.size() - 8 - 16))] = "{}[]\",:0129-ae\\ \x80"[rng.below(18)];
    io_test::write_bytes(damaged, bytes);
    const std::string text = read_all(false);
    CHECK((text.empty() || text.starts_with(damaged.string())));
  }
  for (int round = 0; round < 100; ++round) {
    std::string bytes(rng.below(200), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
    if (round % 2 && bytes.size() > 8) {  // a header length that fits, so that the header is looked at
      bytes.replace(0, 8, std::string(8, '\0'));
      bytes[0] = static_cast<char>(bytes.size() - 8);
    }
    io_test::write_bytes(damaged, bytes);
    CHECK(read_all(false).starts_with(damaged.string()));
  }
}

TEST_CASE("writing: names twice, folders that are not there, and failures leave what was there") {
  const io_test::Folder folder;
  const auto path = folder / "a.safetensors";
  const st::AnyTensor tensor = st::Tensor<float>::full(st::Shape{2}, 1);
  CHECK_THROWS_AS(st::write_safetensors(path, {{"a", &tensor}, {"a", &tensor}}), st::ValueError);
  CHECK_THROWS_AS(st::write_safetensors(path, {{"__metadata__", &tensor}}), st::ValueError);
  CHECK_THROWS_AS(st::write_safetensors(path, {{"\xFF", &tensor}}), st::ValueError);
  CHECK(folder.files() == 0);
  CHECK(contains(file_error([&] {
                   st::write_safetensors(folder / "no/a", {{"a", &tensor}});
                 }),
                 "no/a: cannot be written: there is no folder"));
  st::write_safetensors(path, {{"a", &tensor}});
  const std::string before = io_test::read_bytes(path);
  {
    st::AtomicFile file(path);
    file.write(bytes_of("half a fi"));  // and no commit
  }
  CHECK(io_test::read_bytes(path) == before);
  CHECK(folder.files() == 1);
  st::AtomicFile file(path);
  file.write(bytes_of("new"));
  file.commit(true);
  CHECK(io_test::read_bytes(path) == "new");
  CHECK(io_test::read_bytes(st::previous_path(path)) == before);
  CHECK(folder.files() == 2);
}
