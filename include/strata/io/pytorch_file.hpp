// Reads what torch.save wrote (.pth, .pt): a state dict, or a dict that holds one.
//
//     st::PytorchFile file("net.pth");
//     for (const st::TensorInfo& tensor : file.tensors()) std::cout << tensor.name << tensor.shape.str() << '\n';
//     st::Tensor<float> weight = file.read<float>(*file.find("conv.weight"));
//
// Both forms are read: the zip archive, and what came before PyTorch 1.6 or _use_new_zipfile_serialization=False. A .pth is
// a Python pickle, which can name any program to be run when it is opened; here nothing is run, and what is no tensor, dict,
// list, tuple, number or string is refused by name (io/detail/pickle.hpp). A network pickled whole, with its class, is such:
// save net.state_dict() instead.
//
// Which dict is read: the one under PytorchFileOptions::key; else the first of "state_dict", "model_state_dict",
// "params_ema", "params" and "model" that holds tensors; else the file's own. Limits: pickle 64 MB, 4 million steps of it,
// four extents for each tensor of the dict; a tensor that repeats elements (of stride 0) has 16 million at most.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/io/detail/elements.hpp"
#include "strata/io/detail/pickle.hpp"
#include "strata/io/detail/zip_archive.hpp"
#include "strata/io/file.hpp"
#include "strata/io/tensor_info.hpp"

namespace strata::inline STRATA_ABI {

struct PytorchFileOptions {
  std::string key = {};  ///< of the dict to be read, as "generator"; empty: see the top of io/pytorch_file.hpp
};

/// A file of torch.save, open for reading. Safe to read from several threads.
class PytorchFile {
 public:
  /// Reads and checks everything but the numbers. Throws FileError, beginning with the path.
  explicit PytorchFile(const std::filesystem::path& path, const PytorchFileOptions& options = {})
      : file_(path), name_(path.string()) {
    if (is_zip(file_))
      open_zip(options);
    else if (is_legacy(file_))
      open_legacy(options);
    else
      fail("is not a file of torch.save");
  }

  PytorchFile(const PytorchFile&) = delete;
  PytorchFile& operator=(const PytorchFile&) = delete;

  /// Whether the file begins as a zip archive or as the form before it.
  static bool recognises(const InputFile& file) { return is_zip(file) || is_legacy(file); }

  const std::filesystem::path& path() const { return file_.path(); }

  /// The key of the dict that was read; empty for the file's own.
  const std::string& key() const { return key_; }

  /// The dict's tensors, in its order.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }

  /// What else the dict holds: names and Python's words for what they are.
  const std::vector<std::pair<std::string, std::string>>& others() const { return others_; }

  /// The tensor of that name; null when there is none.
  const TensorInfo* find(const std::string& name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }

  /// The numbers of one of this file's tensors, in Strata's memory order. float and double take any type and round
  /// where they must; int64 takes whole numbers. Throws FileError when the file cannot be read or its type does not do.
  template <class T>
  Tensor<T> read(const TensorInfo& tensor) const {
    return std::get<Tensor<T>>(read_like(tensor, AnyTensor(Tensor<T>())));
  }

  /// The same, as the type that `like` has.
  AnyTensor read_like(const TensorInfo& tensor, const AnyTensor& like) const {
    if (detail::dtype_of(like) == DType::i64 && !detail::is_integer(tensor.dtype))
      fail(concat("tensor ", detail::shown(tensor.name), " holds ", detail::row_of(tensor.dtype).name,
                  ", wanted whole numbers"));
    std::vector<std::byte> span(tensor.end - tensor.begin);
    file_.read(tensor.begin, span);
    const Stride& stride = layouts_[index_.at(tensor.name)];
    return detail::tensor_from(gather(tensor, stride, span), tensor.dtype, tensor.shape, like);
  }

  /// Reads the whole archive and throws FileError when a checksum does not agree. Files of the older form have none, nor
  /// have those saved after torch.serialization.set_crc32_options(False).
  void verify_checksums() const {
    if (archive_)
      for (const detail::ZipArchive::Entry& entry : archive_->entries()) archive_->verify_entry(entry);
  }

 private:
  static constexpr std::uint64_t largest_pickle = 64'000'000;
  static constexpr std::int64_t most_repeated = 16'000'000;
  static constexpr std::array<std::string_view, 5> keys{"state_dict", "model_state_dict", "params_ema", "params", "model"};

  using Stride = std::array<std::int64_t, std::size_t(Shape::max_rank)>;
  /// Where a storage's elements lie in the file.
  struct Place {
    std::uint64_t begin, bytes;
  };
  using Places = std::map<std::string, Place>;  // by the storages' keys

  [[noreturn]] void fail(std::string_view what) const { throw FileError(concat(name_, ": ", what)); }

  // ---- the two forms of the file

  static bool begins_with(const InputFile& file, std::span<const std::uint8_t> wanted) {
    std::array<std::byte, 16> first{};
    if (file.size() < wanted.size()) return false;
    file.read(0, std::span(first).first(wanted.size()));
    return std::memcmp(first.data(), wanted.data(), wanted.size()) == 0;
  }
  static bool is_zip(const InputFile& file) {
    static constexpr std::array<std::uint8_t, 4> mark{'P', 'K', 3, 4};
    return begins_with(file, mark);
  }
  // A pickle of the number 0x1950a86a20f9469cfc6c.
  static constexpr std::array<std::uint8_t, 15> legacy_mark{0x80, 2,    0x8a, 10,   0x6c, 0xfc, 0x9c, 0x46,
                                                            0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};
  static bool is_legacy(const InputFile& file) { return begins_with(file, legacy_mark); }

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
      fail("is a TorchScript program and not weights alone: in Python, "
           "torch.save(torch.jit.load(file).state_dict(), \"weights.pth\")");
    const detail::ZipArchive::Entry* entry = archive_->find(folder + "data.pkl");
    if (entry == nullptr) fail("is a zip archive, but not one of torch.save: it has no data.pkl");
    if (!entry->stored) fail("has compressed entries, and torch.save does not compress: was it packed anew?");
    if (entry->size > largest_pickle)
      fail(concat("its pickle takes ", entry->size, " bytes, the limit is ", largest_pickle));
    if (const auto* order = archive_->find(folder + "byteorder"); order != nullptr && order->size == 3)  // "big"
      fail("was saved on a big-endian computer: load and save it on another");
    Places places;
    const std::string data = folder + "data/";
    for (const detail::ZipArchive::Entry& storage : archive_->entries())
      if (storage.stored && storage.name.starts_with(data))
        places.emplace(storage.name.substr(data.size()), Place{storage.begin, storage.size});
    const std::vector<std::byte> bytes = read_bytes(entry->begin, entry->size);
    detail::Unpickler pickle(bytes, name_);
    take_dict(pickle, pickle.load(), places, options);
  }

  /// Five pickles (magic number, version, byte order, the object, the keys of the storages) and then the storages, each
  /// behind its number of elements.
  void open_legacy(const PytorchFileOptions& options) {
    const std::vector<std::byte> bytes = read_bytes(0, std::min(file_.size(), largest_pickle));
    detail::Unpickler pickle(bytes, name_);
    pickle.load();
    const auto* version = pickle.get<std::int64_t>(pickle.load());
    if (version == nullptr || *version != 1001) fail("is of an unknown version of torch.save's older form");
    const auto system = string_items(pickle, pickle.load());
    if (const auto order = system.find("little_endian"); order != system.end())
      if (const bool* little = pickle.get<bool>(order->second); little != nullptr && !*little)
        fail("was saved on a big-endian computer: load and save it on another");
    const detail::PickleId top = pickle.load();
    const std::size_t values = pickle.size();
    const auto* order = pickle.get<detail::PickleList>(pickle.load());
    if (order == nullptr) fail("is damaged: it does not list its storages");

    std::map<std::string_view, std::uint64_t> widths;  // bytes of an element, by key
    for (std::size_t id = 0; id < values; ++id)
      if (const auto* storage = pickle.get<detail::PickleStorage>(detail::PickleId(id)))
        widths.emplace(storage->key, std::uint64_t(detail::row_of(storage->dtype).bytes));
    Places places;
    std::uint64_t at = pickle.position();
    for (const detail::PickleId id : order->items) {
      const auto* key = pickle.get<std::string>(id);
      const auto width = key == nullptr ? widths.end() : widths.find(*key);
      if (width == widths.end()) fail("is damaged: it lists a storage that it does not use");
      if (file_.size() - at < sizeof(std::uint64_t)) fail("is cut short");
      std::array<std::byte, sizeof(std::uint64_t)> count{};
      file_.read(at, count);
      at += count.size();
      const auto elements = std::bit_cast<std::uint64_t>(count);
      if (elements > (file_.size() - at) / width->second)
        fail(concat("is cut short: storage ", detail::shown(*key), " of ", elements, " elements goes beyond its end"));
      places.emplace(*key, Place{at, elements * width->second});
      at += elements * width->second;
    }
    if (at != file_.size()) fail(concat("has ", file_.size() - at, " bytes too many"));
    take_dict(pickle, top, places, options);
  }

  // ---- which dict, and its tensors

  /// The items of a dict whose keys are strings; none for another value.
  static std::map<std::string_view, detail::PickleId> string_items(const detail::Unpickler& pickle, detail::PickleId id) {
    std::map<std::string_view, detail::PickleId> items;
    if (const auto* dict = pickle.get<detail::PickleDict>(id))
      for (const auto& [key, value] : dict->items)
        if (const auto* text = pickle.get<std::string>(key)) items.insert_or_assign(*text, value);
    return items;
  }
  static std::size_t count_tensors(const detail::Unpickler& pickle, detail::PickleId id) {
    std::size_t count = 0;
    for (const auto& [key, value] : string_items(pickle, id)) count += pickle.get<detail::PickleTensor>(value) != nullptr;
    return count;
  }
  static std::string kind(const detail::Unpickler& pickle, detail::PickleId id) {
    std::string text(detail::python_kind(pickle.at(id)));
    if (pickle.get<detail::PickleDict>(id) != nullptr) text += concat(" with ", count_tensors(pickle, id), " tensors");
    return text;
  }

  void take_dict(const detail::Unpickler& pickle, detail::PickleId top, const Places& places,
                 const PytorchFileOptions& options) {
    const auto items = string_items(pickle, top);
    detail::PickleId chosen = top;
    const auto choose = [&](std::string_view key) {
      const auto found = items.find(key);
      if (found == items.end() || count_tensors(pickle, found->second) == 0) return false;
      chosen = found->second;
      key_ = key;
      return true;
    };
    if (!options.key.empty() ? !choose(options.key)
                             : std::none_of(keys.begin(), keys.end(), choose) && count_tensors(pickle, top) == 0) {
      std::string text = options.key.empty() ? "holds no state dict" : "holds no state dict under '" + options.key + "'";
      text += ". It is a " + kind(pickle, top);
      constexpr std::size_t most = 20;
      std::size_t listed = 0;
      for (const auto& [key, value] : items) {
        if (listed++ == most) break;
        text += "\n  " + detail::shown(key) + ": " + kind(pickle, value);
      }
      if (items.size() > most) text += concat("\n  and ", items.size() - most, " more");
      if (std::any_of(items.begin(), items.end(), [&](const auto& item) { return count_tensors(pickle, item.second) > 0; }))
        text += "\nGive the key of a dict with tensors: {.key = \"...\"}";
      fail(text);
    }
    take_tensors(pickle, chosen, places);
  }

  void take_tensors(const detail::Unpickler& pickle, detail::PickleId id, const Places& places) {
    const auto last = string_items(pickle, id);  // of equal names the last counts
    const auto* dict = pickle.get<detail::PickleDict>(id);
    std::set<std::string_view> taken;
    for (const auto& item : dict->items) {
      const auto* name = pickle.get<std::string>(item.first);
      if (name == nullptr)
        fail(concat("has a dict of tensors with a key that is no str but a ", detail::python_kind(pickle.at(item.first))));
      if (!detail::is_utf8(*name)) fail(concat("tensor ", detail::shown(*name), ": its name is not valid UTF-8"));
      if (!taken.insert(*name).second) continue;
      const detail::PickleId value = last.at(*name);
      if (const auto* tensor = pickle.get<detail::PickleTensor>(value))
        add(*name, *tensor, *pickle.get<detail::PickleStorage>(tensor->storage), places);
      else
        others_.emplace_back(*name, detail::python_kind(pickle.at(value)));
    }
  }

  void add(const std::string& name, const detail::PickleTensor& tensor, const detail::PickleStorage& storage,
           const Places& places) {
    const auto wrong = [&](std::string_view what) { fail(concat("tensor ", detail::shown(name), ": ", what)); };
    TensorInfo info{.name = name, .dtype = storage.dtype, .shape = {}, .begin = 0, .end = 0};
    Stride stride{};
    if (tensor.shape.size() > stride.size())
      wrong(concat("has ", tensor.shape.size(), " extents, and at most ", stride.size(), " are supported"));
    try {
      for (const std::int64_t extent : tensor.shape) info.shape.push_back(extent);
    } catch (const ShapeError& error) {
      wrong(error.what());
    }
    const auto place = places.find(storage.key);
    if (place == places.end()) wrong(concat("its storage ", detail::shown(storage.key), " is not in the file"));
    const auto width = std::uint64_t(detail::row_of(storage.dtype).bytes);
    const std::uint64_t elements = place->second.bytes / width;
    if (place->second.bytes % width != 0 || elements != std::uint64_t(storage.size))
      wrong(concat("its storage ", detail::shown(storage.key), " has ", place->second.bytes, " bytes in the file, wanted ",
                   storage.size, " elements of ", width));
    std::uint64_t span = 0;  // elements from the first to the last
    if (info.shape.size() > 0) {
      std::uint64_t last = 0;
      for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
        stride[axis] = tensor.stride[axis];
        std::uint64_t reach = 0;
        if (__builtin_mul_overflow(std::uint64_t(tensor.shape[axis] - 1), std::uint64_t(stride[axis]), &reach) ||
            __builtin_add_overflow(last, reach, &last))
          wrong("its strides reach beyond all memory");
      }
      const auto offset = std::uint64_t(tensor.offset);
      if (offset >= elements || last >= elements - offset)
        wrong(concat("reaches to element ", offset, " + ", last, " of a storage of ", elements));
      if (std::uint64_t(info.shape.size()) > last + 1 && info.shape.size() > most_repeated)
        wrong(concat("repeats the elements it has, to ", info.shape.size(), ", the limit is ", most_repeated));
      span = last + 1;
    }
    info.begin = place->second.begin + (span == 0 ? 0 : std::uint64_t(tensor.offset)) * width;
    info.end = info.begin + span * width;
    index_.emplace(name, tensors_.size());
    tensors_.push_back(std::move(info));
    layouts_.push_back(stride);
  }

  /// The elements in PyTorch's order, from the stretch of the storage that they lie in.
  static std::vector<std::byte> gather(const TensorInfo& tensor, const Stride& stride, std::vector<std::byte>& span) {
    const auto width = std::size_t(detail::row_of(tensor.dtype).bytes);
    const Shape& shape = tensor.shape;
    std::int64_t dense = 1;
    bool contiguous = true;
    for (int axis = shape.rank(); axis-- > 0; dense *= shape[axis])
      contiguous = contiguous && (shape[axis] <= 1 || stride[std::size_t(axis)] == dense);
    if (contiguous || shape.size() == 0) return std::move(span);

    std::array<std::int64_t, Stride().size()> extent{1, 1, 1, 1}, step{};
    for (int axis = 0; axis < shape.rank(); ++axis) {
      extent[std::size_t(axis)] = shape[axis];
      step[std::size_t(axis)] = stride[std::size_t(axis)];
    }
    std::vector<std::byte> out(std::size_t(shape.size()) * width);
    std::byte* to = out.data();
    for (std::int64_t a = 0; a < extent[0]; ++a)
      for (std::int64_t b = 0; b < extent[1]; ++b)
        for (std::int64_t c = 0; c < extent[2]; ++c)
          for (std::int64_t d = 0; d < extent[3]; ++d, to += width)
            std::memcpy(to, span.data() + std::size_t(a * step[0] + b * step[1] + c * step[2] + d * step[3]) * width, width);
    return out;
  }

  InputFile file_;
  std::string name_;
  std::optional<detail::ZipArchive> archive_;
  std::string key_;
  std::vector<TensorInfo> tensors_;
  std::vector<Stride> layouts_;  // of the tensors
  std::map<std::string, std::size_t> index_;
  std::vector<std::pair<std::string, std::string>> others_;
};

}  // namespace strata::inline STRATA_ABI
