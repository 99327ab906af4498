// What a file can make its reader do: bounded memory, bounded time, and when memory runs out an error with nothing
// changed.
#include <doctest/doctest.h>

#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "failing_allocator.hpp"
#include "io/io_test_net.hpp"
#include "io/pickle_words.hpp"
#include "strata/core/random.hpp"
#include "strata/io/checkpoint.hpp"
#include "strata/optim/sgd.hpp"
#include "test_data.hpp"

namespace st = strata;
using io_test::contains;
using io_test::dict;
using io_test::pth;
using io_test::tensor;
using io_test::text;
using namespace std::string_literals;

namespace {

#if defined(STRATA_ADDRESS_SANITIZER) || defined(__SANITIZE_THREAD__)
constexpr bool counts_memory = false;  // the sanitizer takes some itself
#else
constexpr bool counts_memory = true;
#endif

/// Where writing a file to the disk takes no time: here thousands are.
std::filesystem::path quick_place() {
  std::error_code ignored;
  return std::filesystem::is_directory("/dev/shm", ignored) ? "/dev/shm" : std::filesystem::temp_directory_path();
}

struct Cost {
  std::string error;        ///< of the FileError; empty: none
  std::size_t bytes = 0;    ///< taken at most, from before
  double seconds = 0;       ///< of the processor
};

/// Opens a file and reads its tensors, in a process of its own.
Cost cost_of(const std::filesystem::path& path) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const ::pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const auto resident = [] {
      ::rusage usage{};
      ::getrusage(RUSAGE_SELF, &usage);
      return std::size_t(usage.ru_maxrss) * 1024;
    };
    ::alarm(60);  // what takes a whole minute is never to end
    const std::size_t before = resident();
    const std::string error = io_test::file_error([&] {
      const st::WeightsFile file(path);
      for (const st::TensorInfo& tensor : file.tensors())
        if (tensor.unreadable.empty()) (void)file.read<float>(tensor);
      file.verify_checksums();
    });
    const std::string said = std::to_string(resident() - before) + " " + error.substr(0, 1000);
    const bool written = ::write(ends[1], said.data(), said.size()) == ssize_t(said.size());
    ::_exit(written ? 0 : 1);
  }
  ::close(ends[1]);
  std::string said(2000, '\0');
  const ssize_t count = ::read(ends[0], said.data(), said.size());
  ::close(ends[0]);
  int status = 0;
  ::rusage usage{};
  ::wait4(child, &status, 0, &usage);
  const auto seconds = [](const ::timeval& time) { return double(time.tv_sec) + double(time.tv_usec) * 1e-6; };
  if (count <= 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) return {"it crashed, or took a minute", 0, 60};
  said.resize(std::size_t(count));
  const std::size_t space = said.find(' ');
  return {said.substr(space + 1), std::stoul(said), seconds(usage.ru_utime) + seconds(usage.ru_stime)};
}

std::string repeated(std::string_view what, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += what;
  return out;
}
/// The same with four letters that are others each time in the place of "####".
std::string counted(std::string_view what, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) {
    std::string one(what);
    const std::size_t at = one.find("####");
    for (std::size_t k = 0; k < 4; ++k) one[at + k] = static_cast<char>('a' + ((i >> (4 * k)) & 15u));
    out += one;
  }
  return out;
}
/// A whole number of 4 bytes, as instructions have it.
std::string word(std::size_t value) {
  std::string out;
  for (int i = 0; i < 4; ++i) out += static_cast<char>((value >> (8 * i)) & 255u);
  return out;
}

}  // namespace

TEST_CASE("no file takes more than a small multiple of its length of memory, nor more than a moment") {
  const io_test::Folder folder(quick_place());
  const std::string tensor_parts =  // 0: a storage, 1: a shape of 64 extents, 2: (function, arguments)
      "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") + "K\x03tQq\0"s + "0(K\1K\1K\1K\1" +
      repeated("\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", 60) +
      "tq\1"
      "0(h\0K\0h\1h\1\x89Ntq\2"
      "0ctorch._utils\n_rebuild_tensor_v2\nq\3"
      "0"s;
  const std::string key(60'000, 'k');
  const std::string pairs = "](" + repeated("NN\x86", 8'000) + "eq\1" "0";
  std::string far;
  for (std::size_t i = 0; i < 15'000; ++i) far += "r" + word(i * 280'001);
  const std::vector<std::pair<std::string, std::string>> pickles{
      {"a storage named often, its key long", "(" + text("storage") + "ctorch\nFloatStorage\nX" + word(key.size()) +
                                                  key + text("cpu") +
                                                  "K\3tq\0"
                                                  "0"s +
                                                  repeated("h\0Q0"s, 15'000) + "}"},
      {"tensors of that storage", "(" + text("storage") + "ctorch\nFloatStorage\nX" + word(key.size()) + key +
                                      text("cpu") +
                                      "K\3tQq\0"
                                      "0)q\1"
                                      "0(h\0K\0h\1h\1\x89Ntq\2"
                                      "0ctorch._utils\n_rebuild_tensor_v2\nq\3"
                                      "0}("s +
                                      counted(text("####") + "h\3h\2R"s, 8'000) + "u"},
      {"a dict that holds itself", "}q\0("s + counted(text("####") + "h\0"s, 10'000) + "u"},
      {"dicts in dicts in dicts",
       "}q\0("s + counted(text("####") + "N", 2'500) + "u0}q\1("s + counted(text("####") + "h\0"s, 2'500) + "u0}q\2("s +
           counted(text("####") + "h\1"s, 2'500) + "u0}("s + counted(text("####") + "h\2"s, 2'500) + "u"},
      {"lists", "(" + repeated("]", 100'000) + "1}"},
      {"dicts", "(" + repeated("}", 100'000) + "1}"},
      {"sets", "(" + repeated("\x8f", 100'000) + "1}"},
      {"tuples in tuples", "N" + repeated("\x85", 100'000) + "0}"},
      {"lists in lists", "(]" + repeated("]a", 50'000) + "1}"},
      {"marks", repeated("(", 100'000) + repeated("1", 100'000) + "}"},
      {"copies of a value", "(N" + repeated("2", 100'000) + "1}"},
      {"numbers", "(" + repeated("K\1", 50'000) + "1}"},
      {"texts", "(" + repeated("\x8c\0"s, 50'000) + "1}"},
      {"values stored under the next number", "N" + repeated("\x94", 100'000) + "0}"},
      {"values stored under far numbers", "N" + far + "0}"},
      {"names", "(" + repeated("c\n\n", 30'000) + "1}"},
      {"objects", "(ca\nb\nq\0)q\1"s + repeated("h\0h\1R"s, 20'000) + "1}"},
      {"storages", "(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") +
                       "K\3tq\0"
                       "0("s +
                       repeated("h\0Q"s, 30'000) + "1}"},
      {"tensors of many extents", "(" + tensor_parts + repeated("h\3h\2R"s, 20'000) + "1}"},
      {"a dict of tensors of many extents", tensor_parts + "}("s + counted(text("####") + "h\3h\2R"s, 10'000) + "u"},
      {"a dict of one tensor, often", tensor() +
                                          "q\0"
                                          "0}("s +
                                          counted(text("####") + "h\0"s, 12'000) + "u"},
      {"a dict of objects of a long name", tensor() +
                                               "q\1"
                                               "0c" +
                                               std::string(100, 'm') + "\n" + std::string(100, 'n') + "\n)R" +
                                               "q\0"
                                               "0}("s +
                                               text("t") + "h\1"s + counted(text("####") + "h\0"s, 12'000) + "u"},
      {"an OrderedDict of a list, again and again", pairs +
                                                        "ccollections\nOrderedDict\nq\2"
                                                        "0h\1\x85q\3"
                                                        "0"s +
                                                        repeated("h\2h\3R0"s, 12'000) + "}"},
      {"one item at a time for two dicts",
       "}q\0"
       "0}q\1"
       "0"s +
           repeated("h\0NNs0h\1NNs0"s, 10'000) + "}"},
  };
  const auto check = [&](const std::string& name, const std::string& bytes, std::size_t more = 4u << 20) {
    CAPTURE(name);
    const auto path = folder / "bomb";
    io_test::write_bytes(path, bytes);
    const Cost cost = cost_of(path);
    CAPTURE(cost.error);
    CAPTURE(double(cost.bytes) / double(bytes.size()));
    if (counts_memory) CHECK(cost.bytes < 64 * bytes.size() + more);  // 43 at most when this was written
    CHECK(cost.seconds < 10);
    return cost.error;
  };
  for (const auto& [name, object] : pickles) {
    check(name, pth(object + "."));
    if (contains(name, "storage") || contains(name, "tensor"))
      check(name + ", in an archive",
            io_test::zip({{"archive/data.pkl", "\x80\x02" + object + "."}, {"archive/data/0", std::string(12, '\1')}}));
  }
  // The limit for elements that are repeated: 4 million, here 65535 times 60.
  const std::string expanded = tensor().substr(0, tensor().size() - 12) +
                               "K\0M\xff\xffM\x3c\0\x86K\0K\0\x86\x89NtRq\0"
                               "0}("s;
  CHECK(check("tensors that repeat their elements", pth(expanded + counted(text("####") + "h\0"s, 3) + "u."),
              70u << 20) == "");
  check("metadata", io_test::file_bytes("{\"__metadata__\":{\"a\":\"\"" + counted(",\"####\":\"\"", 10'000) + "}}", 0));
  check(
      "tensors of no element",
      io_test::file_bytes("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}" +
                              counted(",\"####\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", 2'500) + "}",
                          0));
  check("values that are passed over",
        io_test::file_bytes("{\"a\":{\"x\":[0" + repeated(",[[[{\"a\":[]}]]]", 10'000) +
                                "],\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                            0));
}

TEST_CASE("archives that lie about their entries are refused before anything is read or taken") {
  const io_test::Folder folder(quick_place());
  const auto path = folder / "lie.pth";
  const std::string pickle = "\x80\x02" + dict({{"w", tensor()}}) + ".", numbers(12, '\1');
  const auto refused = [&](const std::vector<io_test::ZipEntry>& entries) {
    io_test::write_bytes(path, io_test::zip(entries));
    const Cost cost = cost_of(path);
    if (counts_memory) CHECK(cost.bytes < (4u << 20));
    return cost.error;
  };
  using io_test::ZipEntry;
  CHECK(refused({ZipEntry{"a/data.pkl", pickle}, ZipEntry{"a/data/0", numbers}}) == "");
  CHECK(refused({ZipEntry{"a/data.pkl", pickle}, ZipEntry{.name = "a/data/0", .data = numbers, .wide = true}}) == "");
  for (const bool wide : {false, true})
    for (const std::uint64_t size : {std::uint64_t{1} << 31, std::uint64_t{1} << 62, ~std::uint64_t{0} - 1}) {
      if (!wide && size > 0xFFFFFFFFu) continue;
      CAPTURE(size);
      CHECK(contains(refused({ZipEntry{.name = "a/data.pkl", .data = pickle, .size = size, .wide = wide},
                              ZipEntry{"a/data/0", numbers}}),
                     "is not inside the first"));
      CHECK(contains(refused({ZipEntry{"a/data.pkl", pickle},
                              ZipEntry{.name = "a/data/0", .data = numbers, .size = size, .wide = wide}}),
                     "is not inside the first"));
      CHECK(contains(refused({ZipEntry{"a/data.pkl", pickle},
                              ZipEntry{.name = "a/data/0", .data = numbers, .size = size, .method = 8, .wide = wide}}),
                     "is not inside the first"));
      CHECK(contains(refused({ZipEntry{"a/data.pkl", pickle},
                              ZipEntry{.name = "a/data/0", .data = numbers, .header = size, .wide = wide}}),
                     "is not inside the first"));
    }
  CHECK(contains(refused({ZipEntry{"a/data.pkl", pickle}, ZipEntry{.name = "a/data/0", .data = numbers, .method = 8}}),
                 "its entry 'a/data/0' is compressed, and torch.save does not compress"));
  CHECK(contains(refused({ZipEntry{.name = "a/data.pkl", .data = pickle, .method = 8}, ZipEntry{"a/data/0", numbers}}),
                 "compressed entries"));
  CHECK(refused({ZipEntry{"a/data.pkl", pickle}, ZipEntry{"a/data/0", numbers},
                 ZipEntry{.name = "a/unused", .data = "x", .method = 8}}) == "");

  // Entries in each other: reading each would take any multiple of the file's length.
  std::string inside;
  std::vector<ZipEntry> nested{{"a/data.pkl", pickle}, {"a/data/0", ""}};
  const std::uint64_t begin =
      io_test::zip_header("a/data.pkl", 0).size() + pickle.size() + io_test::zip_header("a/data/0", 0).size();
  for (int i = 1; i < 1000; ++i) {
    const std::string name = st::concat("a/data/", i);
    nested.push_back({.name = name, .data = "", .size = 100'000, .header = begin + inside.size()});
    inside += io_test::zip_header(name, 100'000);
  }
  nested[1].data = inside + std::string(200'000, '\1');
  CHECK(contains(refused(nested), "two of its entries share the bytes at"));
  CHECK(contains(refused({ZipEntry{"a/data.pkl", pickle}, ZipEntry{.name = "a/data/0", .data = numbers, .header = 0}}),
                 "'a/data/0' has two names"));
}

TEST_CASE("memory that runs out at any moment is an error, and the network and the files are as they were") {
  const io_test::Folder folder(quick_place());
  const auto safetensors = folder / "net.safetensors", checkpoint = folder / "run.safetensors";
  io_test::Net given, net;
  io_test::number(given);
  st::SGD sgd(given, {.lr = 0.1, .momentum = 0.9}), other(net, {.lr = 0.2, .momentum = 0.9});
  st::for_each_parameter(given, [](const std::string&, st::Parameter& parameter) {
    parameter.zero_grad();
    const auto gradient = parameter.grad_target<float>();
    std::fill(gradient.data, gradient.data + parameter.size(), 0.0f);
  });
  sgd.step();  // it has a state now
  st::save_weights(safetensors, given, {{"a", "b"}});
  st::save_checkpoint(checkpoint, {.epoch = 7, .extra = {{"c", "d"}}}, given, sgd);
  const std::vector<double> wanted = io_test::numbers(given);

  /// Calls use() with every allocation failing in turn, until none does; each time it throws or not, check(done) looks.
  /// A reader says which file it was.
  const auto each_failure = [](const std::filesystem::path& read, auto&& use, auto&& check,
                               bool and_all_after = false) {
    for (long n = 1;; ++n) {
      CAPTURE(n);
      st::cpu_pool().trim();  // so that tensors ask for memory too
      bool done = false, failed = false;
      std::string text;
      try {
        const strata_test::FailNthAllocation failing(n, and_all_after);
        try {
          use();
          done = true;
        } catch (const std::bad_alloc&) {
          if (!read.empty()) text = "bad_alloc";
        } catch (const st::FileError& error) {
          try {
            text = error.what();
          } catch (const std::bad_alloc&) {
          }
        }
        failed = failing.failed();
      } catch (...) {
        FAIL("another exception than bad_alloc or Error");
      }
      if (!done && !read.empty()) CHECK(text == read.string() + ": cannot be read: there is not enough memory");
      check(done);
      if (!failed) {
        CHECK(done);
        CHECK(n > 20);
        return;
      }
      REQUIRE(n < 100'000);
    }
  };

  const auto golden = strata_test::golden("golden/pytorch");
  for (const auto& path : {safetensors, checkpoint, golden / "zip64.pth", golden / "legacy_strided.pth",
                           golden / "half.pth", golden / "weight_norm.pth", golden / "ema.pth"}) {
    CAPTURE(path.string());
    io_test::number(net, 100);
    const auto before = io_test::numbers(net);
    each_failure(path, [&] { st::load_weights(path, net); },
                 [&](bool done) {
                   CHECK((io_test::numbers(net) != before) == done);
                   io_test::number(net, 100);
                 });
  }
  const auto numbered = io_test::numbers(net);
  each_failure({}, [&] { st::load_weights(golden / "zip.pth", net); },
               [&](bool done) {
                 CHECK((io_test::numbers(net) != numbered) == done);
                 io_test::number(net, 100);
               },
               true);
  // An error stays one: what does not fit is never taken for something else.
  for (const auto& path : {golden / "spectral_norm.pth", golden / "five_extents.pth", golden / "whole_module.pth"}) {
    CAPTURE(path.string());
    const auto before = io_test::numbers(net);
    each_failure(
        {},
        [&] {
          bool loaded = true;
          try {
            st::load_weights(path, net);
          } catch (const st::FileError&) {
            loaded = false;
          }
          if (loaded) throw std::logic_error("it was loaded");
        },
        [&](bool) { CHECK(io_test::numbers(net) == before); });
  }
  io_test::number(net, 100);
  const auto before = io_test::numbers(net);
  each_failure(
      checkpoint,
      [&] {
        if (st::load_checkpoint(checkpoint, net, other).epoch != 7) throw std::logic_error("another epoch");
      },
      [&](bool done) {
        CHECK(io_test::numbers(net) == (done ? wanted : before));
        CHECK(other.lr() == (done ? 0.1 : 0.2));
        io_test::number(net, 100);
        other.set_lr(0.2);
      });

  // Writing: what was there stays, or the new file is there whole.
  st::save_checkpoint(checkpoint, {.epoch = 8}, given, sgd);
  each_failure({}, [&] { st::save_weights(safetensors, given, {{"a", "c"}}); },
               [&](bool) {
                 io_test::Net back;
                 st::load_weights(safetensors, back);
                 CHECK(io_test::numbers(back) == wanted);
               });
  each_failure({}, [&] { st::save_checkpoint(checkpoint, {.epoch = 8}, given, sgd); },
               [&](bool) {
                 io_test::Net back;
                 CHECK(st::load_checkpoint(checkpoint, back, other).epoch == 8);
                 CHECK(folder.files() == 3);  // the weights, the checkpoint and the one before: nothing half-written
               });
}

TEST_CASE("damaged files end in an error or in equal numbers, never in a crash or in another network") {
  // More of it, and another kind: STRATA_DAMAGE_COUNT=20000 STRATA_DAMAGE_SEED=7 test_io --test-case='damaged files*'
  const auto option = [](const char* name, std::uint64_t otherwise) {
    const char* given = std::getenv(name);
    return given == nullptr ? otherwise : std::strtoull(given, nullptr, 10);
  };
  const std::uint64_t count = option("STRATA_DAMAGE_COUNT", 600), seed = option("STRATA_DAMAGE_SEED", 1);
  const io_test::Folder folder(quick_place());
  const auto path = folder / "damaged";

  struct File {
    std::string bytes, other;  // a file, and one of the same form with other numbers, of which parts are put into it
    bool checked;              // every byte of its tensors is under a checksum
  };
  std::vector<File> files;
  io_test::Net nets[2];
  std::vector<double> numbers[2];
  std::string checkpoints[2], weights[2];
  for (int i = 0; i < 2; ++i) {
    io_test::number(nets[i], 50.0 * i);
    numbers[i] = io_test::numbers(nets[i]);
    st::SGD sgd(nets[i], {.lr = 0.1, .momentum = 0.9});
    st::save_checkpoint(path, {.epoch = i, .seed = 3, .best = 30.5}, nets[i], sgd);
    checkpoints[i] = io_test::read_bytes(path);
    st::save_weights(path, nets[i]);
    weights[i] = io_test::read_bytes(path);
  }
  files.push_back({checkpoints[0], checkpoints[1], true});
  const auto golden = strata_test::golden("golden/pytorch");
  for (const auto& [one, two, checked] :
       {std::tuple("zip.pth", "protocol_5.pth", true), std::tuple("checkpoint.pth", "ema.pth", true),
        std::tuple("everyday.pth", "checkpoint.pth", true), std::tuple("zip64.pth", "zip.pth", true),
        std::tuple("legacy.pth", "legacy_strided.pth", false), std::tuple("legacy_everyday.pth", "legacy.pth", false)})
    files.push_back({io_test::read_bytes(golden / one), io_test::read_bytes(golden / two), checked});
  files.push_back({weights[0], weights[1], false});

  std::uint64_t loaded = 0;
  for (std::uint64_t round = 0; round < count; ++round) {
    CAPTURE(seed);
    CAPTURE(round);
    st::Rng rng(seed, std::uint32_t(round));
    // thrice the checkpoint
    const std::size_t which =
        std::size_t(round % (files.size() + 2)) < 2 ? 0 : std::size_t(round % (files.size() + 2)) - 2;
    const File& file = files[which];
    std::string bytes = file.bytes;
    const auto place = [&](const std::string& text) { return std::size_t(rng.below(std::uint32_t(text.size()))); };
    const auto part = [&](const std::string& text) {
      const std::size_t begin = place(text);
      return text.substr(begin, 1 + rng.below(rng.below(2) == 0 ? 16 : 600));
    };
    for (std::uint32_t damages = 1 + rng.below(rng.below(3) == 0 ? 4 : 1); damages-- > 0 && bytes.size() > 1;)
      switch (rng.below(9)) {
        case 0: bytes[place(bytes)] ^= static_cast<char>(1u << rng.below(8)); break;
        case 1: bytes[place(bytes)] = static_cast<char>(rng.below(256)); break;
        case 2: bytes.resize(place(bytes)); break;
        case 3: { const std::string copy = part(bytes); bytes.insert(place(bytes), copy); break; }
        case 4: { const std::string copy = part(bytes); bytes.replace(place(bytes), copy.size(), copy); break; }
        case 5: bytes.erase(place(bytes), 1 + rng.below(200)); break;
        case 6: {
          const std::string zeros(1 + rng.below(512), '\0');
          bytes.replace(place(bytes), zeros.size(), zeros);
          break;
        }
        case 7: { const std::string other = part(file.other); bytes.replace(place(bytes), other.size(), other); break; }
        default: {
          const std::size_t at = place(bytes);
          bytes = bytes.substr(0, at) + file.other.substr(std::min(at, file.other.size()));
          break;
        }
      }
    io_test::write_bytes(path, bytes);
    io_test::Net net;
    io_test::number(net, 500);
    const auto before = io_test::numbers(net);
    st::SGD sgd(net, {.lr = 0.2, .momentum = 0.9});
    bool done = false;
    std::string text;
    try {
      if (which == 0)
        (void)st::load_checkpoint(path, net, sgd);
      else
        (void)st::load_weights(path, net);
      done = true;
    } catch (const st::Error& error) {
      text = error.what();
    }
    if (!done) {
      CHECK(text.starts_with(path.string()));
      CHECK(io_test::numbers(net) == before);
      CHECK(sgd.lr() == 0.2);
      continue;
    }
    ++loaded;
    const auto after = io_test::numbers(net);
    if (file.checked) CHECK((after == numbers[0] || after == numbers[1]));
  }
  MESSAGE(count, " damaged files of seed ", seed, ": ", loaded, " loaded, the others were refused");
  CHECK(loaded < count);
}
