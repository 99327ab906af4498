// Reads Python pickles as PyTorch writes them, without Python and without running anything: they are programs for a stack
// machine, and this one knows only how to build numbers, strings, lists, tuples, dicts, and PyTorch's tensors and storages.
// Whatever else a pickle names (a class, a function) is refused by its name before anything is done with it.
//
//     Unpickler pickle(bytes, path);
//     const PickleValue& top = pickle.at(pickle.load());
//
// Values refer to each other by number, so that a value that contains itself is harmless and nothing here recurses. What a
// pickle can make of the memory is bounded: four million steps, a step being an instruction or an item that one copies.
// Opcodes: CPython's pickletools.py, which documents each; protocols 2 to 5.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/io/tensor_info.hpp"

namespace strata::inline STRATA_ABI::detail {

/// The number of a value of a pickle.
using PickleId = std::uint32_t;

struct PickleNone {};
/// A whole number of more than 64 bits, of which nothing more is known than its bytes.
struct PickleLong {
  std::string bytes;
};
struct PickleList {
  std::vector<PickleId> items;
};
struct PickleTuple {
  std::vector<PickleId> items;
};
struct PickleDict {
  std::vector<std::pair<PickleId, PickleId>> items;  ///< keys and values; of equal keys the last counts
};
/// What a pickle may name, besides types of storages.
enum class PickleName { ordered_dict, rebuild_tensor, rebuild_parameter, size };
/// A type of storage, as torch.FloatStorage.
struct PickleStorageType {
  DType dtype;
};
/// Memory that tensors share; its numbers are elsewhere in the file.
struct PickleStorage {
  DType dtype;
  std::string key;
  std::int64_t size;  ///< elements
};
struct PickleTensor {
  PickleId storage;
  std::int64_t offset;
  std::vector<std::int64_t> shape, stride;  ///< of equal length; not yet compared with the storage
};

using PickleValue = std::variant<PickleNone, bool, std::int64_t, double, std::string, PickleLong, PickleList, PickleTuple,
                                 PickleDict, PickleName, PickleStorageType, PickleStorage, PickleTensor>;

/// A kind of value in Python's words.
inline std::string_view python_kind(const PickleValue& value) {
  static constexpr std::array<std::string_view, 13> kinds{"None", "bool", "int", "float", "str", "int", "list", "tuple",
                                                          "dict", "name", "storage type", "storage", "tensor"};
  return kinds[value.index()];
}

class Unpickler {
 public:
  static constexpr std::size_t most_steps = 4'000'000;
  static constexpr std::size_t most_extents = 64;  // as PyTorch

  /// `path` begins the texts of errors.
  Unpickler(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  /// Reads one pickle and returns its value. Throws FileError for what is no pickle, or one of other things than these.
  PickleId load() {
    stack_.clear();
    marks_.clear();
    memo_.clear();
    if (byte() != 0x80)
      fail("it does not begin with its protocol: saved with pickle_protocol 0 or 1? Save it with PyTorch's default");
    if (const unsigned protocol = byte(); protocol < 2 || protocol > 5)
      fail(concat("its protocol is ", protocol, ", wanted 2 to 5"));
    while (step(byte())) {
    }
    const PickleId value = pop();
    if (!stack_.empty() || !marks_.empty()) fail("it ends with values left over");
    return value;
  }

  /// Bytes read so far: another pickle may follow.
  std::size_t position() const { return at_; }

  /// How many values there are so far: their numbers are below it.
  std::size_t size() const { return values_.size(); }

  const PickleValue& at(PickleId id) const { return values_[id]; }
  template <class T>
  const T* get(PickleId id) const { return std::get_if<T>(&values_[id]); }

  [[noreturn]] void fail(std::string_view what) const {
    throw FileError(concat(path_, ": not a pickle of tensors: ", what, " (at byte ", at_, " of the pickle)"));
  }

 private:
  // ---- bytes

  std::span<const std::byte> take(std::uint64_t count) {
    if (count > bytes_.size() - at_) fail("it is cut short");
    const auto part = bytes_.subspan(at_, count);
    at_ += count;
    return part;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  unsigned byte() { return number<std::uint8_t>(); }
  std::string text(std::uint64_t count) {
    const auto part = take(count);
    return std::string(reinterpret_cast<const char*>(part.data()), part.size());
  }
  std::string line() {
    std::string out;
    for (char c; (c = static_cast<char>(number<std::uint8_t>())) != '\n';) out += c;
    return out;
  }

  // ---- the stack

  void charge(std::size_t steps) {
    steps_ += steps;
    if (steps_ > most_steps) fail(concat("it takes more than ", most_steps, " steps"));
  }
  void push(PickleValue value) {
    values_.push_back(std::move(value));
    stack_.push_back(PickleId(values_.size() - 1));
  }
  PickleId top() const {
    if (stack_.size() <= floor()) fail("it takes a value where there is none");
    return stack_.back();
  }
  PickleId pop() {
    const PickleId id = top();
    stack_.pop_back();
    return id;
  }
  /// Values below the last mark are out of reach until it is taken away.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  /// Takes what lies above the last mark, and the mark.
  std::vector<PickleId> pop_mark() {
    if (marks_.empty()) fail("it takes a mark where there is none");
    const auto first = stack_.begin() + std::ptrdiff_t(marks_.back());
    std::vector<PickleId> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }
  void push_tuple(std::size_t count) {
    PickleTuple tuple;
    tuple.items.resize(count);
    while (count-- > 0) tuple.items[count] = pop();
    push(std::move(tuple));
  }
  template <class T>
  T& want(PickleId id, std::string_view what) {
    T* value = std::get_if<T>(&values_[id]);
    if (value == nullptr) fail(concat("it has a ", python_kind(values_[id]), " where ", what, " belongs"));
    return *value;
  }

  // ---- one instruction; false at the last

  bool step(unsigned opcode) {
    charge(1);
    switch (opcode) {
      case '.': return false;
      case 0x95: take(8); return true;                                     // FRAME: a hint for reading ahead
      case '(': marks_.push_back(stack_.size()); return true;
      case '0': pop(); return true;
      case '1': pop_mark(); return true;
      case '2': stack_.push_back(top()); return true;
      case 'N': push(PickleNone{}); return true;
      case 0x88: push(true); return true;
      case 0x89: push(false); return true;
      case 'J': push(std::int64_t(number<std::int32_t>())); return true;
      case 'K': push(std::int64_t(byte())); return true;
      case 'M': push(std::int64_t(number<std::uint16_t>())); return true;
      case 0x8a: push_long(byte()); return true;
      case 0x8b: push_long(number<std::uint32_t>()); return true;
      case 'G': push(std::bit_cast<double>(__builtin_bswap64(number<std::uint64_t>()))); return true;
      case 'U': case 'C': case 0x8c: push(text(byte())); return true;      // strings and bytes with their lengths
      case 'T': case 'B': case 'X': push(text(number<std::uint32_t>())); return true;
      case 0x8d: case 0x8e: push(text(number<std::uint64_t>())); return true;
      case ')': push(PickleTuple{}); return true;
      case 't': push(PickleTuple{pop_mark()}); return true;
      case 0x85: push_tuple(1); return true;
      case 0x86: push_tuple(2); return true;
      case 0x87: push_tuple(3); return true;
      case ']': push(PickleList{}); return true;
      case 'l': push(PickleList{pop_mark()}); return true;
      case 'a': append({pop()}); return true;
      case 'e': append(pop_mark()); return true;
      case '}': push(PickleDict{}); return true;
      case 'd': push_dict(pop_mark()); return true;
      case 's': { const PickleId value = pop(), key = pop(); set_items({key, value}); return true; }
      case 'u': set_items(pop_mark()); return true;
      case 'c': { const std::string module = line(), name = line(); push(named(module, name)); return true; }
      case 0x93: {
        const PickleId name = pop(), module = pop();
        push(named(want<std::string>(module, "a module's name"), want<std::string>(name, "a name")));
        return true;
      }
      case 'R': { const PickleId arguments = pop(), what = pop(); call(what, arguments); return true; }
      case 'b': build(pop()); return true;
      case 'Q': persistent(pop()); return true;
      case 'q': memo_[byte()] = top(); return true;
      case 'r': memo_[number<std::uint32_t>()] = top(); return true;
      case 0x94: memo_[std::uint32_t(memo_.size())] = top(); return true;
      case 'h': recall(byte()); return true;
      case 'j': recall(number<std::uint32_t>()); return true;
      case 0x8f: case 0x90: case 0x91: fail("it holds a set");
      default: fail(concat("it has the instruction ", opcode, ", which builds something else than tensors, dicts, lists, "
                           "tuples, numbers and strings, or is of protocol 0 or 1"));
    }
  }

  void recall(std::uint32_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) fail("it recalls a value that it has not stored");
    stack_.push_back(found->second);
  }

  void push_long(std::uint32_t count) {
    const std::string bytes = text(count);
    if (bytes.size() > 8) return push(PickleLong{bytes});
    std::uint64_t value = bytes.empty() || (static_cast<unsigned char>(bytes.back()) & 0x80u) == 0 ? 0 : ~std::uint64_t{0};
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    push(std::bit_cast<std::int64_t>(value));
  }

  void append(const std::vector<PickleId>& items) {
    std::vector<PickleId>& list = want<PickleList>(top(), "a list").items;
    list.insert(list.end(), items.begin(), items.end());
  }

  static std::vector<std::pair<PickleId, PickleId>> pairs(const std::vector<PickleId>& items) {
    std::vector<std::pair<PickleId, PickleId>> out;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2) out.emplace_back(items[i], items[i + 1]);
    return out;
  }
  void push_dict(const std::vector<PickleId>& items) {
    if (items.size() % 2 != 0) fail("it has a key without a value");
    push(PickleDict{pairs(items)});
  }
  void set_items(const std::vector<PickleId>& items) {
    if (items.size() % 2 != 0) fail("it has a key without a value");
    auto& dict = want<PickleDict>(top(), "a dict").items;
    for (const auto& item : pairs(items)) dict.push_back(item);
  }

  // ---- names and what is made with them

  PickleValue named(const std::string& module, const std::string& name) const {
    if (module == "collections" && name == "OrderedDict") return PickleName::ordered_dict;
    if (module == "torch._utils" && (name == "_rebuild_tensor_v2" || name == "_rebuild_tensor"))
      return PickleName::rebuild_tensor;
    if (module == "torch._utils" && name == "_rebuild_parameter") return PickleName::rebuild_parameter;
    if (module == "torch" && name == "Size") return PickleName::size;
    if (module == "torch") {
      static constexpr std::array<std::pair<std::string_view, DType>, 10> storages{{
          {"DoubleStorage", DType::f64}, {"FloatStorage", DType::f32}, {"HalfStorage", DType::f16},
          {"BFloat16Storage", DType::bf16}, {"LongStorage", DType::i64}, {"IntStorage", DType::i32},
          {"ShortStorage", DType::i16}, {"CharStorage", DType::i8}, {"ByteStorage", DType::u8},
          {"BoolStorage", DType::boolean}}};
      for (const auto& [storage, dtype] : storages)
        if (name == storage) return PickleStorageType{dtype};
      if (name.ends_with("Storage"))
        throw FileError(concat(path_, ": holds tensors of the type ", shown("torch." + name),
                               ", which is not supported: convert them to float32 before they are saved"));
    }
    refuse(module, name);
  }

  [[noreturn]] void refuse(const std::string& module, const std::string& name) const {
    const bool is_module = module.starts_with("torch.nn") || module == "__main__";
    throw FileError(concat(
        path_, ": holds ", shown(module + "." + name),
        is_module ? ": it looks like a whole network, pickled with its Python class, and not like its weights alone"
                  : ", and only tensors, dicts, lists, tuples, numbers and strings are read",
        ". To rebuild it would run Python code that the file names, so it is refused. If you trust where the file comes from, "
        "save its weights alone, in Python where it was made: torch.save(net.state_dict(), \"weights.pth\")"));
  }

  void call(PickleId what, PickleId arguments) {
    const PickleName name = want<PickleName>(what, "something to call");
    const std::vector<PickleId>& given = want<PickleTuple>(arguments, "a tuple of arguments").items;
    switch (name) {
      case PickleName::ordered_dict: return push(ordered_dict(given));
      case PickleName::rebuild_tensor: return push(rebuild_tensor(given));
      case PickleName::rebuild_parameter:  // (tensor, requires_grad, backward hooks)
        if (given.empty() || get<PickleTensor>(given[0]) == nullptr) fail("it has a parameter without a tensor");
        return stack_.push_back(given[0]);
      case PickleName::size:
        if (given.size() != 1 || get<PickleTuple>(given[0]) == nullptr) fail("it has a torch.Size without extents");
        return stack_.push_back(given[0]);
    }
  }

  /// OrderedDict() or OrderedDict([(key, value), ...]).
  PickleDict ordered_dict(const std::vector<PickleId>& given) {
    PickleDict dict;
    if (given.empty()) return dict;
    const PickleList* items = get<PickleList>(given[0]);
    if (given.size() != 1 || items == nullptr) fail("it makes an OrderedDict of something else than a list");
    charge(items->items.size());
    for (const PickleId id : items->items) {
      const auto* pair = get<PickleTuple>(id);
      const auto* list = get<PickleList>(id);  // Python 2
      if (pair == nullptr && list == nullptr) fail("it makes an OrderedDict of something else than pairs");
      const std::vector<PickleId>& two = pair != nullptr ? pair->items : list->items;
      if (two.size() != 2) fail("it makes an OrderedDict of something else than pairs");
      dict.items.emplace_back(two[0], two[1]);
    }
    return dict;
  }

  /// (storage, offset, shape, stride, requires_grad, backward hooks, ...).
  PickleTensor rebuild_tensor(const std::vector<PickleId>& given) {
    if (given.size() < 4) fail("it has a tensor without storage, offset, shape and stride");
    (void)want<PickleStorage>(given[0], "a tensor's storage");
    PickleTensor tensor{given[0], want<std::int64_t>(given[1], "a tensor's offset"), extents(given[2], "a tensor's shape"),
                        extents(given[3], "a tensor's stride")};
    if (tensor.shape.size() != tensor.stride.size()) fail("it has a tensor whose shape and stride differ in length");
    if (tensor.offset < 0) fail("it has a tensor that begins before its storage");
    return tensor;
  }
  std::vector<std::int64_t> extents(PickleId id, std::string_view what) {
    const std::vector<PickleId>& items = want<PickleTuple>(id, what).items;
    if (items.size() > most_extents)
      fail(concat("it has a tensor of ", items.size(), " extents, the limit is ", most_extents));
    std::vector<std::int64_t> out;
    for (const PickleId item : items) {
      out.push_back(want<std::int64_t>(item, what));
      if (out.back() < 0) fail("it has a tensor with a negative extent or stride");
    }
    return out;
  }

  /// The state of an object: an OrderedDict's attributes (PyTorch keeps version numbers there) are not needed.
  void build(PickleId) {
    (void)want<PickleDict>(top(), "a dict");
  }

  /// ("storage", type, key, device, elements, view); the device it was on is no matter.
  void persistent(PickleId id) {
    const std::vector<PickleId>& items = want<PickleTuple>(id, "a storage").items;
    if (items.size() < 5 || items.size() > 6) fail("it has a storage that is not described as PyTorch does");
    if (want<std::string>(items[0], "the word 'storage'") != "storage")
      fail("it has something that is no storage where one belongs");
    if (items.size() == 6 && get<PickleNone>(items[5]) == nullptr)
      fail("it has a view of a storage, as PyTorch before 0.4 wrote them: load and save it with a newer one");
    PickleStorage storage{want<PickleStorageType>(items[1], "a storage's type").dtype,
                          want<std::string>(items[2], "a storage's key"), want<std::int64_t>(items[4], "a storage's size")};
    if (storage.size < 0) fail("it has a storage of negative size");
    push(std::move(storage));
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  std::size_t at_ = 0, steps_ = 0;
  std::vector<PickleValue> values_;
  std::vector<PickleId> stack_;
  std::vector<std::size_t> marks_;
  std::map<std::uint32_t, PickleId> memo_;
};

}  // namespace strata::inline STRATA_ABI::detail
