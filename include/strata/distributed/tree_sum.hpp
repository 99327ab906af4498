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
#include <memory>
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
/// whole, in half as many messages. The sum of two is the same for both who compute it, since a + b is b + a.
///
/// It goes on by itself no further than to the messages that are under way: who computes meanwhile calls advance() now
/// and then. Several sums, each with a channel of its own, may be under way at once.
template <class T>
class ButterflySum {
 public:
  /// Begins. `numbers` become the sum, and must stay where they are; `other` is memory to be used again.
  ButterflySum(Communicator& ranks, int channel, std::span<T> numbers, std::vector<T> other = {})
      : ranks_(&ranks), channel_(channel), numbers_(numbers), other_(std::move(other)), count_(numbers.size()) {
    constexpr std::size_t few = 16384 / sizeof(T);
    whole_ = numbers.size() <= few;
    other_.resize(whole_ ? count_ : count_ - count_ / 2);
    if (ranks.size() == 1)
      complete_ = true;
    else
      start();
  }
  ButterflySum(ButterflySum&&) = default;

  /// Looks at what has come, and sends what follows from it. True where the sum is there.
  bool advance() {
    while (!complete_ && (flight_ == nullptr || flight_->done())) arrived();
    return complete_;
  }
  /// Waits for a message, where one is under way.
  void wait_for_message() {
    if (flight_ != nullptr) flight_->wait();
  }
  bool complete() const { return complete_; }
  std::vector<T> take_memory() { return std::move(other_); }

 private:
  struct Part {
    std::size_t kept, kept_count, given, given_count;
  };

  void exchange(std::span<const T> out, std::span<T> in) {
    const int partner = ranks_->rank() ^ distance_;
    flight_ = ranks_->start(channel_, partner, std::as_bytes(out), partner, std::as_writable_bytes(in));
  }

  // Whole numbers to and from each partner, or first halves of halves until each rank has the sum of a part, and then
  // the parts on the same way back.
  void start() {
    if (whole_) return exchange(numbers_, other_);
    if (!gathers_) {
      const std::size_t half = count_ / 2;
      const Part lower{first_, half, first_ + half, count_ - half}, upper{first_ + half, count_ - half, first_, half};
      const Part part = (ranks_->rank() & distance_) == 0 ? lower : upper;
      parts_.push_back(part);
      return exchange(numbers_.subspan(part.given, part.given_count), std::span(other_).first(part.kept_count));
    }
    const Part& part = parts_.back();
    exchange(numbers_.subspan(part.kept, part.kept_count), numbers_.subspan(part.given, part.given_count));
  }

  void arrived() {
    flight_ = nullptr;
    if (whole_) {
      add_numbers<T>(numbers_, other_);
      distance_ *= 2;
      complete_ = distance_ >= ranks_->size();
    } else if (!gathers_) {
      const Part& part = parts_.back();
      add_numbers<T>(numbers_.subspan(part.kept, part.kept_count), std::span(other_).first(part.kept_count));
      first_ = part.kept;
      count_ = part.kept_count;
      gathers_ = 2 * distance_ >= ranks_->size();
      if (!gathers_) distance_ *= 2;
    } else {
      parts_.pop_back();
      distance_ /= 2;
      complete_ = parts_.empty();
    }
    if (!complete_) start();
  }

  Communicator* ranks_;
  int channel_, distance_ = 1;
  std::span<T> numbers_;
  std::vector<T> other_;
  std::vector<Part> parts_;
  std::size_t first_ = 0, count_;
  bool whole_ = false, gathers_ = false, complete_ = false;
  std::unique_ptr<Communicator::Exchange> flight_;  // destroyed first: it refers to the memory above
};

/// The same, waiting for it.
template <class T>
void butterfly_sum(Communicator& ranks, std::span<T> numbers, std::vector<T>& other) {
  ButterflySum<T> sum(ranks, 0, numbers, std::move(other));
  while (!sum.advance()) sum.wait_for_message();
  other = sum.take_memory();
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

  /// Whether `ranks` can sum the numbers of the last shard piece by piece, before all of it are known: fold().
  bool folds(const Communicator* ranks) const {
    return ranks != nullptr && ranks->size() > 1 && butterflies(*ranks) && next_ + 1 == last_;
  }
  /// Adds count numbers of the last shard, from `first` on, to those of this rank's shards before it, as add() would.
  /// Returns where the rank's sum of them is.
  std::span<T> fold(std::vector<T>& last_shard, std::size_t first, std::size_t count) {
    std::span<T> sum = std::span(last_shard).subspan(first, count);
    for (std::size_t i = parts_.size(); i-- > 0;) {
      const std::span<T> left = std::span(parts_[i].numbers).subspan(first, count);
      add_numbers<T>(left, sum);
      sum = left;
    }
    return sum;
  }
  /// Where all of them were folded, and the ranks have summed what fold() gave: the numbers that hold the sum.
  std::vector<T> folded(std::vector<T> last_shard) {
    if (parts_.empty()) return last_shard;
    std::vector<T> total = std::move(parts_.front().numbers);
    parts_.clear();
    return total;
  }

  /// The sum over all shards, on all ranks, which have added theirs. No ranks: this one has all of them.
  std::vector<T> over(Communicator* ranks) {
    if (ranks != nullptr && ranks->size() > 1) {
      if (butterflies(*ranks))
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

  bool butterflies(const Communicator& ranks) const {
    const auto power_of_two = [](std::int64_t n) { return (n & (n - 1)) == 0; };
    return power_of_two(ranks.size()) && power_of_two(shards_ / ranks.size());
  }

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
