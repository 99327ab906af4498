// A dataset is any type with size() and get(index, rng). Here are the concept and what datasets are composed with.
//
//     struct Squares {                                   // a user's dataset
//       std::size_t size() const { return 100; }
//       st::Sample<1> get(std::size_t index, st::Rng& rng) const;
//     };
//     auto [train, validation] = st::random_split(dataset, 0.9, seed);
//     st::Map darker(train, [](st::Sample<1> sample, st::Rng& rng) { ...; return sample; });
//
// get() is called from several threads at once, so it is const. Its rng is the sample's own, keyed by (seed, epoch,
// index): what is drawn from it does not depend on the number of threads.
//
// Subset, Concat and Map follow std::views: a dataset given by name is referred to and must outlive them, a temporary
// is moved in and kept.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/data/sample.hpp"

namespace strata::inline STRATA_ABI {

/// size() and get(index, rng) of a const object; get returns a struct with members input and target.
template <class D>
concept Dataset = requires(const D& dataset, std::size_t index, Rng& rng) {
  { dataset.size() } -> std::convertible_to<std::size_t>;
  dataset.get(index, rng).input;
  dataset.get(index, rng).target;
};

namespace detail {

/// A reference to a named object, or a temporary kept: see the head of this file. Copies share the object.
template <class D>
class Held {
 public:
  Held(const D& named) : object_(std::shared_ptr<const D>(), std::addressof(named)) {}
  Held(D&& temporary) : object_(std::make_shared<const D>(std::move(temporary))) {}

  const D& operator*() const { return *object_; }
  const D* operator->() const { return object_.get(); }

 private:
  std::shared_ptr<const D> object_;
};

inline void check_index(const char* what, std::size_t index, std::size_t size) {
  if (index >= size) throw ValueError(concat(what, ": got index ", index, ", there are ", size));
}

/// The numbers 0 to count - 1 in an order drawn from rng (Fisher and Yates).
inline std::vector<std::size_t> random_order(std::size_t count, Rng rng) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = count; i > 1; --i) std::swap(order[i - 1], order[rng.below(std::uint32_t(i))]);
  return order;
}

}  // namespace detail

/// The samples of a dataset at the given indices, in their order. Throws ValueError for an index outside.
template <Dataset D>
class Subset {
 public:
  Subset(const D& dataset, std::vector<std::size_t> indices) : Subset(detail::Held<D>(dataset), std::move(indices)) {}
  Subset(D&& dataset, std::vector<std::size_t> indices)
      : Subset(detail::Held<D>(std::move(dataset)), std::move(indices)) {}
  Subset(detail::Held<D> dataset, std::vector<std::size_t> indices)
      : dataset_(std::move(dataset)), indices_(std::move(indices)) {
    for (const std::size_t index : indices_) detail::check_index("Subset", index, dataset_->size());
  }

  std::size_t size() const { return indices_.size(); }
  auto get(std::size_t index, Rng& rng) const {
    detail::check_index("Subset", index, size());
    return dataset_->get(indices_[index], rng);
  }

 private:
  detail::Held<D> dataset_;
  std::vector<std::size_t> indices_;
};

/// Datasets of the same kind of sample, one after another.
template <Dataset First, Dataset... Rest>
class Concat {
  using Item = decltype(std::declval<const First&>().get(std::size_t{}, std::declval<Rng&>()));
  static_assert((std::is_same_v<Item, decltype(std::declval<const Rest&>().get(std::size_t{}, std::declval<Rng&>()))> &&
                 ...),
                "Concat<D...>: get() of every dataset must return the same type");

 public:
  template <class... Ds>
    requires(sizeof...(Ds) == 1 + sizeof...(Rest) && (!std::is_same_v<std::remove_cvref_t<Ds>, Concat> && ...))
  explicit Concat(Ds&&... datasets) : datasets_(std::forward<Ds>(datasets)...) {}

  std::size_t size() const {
    return std::apply([](const auto&... held) { return (std::size_t(held->size()) + ...); }, datasets_);
  }
  Item get(std::size_t index, Rng& rng) const {
    detail::check_index("Concat", index, size());
    return get_from<0>(index, rng);
  }

 private:
  template <std::size_t I>
  Item get_from(std::size_t index, Rng& rng) const {
    const auto& dataset = *std::get<I>(datasets_);
    if constexpr (I < sizeof...(Rest)) {
      const std::size_t here = dataset.size();
      if (index >= here) return get_from<I + 1>(index - here, rng);
    }
    return dataset.get(index, rng);
  }

  std::tuple<detail::Held<First>, detail::Held<Rest>...> datasets_;
};
template <class... Ds>
Concat(Ds&&...) -> Concat<std::remove_cvref_t<Ds>...>;

/// A dataset whose samples go through change(sample) or change(sample, rng), which returns the new sample. Where the
/// two images of a sample may share memory with the dataset, change must return new ones rather than write into them.
template <Dataset D, class Change>
class Map {
 public:
  Map(const D& dataset, Change change) : dataset_(dataset), change_(std::move(change)) {}
  Map(D&& dataset, Change change) : dataset_(std::move(dataset)), change_(std::move(change)) {}

  std::size_t size() const { return dataset_->size(); }
  auto get(std::size_t index, Rng& rng) const {
    if constexpr (std::invocable<const Change&, decltype(dataset_->get(index, rng)), Rng&>)
      return std::invoke(change_, dataset_->get(index, rng), rng);
    else
      return std::invoke(change_, dataset_->get(index, rng));
  }

 private:
  detail::Held<D> dataset_;
  Change change_;
};

/// Splits a dataset at random into a share for training and the rest for validation, always the same for a seed.
/// Returns two Subsets. Throws ValueError unless 0 < share < 1 leaves at least one sample on each side.
template <class D>
  requires Dataset<std::remove_cvref_t<D>>
auto random_split(D&& dataset, double share, std::uint64_t seed) {
  using Whole = std::remove_cvref_t<D>;
  const detail::Held<Whole> held(std::forward<D>(dataset));
  const std::size_t size = held->size();
  const auto first = share > 0 && share < 1 ? std::size_t(std::llround(share * double(size))) : 0;
  if (first == 0 || first >= size)
    throw ValueError(concat("random_split: a share of ", share, " of ", size, " samples leaves one part empty"));
  const std::vector<std::size_t> order = detail::random_order(size, Rng(seed, 0, 0xFFFFFFFEu));
  const auto cut = order.begin() + std::ptrdiff_t(first);
  return std::pair(Subset<Whole>(held, {order.begin(), cut}), Subset<Whole>(held, {cut, order.end()}));
}

}  // namespace strata::inline STRATA_ABI
