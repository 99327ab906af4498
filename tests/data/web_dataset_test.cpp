// Tar archives, well made and hostile, WebDataset's samples in them; folders of classes and of masks.
#include "strata/data/web_dataset.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/output_file.hpp"
#include "strata/data/class_folder.hpp"
#include "strata/data/data_loader.hpp"
#include "strata/data/image_file.hpp"
#include "temporary_folder.hpp"

namespace st = strata;
namespace fs = std::filesystem;

namespace {

void set_checksum(std::string& archive, std::size_t header) {
  std::fill_n(archive.begin() + std::ptrdiff_t(header) + 148, 8, ' ');
  unsigned sum = 0;
  for (std::size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(archive[header + i]);
  char digits[8];
  std::snprintf(digits, sizeof digits, "%06o", sum);
  archive.replace(header + 148, 7, digits, 7);  // and a zero, then a space
}

/// Adds a header and the bytes.
void add(std::string& archive, std::string_view name, std::string_view bytes, char type = '0') {
  const std::size_t header = archive.size();
  archive.append(512, '\0');
  archive.replace(header, std::min<std::size_t>(name.size(), 100), name.substr(0, 100));
  char digits[13];
  std::snprintf(digits, sizeof digits, "%011llo", static_cast<unsigned long long>(bytes.size()));
  archive.replace(header + 124, 12, digits, 12);
  archive[header + 156] = type;
  archive.replace(header + 257, 8,
                  "ustar\0"
                  "00",
                  8);
  set_checksum(archive, header);
  archive += bytes;
  archive.append((512 - bytes.size() % 512) % 512, '\0');
}

void finish(std::string& archive) { archive.append(1024, '\0'); }

std::vector<st::detail::TarEntry> entries_of(std::string_view archive) {
  return st::detail::read_tar(archive.size(), [&](std::uint64_t offset, char* to, std::size_t count) {
    REQUIRE(offset <= archive.size());
    REQUIRE(count <= archive.size() - offset);  // nothing is read that is not there
    std::copy_n(archive.data() + offset, count, to);
  });
}

std::string said_of(std::string_view archive) {
  try {
    (void)entries_of(archive);
  } catch (const st::detail::BadTar& error) {
    return error.what();
  }
  return "";
}

std::string png(int w, float value) {
  const strata_test::TemporaryFolder folder;
  st::save_image(folder / "a.png", st::Image<3>::full(1, 2, w, value));
  std::string text(fs::file_size(folder / "a.png"), '\0');
  st::detail::ArchiveFile(folder / "a.png").read(0, text.data(), text.size());
  return text;
}

}  // namespace

TEST_CASE("files, folders, links, long names of GNU's and pax, a prefix, sizes of base 256") {
  std::string archive;
  add(archive, "folder/", "", '5');
  add(archive, "a.txt", "hello");
  add(archive, "link", "", '2');
  const std::string long_name = std::string(150, 'n') + ".txt";
  add(archive, "././@LongLink", long_name + '\0', 'L');
  add(archive, "cut", "long");
  add(archive, "pax", "20 path=b/c/name.png\n", 'x');  // 20 is wrong: it has 21
  CHECK(said_of(archive).find("wrong length") != std::string::npos);
  archive.resize(archive.size() - 1024);
  add(archive, "pax", "21 path=b/c/name.png\n10 size=3\n", 'x');
  add(archive, "cut", "abc");
  add(archive, "global", "13 comment=x\n", 'g');
  add(archive, "name", std::string(513, 'x'));
  archive.replace(archive.size() - 3 * 512 + 345, 6, "prefix");
  set_checksum(archive, archive.size() - 3 * 512);
  add(archive, "big", "12");
  archive.replace(archive.size() - 1024 + 124, 12, std::string("\x80\0\0\0\0\0\0\0\0\0\0\x02", 12));
  set_checksum(archive, archive.size() - 1024);
  finish(archive);
  const auto entries = entries_of(archive);
  REQUIRE(entries.size() == 5);
  CHECK(entries[0].name == "a.txt");
  CHECK(archive.substr(entries[0].offset, entries[0].size) == "hello");
  CHECK(entries[1].name == long_name);
  CHECK(archive.substr(entries[1].offset, entries[1].size) == "long");
  CHECK(entries[2].name == "b/c/name.png");
  CHECK(entries[2].size == 3);
  CHECK(entries[3].name == "prefix/name");
  CHECK(entries[3].size == 513);
  CHECK(entries[4].size == 2);
}

TEST_CASE("hostile archives: an error, nothing read beyond the end, no memory for what is not there") {
  std::string archive;
  add(archive, "one.txt", "hello");
  add(archive, "pax", "21 path=b/c/name.png\n", 'x');
  add(archive, "two", std::string(600, 'x'));
  const std::string unfinished = archive;
  finish(archive);
  CHECK(entries_of(archive).size() == 2);
  for (std::size_t length = 0; length < archive.size() - 512;
       length += 7) {  // the second block of zeros may be missing
    CAPTURE(length);
    const std::string said = said_of(std::string_view(archive).substr(0, length));
    REQUIRE((length > unfinished.size() + 511 || !said.empty()));
  }
  CHECK(said_of(unfinished).find("cut short") != std::string::npos);
  for (std::size_t at = 0; at < archive.size(); at += 3) {  // any byte changed: an error, or other names
    std::string damaged = archive;
    damaged[at] = char(damaged[at] ^ 0x5A);
    (void)said_of(damaged);
    const std::size_t header = at / 512 * 512;  // and with a checksum that fits
    set_checksum(damaged, header);
    (void)said_of(damaged);
  }
  const auto with_size = [](std::string_view size, char type = '0') {
    std::string one;
    add(one, "x.txt", "hello", type);
    one.replace(124, 12, size);
    set_checksum(one, 0);
    finish(one);
    return said_of(one);
  };
  CHECK(with_size(std::string_view("77777777777\0", 12)).find("more bytes than the archive") != std::string::npos);
  CHECK(with_size(std::string_view("\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12)).find("more bytes") !=
        std::string::npos);
  CHECK(with_size(std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12)).find("more bytes") !=
        std::string::npos);
  CHECK(with_size(std::string_view("\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12)).find("more bytes") !=
        std::string::npos);
  CHECK(with_size("not a number").find("more bytes") != std::string::npos);
  CHECK(with_size(std::string_view("00000000005\0", 12), 'S').find("sparse") != std::string::npos);
  for (const char* record :
       {"5 a=b", "99999999999 a=b\n", "x a=b\n", " a=b\n", "8 size=\n", "9 abcdef\n", "26 size=99999999999999999\n",
        "41 size=99999999999999999999999999999999\n", "12 size=12a\n"}) {
    std::string one;
    add(one, "pax", record, 'x');
    add(one, "x.txt", "hello");
    finish(one);
    CAPTURE(record);
    CHECK(said_of(one) != "");
  }
  std::string huge;
  add(huge, "name", std::string((1 << 20) + 1, 'n'), 'L');
  CHECK(said_of(huge).find("at most 1 MiB") != std::string::npos);
  CHECK(said_of("<html>no such page</html>").find("cut short") != std::string::npos);
  CHECK(said_of(std::string(4096, 'x')).find("no tar archive") != std::string::npos);
}

TEST_CASE("WebDataset: images and classes of several archives, in any order and by several workers") {
  const strata_test::TemporaryFolder folder;
  std::string first, second;
  add(first, "./0001.cls", "3\n");
  add(first, "./0001.png", png(3, 0.2f));
  add(first, "__notes.txt", "of the tool that made it");
  add(first, "./sub/0001.png", png(3, 0.4f));
  add(first, "./sub/0001.cls", "7");
  add(first, "./sub/0001.json", "{}");
  add(second, "a.b.png", png(3, 0.6f));  // its ending is b.png
  add(second, "c.png", png(3, 0.6f));
  add(second, "c.cls", "x");
  for (std::string* archive : {&first, &second}) finish(*archive);
  st::write_file(folder / "1.tar", first);
  st::write_file(folder / "2.tar", second);

  const st::WebDataset<3> data({folder / "1.tar"});
  REQUIRE(data.size() == 2);
  const st::DataLoader loader(data, {.batch_size = 2, .num_workers = 2});
  for (auto epoch = loader.epoch(0); const auto& [images, labels] : epoch) {
    CHECK(labels.data()[0] == 3);
    CHECK(labels.data()[1] == 7);
    CHECK(images(1, 2, 1, 2) == 102 / 255.0f);
  }
  const st::TarShards shards({folder / "1.tar", folder / "2.tar"});
  CHECK(shards.size() == 4);
  CHECK(shards.key(1) == "sub/0001");
  CHECK(shards.text(1, "json") == "{}");
  CHECK(shards.image<3>(2, "b.png")(0, 0, 0, 0) == 153 / 255.0f);
  CHECK_THROWS_WITH_AS(shards.label(3), doctest::Contains("its class is no number"), st::FileError);
  CHECK_THROWS_WITH_AS(shards.bytes(0, "jpg;jpeg"),
                       doctest::Contains("has no file ending in jpg;jpeg; it has cls, png"), st::FileError);
  CHECK_THROWS_WITH_AS(shards.image<3>(0, "cls"), doctest::Contains("cannot read the image"), st::FileError);
  CHECK_THROWS_AS(st::WebDataset<3>({folder / "2.tar"}), st::FileError);  // a has no class
  CHECK_THROWS_AS(st::TarShards({folder / "3.tar"}), st::FileError);

  std::string scattered;
  for (const char* name : {"a.png", "b.png", "a.cls"}) add(scattered, name, "x");
  finish(scattered);
  st::write_file(folder / "3.tar", scattered);
  CHECK_THROWS_WITH_AS(st::TarShards({folder / "3.tar"}), doctest::Contains("do not lie together"), st::FileError);
  std::string twice;
  for (const char* name : {"a.png", "a.png"}) add(twice, name, "x");
  finish(twice);
  st::write_file(folder / "4.tar", twice);
  CHECK_THROWS_WITH_AS(st::TarShards({folder / "4.tar"}), doctest::Contains("is there twice"), st::FileError);
}

TEST_CASE("a folder for each class") {
  const strata_test::TemporaryFolder folder;
  for (const char* inner : {"dog/small", "cat", ".hidden"}) fs::create_directories(folder / inner);
  st::save_image(folder / "dog/small/1.png", st::Image<1>::full(1, 2, 2, 0.2f));
  st::save_image(folder / "dog/2.png", st::Image<1>::full(1, 2, 2, 0.4f));
  st::save_image(folder / "cat/3.png", st::Image<1>::full(1, 2, 2, 0.6f));
  const st::ClassFolder<1> data(folder.path());
  CHECK(data.classes() == std::vector<std::string>{"cat", "dog"});
  CHECK(data.labels() == std::vector<st::Label>{0, 1, 1});
  st::Rng rng(1);
  CHECK(data.get(0, rng).input(0, 0, 1, 1) == 153 / 255.0f);
  CHECK(data.get(1, rng).target == 1);
  CHECK(data.name(2).ends_with("dog/small/1.png"));
  fs::create_directory(folder / "empty");
  CHECK_THROWS_WITH_AS(st::ClassFolder<1>(folder.path()), doctest::Contains("would be the class empty"), st::FileError);
  fs::remove(folder / "empty");
  fs::create_directory_symlink(folder.path(), folder / "cat/round");
  CHECK_THROWS_WITH_AS(st::ClassFolder<1>(folder.path()), doctest::Contains("does a link lead back?"), st::FileError);
  CHECK_THROWS_WITH_AS(st::ClassFolder<1>(folder / "dog/small"), doctest::Contains("wanted one for each class"),
                       st::FileError);
}

TEST_CASE("pictures and their masks") {
  const strata_test::TemporaryFolder folder;
  for (const char* inner : {"images", "masks"}) fs::create_directory(folder / inner);
  st::save_image(folder / "images/a.png", st::Image<3>::full(1, 2, 3, 0.2f));
  st::save_image(folder / "masks/a.bmp", st::Image<1>::full(1, 2, 3, 1));
  const st::MaskFolder<3> data(folder / "images", folder / "masks");
  st::Rng rng(1);
  const auto pair = data.get(0, rng);
  CHECK(pair.input(0, 2, 1, 2) == 51 / 255.0f);
  CHECK(pair.target(0, 0, 1, 2) == 1.0f);
  st::save_image(folder / "images/b.png", st::Image<3>::full(1, 2, 3, 0.2f));
  CHECK_THROWS_AS(st::MaskFolder<3>(folder / "images", folder / "masks"), st::FileError);
  st::save_image(folder / "masks/b.png", st::Image<1>::full(1, 2, 4, 1));
  CHECK_THROWS_WITH_AS(st::MaskFolder<3>(folder / "images", folder / "masks"), doctest::Contains("has 3x2 pixels and"),
                       st::FileError);
}
