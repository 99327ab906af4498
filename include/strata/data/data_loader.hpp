// Batches of a dataset, made ahead by worker threads, in an order that depends on the seed and the epoch alone.
//
//     st::DataLoader loader(dataset, {.batch_size = 128, .shuffle = true, .num_workers = 2, .drop_last = true});
//     for (int epoch = 0; epoch < 80; ++epoch)
//       for (auto& [noisy, clean] : loader.epoch(epoch)) { ... }
//
// Several processes that train together take a part of each batch each (distributed/world.hpp): the whole batch is cut
// into `shards` pieces of as many samples, and a rank gets those that lie one after another from rank * shards / ranks
// on.
//
// Sample `index` of an epoch is dataset.get(index, rng) with rng = Rng(seed, epoch, index): the same bits for any
// number of workers and ranks, and loader.epoch(epoch, k) gives batches k, k + 1, ... exactly as if the first k had
// been used.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/flush_denormals.hpp"
#include "strata/core/random.hpp"
#include "strata/data/collate.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/detail/prefetch.hpp"
#include "strata/data/sample.hpp"
#include "strata/distributed/world.hpp"

namespace strata { inline namespace STRATA_ABI {

struct LoaderOptions {
  std::int64_t batch_size = 1;
  bool shuffle = false;    ///< a new order in every epoch
  int num_workers = 0;     ///< threads that make batches ahead; 0 makes each when it is asked for
  bool drop_last = false;  ///< leave out the last batch when it is smaller
  std::uint64_t seed = 0;  ///< of the order and of the samples' random numbers
  int prefetch = 2;        ///< batches in the making or ready, per worker
  int shards = 1;          ///< pieces of a batch whose gradients are computed each by itself, on whatever rank
  World world = {};        ///< whose ranks share the batches: they must divide the shards, and those the batches
};

namespace detail {

/// Throws the error in flight again with `where` added to its text.
[[noreturn]] inline void rethrow_with(const std::string& where) {
  try {
    throw;
  } catch (const FileError& error) {
    throw FileError(error.what() + where);
  } catch (const ShapeError& error) {
    throw ShapeError(error.what() + where);
  } catch (const ValueError& error) {
    throw ValueError(error.what() + where);
  } catch (const NumericError& error) {
    throw NumericError(error.what() + where);
  } catch (const DeviceError& error) {
    throw DeviceError(error.what() + where);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw Error(error.what() + where);
  }
}

// What a sample and a batch of D are. For a D that is no dataset: something harmless, so that the compiler has nothing
// to add to DataLoader's own sentence.
template <class D>
struct BatchOf {
  static constexpr bool valid = false;
  using type = LoadedBatch<Image<1>, Image<1>>;
};
template <Dataset D>
struct BatchOf<D> {
  using Item = std::remove_cvref_t<decltype(std::declval<const D&>().get(std::size_t{}, std::declval<Rng&>()))>;
  using Input = std::remove_cvref_t<decltype(std::declval<Item&>().input)>;
  using Target = std::remove_cvref_t<decltype(std::declval<Item&>().target)>;
  static constexpr bool valid = Collatable<Input> && Collatable<Target>;
  template <class T, bool>
  struct Collated {
    using type = Image<1>;
  };
  template <class T>
  struct Collated<T, true> {
    using type = typename Collate<T>::type;
  };
  using type = LoadedBatch<typename Collated<Input, Collatable<Input>>::type,
                           typename Collated<Target, Collatable<Target>>::type>;
};

}  // namespace detail

template <class D>
class DataLoader {
  static_assert(Dataset<D>,
                "DataLoader<D>: D must have 'std::size_t size() const' and 'get(std::size_t, Rng&) const' returning a "
                "struct with input and target");
  static_assert(!Dataset<D> || detail::BatchOf<D>::valid,
                "DataLoader<D>: the input and the target of a sample must each be an Image<C>, a Vector<C>, a Tensor, "
                "a number, or "
                "a std::tuple of these; for another type specialise strata::Collate");

 public:
  /// This rank's part of a batch, {input, target}: Image<C> for images and vectors, Tensor<std::int64_t> of shape (N)
  /// for labels: see data/sample.hpp.
  using Batch = typename detail::BatchOf<D>::type;

  class Epoch;

  /// Refers to a dataset given by name, which must outlive the loader; keeps one given as a temporary. Throws
  /// ValueError for options out of range, an empty dataset, and a drop_last that leaves no batch.
  DataLoader(const D& dataset, LoaderOptions options = {}) : DataLoader(detail::Held<D>(dataset), options, 0) {}
  DataLoader(D&& dataset, LoaderOptions options = {}) : DataLoader(detail::Held<D>(std::move(dataset)), options, 0) {}

  /// Batches in an epoch.
  std::int64_t size() const {
    const std::int64_t size = options_.batch_size;
    return options_.drop_last ? samples_ / size : (samples_ + size - 1) / size;
  }
  std::int64_t num_samples() const { return samples_; }
  const LoaderOptions& options() const& { return options_; }
  LoaderOptions options() const&& { return options(); }

  /// The batches of an epoch from `first_batch` on, to be gone through once. Throws ValueError for a negative number,
  /// an epoch beyond 32 bits and a first_batch beyond size().
  Epoch epoch(std::int64_t epoch, std::int64_t first_batch = 0) const {
    if (epoch < 0 || epoch > std::numeric_limits<std::uint32_t>::max())
      throw ValueError(concat("DataLoader::epoch: got epoch ", epoch, ", wanted 0 to 4294967295"));
    if (first_batch < 0 || first_batch > size())
      throw ValueError(
          concat("DataLoader::epoch: got first batch ", first_batch, ", an epoch has ", size(), " batches"));
    waited_->store(0);
    return Epoch(*this, std::uint32_t(epoch), first_batch);
  }

  /// Seconds that the loop over the latest epoch has waited for data so far. Near 0: the workers keep up.
  double wait_seconds() const { return 1e-9 * double(waited_->load()); }

 private:
  DataLoader(detail::Held<D> dataset, const LoaderOptions& options, int)
      : dataset_(std::move(dataset)), options_(options), waited_(std::make_shared<std::atomic<std::int64_t>>(0)) {
    const auto at_least = [](const char* name, std::int64_t value, std::int64_t least) {
      if (value < least) throw ValueError(concat("DataLoader: got .", name, " = ", value, ", wanted at least ", least));
    };
    at_least("batch_size", options.batch_size, 1);
    at_least("num_workers", options.num_workers, 0);
    at_least("prefetch", options.prefetch, 1);
    at_least("shards", options.shards, 1);
    options.world.check_shards(options.shards);
    if (options.batch_size % options.shards != 0)
      throw ValueError(concat("DataLoader: .batch_size = ", options.batch_size, " cannot be cut into ", options.shards,
                              " shards of as many samples: give a multiple"));
    if (options.num_workers > 1024) throw ValueError("DataLoader: got more than 1024 workers");
    if constexpr (detail::BatchOf<D>::valid) {
      const std::size_t size = dataset_->size();
      if (size == 0) throw ValueError("DataLoader: the dataset is empty");
      if (size >= std::numeric_limits<std::uint32_t>::max() - 1)
        throw ValueError(concat("DataLoader: the dataset has ", size, " samples; at most 2^32 - 3 can be numbered"));
      samples_ = std::int64_t(size);
    }
    if (!options.drop_last && samples_ % options.shards != 0)
      throw ValueError(concat("DataLoader: the last batch of ", samples_, " samples cannot be cut into ",
                              options.shards, " shards of as many: leave it out with .drop_last = true"));
    if (this->size() == 0)
      throw ValueError(concat("DataLoader: .drop_last leaves no batch: the dataset has ", samples_,
                              " samples, fewer than .batch_size = ", options.batch_size));
  }

  detail::Held<D> dataset_;
  LoaderOptions options_;
  std::int64_t samples_ = 0;
  std::shared_ptr<std::atomic<std::int64_t>> waited_;  // nanoseconds
};

/// The batches of one epoch: a range to loop over once. Leaving the loop early stops the workers.
template <class D>
class DataLoader<D>::Epoch {
 public:
  class Iterator {
   public:
    using value_type = Batch;
    using difference_type = std::ptrdiff_t;
    Batch& operator*() const { return *epoch_->current_; }
    Batch* operator->() const { return &*epoch_->current_; }
    Iterator& operator++() {
      epoch_->advance();
      return *this;
    }
    void operator++(int) { epoch_->advance(); }
    bool operator==(std::default_sentinel_t) const { return !epoch_->current_; }

   private:
    friend class Epoch;
    explicit Iterator(Epoch* epoch) : epoch_(epoch) {}
    Epoch* epoch_;
  };

  /// Waits for the first batch. What dataset.get threw comes out here or at ++, at the batch where it belongs.
  Iterator begin() && = delete;  // it would outlive the epoch
  Iterator begin() & {
    if (!begun_) advance();
    begun_ = true;
    return Iterator(this);
  }
  std::default_sentinel_t end() const { return {}; }

 private:
  friend class DataLoader;

  Epoch(const DataLoader& loader, std::uint32_t epoch, std::int64_t first_batch)
      : dataset_(loader.dataset_),
        options_(loader.options_),
        samples_(loader.samples_),
        epoch_(epoch),
        waited_(loader.waited_),
        order_(options_.shuffle ? detail::random_order(std::size_t(samples_), Rng(options_.seed, epoch, 0xFFFFFFFFu))
                                : std::vector<std::size_t>{}),
        batches_(first_batch, loader.size(), options_.num_workers,
                 std::int64_t{options_.num_workers} * options_.prefetch,
                 [this](std::int64_t batch, const auto& queue) { return make(batch, queue); }) {}

  void advance() {
    const auto start = std::chrono::steady_clock::now();
    current_.reset();  // its memory can serve the next batch
    current_ = batches_.next();
    const std::chrono::nanoseconds waited = std::chrono::steady_clock::now() - start;
    waited_->fetch_add(waited.count());
  }

  Batch make(std::int64_t batch, const detail::Prefetcher<Batch>& queue) const {
    if constexpr (detail::BatchOf<D>::valid) {
      using Of = detail::BatchOf<D>;
      const FlushDenormals flush;  // on every thread alike, so that the bits do not depend on the workers
      Collate<typename Of::Input> inputs;
      Collate<typename Of::Target> targets;
      const std::int64_t first_of_all = batch * options_.batch_size, ranks = options_.world.size();
      const std::int64_t own = std::min(options_.batch_size, samples_ - first_of_all) / ranks;
      const std::int64_t first = first_of_all + own * options_.world.rank();
      const auto count = std::size_t(own);
      for (std::size_t position = 0; position < count; ++position) {
        if (queue.stopping()) throw Error("DataLoader: stopped");  // nobody is there to see it
        const std::size_t place = std::size_t(first) + position;
        const std::size_t index = order_.empty() ? place : order_[place];
        try {
          Rng rng(options_.seed, epoch_, std::uint32_t(index));
          const typename Of::Item item = dataset_->get(index, rng);
          inputs.add(item.input, position, count, "input");
          targets.add(item.target, position, count, "target");
        } catch (...) {
          detail::rethrow_with(concat(" [DataLoader: sample ", index, ", batch ", batch, " of epoch ", epoch_, "]"));
        }
      }
      return {{inputs.take(), targets.take()}, options_.shards / int(ranks)};
    } else {
      return {};
    }
  }

  detail::Held<D> dataset_;
  LoaderOptions options_;
  std::int64_t samples_;
  std::uint32_t epoch_;
  std::shared_ptr<std::atomic<std::int64_t>> waited_;  // nanoseconds
  std::vector<std::size_t> order_;
  std::optional<Batch> current_;
  bool begun_ = false;
  detail::Prefetcher<Batch> batches_;  // last: its threads use the members above
};

}}  // namespace strata::STRATA_ABI
