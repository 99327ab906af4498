// Pictures in an LMDB database, in BasicSR's layout: encoded files by their names, and beside them meta_info.txt.
//
//     #include <strata/data/lmdb.hpp>                  // not part of strata.hpp; needs no library
//     const st::LmdbImages<3> photos("DIV2K_train_HR_sub.lmdb");               // where ImageFolder<3> would do
//     const st::PairedLmdb<3> pairs("lq.lmdb", "gt.lmdb", {.scale = 4});        // and PairedFolder<3>
//     const st::LmdbDatabase any("other.lmdb");        // keys and bytes: for a get() of your own
//
// meta_info.txt has a line for each picture, `0001_s001.png (480,480,3) 1`: name, rows, columns and channels, PNG's
// level; the key is the name without its ending. Without it all keys are pictures. BasicSR's scripts/data_preparation
// and lmdb's mdb_load write such databases.
//
// The file is read where it lies, one picture when it is asked for, from as many threads as ask; keys and places are
// kept. Nothing in it is trusted: what is damaged is a FileError (data/detail/lmdb.hpp). No other program may write to
// it meanwhile.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/detail/archive_file.hpp"
#include "strata/data/detail/lmdb.hpp"
#include "strata/data/detail/read_image.hpp"
#include "strata/data/image_file.hpp"
#include "strata/data/image_source.hpp"
#include "strata/data/sample.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Keys and values. Copies share the open file.
class LmdbDatabase {
 public:
  /// A folder with data.mdb in it, or such a file. Reads the keys. Throws FileError for what is damaged.
  explicit LmdbDatabase(const std::filesystem::path& path)
      : path_(path), file_(std::make_shared<const detail::ArchiveFile>(file_of(path))) {
    try {
      directory_ = std::make_shared<const detail::LmdbDirectory>(detail::read_lmdb(
          file_->size(), [&](std::uint64_t offset, char* to, std::size_t count) { file_->read(offset, to, count); }));
    } catch (const detail::BadLmdb& problem) {
      throw FileError(concat(path.string(), ": cannot be read as an LMDB database: ", problem.what()));
    }
  }

  std::size_t size() const { return directory_->entries.size(); }
  const std::filesystem::path& path() const& { return path_; }
  std::filesystem::path path() const&& { return path_; }
  /// Keys rise, as memcmp compares them.
  const std::string& key(std::size_t index) const& { return at(index).key; }
  std::string key(std::size_t index) const&& { return at(index).key; }
  /// The place of a key; nothing where there is none.
  std::optional<std::size_t> find(std::string_view key) const {
    const auto& entries = directory_->entries;
    const auto found =
        std::lower_bound(entries.begin(), entries.end(), key,
                         [](const detail::LmdbEntry& entry, std::string_view k) { return entry.key < k; });
    if (found == entries.end() || found->key != key) return std::nullopt;
    return std::size_t(found - entries.begin());
  }

  /// The value. Throws FileError where the file is damaged there, and for values of 2 GiB and more.
  std::vector<unsigned char> bytes(std::size_t index) const {
    const detail::LmdbEntry& entry = at(index);
    if (entry.size > std::uint64_t(std::numeric_limits<int>::max()))
      throw FileError(concat(name(index), ": is larger than 2 GiB"));
    if (entry.large) {
      const std::uint64_t page = entry.offset / directory_->page_size;
      char header[detail::lmdb_page_header];
      file_->read(page * directory_->page_size, header, sizeof header);
      const std::string_view text(header, sizeof header);
      const std::uint64_t pages = detail::lmdb_number(text, 12, 4);
      if (!detail::is_lmdb_page(text, page, detail::lmdb_overflow) ||
          detail::lmdb_page_header + entry.size > pages * directory_->page_size)
        throw FileError(concat(name(index), ": its page ", page, " is damaged"));
    }
    std::vector<unsigned char> out;
    out.reserve(std::size_t(entry.size) + detail::inflate_padding);
    out.resize(std::size_t(entry.size));
    file_->read(entry.offset, reinterpret_cast<char*>(out.data()), out.size());
    return out;
  }

  /// For messages: the path and the key.
  std::string name(std::size_t index) const { return concat(path_.string(), ": ", shown(at(index).key)); }
  /// A key as it may be printed.
  static std::string shown(std::string_view key) {
    std::string out(key.substr(0, 100));
    for (char& letter : out)
      if (letter < ' ' || letter > '~') letter = '?';
    return out;
  }

 private:
  static std::filesystem::path file_of(const std::filesystem::path& path) {
    std::error_code ignored;  // what cannot be looked at cannot be opened either
    return std::filesystem::is_directory(path, ignored) ? path / "data.mdb" : path;
  }
  const detail::LmdbEntry& at(std::size_t index) const {
    detail::check_index("LmdbDatabase", index, size());
    return directory_->entries[index];
  }

  std::filesystem::path path_;
  std::shared_ptr<const detail::ArchiveFile> file_;
  std::shared_ptr<const detail::LmdbDirectory> directory_;
};

namespace detail {

/// A line of meta_info.txt.
struct LmdbMeta {
  std::string key;
  std::int64_t h = 0, w = 0;
};

/// `0001_s001.png (480,480,3) 1`; nothing for what is no such line.
inline std::optional<LmdbMeta> lmdb_meta_line(std::string_view line) {
  const std::size_t open = line.rfind(" (");
  if (open == std::string_view::npos || open == 0) return std::nullopt;
  std::string_view name = line.substr(0, open), rest = line.substr(open + 2);
  if (const std::size_t dot = name.rfind('.'); dot != std::string_view::npos && dot > 0) name = name.substr(0, dot);
  const auto number = [&](char behind) {
    std::int64_t value = 0;
    std::size_t digits = 0;
    while (!rest.empty() && rest[0] == ' ') rest.remove_prefix(1);
    for (; digits < rest.size() && digits < 9 && rest[digits] >= '0' && rest[digits] <= '9'; ++digits)
      value = 10 * value + (rest[digits] - '0');
    if (digits == 0 || digits == rest.size() || rest[digits] != behind) return std::int64_t{0};
    rest.remove_prefix(digits + 1);
    return value;
  };
  LmdbMeta out{std::string(name), 0, 0};
  out.h = number(',');
  out.w = number(',');
  if (out.h < 1 || out.w < 1 || number(')') < 1) return std::nullopt;
  return out;
}

}  // namespace detail

/// The pictures of a database as a source of images and as a dataset whose input and target are both the picture. Those
/// that meta_info.txt names, in its order, or all, by their keys.
template <int C>
class LmdbImages {
 public:
  static constexpr int channels = C;

  /// Throws FileError for a damaged database, a line of meta_info.txt that says nothing, and a key that is not there.
  explicit LmdbImages(const std::filesystem::path& path, const LoadOptions& options = {})
      : database_(path), options_(options) {
    const std::filesystem::path meta =
        (std::filesystem::is_directory(path) ? path : path.parent_path()) / "meta_info.txt";
    std::error_code ignored;
    if (std::filesystem::is_regular_file(meta, ignored))
      read_meta(meta);
    else
      for (std::size_t i = 0; i < database_.size(); ++i) pictures_.push_back({i, 0, 0});
    if (pictures_.empty()) throw FileError(concat(path.string(), ": there are no pictures in this database"));
  }

  std::size_t size() const { return pictures_.size(); }
  const LmdbDatabase& database() const& { return database_; }
  LmdbDatabase database() const&& { return database_; }
  std::string key(std::size_t index) const { return database_.key(at(index).place); }
  std::string name(std::size_t index) const { return database_.name(at(index).place); }

  /// Picture `index`, shape (1, C, H, W). Throws FileError for what load_image would not read, and for a picture whose
  /// size is another than meta_info.txt says.
  Image<C> image(std::size_t index) const { return read(index, nullptr); }
  /// See image_source.hpp: what meta_info.txt says.
  std::optional<ImageSize> size_of(std::size_t index) const {
    const Picture& picture = at(index);
    return picture.h > 0 ? std::optional(ImageSize{picture.h, picture.w}) : std::nullopt;
  }
  /// Pixels of image(index); no more of the picture is decoded than these need.
  Image<C> part(std::size_t index, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w) const {
    const detail::ImagePart wanted{y, x, h, w};
    return read(index, &wanted);
  }
  Sample<C> get(std::size_t index, Rng&) const {
    const Image<C> picture = image(index);
    return {picture, picture};
  }

 private:
  struct Picture {
    std::size_t place;
    std::int64_t h, w;  // 0: not said
  };

  const Picture& at(std::size_t index) const {
    detail::check_index("LmdbImages", index, size());
    return pictures_[index];
  }

  Image<C> read(std::size_t index, const detail::ImagePart* wanted) const {
    const Picture& picture = at(index);
    std::vector<unsigned char> bytes = database_.bytes(picture.place);
    return detail::with_path(name(index), "read", [&] {
      if (picture.h > 0) {
        const ImageInfo info = detail::read_structure(bytes, false);
        if (info.h != picture.h || info.w != picture.w)
          throw detail::BadImage(concat("it has ", info.h, "x", info.w,
                                        " pixels (rows x columns), and meta_info.txt says ", picture.h, "x",
                                        picture.w));
      }
      return Image<C>(detail::floats_of_bytes(std::move(bytes), C, options_, wanted));
    });
  }

  void read_meta(const std::filesystem::path& path) {
    const auto bytes = detail::read_bytes(path, std::numeric_limits<int>::max());
    std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::unordered_set<std::size_t> seen;
    for (std::size_t number = 1; !text.empty(); ++number) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (line.empty()) continue;
      const auto where = [&] { return concat(path.string(), ": line ", number); };
      const auto meta = detail::lmdb_meta_line(line);
      if (!meta)
        throw FileError(concat(where(), ": got \"", LmdbDatabase::shown(line),
                               "\", wanted a name and rows, columns and channels, as 0001.png (480,480,3) 1"));
      const auto place = database_.find(meta->key);
      if (!place) throw FileError(concat(where(), ": the database has no key ", LmdbDatabase::shown(meta->key)));
      if (!seen.insert(*place).second)
        throw FileError(concat(where(), ": ", LmdbDatabase::shown(meta->key), " is named twice"));
      pictures_.push_back({*place, meta->h, meta->w});
    }
  }

  LmdbDatabase database_;
  LoadOptions options_;
  std::vector<Picture> pictures_;
};

struct PairedLmdbOptions {
  std::int64_t scale = 1;  ///< the target has scale times the rows and columns of the input
  LoadOptions load = {};
};

/// Inputs and targets from two databases. Pictures belong together when their keys are equal. Throws FileError when one
/// has no partner, or the sizes of two do not fit: at once where meta_info.txt says so, else when they are read.
template <int C>
class PairedLmdb {
 public:
  static constexpr int channels = C;

  PairedLmdb(const std::filesystem::path& inputs, const std::filesystem::path& targets,
             const PairedLmdbOptions& options = {})
      : inputs_(inputs, options.load), targets_(targets, options.load), scale_(options.scale) {
    if (scale_ < 1) throw ValueError(concat("PairedLmdb: got .scale = ", scale_, ", wanted at least 1"));
    std::vector<std::pair<std::string, std::size_t>> by_key(targets_.size());
    for (std::size_t i = 0; i < targets_.size(); ++i) by_key[i] = {targets_.key(i), i};
    std::sort(by_key.begin(), by_key.end());
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const std::string key = inputs_.key(i);
      const auto found = std::lower_bound(by_key.begin(), by_key.end(), std::pair(key, std::size_t{0}));
      if (found == by_key.end() || found->first != key)
        throw FileError(concat(inputs_.name(i), ": has no partner of the same key in ", targets.string()));
      partners_.push_back(found->second);
      const auto in = inputs_.size_of(i), out = targets_.size_of(found->second);
      if (in && out) check_sizes(i, in->h, in->w, out->h, out->w);
    }
    if (inputs_.size() != targets_.size())
      throw FileError(concat(targets.string(), ": has ", targets_.size(), " pictures, and ", inputs.string(), " has ",
                             inputs_.size(), ": some have no partner of the same key"));
  }

  std::size_t size() const { return inputs_.size(); }
  const LmdbImages<C>& inputs() const& { return inputs_; }
  LmdbImages<C> inputs() const&& { return inputs_; }
  std::string name(std::size_t index) const { return inputs_.name(index); }
  Sample<C> get(std::size_t index, Rng&) const {
    Image<C> input = inputs_.image(index);
    Image<C> target = targets_.image(partners_[index]);
    check_sizes(index, input.h(), input.w(), target.h(), target.w());
    return {std::move(input), std::move(target)};
  }

 private:
  void check_sizes(std::size_t index, std::int64_t h, std::int64_t w, std::int64_t target_h,
                   std::int64_t target_w) const {
    if (target_h != scale_ * h || target_w != scale_ * w)
      throw FileError(concat(inputs_.name(index), " has ", h, "x", w, " pixels and its target ", target_h, "x",
                             target_w, "; wanted ", scale_,
                             " times as many rows and columns (PairedLmdbOptions::scale)"));
  }

  LmdbImages<C> inputs_, targets_;
  std::int64_t scale_;
  std::vector<std::size_t> partners_;
};

}}  // namespace strata::STRATA_ABI
