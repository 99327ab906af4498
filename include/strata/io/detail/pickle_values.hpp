// What a pickle holds, in little memory: whatever a file says, what is kept of it is bounded by the file's length.
//
// A value is 24 bytes and refers to others by number, so that one that contains itself is harmless and nothing
// recurses. Texts are views of the file's bytes; the items of all lists, tuples and dicts lie in one store, a dict's as
// key, value, key...
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "strata/io/tensor_info.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// The number of a value of a pickle.
using PickleId = std::uint32_t;
inline constexpr std::uint32_t pickle_nothing = std::numeric_limits<std::uint32_t>::max();

struct PickleNone {};
/// A whole number of more than 64 bits, of which nothing more is known.
struct PickleLong {};
struct PickleBytes {};
struct PickleSet {};
/// Runs of items; pickle_nothing where there are none yet.
struct PickleList {
  std::uint32_t first = pickle_nothing, last = pickle_nothing;
};
struct PickleDict {
  std::uint32_t first = pickle_nothing, last = pickle_nothing;  ///< of equal keys the last counts
};
struct PickleTuple {
  std::uint32_t begin = 0, count = 0;
};
/// A class or function that a pickle names; what it is in PickleValues::global().
struct PickleName {
  std::uint32_t global;
};
/// What a class or function that is not known here would have made. Nothing is known of it but that name.
struct PickleObject {
  std::uint32_t global;
};
/// Memory that tensors share; see PickleValues::storage().
struct PickleStorage {
  std::uint32_t storage;
};
/// A tensor; see PickleValues::tensor().
struct PickleTensor {
  std::uint32_t tensor;
};

using PickleValue =
    std::variant<PickleNone, bool, std::int64_t, double, std::string_view, PickleBytes, PickleLong, PickleList,
                 PickleTuple, PickleDict, PickleSet, PickleName, PickleObject, PickleStorage, PickleTensor>;
static_assert(sizeof(PickleValue) == 24);

/// What is known of a class or function.
enum class PickleKnown : std::uint8_t {
  nothing,
  ordered_dict,
  default_dict,
  rebuild_tensor,
  rebuild_tensor_v3,
  rebuild_parameter,
  rebuild_from_type,
  tensor_type,
  size,
  storage_type,
  dtype,
};
struct PickleGlobal {
  std::string_view module, name;
  PickleKnown known = PickleKnown::nothing;
  DType dtype = DType::other;  ///< of a storage type or dtype
  int width = 0;               ///< of a storage type: bytes of an element; 0: not known
};
struct PickleMemory {
  std::uint32_t type;    ///< the storage type, a global
  std::string_view key;  ///< of its entry in the file
  std::int64_t size;     ///< elements
};

/// The values that a tensor is made of, which are looked at when it is wanted: see PytorchFile.
struct PickleTensorParts {
  PickleId storage, offset, shape, stride;
  PickleId dtype;  ///< a name, or pickle_nothing for the storage's
};

/// A storage type as torch.FloatStorage, by its name without "Storage".
struct PickleStorageRow {
  std::string_view name;
  DType dtype;
  int width;
};
inline constexpr std::array<PickleStorageRow, 18> pickle_storages{{{"Double", DType::f64, 8},
                                                                   {"Float", DType::f32, 4},
                                                                   {"Half", DType::f16, 2},
                                                                   {"BFloat16", DType::bf16, 2},
                                                                   {"Long", DType::i64, 8},
                                                                   {"Int", DType::i32, 4},
                                                                   {"Short", DType::i16, 2},
                                                                   {"Char", DType::i8, 1},
                                                                   {"Byte", DType::u8, 1},
                                                                   {"Bool", DType::boolean, 1},
                                                                   {"Untyped", DType::other, 1},
                                                                   {"ComplexFloat", DType::c64, 8},
                                                                   {"ComplexDouble", DType::other, 16},
                                                                   {"QInt8", DType::other, 1},
                                                                   {"QUInt8", DType::other, 1},
                                                                   {"QInt32", DType::other, 4},
                                                                   {"QUInt4x2", DType::other, 1},
                                                                   {"QUInt2x4", DType::other, 1}}};

/// What torch calls its types.
inline constexpr std::array<std::pair<std::string_view, DType>, 27> pickle_dtypes{
    {{"float32", DType::f32},
     {"float", DType::f32},
     {"float64", DType::f64},
     {"double", DType::f64},
     {"float16", DType::f16},
     {"half", DType::f16},
     {"bfloat16", DType::bf16},
     {"int64", DType::i64},
     {"long", DType::i64},
     {"int32", DType::i32},
     {"int", DType::i32},
     {"int16", DType::i16},
     {"short", DType::i16},
     {"int8", DType::i8},
     {"uint8", DType::u8},
     {"bool", DType::boolean},
     {"uint16", DType::u16},
     {"uint32", DType::u32},
     {"uint64", DType::u64},
     {"complex64", DType::c64},
     {"complex128", DType::other},
     {"float8_e4m3fn", DType::f8_e4m3},
     {"float8_e5m2", DType::f8_e5m2},
     {"float8_e8m0fnu", DType::f8_e8m0},
     {"float8_e4m3fnuz", DType::f8_e4m3fnuz},
     {"float8_e5m2fnuz", DType::f8_e5m2fnuz},
     {"float4_e2m1fn_x2", DType::f4}}};

/// Finds out whether a class or function is known. The names are the file's, and only compared.
inline PickleGlobal known_global(std::string_view module, std::string_view name) {
  PickleGlobal global{module, name};
  const auto is = [&](std::string_view of, std::string_view what) { return module == of && name == what; };
  if (is("collections", "OrderedDict")) {
    global.known = PickleKnown::ordered_dict;
  } else if (is("collections", "defaultdict")) {
    global.known = PickleKnown::default_dict;
  } else if (is("torch._utils", "_rebuild_tensor_v2") || is("torch._utils", "_rebuild_tensor")) {
    global.known = PickleKnown::rebuild_tensor;
  } else if (is("torch._utils", "_rebuild_tensor_v3")) {
    global.known = PickleKnown::rebuild_tensor_v3;
  } else if (is("torch._utils", "_rebuild_parameter") || is("torch._utils", "_rebuild_parameter_with_state")) {
    global.known = PickleKnown::rebuild_parameter;
  } else if (is("torch._tensor", "_rebuild_from_type_v2")) {
    global.known = PickleKnown::rebuild_from_type;
  } else if (is("torch", "Tensor") || is("torch.nn.parameter", "Parameter") || is("torch.nn.parameter", "Buffer")) {
    global.known = PickleKnown::tensor_type;
  } else if (is("torch", "Size")) {
    global.known = PickleKnown::size;
  } else if ((module == "torch" || module == "torch.storage" || module == "torch.cuda") && name.ends_with("Storage")) {
    global.known = PickleKnown::storage_type;
    for (const PickleStorageRow& row : pickle_storages)
      if (name.substr(0, name.size() - 7) == row.name) global.dtype = row.dtype, global.width = row.width;
  } else if (module == "torch") {
    for (const auto& [dtype, type] : pickle_dtypes)
      if (name == dtype) global.known = PickleKnown::dtype, global.dtype = type;
  }
  return global;
}

/// All values of a file's pickles.
class PickleValues {
 public:
  /// How many there are: their numbers are below it.
  std::size_t size() const { return values_.size(); }
  const PickleValue& at(PickleId id) const { return values_[id]; }
  template <class T>
  const T* get(PickleId id) const { return std::get_if<T>(&values_[id]); }

  const std::deque<PickleGlobal>& globals() const { return globals_; }
  const std::deque<PickleMemory>& storages() const { return storages_; }
  const PickleTensorParts& tensor(const PickleTensor& tensor) const { return tensors_[tensor.tensor]; }

  PickleId item(const PickleTuple& tuple, std::size_t i) const { return items_[tuple.begin + i]; }

  /// Calls f(id) for each item of a list, or f(key, value) for each of a dict.
  template <class F>
  void each(const PickleList& list, F&& f) const {
    for (std::uint32_t at = list.first; at != pickle_nothing; at = runs_[at].next)
      for (std::size_t i = 0; i < runs_[at].count; ++i) f(items_[runs_[at].begin + i]);
  }
  template <class F>
  void each(const PickleDict& dict, F&& f) const {
    for (std::uint32_t at = dict.first; at != pickle_nothing; at = runs_[at].next)
      for (std::size_t i = 0; i < runs_[at].count; i += 2)
        f(items_[runs_[at].begin + i], items_[runs_[at].begin + i + 1]);
  }

  /// "collections.Counter", as it may be shown.
  std::string name_of(std::uint32_t global) const {
    constexpr std::size_t most = 60;
    const PickleGlobal& what = globals_[global];
    return shown(std::string(what.module.substr(0, most)) + "." + std::string(what.name.substr(0, most)));
  }

  /// What a value is, in Python's words.
  std::string kind(PickleId id) const {
    static constexpr std::array<std::string_view, 15> kinds{"None",  "bool", "int",    "float",   "str",
                                                            "bytes", "int",  "list",   "tuple",   "dict",
                                                            "set",   "name", "object", "storage", "tensor"};
    if (const auto* name = get<PickleName>(id)) return "the name " + name_of(name->global);
    if (const auto* object = get<PickleObject>(id)) return "an object of " + name_of(object->global);
    return std::string(kinds[values_[id].index()]);
  }

 protected:
  struct Run {
    std::uint32_t begin, count, next;
  };

  PickleId add_value(const PickleValue& value) {
    values_.push_back(value);
    return PickleId(values_.size() - 1);
  }
  PickleValue& value(PickleId id) { return values_[id]; }
  std::uint32_t add(const PickleGlobal& global) {
    globals_.push_back(global);
    return std::uint32_t(globals_.size() - 1);
  }
  std::uint32_t add(const PickleMemory& storage) {
    storages_.push_back(storage);
    return std::uint32_t(storages_.size() - 1);
  }
  std::uint32_t add(const PickleTensorParts& tensor) {
    tensors_.push_back(tensor);
    return std::uint32_t(tensors_.size() - 1);
  }

  /// Copies items of any sequence behind the others and returns where they begin.
  template <class Iterator>
  std::uint32_t keep(Iterator first, Iterator last) {
    const auto begin = std::uint32_t(items_.size());
    items_.insert(items_.end(), first, last);
    return begin;
  }
  /// Appends them to a list or dict.
  template <class List, class Iterator>
  void extend(List& list, Iterator first, Iterator last) {
    if (first == last) return;
    const auto count = std::uint32_t(last - first);
    const std::uint32_t begin = keep(first, last);
    if (list.last != pickle_nothing && runs_[list.last].begin + runs_[list.last].count == begin) {
      runs_[list.last].count += count;
      return;
    }
    const auto run = std::uint32_t(runs_.size());
    runs_.push_back({begin, count, pickle_nothing});
    (list.last == pickle_nothing ? list.first : runs_[list.last].next) = run;
    list.last = run;
  }

 private:
  // Deques: they grow without copies, so that what is taken for a moment is not thrice of what is kept.
  std::deque<PickleValue> values_;
  std::deque<PickleId> items_;
  std::deque<Run> runs_;
  std::deque<PickleGlobal> globals_;
  std::deque<PickleMemory> storages_;
  std::deque<PickleTensorParts> tensors_;
};

/// What a pickle has stored to recall it later, by number.
class PickleMemo {
 public:
  void clear() { *this = {}; }

  void put(std::uint32_t key, PickleId id) {
    ++puts_;
    if (find(key) == pickle_nothing) ++keys_;
    // far from the others, which no writer does: not worth a place for each number before it
    if (key > 2 * puts_ + 256) {
      far_[key] = id;
      return;
    }
    if (key >= near_.size()) near_.resize(std::size_t(key) + 1, pickle_nothing);
    near_[key] = id;
  }
  /// Under the number of keys there are.
  void put_next(PickleId id) { put(std::uint32_t(keys_), id); }

  /// pickle_nothing where there is none.
  PickleId find(std::uint32_t key) const {
    if (key < near_.size() && near_[key] != pickle_nothing) return near_[key];
    const auto found = far_.find(key);
    return found == far_.end() ? pickle_nothing : found->second;
  }

 private:
  std::vector<PickleId> near_;
  std::unordered_map<std::uint32_t, PickleId> far_;
  std::uint64_t puts_ = 0, keys_ = 0;
};

}}}  // namespace strata::STRATA_ABI::detail
