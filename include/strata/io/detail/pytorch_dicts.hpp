// Which dict of a file of torch.save holds the weights: the file's own, or one that lies in it under one key or two.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "strata/io/detail/pickle.hpp"
#include "strata/io/tensor_info.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// An item of a dict whose key is a string.
struct NamedValue {
  std::string_view name;
  PickleId value;
};

/// The items with strings as keys, in the dict's order, of equal keys the last value; none for what is no dict.
inline std::vector<NamedValue> string_items(const PickleValues& pickle, PickleId id) {
  std::vector<NamedValue> items;
  const auto* dict = pickle.get<PickleDict>(id);
  if (dict == nullptr) return items;
  pickle.each(*dict, [&](PickleId key, PickleId value) {
    if (const auto* name = pickle.get<std::string_view>(key)) items.push_back({*name, value});
  });
  std::vector<std::uint32_t> order(items.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = std::uint32_t(i);
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return items[a].name != items[b].name ? items[a].name < items[b].name : a < b;
  });
  std::vector<bool> again(items.size());
  for (std::size_t i = 1, first = 0; i < order.size(); ++i) {
    if (items[order[i]].name != items[order[first]].name) {
      first = i;
      continue;
    }
    items[order[first]].value = items[order[i]].value;
    again[order[i]] = true;
  }
  std::size_t kept = 0;
  for (std::size_t i = 0; i < items.size(); ++i)
    if (!again[i]) items[kept++] = items[i];
  items.resize(kept);
  return items;
}

/// The dicts with tensors. Looks at each dict once, however often the file names it.
class DictSearch {
 public:
  /// One under a key, or under two.
  struct Found {
    std::string_view first, second;
    PickleId id;

    std::string key() const {
      return second.data() == nullptr ? std::string(first) : std::string(first) + "." + std::string(second);
    }
  };

  DictSearch(const PickleValues& pickle, PickleId top) : pickle_(pickle), top_(top), items_(string_items(pickle, top)) {
    (void)tensors(top);
    for (const NamedValue& item : items_)
      if (first_time(item.value) && tensors(item.value) > 0) under_one_.push_back({item.name, {}, item.value});
    std::unordered_set<PickleId> opened{top};
    for (const NamedValue& outer : items_) {
      if (!tensors_.contains(outer.value) || tensors(outer.value) > 0 || !opened.insert(outer.value).second) continue;
      for (const NamedValue& item : string_items(pickle, outer.value))
        if (first_time(item.value) && tensors(item.value) > 0)
          under_two_.push_back({outer.name, item.name, item.value});
    }
  }

  /// The dict that is meant when nobody says which: one of a usual name, else the file's own, else the only one there
  /// is. Null for none, or several.
  const Found* usual() {
    static constexpr std::array<std::string_view, 14> names{
        "state_dict", "model_state_dict", "params_ema", "params", "model",     "net",   "network",
        "generator",  "g_ema",            "netG",       "net_g",  "model_state", "module", "weights"};
    for (const std::string_view name : names)
      if (const Found* found = under(name)) return found;
    chosen_ = {{}, {}, top_};
    if (tensors(top_) > 0) return &chosen_;
    if (under_one_.size() == 1) return &under_one_[0];
    return under_one_.empty() && under_two_.size() == 1 ? &under_two_[0] : nullptr;
  }

  /// The dict with tensors under this key, or under two with a dot between them; null when there is none.
  const Found* under(std::string_view key) {
    const auto find = [&](const std::vector<NamedValue>& items, std::string_view name) {
      const auto found =
          std::find_if(items.begin(), items.end(), [&](const NamedValue& item) { return item.name == name; });
      return found == items.end() ? pickle_nothing : found->value;
    };
    const auto choose = [&](std::string_view first, std::string_view second, PickleId id) {
      chosen_ = {first, second, id};
      return id != pickle_nothing && tensors(id) > 0;
    };
    if (choose(key, {}, find(items_, key))) return &chosen_;
    for (std::size_t dot = key.find('.'); dot != std::string_view::npos; dot = key.find('.', dot + 1)) {
      const PickleId outer = find(items_, key.substr(0, dot));
      if (outer == pickle_nothing) continue;
      const std::string_view rest = key.substr(dot + 1);
      if (choose(key.substr(0, dot), rest, find(string_items(pickle_, outer), rest))) return &chosen_;
    }
    return nullptr;
  }

  /// Other dicts with tensors than `found`, under one key or two.
  std::string others(const Found& found) const {
    std::string text;
    std::size_t count = 0;
    for (const auto* list : {&under_one_, &under_two_})
      for (const Found& other : *list)
        if (other.id != found.id && ++count <= 5) text += (text.empty() ? "" : ", ") + shown(other.key());
    return count > 5 ? text + concat(" and ", count - 5, " more") : text;
  }

  /// What the file holds, for the text of an error.
  std::string listing() {
    std::string text = kind(top_);
    std::size_t listed = 0;
    for (const NamedValue& item : items_) {
      if (listed++ == most_listed) break;
      text += "\n  " + shown(item.name) + ": " + kind(item.value);
    }
    if (items_.size() > most_listed) text += concat("\n  and ", items_.size() - most_listed, " more");
    for (std::size_t i = 0; i < under_two_.size() && i < most_listed; ++i)
      text += "\n  " + shown(under_two_[i].key()) + ": " + kind(under_two_[i].id);
    if (!under_one_.empty() || !under_two_.empty()) text += "\nGive the key of a dict with tensors: {.key = \"...\"}";
    return text;
  }

  std::string kind(PickleId id) {
    std::string text = pickle_.kind(id);
    if (pickle_.get<PickleDict>(id) != nullptr) text += concat(" with ", tensors(id), " tensors");
    return text;
  }

 private:
  static constexpr std::size_t most_listed = 20;

  /// How many tensors a value holds, if it is a dict.
  std::size_t tensors(PickleId id) {
    const auto* dict = pickle_.get<PickleDict>(id);
    if (dict == nullptr) return 0;
    const auto [known, fresh] = tensors_.try_emplace(id, 0);
    if (fresh)
      pickle_.each(*dict, [&](PickleId key, PickleId value) {
        known->second += pickle_.get<PickleTensor>(value) != nullptr && pickle_.get<std::string_view>(key) != nullptr;
      });
    return known->second;
  }
  bool first_time(PickleId id) const { return pickle_.get<PickleDict>(id) != nullptr && !tensors_.contains(id); }

  const PickleValues& pickle_;
  PickleId top_;
  std::vector<NamedValue> items_;
  std::unordered_map<PickleId, std::size_t> tensors_;  // of dicts looked at
  std::vector<Found> under_one_, under_two_;
  Found chosen_{};
};

}}}  // namespace strata::STRATA_ABI::detail
