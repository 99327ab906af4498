// The files of MNIST, Fashion-MNIST and CIFAR-10, written here: read right, and refused when they are damaged.
#include "strata/data/mnist.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <vector>

#include "failing_allocator.hpp"
#include "picture_bytes.hpp"
#include "strata/data/cifar10.hpp"
#include "strata/data/detail/encode.hpp"
#include "strata/data/detail/idx.hpp"
#include "strata/data/data_loader.hpp"
#include "strata/data/image_source.hpp"
#include "strata/data/transforms.hpp"
#include "temporary_folder.hpp"

namespace st = strata;
namespace detail = st::detail;
using Buffer = std::vector<unsigned char>;

static_assert(st::Dataset<st::MNIST> && st::Dataset<st::FashionMNIST> && st::Dataset<st::CIFAR10>);
static_assert(st::ImageSource<st::MNIST> && st::ImageSource<st::CIFAR10>);

namespace {

void write(const std::filesystem::path& path, const Buffer& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::streamsize(bytes.size()));
}

void append(Buffer& to, const Buffer& bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

Buffer idx(std::uint32_t magic, const std::vector<std::uint32_t>& sizes, const Buffer& elements) {
  Buffer file;
  detail::append_big_endian(file, magic);
  for (const std::uint32_t size : sizes) detail::append_big_endian(file, size);
  append(file, elements);
  return file;
}

unsigned char pixel(std::size_t i) { return static_cast<unsigned char>(i * 7 % 256); }
Buffer pixels(std::size_t count) {
  Buffer bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = pixel(i);
  return bytes;
}
Buffer images_file(std::uint32_t count = 5) { return idx(2051, {count, 4, 3}, pixels(count * 12)); }
Buffer labels_file() { return idx(2049, {5}, {5, 0, 4, 1, 9}); }

/// As the gzip program writes it, with the header's optional fields when asked for.
Buffer gzip(const Buffer& data, bool all_fields = false) {
  Buffer file{0x1F, 0x8B, 8, static_cast<unsigned char>(all_fields ? 0x1E : 0), 1, 2, 3, 4, 0, 3};
  if (all_fields) {
    append(file, {3, 0, 'a', 'b', 'c', 'n', 'a', 'm', 'e', 0, 0});
    const std::uint32_t crc = detail::crc32(file);
    append(file, {static_cast<unsigned char>(crc), static_cast<unsigned char>(crc >> 8)});
  }
  const Buffer zlib = strata_test::zlib(data);
  append(file, Buffer(zlib.begin() + 2, zlib.end() - 4));
  for (const std::uint32_t number : {detail::crc32(data), std::uint32_t(data.size())})
    for (int shift = 0; shift < 32; shift += 8) file.push_back(static_cast<unsigned char>(number >> shift));
  return file;
}

/// What reading the bytes as an IDX file says is wrong; "" when nothing is.
std::string problem_of(const Buffer& bytes, std::size_t rank) {
  try {
    (void)detail::read_idx(bytes, rank);
  } catch (const detail::BadImage& problem) {
    return problem.what();
  }
  return "";
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <class Set>
std::string error_of(const std::filesystem::path& root, bool train = true) {
  try {
    Set set({.root = root, .train = train});
  } catch (const st::Error& error) {
    return error.what();
  }
  return "";
}

void check_images(const detail::IdxImages& set) {
  REQUIRE(set.size() == 5);
  CHECK(set.h() == 4);
  CHECK(set.w() == 3);
  st::Rng rng;
  const auto [image, label] = set.get(2, rng);
  CHECK(label == 4);
  CHECK(set.label(4) == 9);
  REQUIRE(image.shape() == st::Shape{1, 1, 4, 3});
  for (std::int64_t y = 0; y < 4; ++y)
    for (std::int64_t x = 0; x < 3; ++x) CHECK(image(0, 0, y, x) == float(pixel(std::size_t(24 + 3 * y + x))) / 255.0f);
  CHECK_THROWS_AS(set.get(5, rng), st::ValueError);
}

Buffer cifar(std::size_t count, std::size_t first = 0) {
  Buffer file;
  for (std::size_t i = 0; i < count; ++i) {
    file.push_back(static_cast<unsigned char>((first + i) % 10));
    append(file, pixels(3072));
  }
  return file;
}

}  // namespace

TEST_CASE("MNIST and FashionMNIST from plain and compressed files, in the folder and where torchvision puts them") {
  const strata_test::TemporaryFolder folder;
  write(folder / "plain/train-images-idx3-ubyte", images_file());
  write(folder / "plain/train-labels-idx1-ubyte", labels_file());
  check_images(st::MNIST({.root = folder / "plain"}));
  check_images(st::FashionMNIST({.root = folder / "plain"}));
  write(folder / "packed/FashionMNIST/raw/t10k-images-idx3-ubyte.gz", gzip(images_file()));
  write(folder / "packed/FashionMNIST/raw/t10k-labels-idx1-ubyte.gz", gzip(labels_file(), true));
  const st::FashionMNIST test({.root = folder / "packed", .train = false});
  check_images(test);
  CHECK(st::FashionMNIST::classes[std::size_t(test.label(4))] == "Ankle boot");
  const st::DataLoader loader(test, {.batch_size = 5});
  for (const auto& [images, labels] : loader.epoch(0)) {
    CHECK(images.shape() == st::Shape{5, 1, 4, 3});
    CHECK(labels.data()[3] == 1);
  }
  const st::Map moved(test, [](const st::LabelledSample<1>& sample, st::Rng& random) {
    const auto part = st::random_crop(sample.input, 3, random, {.padding = 1, .padding_mode = st::CropPadding::reflect});
    return st::LabelledSample<1>{st::normalize(st::random_horizontal_flip(part, random), {0.5f}, {0.25f}), sample.target};
  });
  const auto [train, validation] = st::random_split(moved, {0.6, 0.4}, 1);
  const st::DataLoader shuffled(train, {.batch_size = 3, .shuffle = true});
  CHECK(validation.size() == 2);
  for (const auto& [images, labels] : shuffled.epoch(0)) {
    CHECK(images.shape() == st::Shape{3, 1, 3, 3});
    for (const float value : images.span()) CHECK(std::abs(value) <= 2);  // [0, 1] to [-2, 2]
  }
}

TEST_CASE("memory that runs out while a data set is read is an error") {
  const strata_test::TemporaryFolder folder;
  write(folder / "train-images-idx3-ubyte.gz", gzip(images_file()));
  write(folder / "train-labels-idx1-ubyte", labels_file());
  write(folder / "test_batch.bin", cifar(3));
  int named = 0;
  for (const bool grey : {true, false})
    for (long n = 1;; ++n) {
      CAPTURE(n);
      REQUIRE(n < 10'000);
      std::size_t size = 0;
      bool failed = false;
      try {
        const strata_test::FailNthAllocation failing(n);
        try {
          size = grey ? st::MNIST({.root = folder.path()}).size() : st::CIFAR10({.root = folder.path(), .train = false}).size();
        } catch (const std::bad_alloc&) {
        } catch (const st::FileError& error) {
          named += contains(error.what(), "cannot read the data set: there is not enough memory");
        }
        failed = failing.failed();
      } catch (...) {
        FAIL("another exception than bad_alloc or FileError");
      }
      CHECK((size == 0 || size == (grey ? 5u : 3u)));
      if (failed) continue;
      CHECK(size != 0);
      CHECK(n > 5);
      break;
    }
  CHECK(named > 3);
}

TEST_CASE("missing files are named with their folder and their origin") {
  const strata_test::TemporaryFolder folder;
  const std::string text = error_of<st::MNIST>(folder.path());
  CHECK(text.starts_with(folder.path().string() + ": there is none of train-images-idx3-ubyte, train-images-idx3-ubyte.gz, "));
  CHECK(contains(text, "MNIST/raw/train-images-idx3-ubyte.gz in this folder. The files are those of the MNIST database"));
  write(folder / "t10k-images-idx3-ubyte", images_file());
  CHECK(contains(error_of<st::FashionMNIST>(folder.path(), false), "t10k-labels-idx1-ubyte.gz in this folder. The files are those of Fashion-MNIST"));
  CHECK(contains(error_of<st::CIFAR10>(folder.path()), "data_batch_1.bin, cifar-10-batches-bin/data_batch_1.bin in this folder"));
  CHECK(contains(error_of<st::CIFAR10>(folder.path(), false), "test_batch.bin"));
  CHECK(contains(error_of<st::MNIST>(""), ".root is empty"));
  CHECK_THROWS_AS(st::MNIST({.root = ""}), st::ValueError);
  std::filesystem::create_directory(folder / "train-images-idx3-ubyte");
  CHECK(contains(error_of<st::MNIST>(folder.path()), "it is not a file"));
}

TEST_CASE("images and labels that do not belong together") {
  const strata_test::TemporaryFolder folder;
  write(folder / "train-images-idx3-ubyte", images_file(4));
  write(folder / "train-labels-idx1-ubyte", labels_file());
  CHECK(contains(error_of<st::MNIST>(folder.path()), "it holds 5 labels, and"));
  write(folder / "train-images-idx3-ubyte", images_file());
  write(folder / "train-labels-idx1-ubyte", idx(2049, {5}, {5, 0, 4, 10, 9}));
  CHECK(contains(error_of<st::MNIST>(folder.path()), "train-labels-idx1-ubyte: label number 3 is 10, wanted 0 to 9"));
  write(folder / "train-labels-idx1-ubyte", images_file());
  CHECK(contains(error_of<st::MNIST>(folder.path()), "train-labels-idx1-ubyte: cannot read the data set: its first four bytes are the number 2051, wanted 2049"));
}

TEST_CASE("IDX files that are not what they say") {
  CHECK(problem_of(images_file(), 3) == "");
  CHECK(problem_of(labels_file(), 1) == "");
  CHECK(contains(problem_of(images_file(), 1), "wanted 2049"));
  CHECK(contains(problem_of(idx(0x0D03, {1, 1, 1}, {0}), 3), "it is no IDX file of bytes with 3 dimensions"));
  for (const std::uint32_t huge : {13u, 0x7FFFFFFFu, 0xFFFFFFFFu})
    for (int axis = 0; axis < 3; ++axis) {
      std::vector<std::uint32_t> sizes{1, 4, 3};
      sizes[std::size_t(axis)] = huge;
      CHECK(contains(problem_of(idx(2051, sizes, pixels(12)), 3), "bytes follow, there are 12 (truncated?)"));
      CHECK(contains(problem_of(gzip(idx(2051, sizes, pixels(12))), 3), "bytes follow, there are 12 (truncated?)"));
    }
  CHECK(contains(problem_of(idx(2051, {0xFFFFFFFFu, 0xFFFFFFFFu, 0xFFFFFFFFu}, pixels(12)), 3), "truncated?"));
  CHECK(contains(problem_of(idx(2051, {0x10000, 0x10000, 0x10000}, pixels(12)), 3), "truncated?"));
  CHECK(contains(problem_of(idx(2051, {0, 28, 28}, {}), 3), "a size in its header is 0"));
  CHECK(problem_of(idx(2051, {1, 4, 2}, pixels(12)), 3) == "its header says 1 x 4 x 2 bytes follow, there are 12");
  const Buffer whole = images_file();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK(problem_of(Buffer(whole.begin(), whole.begin() + std::ptrdiff_t(size)), 3) != "");
  }
}

TEST_CASE("gzip files: as the gzip program writes them, cut short, changed, and two in one") {
  const Buffer program{0x1F, 0x8B, 0x08, 0x08, 0xC2, 0x53, 0x09, 0x6B, 0x02, 0x03, 0x74, 0x2D, 0x6C, 0x61, 0x62, 0x65, 0x6C, 0x73,
                       0x00, 0x63, 0x60, 0xE0, 0x60, 0x64, 0x60, 0x60, 0x60, 0x65, 0x65, 0x60, 0x61, 0xE4, 0x04, 0x00, 0x03, 0xF3,
                       0x96, 0xA5, 0x0D, 0x00, 0x00, 0x00};
  CHECK(problem_of(program, 1) == "");
  for (const bool all_fields : {false, true}) {
    const Buffer whole = gzip(images_file(), all_fields);
    CHECK(problem_of(whole, 3) == "");
    for (std::size_t size = 0; size < whole.size(); ++size) {
      CAPTURE(size);
      CHECK(problem_of(Buffer(whole.begin(), whole.begin() + std::ptrdiff_t(size)), 3) != "");
    }
    for (std::size_t i = 0; i < whole.size(); ++i)
      for (const int bit : {1, 16, 128}) {
        Buffer changed = whole;
        changed[i] = static_cast<unsigned char>(changed[i] ^ bit);
        CAPTURE(i);
        CAPTURE(bit);
        if (problem_of(changed, 3) != "") continue;
        // The time, the system, and the unused bits of the stream's last byte are in no checksum, and nothing depends on them.
        CHECK((i == whole.size() - 9 || (!all_fields && ((i >= 4 && i < 10) || (i == 3 && bit == 1)))));
        CHECK(detail::read_idx(changed, 3).bytes == images_file());
      }
  }
  Buffer two = gzip(labels_file());
  append(two, gzip(labels_file()));
  CHECK(contains(problem_of(two, 1), "something follows its compressed data"));
  Buffer lying = gzip(labels_file());
  lying[lying.size() - 1] = 0x70;  // 1.8 GB
  CHECK(contains(problem_of(lying, 1), "too many for"));
  lying[lying.size() - 1] = 0xF0;
  CHECK(contains(problem_of(lying, 1), "more than 2 GiB"));
}

TEST_CASE("CIFAR10") {
  const strata_test::TemporaryFolder folder;
  for (int batch = 1; batch <= 5; ++batch)
    write(folder / ("cifar-10-batches-bin/data_batch_" + std::to_string(batch) + ".bin"), cifar(2, std::size_t(2 * batch - 2)));
  write(folder / "test_batch.bin", cifar(3));
  const st::CIFAR10 train({.root = folder.path()}), test({.root = folder.path(), .train = false});
  CHECK(test.size() == 3);
  REQUIRE(train.size() == 10);
  for (std::size_t i = 0; i < 10; ++i) CHECK(train.label(i) == st::Label(i));
  CHECK(st::CIFAR10::classes[std::size_t(train.label(6))] == "frog");
  st::Rng rng;
  const auto [image, label] = train.get(3, rng);
  CHECK(label == 3);
  REQUIRE(image.shape() == st::Shape{1, 3, 32, 32});
  for (const std::int64_t y : {0, 1, 31})
    for (const std::int64_t x : {0, 5, 31})
      for (int c = 0; c < 3; ++c) CHECK(image(0, c, y, x) == float(pixel(std::size_t(1024 * c + 32 * y + x))) / 255.0f);
  CHECK_THROWS_AS(train.get(10, rng), st::ValueError);

  const auto path = folder / "test_batch.bin";
  Buffer file = cifar(2);
  file[3073] = 10;
  write(path, file);
  CHECK(error_of<st::CIFAR10>(folder.path(), false) ==
        path.string() + ": cannot read the data set: the label of image 1 is 10, wanted 0 to 9");
  file.pop_back();
  write(path, file);
  CHECK(contains(error_of<st::CIFAR10>(folder.path(), false), "it has 6145 bytes, wanted a multiple of 3073"));
  write(path, {});
  CHECK(contains(error_of<st::CIFAR10>(folder.path(), false), "it has 0 bytes"));
}
