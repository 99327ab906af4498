// Reads Python pickles as PyTorch writes them, without Python and without running anything: they are programs for a
// stack machine, and this one knows only how to build numbers, strings, lists, tuples, dicts, and PyTorch's tensors and
// storages. Whatever else a pickle names (a class, a function) stays a name, and what it would have made an object of
// which nothing is known but that name: state beside the weights does no harm, and who wants such an object is told
// what it is.
//
//     Unpickler pickle(bytes, path);
//     const PickleValue& top = pickle.at(pickle.load());
//
// What a pickle can make of memory and time is bounded: four million instructions, no more items copied than the file
// has bytes, and at most some fifty bytes taken for each byte of the file (pickle_values.hpp). The bytes must outlive
// what is read. Opcodes: CPython's pickletools.py, which documents each; all of protocols 2 to 5.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/io/detail/pickle_values.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

class Unpickler : public PickleValues {
 public:
  static constexpr std::size_t most_steps = 4'000'000;

  /// `path` begins the texts of errors.
  Unpickler(std::span<const std::byte> bytes, const std::string& path)
      : bytes_(bytes), path_(path), none_(add_value(PickleNone{})), true_(add_value(true)),
        false_(add_value(false)), empty_(add_value(PickleTuple{})) {}

  /// Reads one pickle and returns its value. Throws FileError for what is no pickle.
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
  std::string_view text(std::uint64_t count) {
    const auto part = take(count);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  std::string_view line() {
    const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_, bytes_.size() - at_);
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) fail("it is cut short");
    at_ += end + 1;
    return rest.substr(0, end);
  }

  // ---- the stack

  /// Called for each item that is copied: what a list holds, again and again, would be more than any file is long.
  void count_copy() {
    if (++copies_ > bytes_.size()) fail("it copies more items than it has bytes");
  }
  void push_id(PickleId id) { stack_.push_back(id); }
  void push(const PickleValue& value) { push_id(add_value(value)); }
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
  /// Takes the last mark, and returns where in the stack it was: what lies above is for the caller, who then drops it.
  std::size_t pop_mark() {
    if (marks_.empty()) fail("it takes a mark where there is none");
    const std::size_t at = marks_.back();
    marks_.pop_back();
    return at;
  }
  void drop(std::size_t from) { stack_.resize(from); }
  auto place(std::size_t at) const { return stack_.cbegin() + std::ptrdiff_t(at); }

  void push_tuple(std::size_t from) {
    const auto count = std::uint32_t(stack_.size() - from);
    const PickleId tuple = count == 0 ? empty_ : add_value(PickleTuple{keep(place(from), stack_.cend()), count});
    drop(from);
    push_id(tuple);
  }
  /// Where the last `count` values begin.
  std::size_t above(std::size_t count) const {
    if (stack_.size() < floor() + count) fail("it takes a value where there is none");
    return stack_.size() - count;
  }

  template <class T>
  T& want(PickleId id, std::string_view what) {
    T* found = std::get_if<T>(&value(id));
    if (found == nullptr) fail(concat("it has a ", kind(id), " where ", what, " belongs"));
    return *found;
  }

  // ---- one instruction; false at the last

  bool step(unsigned opcode) {
    if (++steps_ > most_steps) fail(concat("it takes more than ", most_steps, " steps"));
    switch (opcode) {
      case '.': return false;
      case 0x80: take(1); return true;                                     // the protocol again
      case 0x95: take(8); return true;                                     // FRAME: a hint for reading ahead
      case '(': marks_.push_back(std::uint32_t(stack_.size())); return true;
      case '0':                                                            // POP, of a mark too
        if (!marks_.empty() && stack_.size() == marks_.back()) marks_.pop_back();
        else (void)pop();
        return true;
      case '1': drop(pop_mark()); return true;
      case '2': push_id(top()); return true;
      case 'N': push_id(none_); return true;
      case 0x88: push_id(true_); return true;
      case 0x89: push_id(false_); return true;
      case 'J': push(std::int64_t(number<std::int32_t>())); return true;
      case 'K': push(std::int64_t(byte())); return true;
      case 'M': push(std::int64_t(number<std::uint16_t>())); return true;
      case 0x8a: push_long(byte()); return true;
      case 0x8b: push_long(number<std::uint32_t>()); return true;
      case 'G': push(std::bit_cast<double>(__builtin_bswap64(number<std::uint64_t>()))); return true;
      // strings, Python 2's too, with their lengths
      case 'U': case 0x8c: push(text(byte())); return true;
      case 'T': case 'X': push(text(number<std::uint32_t>())); return true;
      case 0x8d: push(text(number<std::uint64_t>())); return true;
      case 'C': push_bytes(byte()); return true;
      case 'B': push_bytes(number<std::uint32_t>()); return true;
      case 0x8e: case 0x96: push_bytes(number<std::uint64_t>()); return true;
      case 0x97: push(PickleBytes{}); return true;                         // a buffer beside the pickle
      case 0x98: (void)top(); return true;                                 // made read-only
      case ')': push_id(empty_); return true;
      case 't': push_tuple(pop_mark()); return true;
      case 0x85: push_tuple(above(1)); return true;
      case 0x86: push_tuple(above(2)); return true;
      case 0x87: push_tuple(above(3)); return true;
      case ']': push(PickleList{}); return true;
      case 'l': push_filled<PickleList>(pop_mark()); return true;
      case 'a': append(above(1)); return true;
      case 'e': append(pop_mark()); return true;
      case '}': push(PickleDict{}); return true;
      case 'd': push_filled<PickleDict>(pop_mark()); return true;
      case 's': set_items(above(2)); return true;
      case 'u': set_items(pop_mark()); return true;
      case 0x8f: push(PickleSet{}); return true;
      case 0x90: add_items(pop_mark()); return true;
      case 0x91: drop(pop_mark()); push(PickleSet{}); return true;
      case 'c': { const std::string_view module = line(), name = line(); push_name(module, name); return true; }
      case 0x93: {
        const PickleId name = pop(), module = pop();
        push_name(want<std::string_view>(module, "a module's name"), want<std::string_view>(name, "a name"));
        return true;
      }
      case 'R': case 0x81: { const PickleId arguments = pop(), what = pop(); call(what, arguments); return true; }
      case 0x92: { pop(); const PickleId arguments = pop(), what = pop(); call(what, arguments); return true; }
      case 'o': {                                                          // a class and arguments above a mark
        const std::size_t from = pop_mark();
        if (stack_.size() == from) fail("it takes a value where there is none");
        push_tuple(from + 1);
        const PickleId arguments = pop(), what = pop();
        call(what, arguments);
        return true;
      }
      case 'i': {
        const std::string_view module = line(), name = line();
        push_tuple(pop_mark());
        const PickleId arguments = pop();
        push_name(module, name);
        call(pop(), arguments);
        return true;
      }
      case 0x82: take(1); push_name("copyreg", "extension"); return true;
      case 0x83: take(2); push_name("copyreg", "extension"); return true;
      case 0x84: take(4); push_name("copyreg", "extension"); return true;
      case 'b': (void)pop(); build(); return true;
      case 'Q': persistent(pop()); return true;
      case 'q': memo_.put(byte(), top()); return true;
      case 'r': memo_.put(number<std::uint32_t>(), top()); return true;
      case 0x94: memo_.put_next(top()); return true;
      case 'h': recall(byte()); return true;
      case 'j': recall(number<std::uint32_t>()); return true;
      default: fail(concat("it has the instruction ", opcode, ", which is of protocol 0 or 1 or of none"));
    }
  }

  void recall(std::uint32_t key) {
    const PickleId found = memo_.find(key);
    if (found == pickle_nothing) fail("it recalls a value that it has not stored");
    push_id(found);
  }

  void push_bytes(std::uint64_t count) {
    take(count);
    push(PickleBytes{});
  }

  void push_long(std::uint32_t count) {
    const std::string_view bytes = text(count);
    if (bytes.size() > 8) return push(PickleLong{});
    std::uint64_t whole =
        bytes.empty() || (static_cast<unsigned char>(bytes.back()) & 0x80u) == 0 ? 0 : ~std::uint64_t{0};
    if (!bytes.empty()) std::memcpy(&whole, bytes.data(), bytes.size());
    push(std::bit_cast<std::int64_t>(whole));
  }

  // ---- items of lists, dicts, sets and objects; those of sets and objects are dropped

  template <class T>
  void push_filled(std::size_t from) {
    if (std::is_same_v<T, PickleDict> && (stack_.size() - from) % 2 != 0) fail("it has a key without a value");
    T list;
    extend(list, place(from), stack_.cend());
    drop(from);
    push(list);
  }
  /// The value under what lies in the stack from there on.
  PickleId under(std::size_t from) const {
    if (from <= floor()) fail("it takes a value where there is none");
    return stack_[from - 1];
  }
  void append(std::size_t from) {
    const PickleId list = under(from);
    if (get<PickleObject>(list) == nullptr) extend(want<PickleList>(list, "a list"), place(from), stack_.cend());
    drop(from);
  }
  void set_items(std::size_t from) {
    const PickleId dict = under(from);
    if ((stack_.size() - from) % 2 != 0) fail("it has a key without a value");
    if (get<PickleObject>(dict) == nullptr) extend(want<PickleDict>(dict, "a dict"), place(from), stack_.cend());
    drop(from);
  }
  void add_items(std::size_t from) {
    const PickleId set = under(from);
    if (get<PickleObject>(set) == nullptr) (void)want<PickleSet>(set, "a set");
    drop(from);
  }

  // ---- names and what is made with them

  void push_name(std::string_view module, std::string_view name) { push(PickleName{add(known_global(module, name))}); }

  void call(PickleId what, PickleId arguments) {
    if (const auto* object = get<PickleObject>(what)) return push(PickleObject{*object});
    const std::uint32_t global = want<PickleName>(what, "something to call").global;
    const PickleTuple given = want<PickleTuple>(arguments, "a tuple of arguments");
    if (!make(globals()[global].known, given)) push(PickleObject{global});
  }

  /// Pushes what a known function makes; false where it makes something else than is known here.
  bool make(PickleKnown known, const PickleTuple& given) {
    switch (known) {
      case PickleKnown::ordered_dict: return ordered_dict(given);
      case PickleKnown::default_dict:  // (factory)
        if (given.count > 1) return false;
        push(PickleDict{});
        return true;
      case PickleKnown::rebuild_tensor: return rebuild_tensor(given, 4, pickle_nothing);
      case PickleKnown::rebuild_tensor_v3:  // as before, and a dtype at the seventh place
        return rebuild_tensor(given, 7, given.count < 7 ? pickle_nothing : item(given, 6));
      case PickleKnown::rebuild_parameter:  // (tensor, requires_grad, backward hooks, ...)
        if (given.count == 0) fail("it has a parameter without a tensor");
        if (get<PickleTensor>(item(given, 0)) == nullptr && get<PickleObject>(item(given, 0)) == nullptr)
          fail("it has a parameter without a tensor");
        push_id(item(given, 0));
        return true;
      case PickleKnown::rebuild_from_type: return rebuild_from_type(given);
      case PickleKnown::size:
        if (given.count != 1 || get<PickleTuple>(item(given, 0)) == nullptr) return false;
        push_id(item(given, 0));
        return true;
      default: return false;
    }
  }

  /// OrderedDict() or OrderedDict([(key, value), ...]).
  bool ordered_dict(const PickleTuple& given) {
    PickleDict dict;
    if (given.count > 1) return false;
    if (given.count == 1) {
      const auto* items = get<PickleList>(item(given, 0));
      if (items == nullptr) return false;
      bool pairs = true;
      each(*items, [&](PickleId id) {
        count_copy();
        std::array<PickleId, 2> two{};
        std::size_t count = 0;
        const auto take_part = [&](PickleId part) {
          if (count < 2) two[count] = part;
          ++count;
        };
        if (const auto* tuple = get<PickleTuple>(id)) {
          if (tuple->count == 2) take_part(item(*tuple, 0)), take_part(item(*tuple, 1));
        } else if (const auto* list = get<PickleList>(id)) {  // Python 2
          each(*list, [&](PickleId part) { count_copy(), take_part(part); });
        }
        pairs = pairs && count == 2;
        if (pairs) extend(dict, two.begin(), two.end());
      });
      if (!pairs) return false;
    }
    push(dict);
    return true;
  }

  /// (storage, offset, shape, stride, requires_grad, backward hooks, ...).
  bool rebuild_tensor(const PickleTuple& given, std::size_t least, PickleId dtype) {
    if (given.count < least) fail("it has a tensor without storage, offset, shape and stride");
    if (get<PickleObject>(item(given, 0)) != nullptr) return false;  // on a storage that is not in the file
    (void)want<PickleStorage>(item(given, 0), "a tensor's storage");
    (void)want<std::int64_t>(item(given, 1), "a tensor's offset");
    (void)want<PickleTuple>(item(given, 2), "a tensor's shape");
    (void)want<PickleTuple>(item(given, 3), "a tensor's stride");
    if (dtype != pickle_nothing) (void)want<PickleName>(dtype, "a tensor's type");
    push(PickleTensor{add(PickleTensorParts{item(given, 0), item(given, 1), item(given, 2), item(given, 3), dtype})});
    return true;
  }

  /// (function, type, arguments, Python attributes): tensors with attributes; known for plain ones and parameters.
  bool rebuild_from_type(const PickleTuple& given) {
    if (given.count < 3) return false;
    const auto *function = get<PickleName>(item(given, 0)), *type = get<PickleName>(item(given, 1));
    const auto* arguments = get<PickleTuple>(item(given, 2));
    if (function == nullptr || type == nullptr || arguments == nullptr) return false;
    const PickleKnown known = globals()[function->global].known;
    if (globals()[type->global].known != PickleKnown::tensor_type || known == PickleKnown::rebuild_from_type)
      return false;
    return make(known, *arguments);
  }

  /// The state of an object, which is not needed; an OrderedDict's are attributes, where PyTorch keeps version numbers.
  void build() {
    if (get<PickleObject>(top()) == nullptr && get<PickleName>(top()) == nullptr)
      (void)want<PickleDict>(top(), "a dict");
  }

  /// ("storage", type, key, device, elements, view); the device it was on is no matter. Or ("module", class, file,
  /// source) of the older form, which stands for the class.
  void persistent(PickleId id) {
    const PickleTuple items = want<PickleTuple>(id, "a storage");
    if (items.count == 0) fail("it has a storage that is not described as PyTorch does");
    const auto word = want<std::string_view>(item(items, 0), "the word 'storage'");
    if (word == "module" && items.count >= 2) return push_id(item(items, 1));
    if (word != "storage") fail("it has something that is no storage where one belongs");
    if (items.count < 5 || items.count > 6) fail("it has a storage that is not described as PyTorch does");
    if (items.count == 6 && get<PickleNone>(item(items, 5)) == nullptr)
      fail("it has a view of a storage, as PyTorch before 0.4 wrote them: load and save it with a newer one");
    const std::uint32_t type = want<PickleName>(item(items, 1), "a storage's type").global;
    if (globals()[type].known != PickleKnown::storage_type) fail("it has a storage of what is no type of one");
    const auto size = want<std::int64_t>(item(items, 4), "a storage's size");
    if (size < 0) fail("it has a storage of negative size");
    push(PickleStorage{add(PickleMemory{type, want<std::string_view>(item(items, 2), "a storage's key"), size})});
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  std::size_t at_ = 0, steps_ = 0, copies_ = 0;
  PickleId none_, true_, false_, empty_;
  std::vector<PickleId> stack_;
  std::vector<std::uint32_t> marks_;
  PickleMemo memo_;
};

}}}  // namespace strata::STRATA_ABI::detail
