// A dataset is any type with size() and get(index, rng). Here are the concept and what datasets are composed with.
//
//     struct Squares {                                   // a user's dataset
//       std::size_t size() const { return 100; }
//       st::Sample<1> get(std::size_t index, st::Rng& rng) const;
//     };
//     auto [train, validation] = st::random_split(dataset, 0.9, seed);        // or {0.8, 0.1, 0.1}, or {800, 100, 100}
//     st::Map darker(train, [](st::Sample<1> sample, st::Rng& rng) { ...; return sample; });
//
// get() is called from several threads at once, so it is const. Its rng is the sample's own, keyed by (seed, epoch,
// index): what is drawn from it does not depend on the number of threads.
//
// Subset, Concat and Map follow std::views: a dataset given by name is referred to and must outlive them, a temporary
// is moved in and kept.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/data/sample.hpp"

namespace strata { inline namespace STRATA_ABI {

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

/// The lengths that random_split's numbers mean.
template <class Number, std::size_t N>
std::array<std::size_t, N> split_lengths(const Number (&parts)[N], std::size_t size) {
  std::array<std::size_t, N> lengths{};
  for (const Number part : parts)
    if (!(part > 0)) throw ValueError(concat("random_split: a part of ", part, " of ", size, " samples is empty"));
  std::size_t sum = 0;
  if constexpr (std::is_floating_point_v<Number>) {
    const double total = std::accumulate(std::begin(parts), std::end(parts), 0.0);
    if (!(std::abs(total - 1) <= 1e-6))
      throw ValueError(concat("random_split: the fractions add up to ", total, ", wanted 1"));
    for (std::size_t i = 0; i < N; ++i) {
      // A product that rounding put below a whole number, as 0.29 * 100, means that number.
      lengths[i] = std::min(std::size_t(double(parts[i]) * double(size) * (1 + 1e-12)), size - sum);
      sum += lengths[i];
    }
    for (std::size_t i = 0; sum < size; ++i, ++sum) ++lengths[i % N];
  } else {
    for (std::size_t i = 0; i < N; ++i) {
      lengths[i] = std::size_t(parts[i]);
      if (lengths[i] > size - sum)
        throw ValueError(concat("random_split: the lengths add up to more than the ", size, " samples"));
      sum += lengths[i];
    }
    if (sum != size)
      throw ValueError(concat("random_split: the lengths add up to ", sum, ", and there are ", size, " samples"));
  }
  for (std::size_t i = 0; i < N; ++i)
    if (lengths[i] == 0) throw ValueError(concat("random_split: part number ", i, " of ", size, " samples is empty"));
  return lengths;
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

/// Splits a dataset at random into as many parts as there are numbers, always the same for a seed: numbers of samples,
/// which add up to all of them, or fractions, which add up to 1 (each is rounded down, and what is left goes to the
/// first parts, one each, as in torch.utils.data.random_split). Returns an array of Subsets. Throws ValueError for
/// other sums, and for a part that would be empty.
///
///     const auto [train, validation, test] = st::random_split(dataset, {0.8, 0.1, 0.1}, seed);
template <class D, class Number, std::size_t N>
  requires(Dataset<std::remove_cvref_t<D>> && std::is_arithmetic_v<Number>)
auto random_split(D&& dataset, const Number (&parts)[N], std::uint64_t seed) {
  using Whole = std::remove_cvref_t<D>;
  const detail::Held<Whole> held(std::forward<D>(dataset));
  const std::array<std::size_t, N> lengths = detail::split_lengths(parts, std::size_t(held->size()));
  const std::vector<std::size_t> order = detail::random_order(held->size(), Rng(seed, 0, 0xFFFFFFFEu));
  auto from = order.begin();
  const auto next = [&](std::size_t length) {
    const auto begin = std::exchange(from, from + std::ptrdiff_t(length));
    return Subset<Whole>(held, {begin, from});
  };
  return [&]<std::size_t... I>(std::index_sequence<I...>) {
    return std::array<Subset<Whole>, N>{next(lengths[I])...};  // braces: in their order
  }(std::make_index_sequence<N>{});
}

}}  // namespace strata::STRATA_ABI
