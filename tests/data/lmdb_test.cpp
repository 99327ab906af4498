// LMDB databases as the library writes them (tests/golden/lmdb_files.py), and damaged in every way.
#include "strata/data/lmdb.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/output_file.hpp"
#include "strata/core/random.hpp"
#include "strata/data/data_loader.hpp"
#include "message_of.hpp"
#include "temporary_folder.hpp"
#include "test_data.hpp"

namespace st = strata;
namespace fs = std::filesystem;

namespace {

fs::path small() { return strata_test::golden("golden/lmdb/small.lmdb"); }
fs::path large() { return strata_test::golden("golden/lmdb/large.lmdb"); }

std::string contents(const fs::path& path) {
  const st::detail::ArchiveFile file(path);
  std::string out(std::size_t(file.size()), '\0');
  file.read(0, out.data(), out.size());
  return out;
}

st::detail::LmdbDirectory directory_of(std::string_view bytes) {
  return st::detail::read_lmdb(bytes.size(), [&](std::uint64_t offset, char* to, std::size_t count) {
    REQUIRE(offset <= bytes.size());
    REQUIRE(count <= bytes.size() - offset);  // nothing is read that is not there
    std::copy_n(bytes.data() + offset, count, to);
  });
}

void put(std::string& bytes, std::size_t at, std::uint64_t value, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) bytes[at + i] = char(value >> (8 * i) & 0xFF);
}
std::uint64_t number(std::string_view bytes, std::size_t at, std::size_t count) {
  return st::detail::lmdb_number(bytes, at, count);
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

/// Where the state that counts has its description of the tree.
std::size_t main_of(std::string_view bytes) {
  return (number(bytes, 144, 8) > number(bytes, 4096 + 144, 8) ? 0u : 4096u) + 88;
}

/// A copy of small.lmdb that a test may change.
struct Copy {
  strata_test::TemporaryFolder folder;
  fs::path path() const { return folder.path(); }
  Copy() {
    for (const char* name : {"data.mdb", "meta_info.txt"}) fs::copy_file(small() / name, path() / name);
  }
  void write(const char* name, std::string_view bytes) const { st::write_file(path() / name, bytes); }
};

}  // namespace

TEST_CASE("an LMDB database gives its keys and values") {
  const st::LmdbDatabase database(small());
  REQUIRE(database.size() == 46);
  CHECK(database.key(0) == "0000_s000");
  CHECK(database.key(45) == "0022_s045");
  CHECK(database.find("0011_s023") == 23);
  CHECK_FALSE(database.find("0011_s024"));
  CHECK_FALSE(database.find(""));
  CHECK_FALSE(database.find("to be deleted"));
  const auto png = database.bytes(3);
  CHECK(std::string(png.begin(), png.begin() + 4) == "\x89PNG");
  CHECK(st::LmdbDatabase(small() / "data.mdb").size() == 46);
  CHECK_THROWS_AS(database.bytes(46), st::ValueError);
}

TEST_CASE("its pictures are a source and a dataset; parts are parts; several threads read the same") {
  const st::LmdbImages<3> pictures(small());
  REQUIRE(pictures.size() == 46);
  for (std::size_t i = 0; i < 45; ++i) {
    const st::Image<3> picture = pictures.image(i);
    REQUIRE(picture.h() == std::int64_t(4 + i % 3));
    REQUIRE(picture.w() == std::int64_t(5 + i % 4));
    for (std::int64_t y = 0; y < picture.h(); ++y)
      for (std::int64_t x = 0; x < picture.w(); ++x)
        for (int c = 0; c < 3; ++c)
          REQUIRE(picture(0, c, y, x) == float((7 * std::int64_t(i) + 31 * y + 5 * x + 50 * c) % 256) / 255.0f);
  }
  CHECK(pictures.size_of(45)->h == 40);
  const auto whole = pictures.image(45), part = pictures.part(45, 3, 5, 20, 10);  // which has pages of its own
  REQUIRE(part.h() == 20);
  REQUIRE(part.w() == 10);
  for (std::int64_t y = 0; y < 20; ++y)
    for (std::int64_t x = 0; x < 10; ++x) CHECK(part(0, 2, y, x) == whole(0, 2, y + 3, x + 5));
  CHECK(pictures.name(1) == small().string() + ": 0000_s001");

  CHECK(st::LmdbImages<3>(small() / "data.mdb").key(1) == pictures.key(1));  // the file, with what lies beside it

  // Without meta_info.txt.
  const Copy copy;
  std::filesystem::remove(copy.path() / "meta_info.txt");
  const st::LmdbImages<1> grey(copy.path() / "data.mdb", {.convert = true});
  CHECK_FALSE(grey.size_of(0));
  CHECK(grey.image(45).h() == 40);
  st::AnyImages<3> any(pictures);
  CHECK(any.image(2).w() == 7);

  const auto sums = [&](int workers) {
    const st::Map same(pictures,
                       [](const st::Sample<3>& sample, st::Rng& rng) { return st::random_crop(sample, 4, rng); });
    st::DataLoader loader(same, {.batch_size = 4, .shuffle = true, .num_workers = workers, .seed = 3});
    std::vector<double> out;
    for (int epoch = 0; epoch < 3; ++epoch)
      for (auto& batch : loader.epoch(epoch)) {
        double sum = 0;
        std::int64_t i = 0;
        for (const float value : batch.input.span()) sum += double(value) * double(++i % 17);
        out.push_back(sum);
      }
    return out;
  };
  const auto alone = sums(0);
  CHECK(alone.size() == 3 * 12);
  CHECK(sums(1) == alone);
  CHECK(sums(4) == alone);
}

TEST_CASE("pairs belong together by their keys") {
  const st::PairedLmdb<3> pairs(small(), large(), {.scale = 2});
  REQUIRE(pairs.size() == 46);
  st::Rng rng(1);
  const auto [input, target] = pairs.get(45, rng);
  CHECK(input.w() == 20);
  CHECK(target.w() == 40);
  CHECK(has(strata_test::message_of([&] { st::PairedLmdb<3>(small(), large()); }),
            "0000_s000 has 4x5 pixels and its target 8x10; wanted 1"));
  CHECK_THROWS_AS(st::PairedLmdb<3>(small(), large(), {.scale = 0}), st::ValueError);
  const Copy copy;
  copy.write("meta_info.txt", "0000_s000.png (4,5,3) 1\n");
  CHECK(has(strata_test::message_of([&] { st::PairedLmdb<3>(small(), copy.path()); }),
            "0000_s001: has no partner of the same key in "));
  CHECK(has(strata_test::message_of([&] { st::PairedLmdb<3>(copy.path(), small()); }), ": has 46 pictures, and "));
}

TEST_CASE("meta_info.txt is read as it is written, or refused by its line") {
  const Copy copy;
  copy.write("meta_info.txt", "0003_s006.png (4, 7, 3) 1\r\n\n0000_s001.png (5,6,3)");
  const st::LmdbImages<3> two(copy.path());
  REQUIRE(two.size() == 2);
  CHECK(two.key(0) == "0003_s006");
  CHECK(two.image(1).h() == 5);
  const auto refused = [&](std::string_view text) {
    copy.write("meta_info.txt", text);
    return strata_test::message_of([&] { st::LmdbImages<3>{copy.path()}; });
  };
  CHECK(
      has(refused("0000_s000.png (4,5,3) 1\n0999_s999.png (4,5,3) 1\n"), "line 2: the database has no key 0999_s999"));
  CHECK(has(refused("0000_s000.png (4,5,3) 1\n0000_s000.jpg (4,5,3) 1\n"), "line 2: 0000_s000 is named twice"));
  for (const char* line :
       {"0000_s000.png", "0000_s000.png (4,5) 1", "0000_s000.png (0,5,3) 1", "0000_s000.png (-4,5,3) 1",
        "0000_s000.png (4,5,3", "0000_s000.png (99999999999999999999,5,3)", " (4,5,3)", "\x1b[2J"})
    CHECK(has(refused(line), "line 1: got \""));
  CHECK_FALSE(has(refused("\x1b[2J"), "\x1b"));
  CHECK(has(refused(""), "there are no pictures in this database"));
  // A picture that is not as large as it says.
  copy.write("meta_info.txt", "0000_s000.png (400,500,3) 1\n");
  const st::LmdbImages<3> lying(copy.path());
  CHECK(has(strata_test::message_of([&] { lying.image(0); }),
            "0000_s000: cannot read the image: it has 4x5 pixels (rows x columns), and "
            "meta_info.txt says 400x500"));
  CHECK_THROWS_AS(lying.part(0, 0, 0, 64, 64), st::FileError);
}

TEST_CASE("a picture that is damaged in the database is named") {
  const Copy copy;
  std::string bytes = contents(copy.path() / "data.mdb");
  const auto entries = directory_of(bytes).entries;
  bytes[std::size_t(entries[7].offset) + 45] ^= 0x10;              // its pixels: PNG has a checksum
  put(bytes, std::size_t(entries[9].offset) + 16, 0x7FFFFFFF, 4);  // its width
  bytes[std::size_t(entries[45].offset) - 16 + 10] ^= 0x08;        // its own page's kind
  copy.write("data.mdb", bytes);
  const st::LmdbImages<3> pictures(copy.path());
  CHECK_NOTHROW(pictures.image(8));
  CHECK(has(strata_test::message_of([&] { pictures.image(7); }), "0003_s007: cannot read the image: "));
  CHECK(has(strata_test::message_of([&] { pictures.image(9); }), "0004_s009: cannot read the image: "));
  CHECK(has(strata_test::message_of([&] { pictures.image(45); }), " is damaged"));
}

TEST_CASE("pages of any size are read: here 512 bytes") {
  const std::string seed = contents(strata_test::golden("fuzz/corpus/lmdb/tree"));
  const auto directory = directory_of(std::string_view(seed).substr(1));
  REQUIRE(directory.entries.size() == 4);
  CHECK(directory.page_size == 512);
  const char* const keys[] = {"a", "b", "cc", "d"};
  const std::uint64_t sizes[] = {5, 600, 0, 4};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(directory.entries[i].key == keys[i]);
    CHECK(directory.entries[i].size == sizes[i]);
    CHECK(directory.entries[i].large == (i == 1));
  }
  CHECK(seed.substr(1 + std::size_t(directory.entries[3].offset), 4) == "last");
  CHECK(directory.entries[1].offset == 5 * 512 + 16);
}

TEST_CASE("what is no LMDB database, or another kind, is refused in a sentence") {
  const std::string good = contents(small() / "data.mdb");
  const std::size_t tree = main_of(good);
  const auto refused = [&](auto change) {
    std::string bytes = good;
    change(bytes);
    return strata_test::message_of([&] { directory_of(bytes); });
  };
  CHECK(directory_of(good).entries.size() == 46);
  CHECK(has(refused([](std::string& b) { b.clear(); }), "it has 0 bytes, too few"));
  CHECK(has(refused([](std::string& b) { b[16] = 0; }), "does not begin as an LMDB database"));
  CHECK(has(refused([](std::string& b) { put(b, 20, 2, 4); }), "its format has version 2, 1 is read"));
  CHECK(has(refused([](std::string& b) { put(b, 40, 4095, 4); }), "its pages would have 4095 bytes"));
  CHECK(has(refused([](std::string& b) { put(b, 40, 8192, 4); }), "its second page is damaged"));
  CHECK(has(refused([](std::string& b) { b.resize(5000); }), "it was cut short"));
  CHECK(has(refused([](std::string& b) { b.resize(3 * 4096); }), "damaged, or was cut short"));
  CHECK(has(refused([&](std::string& b) { put(b, tree + 4, 4, 2); }), "several values each, which is not read"));
  CHECK(has(refused([&](std::string& b) { put(b, tree + 6, 33, 2); }), "its tree would have 33 levels"));
  CHECK(has(refused([&](std::string& b) { put(b, tree + 6, 1, 2); }), " is damaged"));
  CHECK(has(refused([&](std::string& b) { put(b, tree + 32, 47, 8); }), "it has 46 keys and says that there are 47"));
  CHECK(has(refused([&](std::string& b) { put(b, tree + 40, std::uint64_t{1} << 60, 8); }),
            "it names page 1152921504606846976"));
  const auto root = std::size_t(number(good, tree + 40, 8));
  const std::size_t node = root * 4096 + std::size_t(number(good, root * 4096 + 16, 2));
  CHECK(has(refused([&](std::string& b) { put(b, node, root, 4); }), " is damaged"));  // its own child
  CHECK(has(refused([&](std::string& b) { put(b, root * 4096 + 12, 4095, 2); }),
            " is damaged"));  // more than a page of keys
  CHECK(
      has(refused([&](std::string& b) { put(b, root * 4096 + 16, 4090, 2); }), " is damaged"));  // a node past its end
  const std::size_t leaf = std::size_t(number(good, node, 4)) * 4096;
  const std::size_t first = leaf + std::size_t(number(good, leaf + 16, 2));
  CHECK(has(refused([&](std::string& b) { put(b, first + 4, 2, 2); }), "it holds databases with names"));
  CHECK(has(refused([&](std::string& b) { put(b, first + 6, 60000, 2); }), " is damaged"));
  CHECK(has(refused([&](std::string& b) { put(b, first, 60000, 4); }), " is damaged"));
  CHECK(
      has(refused([&](std::string& b) { put(b, leaf + 18, number(good, leaf + 16, 2), 2); }), " is damaged"));  // twice
  CHECK(
      has(refused([&](std::string& b) { put(b, first + 4, 1, 2); }), "lies outside"));  // a value on a page of nowhere

  const strata_test::TemporaryFolder folder;
  CHECK_THROWS_AS(st::LmdbDatabase(folder.path()), st::FileError);
  CHECK_THROWS_AS(st::LmdbDatabase(folder / "no.lmdb"), st::FileError);
  st::write_file(folder / "data.mdb", std::string(4096, 'x'));
  CHECK(has(strata_test::message_of([&] { st::LmdbDatabase{folder.path()}; }),
            folder.path().string() + ": cannot be read as an LMDB database"));
}

TEST_CASE("a database with any bytes changed is read or refused, and its pictures too") {
  const std::string good = contents(small() / "data.mdb");
  const Copy copy;
  st::Rng rng(11);
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    std::string bytes = good;
    const int changes = 1 + int(rng.below(4));
    for (int i = 0; i < changes; ++i) {
      // half of them where pages begin, whose numbers are followed
      std::size_t at = rng.below(std::uint32_t(bytes.size()));
      if (rng.coin()) at = at / 4096 * 4096 + at % 160;
      bytes[at] = char(rng.below(256));
    }
    if (rng.below(8) == 0) bytes.resize(rng.below(std::uint32_t(bytes.size())));
    copy.write("data.mdb", bytes);
    try {
      const st::LmdbImages<3> pictures(copy.path());
      for (std::size_t i = 0; i < pictures.size(); i += 5) (void)pictures.image(i);
    } catch (const st::FileError& error) {
      CHECK(has(error.what(), copy.path().string()));
      ++refused;
    }
  }
  CHECK(refused > 50);
}
