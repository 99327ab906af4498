// Samples in tar archives, WebDataset's layout: files of one name are a sample, told apart by their endings.
//
//     #include <strata/data/web_dataset.hpp>           // not part of strata.hpp
//     // train-000.tar: 0001.jpg 0001.cls 0002.jpg 0002.cls ...
//     const st::WebDataset<3> photos({"train-000.tar", "train-001.tar"});              // image and class
//     const st::TarShards shards({"pairs.tar"});                                       // anything else: of your own
//     get() const auto noisy = shards.image<3>(index, "noisy.png"), clean = shards.image<3>(index, "clean.png");
//
// Archives are read where they lie: nothing is unpacked, a sample's bytes are read when it is asked for, and in any
// order, so that a DataLoader shuffles all of them. What is damaged is a FileError with the archive's path.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/detail/archive_file.hpp"
#include "strata/data/detail/read_image.hpp"
#include "strata/data/detail/tar.hpp"
#include "strata/data/image_file.hpp"
#include "strata/data/sample.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

/// The samples of several archives, one after another.
class TarShards {
 public:
  /// Reads the archives' directories. Throws FileError for one that is damaged, that has no sample, or in which the
  /// files of a sample do not lie together.
  explicit TarShards(std::vector<std::filesystem::path> shards) : shards_(std::move(shards)) {
    if (shards_.empty()) throw ValueError("TarShards: there are no archives");
    for (std::size_t i = 0; i < shards_.size(); ++i) add(i);
  }

  std::size_t size() const { return samples_.size(); }
  /// What the names of a sample's files begin with, its folder included.
  const std::string& key(std::size_t index) const& { return at(index).key; }

  bool has(std::size_t index, std::string_view endings) const { return find(at(index), endings) != nullptr; }

  /// The bytes of a sample's file, of the first of the endings ("png;jpg;jpeg") that it has. Throws FileError when it
  /// has none.
  std::vector<unsigned char> bytes(std::size_t index, std::string_view endings) const {
    const Sample& sample = at(index);
    const File* const file = find(sample, endings);
    if (file == nullptr) {
      std::string there;
      for (const File& one : sample.files) there += (there.empty() ? "" : ", ") + one.ending;
      throw FileError(concat(where(sample), ": has no file ending in ", endings, "; it has ", there));
    }
    std::vector<unsigned char> out;
    if (file->size > std::uint64_t(std::numeric_limits<int>::max()))
      throw FileError(concat(where(sample), ".", file->ending, ": is larger than 2 GiB"));
    out.reserve(std::size_t(file->size) + detail::inflate_padding);
    out.resize(std::size_t(file->size));
    detail::ArchiveFile(shards_[sample.shard]).read(file->offset, reinterpret_cast<char*>(out.data()), out.size());
    return out;
  }
  std::string text(std::size_t index, std::string_view endings) const {
    const auto all = bytes(index, endings);
    return {all.begin(), all.end()};
  }
  /// Throws FileError for what load_image would not read.
  template <int C>
  Image<C> image(std::size_t index, std::string_view endings = "png;jpg;jpeg;bmp",
                 const LoadOptions& options = {}) const {
    return detail::with_path(where(at(index)), "read",
                             [&] { return Image<C>(detail::floats_of_bytes(bytes(index, endings), C, options)); });
  }
  /// The whole number that a file holds as text.
  Label label(std::size_t index, std::string_view endings = "cls") const {
    const std::string all = text(index, endings);
    std::string_view digits = all;
    while (!digits.empty() && (digits.back() == '\n' || digits.back() == '\r' || digits.back() == ' '))
      digits.remove_suffix(1);
    Label value = 0;
    for (const char digit : digits) {
      if (digit < '0' || digit > '9' || value > 1000000000) digits = {};
      if (digits.empty()) break;
      value = 10 * value + (digit - '0');
    }
    if (digits.empty()) throw FileError(concat(where(at(index)), ": its class is no number from 0 to 9999999999"));
    return value;
  }
  std::string name(std::size_t index) const { return where(at(index)); }

 private:
  struct File {
    std::string ending;
    std::uint64_t offset, size;
  };
  struct Sample {
    std::string key;
    std::size_t shard;
    std::vector<File> files;
  };

  const Sample& at(std::size_t index) const {
    detail::check_index("TarShards", index, size());
    return samples_[index];
  }
  std::string where(const Sample& sample) const { return concat(shards_[sample.shard].string(), ": ", sample.key); }

  static const File* find(const Sample& sample, std::string_view endings) {
    for (std::size_t begin = 0; begin <= endings.size();) {
      const std::size_t end = std::min(endings.find(';', begin), endings.size());
      for (const File& file : sample.files)
        if (file.ending == endings.substr(begin, end - begin)) return &file;
      begin = end + 1;
    }
    return nullptr;
  }

  void add(std::size_t shard) {
    const std::filesystem::path& path = shards_[shard];
    const detail::ArchiveFile file(path);
    std::vector<detail::TarEntry> entries;
    try {
      entries = detail::read_tar(
          file.size(), [&](std::uint64_t offset, char* to, std::size_t count) { file.read(offset, to, count); });
    } catch (const detail::BadTar& problem) {
      throw FileError(concat(path.string(), ": cannot be read as a tar archive: ", problem.what()));
    }
    std::unordered_set<std::string> keys;
    const std::size_t before = samples_.size();
    for (detail::TarEntry& entry : entries) {
      if (entry.name.starts_with("./")) entry.name.erase(0, 2);
      const std::size_t slash = entry.name.rfind('/'), start = slash == std::string::npos ? 0 : slash + 1;
      const std::size_t dot = entry.name.find('.', start);
      if (dot == std::string::npos || dot == start || entry.name.compare(start, 2, "__") == 0)
        continue;  // hidden files, and notes
      std::string key = entry.name.substr(0, dot), ending = entry.name.substr(dot + 1);
      if (samples_.size() == before || samples_.back().key != key) {
        if (!keys.insert(key).second)
          throw FileError(
              concat(path.string(), ": the files of ", key, " do not lie together; tar --sort=name lays them so"));
        samples_.push_back({std::move(key), shard, {}});
      }
      Sample& sample = samples_.back();
      if (find(sample, ending) != nullptr) throw FileError(concat(path.string(), ": ", entry.name, " is there twice"));
      sample.files.push_back({std::move(ending), entry.offset, entry.size});
    }
    if (samples_.size() == before)
      throw FileError(concat(path.string(), ": has no files with an ending, as 0001.jpg, so there are no samples"));
  }

  std::vector<std::filesystem::path> shards_;
  std::vector<Sample> samples_;
};

struct WebDatasetOptions {
  std::string input = "png;jpg;jpeg;bmp", target = "cls";  ///< endings; of several, the first that a sample has
  LoadOptions load = {};
};

/// Images and their classes, whole numbers in .cls files.
template <int C>
class WebDataset {
 public:
  static constexpr int channels = C;

  explicit WebDataset(std::vector<std::filesystem::path> shards, WebDatasetOptions options = {})
      : shards_(std::move(shards)), options_(std::move(options)) {
    for (std::size_t i = 0; i < shards_.size(); ++i)
      if (!shards_.has(i, options_.input) || !shards_.has(i, options_.target))
        throw FileError(
            concat(shards_.name(i), ": wanted a file ending in ", options_.input, " and one in ", options_.target));
  }

  std::size_t size() const { return shards_.size(); }
  std::string name(std::size_t index) const { return shards_.name(index); }
  LabelledSample<C> get(std::size_t index, Rng&) const {
    Image<C> image = shards_.image<C>(index, options_.input, options_.load);
    const Label label = shards_.label(index, options_.target);
    return {std::move(image), label};
  }

 private:
  TarShards shards_;
  WebDatasetOptions options_;
};

}  // namespace strata::inline STRATA_ABI
