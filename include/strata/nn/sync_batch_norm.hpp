// Batch normalisation by the statistics of the whole batch, where it is cut into shards that are trained on apart, by
// one process or by several (distributed/data_parallel.hpp): torch.nn.SyncBatchNorm.
//
//     #include <strata/nn/sync_batch_norm.hpp>                // not part of strata.hpp
//     using Net = st::Sequential<st::Conv2d<3, 64>, st::SyncBatchNorm2d<64>, st::ReLU, ...>;
//     const double loss = parallel.step(batch, {.seed = 1, .step = step++}, net, mse);
//
// Where a batch is not cut, which is so in a pass that nobody told of others, and in an Infer pass, it is BatchNorm2d,
// to the bit; and so it is in files, for fold() and for freeze_statistics(). It normalises with the mean and the biased
// variance of all pixels of the batch, running_var gets the unbiased one, and the gradient is the whole batch's. Each
// call sends the statistics of each shard forward and two sums back: 4 numbers (double) for each channel.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ratio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/batch_group.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/tensor/pool_allocator.hpp"

namespace strata { inline namespace STRATA_ABI {

template <int Channels, class Eps = std::ratio<1, 100000>, class Momentum = std::ratio<1, 10>>
class SyncBatchNorm2d : public Layer<SyncBatchNorm2d<Channels, Eps, Momentum>> {
  using Plain = BatchNorm2d<Channels, Eps, Momentum>;

 public:
  using io = maps<Channels, Channels>;
  static constexpr double eps = Plain::eps, momentum = Plain::momentum;

  Parameter weight{Shape{Channels}, 1.0f};
  Parameter bias{Shape{Channels}};
  Buffer running_mean{Shape{Channels}};
  Buffer running_var{Shape{Channels}, 1.0f};
  Buffer num_batches_tracked = Buffer::integers(Shape{});
  /// whether a Train pass uses the running statistics and leaves them as they are. Not in files
  bool frozen_statistics = false;

  static constexpr void visit(auto& self, auto&& f) { Plain::visit(self, f); }
  static constexpr bool is_leaf_layer = true, is_normalisation = true;
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape& x) { return Plain::memory(x); }
  static constexpr bool takes_activation = true, takes_statistics = true, is_affine = true;
  static std::string name() {
    return concat("SyncBatchNorm2d(", Channels, ", eps=", eps, ", momentum=", momentum, ")");
  }
  static auto onnx(auto& self, const auto& x) { return Plain::onnx(self, x); }
  template <class T>
  static auto affine(const auto& self, Device images) {
    return Plain::template affine<T>(self, images);
  }
  static Tensor<float> affine_rows(const auto& self, Device images) { return Plain::affine_rows(self, images); }

  template <Pass P, class T>
  static auto forward(auto& self, P& pass, Var<Channels, T> x, Activation activation = Activation::none) {
    if constexpr (P::training) {
      if (alone(self, pass)) return Plain::forward(self, pass, std::move(x), activation);
      check_together(self, x.device());
      Scratch<double> memory(std::size_t(2 * Channels));
      const ChannelStatistics statistics{memory.data(), memory.data() + Channels};
      cpu::batch_norm_statistics(x.size() / Channels, Channels, x.data(), statistics.mean, statistics.variance);
      return forward_with(self, pass, x, statistics, activation, false);
    } else {
      return Plain::forward(self, pass, std::move(x), activation);
    }
  }

  /// Training, with the statistics of x at hand: see BatchNorm2d.
  template <class T>
  static Var<Channels, T> forward_with(auto& self, Train& pass, const Var<Channels, T>& x,
                                       const ChannelStatistics& statistics, Activation activation, bool x_rectified) {
    if (alone(self, pass)) return Plain::forward_with(self, pass, x, statistics, activation, x_rectified);
    BatchGroup& group = *pass.batch();
    if (group.own_parts() != 1)
      throw Error(concat(name(), ": the ", group.own_parts(),
                         " shards of this process run one after another here, and "
                         "it needs all of them at once: call parallel.step(batch, options, net, loss), or start as "
                         "many ranks as there are shards"));
    const Tensor<double> all = pass.once([&] {
      std::vector<double> own(part_numbers);
      describe(x, statistics, own.data());
      const std::vector<double> gathered = group.gather(own);
      Tensor<double> numbers(Shape{std::int64_t(gathered.size())});
      std::copy(gathered.begin(), gathered.end(), numbers.data());
      return numbers;
    });
    return forward_in_batch(self, pass, x, {all.data(), std::size_t(all.size())}, meeting(group), 0, activation,
                            x_rectified);
  }

  // ---- for whoever runs several parts of a batch together (distributed/lockstep.hpp)

  static constexpr bool looks_at_batch = true;
  static constexpr std::size_t part_numbers = 1 + 2 * std::size_t(Channels);  // that describe() writes

  /// Whether it does not look at other parts: it is then called as another layer.
  static bool alone(const auto& self, Train& pass) {
    return pass.batch() == nullptr || pass.batch()->parts() == 1 || self.frozen_statistics;
  }
  static void check_together(const auto& self, Device images) {
    check_same_device(images, self.weight.device(), name);
    if (on_accelerator(images))
      throw DeviceError(concat(name(),
                               " looks at several shards on the cpu only, and the network and its images are on ",
                               images.str(), ": train there with one rank and one shard"));
  }
  /// What others need to know of a part: how many pixels, and of each channel the mean and the squared deviations.
  template <class T>
  static void describe(const Var<Channels, T>& x, const ChannelStatistics& statistics, double* numbers) {
    const double pixels = numbers[0] = double(x.size() / Channels);
    for (int c = 0; c < Channels; ++c) {
      numbers[1 + c] = statistics.mean[c];
      numbers[1 + Channels + c] = statistics.variance[c] * pixels;
    }
  }
  static std::shared_ptr<detail::BatchMeeting> meeting(BatchGroup& group) {
    return std::make_shared<detail::BatchMeeting>(group, 2 * std::size_t(Channels));
  }

  /// Training, with what describe() wrote of all parts. `part` counts those of this process. Where there are several,
  /// backward() stops when this part's sums are known, and goes on when those of all are.
  template <class T>
  static Var<Channels, T> forward_in_batch(auto& self, Train& pass, const Var<Channels, T>& x,
                                           std::span<const double> all,
                                           const std::shared_ptr<detail::BatchMeeting>& meeting, int part,
                                           Activation activation, bool x_rectified) {
    Scratch<double> memory(std::size_t(2 * Channels));
    const ChannelStatistics statistics{memory.data(), memory.data() + Channels};
    const double pixels = merge(all, statistics);
    if (pixels < 2) Plain::throw_too_few(x.shape());
    const T* weight = std::as_const(self.weight).template value<T>().data();
    const T* bias = std::as_const(self.bias).template value<T>().data();
    T* running_mean = self.running_mean.template value<T>().data();
    T* running_var = self.running_var.template value<T>().data();
    Normalisation<T> norm(Channels);
    for (int c = 0; c < Channels; ++c) {
      const double mean = statistics.mean[c], variance = statistics.variance[c];
      norm.set(c, mean, 1.0 / std::sqrt(variance + eps), double(weight[c]), double(bias[c]));
      if (pass.recomputing()) continue;
      running_mean[c] = T((1 - momentum) * double(running_mean[c]) + momentum * mean);
      running_var[c] = T((1 - momentum) * double(running_var[c]) + momentum * (variance * pixels / (pixels - 1)));
    }
    if (!pass.recomputing()) ++*self.num_batches_tracked.template value<std::int64_t>().data();

    using Normalised = NormalisedImage<Channels, T>;
    const auto image = std::allocate_shared<Normalised>(PoolAllocator<Normalised>(), x.value(), norm, activation);
    auto y = Var<Channels, T>(image, pass.tape());
    // The way back in two steps: the sums of this part, at the gradient of y; and the gradient of x from those of all,
    // at that of `between`, which is the same gradient.
    const auto sums_of_part = [&self, x = x.value(), norm, activation, meeting, part](Tape& tape, std::int64_t id,
                                                                                      bool to_meeting) {
      const auto gathered = tape.take<GatheredSums<Channels>>(id);
      const T* const dy = tape.gradient<T>(id);
      double sums[2 * Channels];
      if (gathered == nullptr) {
        cpu::batch_norm_backward_sums(x.size() / Channels, Channels, x.data(), dy, norm.scale(), norm.shift(),
                                      norm.mean(), activation, sums, sums + Channels);
      } else {
        std::copy_n(gathered->sum_g, Channels, sums);
        std::copy_n(gathered->sum_gx, Channels, sums + Channels);
      }
      Plain::add(self.weight, [&](int c) { return T(sums[Channels + c] * double(norm.inverse_std()[c])); });
      Plain::add(self.bias, [&](int c) { return T(sums[c]); });
      if (to_meeting) meeting->bring(part, sums);
    };
    const auto gradient_of_x = [x = x.value(), x_id = x.id(), norm, activation, x_rectified, pixels, meeting](
                                   Tape& tape, std::int64_t id) {
      T* const dy = tape.gradient<T>(id);
      using Pending = PendingNormGradient<Channels, T>;
      const auto pending = std::allocate_shared<Pending>(PoolAllocator<Pending>(), x, norm, activation, x_rectified,
                                                         meeting->sum(), meeting->sum() + Channels, pixels);
      if (tape.move_gradient(id, x_id)) {
        tape.attach(x_id, pending);
      } else {
        const auto dx = tape.target<T>(x_id);
        (*pending)(dy, dx.data, dx.accumulate);
      }
    };
    if (x.id() < 0) {
      pass.tape()->record(
          y.id(), [sums_of_part, id = y.id()](Tape& tape) { sums_of_part(tape, id, false); }, x.value(), self.weight,
          self.bias);
    } else if (!meeting->has_others()) {
      pass.tape()->record(
          y.id(),
          [sums_of_part, gradient_of_x, id = y.id()](Tape& tape) {
            sums_of_part(tape, id, true);
            gradient_of_x(tape, id);
          },
          x.value(), self.weight, self.bias);
    } else {
      const std::int64_t between = pass.tape()->add_value(std::size_t(y.size()) * sizeof(T));
      pass.tape()->record(
          between, [gradient_of_x, between](Tape& tape) { gradient_of_x(tape, between); }, x.value());
      pass.tape()->record(
          y.id(),
          [sums_of_part, id = y.id(), between](Tape& tape) {
            sums_of_part(tape, id, true);
            tape.move_gradient(id, between);
            tape.pause();
          },
          x.value(), self.weight, self.bias);
    }
    return y;
  }

 private:
  /// Mean and biased variance over all parts, merged in their order; returns how many pixels they have.
  static double merge(std::span<const double> all, const ChannelStatistics& out) {
    const auto parts = std::int64_t(all.size() / part_numbers);
    double pixels = 0;
    for (std::int64_t part = 0; part < parts; ++part) pixels += all[std::size_t(part) * part_numbers];
    cpu::detail::merge_statistics(parts, Channels, out, [&](std::int64_t part, int c) {
      const double* numbers = all.data() + std::size_t(part) * part_numbers;
      return cpu::detail::PartialStatistics{numbers[0], numbers[1 + c], numbers[1 + Channels + c]};
    });
    return pixels;
  }
};

}}  // namespace strata::STRATA_ABI
