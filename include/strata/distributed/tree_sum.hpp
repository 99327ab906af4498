// Sums of partial sums, added in an order that depends on their number alone: one fixed binary tree over the shards of
// a batch, whoever computed which. So 1, 2, 4 and 8 ranks get the same bits.
//
//     st::detail::TreeSum<float> sum;
//     sum.begin(shards, first, last);                         // this rank's shards
//     for (...) sum.add(numbers);                             // one shard after another
//     std::vector<float> total = sum.over(&ranks);            // the same bits on all
//
// The tree: neighbours first, 0 + 1, 2 + 3, ..., then the sums of neighbours, and so on; one without a neighbour goes
// up as it is. A rank keeps no more partial sums than the tree has levels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/distributed/collectives.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// to += from.
template <class T>
void add_numbers(std::span<T> to, std::span<const T> from) {
  T* const a = to.data();
  const T* const b = from.data();
  parallel_ranges(std::int64_t(to.size()), 1 << 15, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) a[i] += b[i];
  });
}

/// The sum over all ranks' numbers, on all, in the order of the tree: rank r's are a whole subtree, and the number of
/// ranks is a power of two. Each rank sends 2 (1 - 1 / ranks) times the numbers, the least there is; few numbers go
/// whole, in half as many messages. The sum of two is the same for both who compute it, since a + b is b + a. `other`
/// is memory to be used again.
template <class T>
void butterfly_sum(Communicator& ranks, std::span<T> numbers, std::vector<T>& other) {
  constexpr std::size_t few = 16384 / sizeof(T);
  const int rank = ranks.rank(), size = ranks.size();
  if (numbers.size() <= few) {
    other.resize(numbers.size());
    for (int distance = 1; distance < size; distance *= 2) {
      const int partner = rank ^ distance;
      ranks.exchange(partner, std::as_bytes(numbers), partner, std::as_writable_bytes(std::span(other)));
      add_numbers<T>(numbers, other);
    }
    return;
  }
  struct Part {
    std::size_t kept, kept_count, given, given_count;
  };
  std::vector<Part> parts;
  std::size_t first = 0, count = numbers.size();
  other.resize(count - count / 2);
  for (int distance = 1; distance < size; distance *= 2) {
    const std::size_t half = count / 2;
    const Part lower{first, half, first + half, count - half}, upper{first + half, count - half, first, half};
    const Part part = (rank & distance) == 0 ? lower : upper;
    const std::span<T> kept = numbers.subspan(part.kept, part.kept_count), in = std::span(other).first(part.kept_count);
    const int partner = rank ^ distance;
    ranks.exchange(partner, std::as_bytes(numbers.subspan(part.given, part.given_count)), partner,
                   std::as_writable_bytes(in));
    add_numbers<T>(kept, in);
    parts.push_back(part);
    first = part.kept;
    count = part.kept_count;
  }
  for (int distance = size / 2; distance >= 1; distance /= 2) {
    const Part part = parts.back();
    parts.pop_back();
    const int partner = rank ^ distance;
    ranks.exchange(partner, std::as_bytes(numbers.subspan(part.kept, part.kept_count)), partner,
                   std::as_writable_bytes(numbers.subspan(part.given, part.given_count)));
  }
}

/// A part of the tree: the sum of the shards [index << level, (index + 1) << level), as far as there are so many.
struct TreePlace {
  std::int64_t level = 0, index = 0;

  /// The place of the same sum further up, where it has no neighbour among `shards`.
  TreePlace raised(std::int64_t shards) const {
    TreePlace place = *this;
    while (place.index > 0 && place.index % 2 == 0 && (place.index + 1) << place.level >= shards) place = place.above();
    return place;
  }
  TreePlace above() const { return {level + 1, index / 2}; }
  bool has_neighbour(const TreePlace& next) const {
    return level == next.level && index % 2 == 0 && next.index == index + 1;
  }
};

template <class T>
class TreeSum {
 public:
  /// Begins anew, for the shards [first, last) of `shards`; each rank has as many.
  void begin(std::int64_t shards, std::int64_t first, std::int64_t last) {
    shards_ = shards;
    next_ = first;
    last_ = last;
    parts_.clear();
  }

  /// The numbers of the next shard.
  void add(std::vector<T> numbers) { push({TreePlace{0, next_++}.raised(shards_), std::move(numbers)}); }
  bool complete() const { return next_ == last_; }

  /// Memory for numbers: that of a sum that was added to another, if there is one.
  std::vector<T> take_spare() { return std::exchange(spare_, {}); }
  void give_spare(std::vector<T> memory) { spare_ = std::move(memory); }

  /// The sum over all shards, on all ranks, which have added theirs. No ranks: this one has all of them.
  std::vector<T> over(Communicator* ranks) {
    if (ranks != nullptr && ranks->size() > 1) {
      const auto power_of_two = [](std::int64_t n) { return (n & (n - 1)) == 0; };
      if (power_of_two(ranks->size()) && power_of_two(shards_ / ranks->size()))
        butterfly_sum<T>(*ranks, parts_.front().numbers, spare_);
      else
        gather_on_first(*ranks);
    }
    std::vector<T> total = std::move(parts_.front().numbers);
    parts_.clear();
    return total;
  }

 private:
  struct Part {
    TreePlace place;
    std::vector<T> numbers;
  };

  void push(Part part) {
    parts_.push_back(std::move(part));
    while (parts_.size() > 1 && parts_[parts_.size() - 2].place.has_neighbour(parts_.back().place)) {
      Part& left = parts_[parts_.size() - 2];
      add_numbers<T>(left.numbers, parts_.back().numbers);
      left.place = left.place.above().raised(shards_);
      spare_ = std::move(parts_.back().numbers);
      parts_.pop_back();
    }
  }

  // For numbers of ranks that are no power of two, or whose shards are no whole subtree: the parts of the higher rank
  // go to the lower, which adds those that are neighbours.
  void gather_on_first(Communicator& ranks) {
    const int rank = ranks.rank(), size = ranks.size();
    const std::size_t count = parts_.front().numbers.size();
    for (int distance = 1; distance < size; distance *= 2) {
      if (rank % (2 * distance) == distance) {
        std::vector<TreePlace> places;
        for (const Part& part : parts_) places.push_back(part.place);
        std::uint64_t number = places.size();
        ranks.send(rank - distance, std::as_bytes(std::span(&number, 1)));
        ranks.send(rank - distance, std::as_bytes(std::span(places)));
        for (const Part& part : parts_) ranks.send(rank - distance, std::as_bytes(std::span(part.numbers)));
        break;
      }
      if (rank % (2 * distance) == 0 && rank + distance < size) {
        std::uint64_t number = 0;
        ranks.receive(rank + distance, std::as_writable_bytes(std::span(&number, 1)));
        std::vector<TreePlace> places(std::size_t{number});
        ranks.receive(rank + distance, std::as_writable_bytes(std::span(places)));
        for (const TreePlace& place : places) {
          Part part{place, take_spare()};
          part.numbers.resize(count);
          ranks.receive(rank + distance, std::as_writable_bytes(std::span(part.numbers)));
          push(std::move(part));
        }
      }
    }
    parts_.resize(1);
    broadcast(ranks, std::as_writable_bytes(std::span(parts_.front().numbers)));
  }

  std::int64_t shards_ = 0, next_ = 0, last_ = 0;
  std::vector<Part> parts_;
  std::vector<T> spare_;
};

}}}  // namespace strata::STRATA_ABI::detail
