// Where whole images come from: a folder, memory, a generator. Training sets such as NoisyPatches are made of them.
//
//     struct Checkerboards {                           // a user's source
//       static constexpr int channels = 1;
//       std::size_t size() const { return 100; }
//       st::Image<1> image(std::size_t index) const;   // (1, C, H, W); const, since several threads call it
//       std::string name(std::size_t index) const;     // optional; errors name the image by it
//     };
//     st::MemoryImages<1> kept(Checkerboards{});       // every image made once and kept
//
// A source that can make a part of an image in less time than the whole has two more functions, and training on patches
// uses them: `std::optional<st::ImageSize> size_of(index) const`, empty where image() is as quick, and
// `st::Image<1> part(index, y, x, h, w) const`, the pixels of image(index) from row y and column x on.
#pragma once

#include <concepts>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/parallel.hpp"
#include "strata/data/dataset.hpp"
#include "strata/data/transforms.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

struct ImageSize {
  std::int64_t h = 0, w = 0;
};

template <class S>
concept ImageSource = requires(const S& source, std::size_t index) {
  { source.size() } -> std::convertible_to<std::size_t>;
  { source.image(index) } -> std::convertible_to<Image<S::channels>>;
};

namespace detail {

template <class S>
std::string name_of(const S& source, std::size_t index) {
  if constexpr (requires { source.name(index); })
    return source.name(index);
  else
    return concat("image ", index);
}

/// Calls make(i) for i below count on all threads; of several errors, the one of the lowest i is thrown.
template <class Make>
void for_each_image(std::size_t count, Make make) {
  std::vector<std::exception_ptr> failures(count);
  parallel_for(std::int64_t(count), [&](std::int64_t i) {
    try {
      make(std::size_t(i));
    } catch (...) {
      failures[std::size_t(i)] = std::current_exception();
    }
  });
  for (const auto& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace detail

/// Any source of images of C channels. One given by name is referred to and must outlive this; a temporary is kept.
template <int C>
class AnyImages {
 public:
  static constexpr int channels = C;

  template <class S>
    requires(!std::same_as<std::remove_cvref_t<S>, AnyImages> && ImageSource<std::remove_cvref_t<S>> &&
             std::remove_cvref_t<S>::channels == C)
  AnyImages(S&& source) : source_(std::make_shared<const Model<std::remove_cvref_t<S>>>(std::forward<S>(source))) {}

  std::size_t size() const { return source_->size(); }
  Image<C> image(std::size_t index) const { return source_->image(index); }
  std::string name(std::size_t index) const { return source_->name(index); }
  /// The size of an image whose parts are made in less time than the whole; else nothing.
  std::optional<ImageSize> size_of(std::size_t index) const { return source_->size_of(index); }
  Image<C> part(std::size_t index, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w) const {
    return source_->part(index, y, x, h, w);
  }

 private:
  struct Interface {
    virtual ~Interface() = default;
    virtual std::size_t size() const = 0;
    virtual Image<C> image(std::size_t index) const = 0;
    virtual std::string name(std::size_t index) const = 0;
    virtual std::optional<ImageSize> size_of(std::size_t index) const = 0;
    virtual Image<C> part(std::size_t index, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w) const = 0;
  };
  template <class S>
  struct Model final : Interface {
    explicit Model(const S& named) : held(named) {}
    explicit Model(S&& temporary) : held(std::move(temporary)) {}
    std::size_t size() const override { return held->size(); }
    Image<C> image(std::size_t index) const override { return held->image(index); }
    std::string name(std::size_t index) const override { return detail::name_of(*held, index); }
    std::optional<ImageSize> size_of(std::size_t index) const override {
      if constexpr (requires { held->size_of(index); })
        return held->size_of(index);
      else
        return std::nullopt;
    }
    Image<C> part(std::size_t index, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w) const override {
      if constexpr (requires { held->part(index, y, x, h, w); })
        return held->part(index, y, x, h, w);
      else
        return crop(held->image(index), y, x, h, w);
    }
    detail::Held<S> held;
  };

  std::shared_ptr<const Interface> source_;
};

/// Images in memory: given ones, or all of another source, made on all cores.
template <int C>
class MemoryImages {
 public:
  static constexpr int channels = C;

  explicit MemoryImages(std::vector<Image<C>> images) : images_(std::move(images)) {
    for (std::size_t i = 0; i < images_.size(); ++i) names_.push_back(concat("image ", i));
  }
  explicit MemoryImages(const AnyImages<C>& source) : images_(source.size()) {
    for (std::size_t i = 0; i < images_.size(); ++i) names_.push_back(source.name(i));
    detail::for_each_image(images_.size(), [&](std::size_t i) { images_[i] = source.image(i); });
  }

  std::size_t size() const { return images_.size(); }
  /// Shares memory with what is kept here: do not write into it.
  Image<C> image(std::size_t index) const {
    detail::check_index("MemoryImages", index, size());
    return images_[index];
  }
  std::string name(std::size_t index) const {
    detail::check_index("MemoryImages", index, size());
    return names_[index];
  }

 private:
  std::vector<Image<C>> images_;
  std::vector<std::string> names_;
};

}}  // namespace strata::STRATA_ABI
