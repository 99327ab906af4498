// Definitions of io/pytorch_file.hpp: from the two forms of the file to the dict that is meant, and its tensors.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/io/detail/elements.hpp"
#include "strata/io/detail/pickle.hpp"
#include "strata/io/detail/pytorch_dicts.hpp"
#include "strata/io/detail/zip_archive.hpp"
#include "strata/io/pytorch_file.hpp"

namespace strata::inline STRATA_ABI {

class PytorchFile::Contents {
 public:
  Contents(const std::filesystem::path& path, const PytorchFileOptions& options) : file_(path), name_(path.string()) {
    if (is_zip(file_))
      open_zip(options);
    else if (is_legacy(file_))
      open_legacy(options);
    else
      fail("is not a file of torch.save");
  }

  Contents(const Contents&) = delete;
  Contents& operator=(const Contents&) = delete;

  static bool recognises(const InputFile& file) { return is_zip(file) || is_legacy(file); }

  const std::filesystem::path& path() const& { return file_.path(); }

  const std::string& key() const& { return key_; }

  const std::vector<TensorInfo>& tensors() const& { return tensors_; }

  const std::vector<std::pair<std::string, std::string>>& others() const& { return others_; }

  const std::string& other_dicts() const& { return other_dicts_; }

  const std::vector<std::string>& unknown_names() const& { return unknown_names_; }

  const TensorInfo* find(std::string_view name) const& {
    const auto found =
        std::lower_bound(index_.begin(), index_.end(), name,
                         [&](std::uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
    return found == index_.end() || tensors_[*found].name != name ? nullptr : &tensors_[*found];
  }

  AnyTensor read_like(const TensorInfo& tensor, const AnyTensor& like) const {
    if (!tensor.unreadable.empty()) fail(concat("tensor ", detail::shown(tensor.name), " ", tensor.unreadable));
    if (detail::dtype_of(like) == DType::i64 && !detail::is_integer(tensor.dtype))
      fail(concat("tensor ", detail::shown(tensor.name), " holds ", detail::row_of(tensor.dtype).name,
                  ", wanted whole numbers"));
    const TensorInfo* mine = find(tensor.name);
    if (mine == nullptr) fail(concat("holds no tensor ", detail::shown(tensor.name)));
    std::vector<std::byte> span(tensor.end - tensor.begin);
    file_.read(tensor.begin, span);
    const Stride& stride = layouts_[std::size_t(mine - tensors_.data())];
    span = detail::gather(tensor.shape, stride, std::size_t(detail::row_of(tensor.dtype).bytes), std::move(span));
    return detail::tensor_from(std::move(span), tensor.dtype, tensor.shape, like);
  }

  void verify_checksums() const {
    if (archive_)
      for (const detail::ZipArchive::Entry& entry : archive_->entries()) archive_->verify_entry(entry);
  }

 private:
  static constexpr std::uint64_t largest_pickle = 64'000'000;
  static constexpr std::int64_t most_repeated = 4'000'000;
  static constexpr std::size_t most_extents = 64;  // as PyTorch
  static constexpr std::size_t most_names = 16;
  static constexpr std::size_t longest_key = 256;  // of a storage: a number, or an address

  using Stride = detail::Stride;
  /// Where a storage's elements lie in the file.
  struct Place {
    std::uint64_t begin, bytes;
  };
  using FindPlace = std::function<std::optional<Place>(std::string_view key)>;

  [[noreturn]] void fail(std::string_view what) const { throw FileError(concat(name_, ": ", what)); }

  // ---- the two forms of the file

  static bool begins_with(std::span<const std::byte> bytes, std::span<const std::uint8_t> wanted) {
    return bytes.size() >= wanted.size() && std::memcmp(bytes.data(), wanted.data(), wanted.size()) == 0;
  }
  static std::vector<std::byte> first_bytes(const InputFile& file) {
    std::vector<std::byte> first(std::size_t(std::min<std::uint64_t>(file.size(), 32)));
    file.read(0, first);
    return first;
  }
  static bool is_zip(const InputFile& file) {
    static constexpr std::array<std::uint8_t, 4> mark{'P', 'K', 3, 4};
    return begins_with(first_bytes(file), mark);
  }
  /// Whether it begins with a pickle of the number 0x1950a86a20f9469cfc6c, in a frame or not, of protocol 2 to 5.
  static bool is_legacy(const InputFile& file) {
    static constexpr std::array<std::uint8_t, 13> mark{0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                                       0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};
    const std::vector<std::byte> first = first_bytes(file);
    if (first.size() < 11 || first[0] != std::byte{0x80} || first[1] < std::byte{2} || first[1] > std::byte{5})
      return false;
    return begins_with(std::span(first).subspan(first[2] == std::byte{0x95} ? 11 : 2), mark);
  }

  std::vector<std::byte> read_bytes(std::uint64_t begin, std::uint64_t size) const {
    std::vector<std::byte> bytes;
    bytes.resize(size);
    file_.read(begin, bytes);
    return bytes;
  }

  void open_zip(const PytorchFileOptions& options) {
    archive_.emplace(file_);
    // All entries are in one folder, which is named as the file was when it was saved.
    const std::string_view first = archive_->entries().empty() ? std::string_view() : archive_->entries().front().name;
    const std::string folder(first.substr(0, first.find('/') + 1));
    if (archive_->find(folder + "constants.pkl") != nullptr)
      fail(
          "is a TorchScript program and not weights alone: in Python, "
          "torch.save(torch.jit.load(file).state_dict(), \"weights.pth\")");
    const detail::ZipArchive::Entry* entry = archive_->find(folder + "data.pkl");
    if (entry == nullptr) fail("is a zip archive, but not one of torch.save: it has no data.pkl");
    if (!entry->stored) fail("has compressed entries, and torch.save does not compress: was it packed anew?");
    if (entry->size > largest_pickle)
      fail(concat("its pickle takes ", entry->size, " bytes, the limit is ", largest_pickle));
    if (const auto* order = archive_->find(folder + "byteorder"); order != nullptr && order->size == 3)  // "big"
      fail("was saved on a big-endian computer: load and save it on another");
    const std::string data = folder + "data/";
    const std::vector<std::byte> bytes = read_bytes(entry->begin, entry->size);
    detail::Unpickler pickle(bytes, name_);
    take_dict(pickle, pickle.load(), options, [&](std::string_view key) -> std::optional<Place> {
      const detail::ZipArchive::Entry* storage = archive_->find(data + std::string(key));
      if (storage == nullptr) return std::nullopt;
      if (!storage->stored)
        fail(concat("its entry ", detail::shown(storage->name), " is compressed, and torch.save does not compress"));
      return Place{storage->begin, storage->size};
    });
  }

  /// Five pickles (magic number, version, byte order, the object, the keys of the storages) and then the storages, each
  /// behind its number of elements.
  void open_legacy(const PytorchFileOptions& options) {
    const std::vector<std::byte> bytes = read_bytes(0, std::min(file_.size(), largest_pickle));
    detail::Unpickler pickle(bytes, name_);
    pickle.load();
    const auto* version = pickle.get<std::int64_t>(pickle.load());
    if (version == nullptr || *version != 1001) fail("is of an unknown version of torch.save's older form");
    for (const auto& [name, value] : detail::string_items(pickle, pickle.load()))
      if (const bool* little = pickle.get<bool>(value); name == "little_endian" && little != nullptr && !*little)
        fail("was saved on a big-endian computer: load and save it on another");
    const detail::PickleId top = pickle.load();
    const std::size_t storages = pickle.storages().size();
    const auto* order = pickle.get<detail::PickleList>(pickle.load());
    if (order == nullptr) fail("is damaged: it does not list its storages");

    std::map<std::string_view, std::uint64_t> widths;  // bytes of an element, by key
    for (std::size_t i = 0; i < storages; ++i) {
      const detail::PickleMemory& storage = pickle.storages()[i];
      if (storage.key.size() > longest_key) fail("is damaged: a storage's key is too long");
      widths.emplace(storage.key, std::uint64_t(pickle.globals()[storage.type].width));
    }
    std::map<std::string_view, Place> places;
    std::uint64_t at = pickle.position();
    pickle.each(*order, [&](detail::PickleId id) {
      const auto* key = pickle.get<std::string_view>(id);
      const auto width = key == nullptr || key->size() > longest_key ? widths.end() : widths.find(*key);
      if (width == widths.end()) fail("is damaged: it lists a storage that it does not use");
      if (width->second == 0)
        fail(concat("holds a storage ", detail::shown(*key), " of a type that is not known here"));
      if (file_.size() - at < sizeof(std::uint64_t)) fail("is cut short");
      std::array<std::byte, sizeof(std::uint64_t)> count{};
      file_.read(at, count);
      at += count.size();
      const auto elements = std::bit_cast<std::uint64_t>(count);
      if (elements > (file_.size() - at) / width->second)
        fail(concat("is cut short: storage ", detail::shown(*key), " of ", elements, " elements goes beyond its end"));
      places.emplace(*key, Place{at, elements * width->second});
      at += elements * width->second;
    });
    if (at != file_.size()) fail(concat("has ", file_.size() - at, " bytes too many"));
    take_dict(pickle, top, options, [&](std::string_view key) -> std::optional<Place> {
      const auto place = places.find(key);
      return place == places.end() ? std::nullopt : std::optional(place->second);
    });
  }

  // ---- which dict, and its tensors

  void take_dict(const detail::Unpickler& pickle, detail::PickleId top, const PytorchFileOptions& options,
                 const FindPlace& find_place) {
    for (std::uint32_t i = 0; i < pickle.globals().size() && unknown_names_.size() < most_names; ++i) {
      if (pickle.globals()[i].known != detail::PickleKnown::nothing) continue;
      std::string name = pickle.name_of(i);
      if (std::find(unknown_names_.begin(), unknown_names_.end(), name) == unknown_names_.end())
        unknown_names_.push_back(std::move(name));
    }
    want_no_object(pickle, top);
    detail::DictSearch search(pickle, top);
    const detail::DictSearch::Found* found = options.key.empty() ? search.usual() : search.under(options.key);
    if (found == nullptr) {
      if (!options.key.empty()) fail("holds no state dict under '" + options.key + "'. It is a " + search.listing());
      for (const detail::NamedValue& item : detail::string_items(pickle, top)) want_no_network(pickle, item.value);
      fail("holds no state dict. It is a " + search.listing());
    }
    key_ = found->key();
    other_dicts_ = search.others(*found);
    take_tensors(pickle, search, found->id, find_place);
  }

  /// Throws where an object stands in the place of a state dict.
  void want_no_object(const detail::Unpickler& pickle, detail::PickleId id) const {
    const auto* object = pickle.get<detail::PickleObject>(id);
    const auto* name = pickle.get<detail::PickleName>(id);
    if (object == nullptr && name == nullptr) return;
    const std::uint32_t global = object != nullptr ? object->global : name->global;
    const std::string_view module = pickle.globals()[global].module;
    const bool is_network = module.starts_with("torch.nn") || module == "__main__";
    fail(concat(
        "holds ", pickle.name_of(global),
        is_network ? ": it looks like a whole network, pickled with its Python class, and not like its weights alone"
                   : ", and only tensors, dicts, lists, tuples, numbers and strings are read",
        ". To rebuild it would run Python code that the file names, so it is refused. If you trust where the file "
        "comes from, save its weights alone, in Python where it was made: torch.save(net.state_dict(), \"weights.pth\")"));
  }
  void want_no_network(const detail::Unpickler& pickle, detail::PickleId id) const {
    if (const auto* object = pickle.get<detail::PickleObject>(id))
      if (const std::string_view module = pickle.globals()[object->global].module;
          module.starts_with("torch.nn") || module == "__main__")
        want_no_object(pickle, id);
  }

  void take_tensors(const detail::Unpickler& pickle, detail::DictSearch& search, detail::PickleId id,
                    const FindPlace& find_place) {
    pickle.each(*pickle.get<detail::PickleDict>(id), [&](detail::PickleId key, detail::PickleId) {
      if (pickle.get<std::string_view>(key) == nullptr)
        fail(concat("has a dict of tensors with a key that is no str but a ", pickle.kind(key)));
    });
    for (const auto& [name, value] : detail::string_items(pickle, id)) {
      if (!detail::is_utf8(name)) fail(concat("tensor ", detail::shown(name), ": its name is not valid UTF-8"));
      if (const auto* tensor = pickle.get<detail::PickleTensor>(value))
        add(name, pickle, pickle.tensor(*tensor), find_place);
      else
        others_.emplace_back(name, search.kind(value));
    }
    for (std::size_t i = 0; i < tensors_.size(); ++i) index_.push_back(std::uint32_t(i));
    std::sort(index_.begin(), index_.end(),
              [&](std::uint32_t a, std::uint32_t b) { return tensors_[a].name < tensors_[b].name; });
  }

  void add(std::string_view name, const detail::Unpickler& pickle, const detail::PickleTensorParts& tensor,
           const FindPlace& find_place) {
    const auto wrong = [&](std::string_view what) { fail(concat("tensor ", detail::shown(name), ": ", what)); };
    const detail::PickleMemory& storage = pickle.storages()[pickle.get<detail::PickleStorage>(tensor.storage)->storage];
    const detail::PickleGlobal& type =
        pickle.globals()[tensor.dtype == detail::pickle_nothing ? storage.type
                                                                : pickle.get<detail::PickleName>(tensor.dtype)->global];
    TensorInfo info{.name = std::string(name), .dtype = type.dtype, .shape = {}, .begin = 0, .end = 0};
    Stride stride{};
    const auto& extents = *pickle.get<detail::PickleTuple>(tensor.shape);
    const auto& strides = *pickle.get<detail::PickleTuple>(tensor.stride);
    const auto offset = *pickle.get<std::int64_t>(tensor.offset);
    if (extents.count > most_extents || strides.count != extents.count)
      wrong(concat("has ", extents.count, " extents and ", strides.count, " strides, wanted as many, and ",
                   most_extents, " at most"));
    if (offset < 0) wrong("begins before its storage");
    bool positive = true;
    const auto number = [&](const detail::PickleTuple& tuple, std::size_t axis) {
      const auto* value = pickle.get<std::int64_t>(pickle.item(tuple, axis));
      positive = positive && value != nullptr && *value >= 0;
      return positive ? *value : 0;
    };
    constexpr std::size_t most_shown = 8;
    std::string text;
    for (std::size_t axis = 0; axis < extents.count; ++axis) {
      const std::int64_t extent = number(extents, axis), step = number(strides, axis);
      if (!positive) wrong("has an extent or stride that is no whole number, or negative");
      if (axis < most_shown) text += concat(axis == 0 ? "" : "x", extent);
      if (axis >= stride.size()) continue;
      stride[axis] = step;
      try {
        info.shape.push_back(extent);
      } catch (const ShapeError& error) {
        wrong(error.what());
      }
    }
    if (extents.count > stride.size()) {
      info.shape = {};
      info.unreadable = concat("has ", extents.count, " extents (", text, extents.count > most_shown ? "x..." : "",
                               "), and at most ", stride.size(), " are supported");
    } else if (!detail::is_readable(info.dtype)) {
      constexpr std::size_t most_letters = 40;
      info.unreadable = detail::unreadable_type("torch." + std::string(type.name.substr(0, most_letters)));
      for (char& letter : info.unreadable) letter = letter < 0x20 || letter == 0x7F ? '?' : letter;
    } else {
      place(info, stride, storage, std::uint64_t(pickle.globals()[storage.type].width), std::uint64_t(offset),
            find_place);
    }
    tensors_.push_back(std::move(info));
    layouts_.push_back(stride);
  }

  /// Finds where a tensor's elements lie. `unit`: bytes of an element of the storage, which may be untyped.
  void place(TensorInfo& info, const Stride& stride, const detail::PickleMemory& storage, std::uint64_t unit,
             std::uint64_t offset, const FindPlace& find_place) const {
    const auto wrong = [&](std::string_view what) { fail(concat("tensor ", detail::shown(info.name), ": ", what)); };
    const auto found = storage.key.size() > longest_key ? std::nullopt : find_place(storage.key);
    if (!found) wrong(concat("its storage ", detail::shown(storage.key), " is not in the file"));
    const auto width = std::uint64_t(detail::row_of(info.dtype).bytes);
    const std::uint64_t elements = found->bytes / width;
    if (found->bytes % width != 0 || unit == 0 || found->bytes % unit != 0 ||
        found->bytes / unit != std::uint64_t(storage.size))
      wrong(concat("its storage ", detail::shown(storage.key), " has ", found->bytes, " bytes in the file, wanted ",
                   storage.size, " elements of ", unit));
    std::uint64_t span = 0;  // elements from the first to the last
    if (info.shape.size() > 0) {
      std::uint64_t last = 0;
      for (std::size_t axis = 0; axis < std::size_t(info.shape.rank()); ++axis) {
        std::uint64_t reach = 0;
        if (__builtin_mul_overflow(std::uint64_t(info.shape[int(axis)] - 1), std::uint64_t(stride[axis]), &reach) ||
            __builtin_add_overflow(last, reach, &last))
          wrong("its strides reach beyond all memory");
      }
      if (offset >= elements || last >= elements - offset)
        wrong(concat("reaches to element ", offset, " + ", last, " of a storage of ", elements));
      span = last + 1;
      if (std::uint64_t(info.shape.size()) > span && info.shape.size() > most_repeated)
        info.unreadable =
            concat("repeats the elements it has, to ", info.shape.size(), ", and the limit is ", most_repeated);
    }
    info.begin = found->begin + (span == 0 ? 0 : offset) * width;
    info.end = info.begin + span * width;
  }

  InputFile file_;
  std::string name_;
  std::optional<detail::ZipArchive> archive_;
  std::string key_, other_dicts_;
  std::vector<TensorInfo> tensors_;
  std::vector<Stride> layouts_;       // of the tensors
  std::vector<std::uint32_t> index_;  // the tensors in the order of their names
  std::vector<std::pair<std::string, std::string>> others_;
  std::vector<std::string> unknown_names_;
};

STRATA_INLINE PytorchFile::PytorchFile(const std::filesystem::path& path, const PytorchFileOptions& options)
    : contents_(std::make_unique<const Contents>(path, options)) {}
STRATA_INLINE PytorchFile::~PytorchFile() = default;
STRATA_INLINE bool PytorchFile::recognises(const InputFile& file) { return Contents::recognises(file); }
STRATA_INLINE const std::filesystem::path& PytorchFile::path() const& { return contents_->path(); }
STRATA_INLINE const std::string& PytorchFile::key() const& { return contents_->key(); }
STRATA_INLINE const std::vector<TensorInfo>& PytorchFile::tensors() const& { return contents_->tensors(); }
STRATA_INLINE const std::vector<std::pair<std::string, std::string>>& PytorchFile::others() const& {
  return contents_->others();
}
STRATA_INLINE const std::string& PytorchFile::other_dicts() const& { return contents_->other_dicts(); }
STRATA_INLINE const std::vector<std::string>& PytorchFile::unknown_names() const& { return contents_->unknown_names(); }
STRATA_INLINE const TensorInfo* PytorchFile::find(std::string_view name) const& { return contents_->find(name); }
STRATA_INLINE AnyTensor PytorchFile::read_like(const TensorInfo& tensor, const AnyTensor& like) const {
  return contents_->read_like(tensor, like);
}
STRATA_INLINE void PytorchFile::verify_checksums() const { contents_->verify_checksums(); }

}  // namespace strata::inline STRATA_ABI
