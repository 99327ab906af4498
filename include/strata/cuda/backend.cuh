// A CUDA device behind the Accelerator interface, on Strata's own kernels. The formulas and the rules of "=" and "(+)="
// stand in kernels/accelerator.hpp.
//
//     st::cuda::Backend gpu(0);
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "strata/cuda/backend_core.cuh"
#include "strata/cuda/batch_norm.cuh"
#include "strata/cuda/conv2d.cuh"
#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/expression.cuh"
#include "strata/cuda/group_norm.cuh"
#include "strata/cuda/layer_norm.cuh"
#include "strata/cuda/loss.cuh"
#include "strata/cuda/optimizer.cuh"
#include "strata/cuda/pad.cuh"
#include "strata/cuda/permute.cuh"
#include "strata/cuda/pooling.cuh"
#include "strata/cuda/random.cuh"
#include "strata/cuda/reduce.cuh"
#include "strata/cuda/resize.cuh"
#include "strata/kernels/accelerator.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

class Backend : public BackendCore {
 public:
  using BackendCore::BackendCore;

  // ---- convolution

  void conv2d_forward(const Conv2dProblem& p, const float* x, const float* weight, const float* bias, float* y,
                      Activation activation, bool accumulate, Precision precision) override {
    check_precision(precision);
    done(cuda::conv2d_forward(stream(), pool(), p, x, weight, bias, y, activation, accumulate, precision),
         "conv2d_forward");
  }
  void conv2d_backward_input(const Conv2dProblem& p, const float* dy, const float* weight, float* dx, bool accumulate,
                             Precision precision) override {
    check_precision(precision);
    done(cuda::conv2d_backward_input(stream(), pool(), p, dy, weight, dx, accumulate, precision),
         "conv2d_backward_input");
  }
  void conv2d_backward_weight(const Conv2dProblem& p, const float* x, const float* dy, GradientTarget<> dweight,
                              GradientTarget<> dbias, Precision precision) override {
    check_precision(precision);
    done(cuda::conv2d_backward_weight(stream(), pool(), p, x, dy, dweight, dbias, precision), "conv2d_backward_weight");
  }

  // ---- batch normalisation

  void batch_norm_statistics(std::int64_t pixels, int channels, const float* x, const float* weight, const float* bias,
                             double eps, double momentum, float* running_mean, float* running_var,
                             std::int64_t* batches, const NormalisationRows& rows) override {
    if (pixels < 2 || channels < 1)
      throw ShapeError(concat("batch_norm_statistics: got ", pixels, " values of ", channels,
                              " channels, wanted at least two values of at least one"));
    const DeviceFloats workspace(pool(), ColumnPlan(pixels, channels).workspace(channels, 2));
    done(cuda::batch_norm_statistics(
             stream(), pixels, channels, x, workspace.data(),
             {weight, bias, float(eps), float(momentum), float(double(pixels) / double(pixels - 1)), running_mean,
              running_var, batches, rows}),
         "batch_norm_statistics");
  }
  void batch_norm_inference(int channels, const float* weight, const float* bias, const float* running_mean,
                            const float* running_var, double eps, const NormalisationRows& rows) override {
    done(elementwise(stream(), channels, InferenceRows{{}, weight, bias, running_mean, running_var, float(eps), rows}),
         "batch_norm_inference");
  }
  void batch_norm_apply(std::int64_t pixels, int channels, const float* x, const NormalisationRows& rows, float* y,
                        Activation activation) override {
    check_channels("batch_norm_apply", pixels, channels);
    done(elementwise(stream(), pixels * channels,
                     NormApply{x, rows.scale, rows.shift, y, ChannelOf(channels), activation == Activation::relu}),
         "batch_norm_apply");
  }
  void batch_norm_backward(std::int64_t pixels, int channels, const NormalisationRows& rows, Activation activation,
                           const float* x, const float* dy, GradientTarget<> dweight, GradientTarget<> dbias,
                           GradientTarget<> dx) override {
    check_channels("batch_norm_backward", pixels, channels);
    if (!dweight && !dbias && !dx) return;
    const bool relu = activation == Activation::relu;
    const std::int64_t row = ceil_div(channels, 4) * 4;
    const DeviceFloats workspace(pool(), ColumnPlan(pixels, channels).workspace(channels, 2)), line(pool(), 2 * row);
    float *const slope = line.data(), *const offset = slope + row;
    done(sum_columns<2>(stream(), pixels, channels, NormBackwardTerm{x, dy, rows.scale, rows.shift, rows.mean, relu},
                        workspace.data(),
                        FinishNormBackward{float(pixels), rows.scale, rows.inverse_std, dweight, dbias, slope, offset}),
         "batch_norm_backward");
    if (dx)
      done(elementwise(stream(), pixels * channels,
                       NormBackwardInput{x, dy, rows.scale, rows.shift, rows.mean, slope, offset, dx.data,
                                         ChannelOf(channels), relu, dx.accumulate}),
           "batch_norm_backward");
  }
  void batch_norm_fold(int out, std::int64_t taps, const float* weight, const float* bias,
                       const NormalisationRows& rows, float* folded_weight, float* folded_bias) override {
    check_size("batch_norm_fold", out * taps);
    done(elementwise(stream(), out * taps, FoldWeight{{}, weight, rows.scale, folded_weight, Divisor(taps)}),
         "batch_norm_fold");
    done(elementwise(stream(), out, FoldBias{{}, bias, rows.scale, rows.shift, folded_bias}), "batch_norm_fold");
  }

  // ---- normalisation of every image, and of every pixel, by itself

  void group_norm_forward(const GroupNormProblem& p, const float* x, const float* weight, const float* bias, float* y,
                          float* numbers) override {
    check_groups("group_norm_forward", p);
    const DeviceFloats workspace(pool(), group_norm_workspace(p));
    done(cuda::group_norm_forward(stream(), p, x, weight, bias, y, numbers, workspace.data()), "group_norm_forward");
  }
  void group_norm_backward(const GroupNormProblem& p, const float* x, const float* numbers, const float* dy,
                           GradientTarget<> dweight, GradientTarget<> dbias, GradientTarget<> dx) override {
    check_groups("group_norm_backward", p);
    if (!dweight && !dbias && !dx) return;
    const DeviceFloats workspace(pool(), group_norm_workspace(p)), line(pool(), dx ? p.n * 2 * p.channels : 1);
    done(cuda::group_norm_backward(stream(), p, x, numbers, dy, dweight, dbias, dx, workspace.data(), line.data()),
         "group_norm_backward");
  }
  void layer_norm_forward(std::int64_t pixels, int channels, double eps, const float* x, const float* weight,
                          const float* bias, float* y, float* numbers) override {
    check_channels("layer_norm_forward", pixels, channels);
    done(cuda::layer_norm_forward(stream(), pixels, channels, float(eps), x, weight, bias, y, numbers),
         "layer_norm_forward");
  }
  void layer_norm_backward(std::int64_t pixels, int channels, const float* x, const float* numbers, const float* weight,
                           const float* dy, GradientTarget<> dweight, GradientTarget<> dbias,
                           GradientTarget<> dx) override {
    check_channels("layer_norm_backward", pixels, channels);
    if (dweight || dbias) {
      const DeviceFloats workspace(pool(), ColumnPlan(pixels, channels).workspace(channels, 2));
      done(sum_columns<2>(stream(), pixels, channels, LayerNormTerm{x, dy, numbers}, workspace.data(),
                          WriteNormGradients{dweight, dbias}),
           "layer_norm_backward");
    }
    if (dx)
      done(layer_norm_backward_input(stream(), pixels, channels, x, numbers, weight, dy, dx), "layer_norm_backward");
  }

  // ---- rectifiers

  void relu_forward(std::int64_t size, const float* x, float* y) override {
    done(elementwise(stream(), size, LeakyReluForward{x, y, 0, true}), "relu_forward");
  }
  void relu_backward(std::int64_t size, const float* y, const float* dy, float* dx, bool accumulate) override {
    done(elementwise(stream(), size, LeakyReluBackward{y, dy, dx, 0, true, accumulate}), "relu_backward");
  }
  void leaky_relu_forward(std::int64_t size, const float* x, float* y, float slope) override {
    done(elementwise(stream(), size, LeakyReluForward{x, y, slope, slope == 0}), "leaky_relu_forward");
  }
  void leaky_relu_backward(std::int64_t size, const float* y, const float* dy, float* dx, float slope,
                           bool accumulate) override {
    done(elementwise(stream(), size, LeakyReluBackward{y, dy, dx, slope, slope == 0, accumulate}),
         "leaky_relu_backward");
  }
  void prelu_forward(std::int64_t pixels, int channels, const float* x, const float* slope, int slopes,
                     float* y) override {
    check_slopes("prelu_forward", pixels, channels, slopes);
    done(elementwise(stream(), pixels * channels, PreluForward{x, slope, y, ChannelOf(channels), slopes == 1}),
         "prelu_forward");
  }
  void prelu_backward(std::int64_t pixels, int channels, const float* x, const float* slope, int slopes,
                      const float* dy, GradientTarget<> dx, GradientTarget<> dslope) override {
    check_slopes("prelu_backward", pixels, channels, slopes);
    const std::int64_t size = pixels * channels;
    if (dslope && slopes == 1) {
      const DeviceFloats workspace(pool(), SumPlan(size).workspace());
      done(
          sum_all(stream(), size, PreluSlopeAllTerm{x, dy}, workspace.data(), AddTotal{dslope.data, dslope.accumulate}),
          "prelu_backward");
    } else if (dslope) {
      const DeviceFloats workspace(pool(), ColumnPlan(pixels, channels).workspace(channels, 1));
      done(sum_columns<1>(stream(), pixels, channels, PreluSlopeTerm{x, dy}, workspace.data(),
                          WriteColumn{dslope.data, dslope.accumulate}),
           "prelu_backward");
    }
    if (dx)
      done(elementwise(stream(), size,
                       PreluBackward{x, slope, dy, dx.data, ChannelOf(channels), slopes == 1, dx.accumulate}),
           "prelu_backward");
  }

  // ---- windows, permutations, channels

  void max_pool_forward(const PoolProblem& p, const float* x, float* y, std::int32_t* place) override {
    check_pool("max_pool_forward", p);
    done(elementwise(stream(), pool_output(p), MaxPoolForward{{}, x, y, place, PoolShape(p, true)}),
         "max_pool_forward");
  }
  void max_pool_backward(const PoolProblem& p, const std::int32_t* place, const float* dy, float* dx,
                         bool accumulate) override {
    check_pool("max_pool_backward", p);
    done(elementwise(stream(), pool_input(p), MaxPoolBackward{{}, {}, place, dy, dx, PoolShape(p, false), accumulate}),
         "max_pool_backward");
  }
  void avg_pool_forward(const PoolProblem& p, const float* x, float* y) override {
    check_pool("avg_pool_forward", p);
    done(elementwise(stream(), pool_output(p), AvgPoolForward{{}, x, y, PoolShape(p, true), window_share(p)}),
         "avg_pool_forward");
  }
  void avg_pool_backward(const PoolProblem& p, const float* dy, float* dx, bool accumulate) override {
    check_pool("avg_pool_backward", p);
    done(elementwise(stream(), pool_input(p),
                     AvgPoolBackward{{}, {}, dy, dx, PoolShape(p, false), window_share(p), accumulate}),
         "avg_pool_backward");
  }
  void global_avg_pool_forward(std::int64_t n, std::int64_t pixels, int channels, const float* x, float* y) override {
    for (std::int64_t first = 0; first < n; first += most_blocks_y) {
      const dim3 grid(unsigned(ceil_div(channels, finish_channels)), unsigned(std::min(n - first, most_blocks_y)));
      done(launch<&global_avg_pool_kernel>(grid, dim3(finish_channels * finish_slots), 0, stream(), pixels, channels,
                                           1.0f / float(pixels), x + first * pixels * channels, y + first * channels),
           "global_avg_pool_forward");
    }
  }
  void global_avg_pool_backward(std::int64_t n, std::int64_t pixels, int channels, const float* dy, float* dx,
                                bool accumulate) override {
    check_size("global_avg_pool_backward", n * pixels * channels);
    done(elementwise(
             stream(), n * pixels * channels,
             GlobalAvgPoolBackward{{}, dy, dx, Divisor(channels), Divisor(pixels), 1.0f / float(pixels), accumulate}),
         "global_avg_pool_backward");
  }
  void pixel_shuffle(std::int64_t n, std::int64_t h, std::int64_t w, int channels, int r, const float* from, float* to,
                     bool inverse, bool accumulate) override {
    const std::int64_t size = n * h * w * channels * r * r;
    check_size("pixel_shuffle", size);
    if (inverse)
      done(elementwise(
               stream(), size,
               PixelShuffle<true>{
                   {}, from, to, Divisor(channels * r * r), Divisor(r), Divisor(w), channels, int(w), r, accumulate}),
           "pixel_shuffle");
    else
      done(elementwise(
               stream(), size,
               PixelShuffle<false>{
                   {}, from, to, Divisor(channels), Divisor(r), Divisor(w * r), channels, int(w), r, accumulate}),
           "pixel_shuffle");
  }
  void transpose(std::int64_t batch, std::int64_t rows, std::int64_t columns, const float* from, float* to,
                 bool accumulate) override {
    check_size("transpose", rows * columns);
    if (batch * rows * columns > 0)
      done(cuda::transpose(stream(), batch, rows, columns, from, to, accumulate), "transpose");
  }
  void copy_channels(std::int64_t pixels, int count, const float* from, int from_channels, int from_first, float* to,
                     int to_channels, int to_first, bool accumulate) override {
    if (count < 1 || from_first < 0 || to_first < 0 || (from_channels != 0 && from_first + count > from_channels) ||
        to_first + count > to_channels)
      throw ShapeError(concat("copy_channels: ", count, " channels from ", from_first, " of ", from_channels, " to ",
                              to_first, " of ", to_channels));
    check_size("copy_channels", pixels * std::max(from_channels, to_channels));
    const bool quads = (count | from_channels | from_first | to_channels | to_first) % 4 == 0 && aligned16(from, to);
    done(elementwise(stream(), pixels * count,
                     CopyChannels{from, to, Divisor(quads ? count / 4 : count), from_channels, from_first, to_channels,
                                  to_first, quads, accumulate}),
         "copy_channels");
  }

  void resize_forward(const ResizeProblem& p, const float* x, float* y) override {
    check_resize("resize_forward", p);
    done(cuda::resize_forward(stream(), p, x, y), "resize_forward");
  }
  void resize_backward(const ResizeProblem& p, const float* dy, float* dx, bool accumulate) override {
    check_resize("resize_backward", p);
    done(cuda::resize_backward(stream(), p, dy, dx, accumulate), "resize_backward");
  }
  void pad_forward(const PadProblem& p, const float* x, float* y) override {
    check_pad("pad_forward", p);
    done(cuda::pad_forward(stream(), p, x, y), "pad_forward");
  }
  void pad_backward(const PadProblem& p, const float* dy, float* dx, bool accumulate) override {
    check_pad("pad_backward", p);
    done(cuda::pad_backward(stream(), p, dy, dx, accumulate), "pad_backward");
  }

  // ---- expressions

  void expression_forward(const ExpressionProgram& program, std::int64_t size, float* y) override {
    check_program("expression_forward", program);
    done(cuda::expression_forward(stream(), program, size, y), "expression_forward");
  }
  void expression_backward(const ExpressionProgram& program, std::int64_t size, const UpstreamGradient& upstream,
                           std::span<const GradientTarget<>> gradients) override {
    check_program("expression_backward", program);
    if (std::int64_t(gradients.size()) != program.leaves())
      throw ShapeError(concat("expression_backward: ", gradients.size(), " targets for ", program.leaves(), " images"));
    done(cuda::expression_backward(stream(), program, size, upstream, gradients.data()), "expression_backward");
  }
  void expression_sum(const ExpressionProgram& program, std::int64_t size, double factor, float* result) override {
    check_program("expression_sum", program);
    const DeviceFloats workspace(pool(), SumPlan(size).workspace());
    done(cuda::expression_sum(stream(), program, size, float(factor), workspace.data(), result), "expression_sum");
  }

  // ---- losses

  void cross_entropy_forward(std::int64_t rows, int classes, const float* logits, const std::int64_t* labels,
                             double label_smoothing, double factor, float* result) override {
    check_classes("cross_entropy_forward", rows, classes);
    const DeviceFloats workspace(pool(), rows + SumPlan(rows).workspace());
    done(cuda::cross_entropy_forward(stream(), rows, classes, logits, labels, target_shares(label_smoothing, classes),
                                     float(factor), workspace.data(), result),
         "cross_entropy_forward");
  }
  void cross_entropy_backward(std::int64_t rows, int classes, const float* logits, const std::int64_t* labels,
                              double label_smoothing, double factor, const UpstreamGradient& upstream, float* dlogits,
                              bool accumulate) override {
    check_classes("cross_entropy_backward", rows, classes);
    done(cuda::cross_entropy_backward(stream(), rows, classes, logits, labels, target_shares(label_smoothing, classes),
                                      float(factor * double(upstream.factor)), upstream.values, dlogits, accumulate),
         "cross_entropy_backward");
  }

  // ---- optimisers

  void sgd_update(std::span<const TensorUpdate> tensors, const SgdUpdate& update) override {
    with_sgd(update, [&](const auto& step, const auto& correct) { run("sgd_update", tensors, step, correct); });
  }
  void adam_update(std::span<const TensorUpdate> tensors, const AdamUpdate& update) override {
    with_adam(update, [&](const auto& step, const auto& correct) { run("adam_update", tensors, step, correct); });
  }
  void rmsprop_update(std::span<const TensorUpdate> tensors, const RmspropUpdate& update) override {
    with_rmsprop(update, [&](const auto& step, const auto& correct) { run("rmsprop_update", tensors, step, correct); });
  }
  void average_update(std::span<const TensorUpdate> tensors, double decay) override {
    run("average_update", tensors, AverageStep{float(decay), float(1 - decay)});
  }
  void scale(std::span<const TensorSpan> tensors, double factor) override {
    if (context_.renewing()) return run("scale", values_of(tensors), ScaleStep{float(factor)});  // an error says so
    const auto none = [](TensorList::Entry&, const TensorUpdate&) {};
    done(update_all(stream(), values_of(tensors), ScaleStep{float(factor)}, none), "scale");
  }
  void rescale(std::span<const TensorSpan> tensors, double factor) override {
    run("rescale", values_of(tensors), ScaleStep{float(factor)});
  }
  void clamp(std::span<const TensorSpan> tensors, double limit) override {
    run("clamp", values_of(tensors), ClampStep{float(limit)});
  }
  double sum_of_squares(std::span<const TensorSpan> tensors) override {
    const DeviceFloats place(pool(), 1);
    queue_sum_of_squares(tensors, place.data());
    float result = 0;
    download(&result, place.data(), sizeof(float));
    return double(result);
  }
  void queue_sum_of_squares(std::span<const TensorSpan> tensors, float* result) override {
    const std::vector<TensorUpdate> values = values_of(tensors);
    const std::int64_t blocks = square_blocks(values);
    const DeviceFloats workspace(pool(), blocks + SumPlan(blocks).workspace());
    done(cuda::sum_of_squares(stream(), values, workspace.data(), result), "sum_of_squares");
  }
  void limit_norm(std::span<const TensorSpan> tensors, const float* squares, double max_norm) override {
    const std::vector<TensorUpdate> values = values_of(tensors);
    const DeviceFloats numbers(pool(), 4 + 2 * std::int64_t(values.size()));  // corrections that nobody uses
    fill(numbers.data(), 4 + 2 * std::int64_t(values.size()), 0);
    done(launch<&limiting_factor>(dim3(1), dim3(1), 0, stream(), squares, max_norm,
                                  reinterpret_cast<ScaleStep*>(numbers.data())),
         "limit_norm");
    done(update_all_by<ScaleStep>(stream(), values, numbers.data(), nullptr), "limit_norm");
  }

  // ---- random numbers

  void dropout(const RandomStream& random, double p, std::int64_t size, const float* x, float* y,
               bool accumulate) override {
    if (!(p >= 0 && p < 1)) throw ValueError(concat("dropout: p is ", p, ", wanted from 0 to below 1"));
    if (size <= 0) return;
    const dim3 grid(unsigned(ceil_div(size, 4 * random_block))), block(random_block);
    const std::uint32_t threshold = std::uint32_t(p * 4294967296.0);
    const float factor = float(1 / (1 - p));
    done(aligned16(x, y) ? launch<&dropout_kernel<true>>(grid, block, 0, stream(), random, threshold, factor, size, x,
                                                         y, accumulate)
                         : launch<&dropout_kernel<false>>(grid, block, 0, stream(), random, threshold, factor, size, x,
                                                          y, accumulate),
         "dropout");
  }
  void add_normal(const RandomStream& random, float sigma, std::int64_t size, const float* x, float* y) override {
    if (size <= 0) return;
    const dim3 grid(unsigned(ceil_div(size, 4 * random_block))), block(random_block);
    done(aligned16(x, y) ? launch<&add_normal_kernel<true>>(grid, block, 0, stream(), random, sigma, size, x, y)
                         : launch<&add_normal_kernel<false>>(grid, block, 0, stream(), random, sigma, size, x, y),
         "add_normal");
  }
  void noisy_patches(std::span<const PatchSource> sources, std::int64_t patch, int channels, float* clean,
                     float* noisy) override {
    context_.not_while_recording("noisy_patches");
    const std::int64_t size = patch * patch * channels;
    check_size("noisy_patches", size);
    for (const PatchSource& source : sources) {
      if (source.y < 0 || source.x < 0 || source.y + patch > source.h || source.x + patch > source.w)
        throw ShapeError(concat("noisy_patches: a patch of ", patch, "x", patch, " at row ", source.y, ", column ",
                                source.x, " is not inside an image of ", source.h, "x", source.w));
      if (source.orientation < 0 || source.orientation > 7)
        throw ValueError(concat("noisy_patches: orientation ", source.orientation, ", wanted 0 to 7"));
    }
    if (sources.empty() || size == 0) return;
    const Storage list = pool().take(sources.size_bytes());
    upload(list.data(), sources.data(), sources.size_bytes());
    const std::int64_t count = std::int64_t(sources.size());
    for (std::int64_t first = 0; first < count; first += most_blocks_y) {
      const dim3 grid(unsigned(ceil_div(size, 4 * random_block)), unsigned(std::min(count - first, most_blocks_y)));
      done(launch<&noisy_patches_kernel>(grid, dim3(random_block), 0, stream(),
                                         static_cast<const PatchSource*>(list.data()) + first, int(patch), channels,
                                         Divisor(channels), Divisor(patch), clean + first * size,
                                         noisy != nullptr ? noisy + first * size : nullptr),
           "noisy_patches");
    }
  }

 private:
  /// Updates all tensors, or writes down that they are to be, or with which numbers.
  template <class Step, class Correct>
  void run(const char* what, std::span<const TensorUpdate> tensors, const Step& step, const Correct& correct) {
    if (!context_.recording() && !context_.renewing())
      return done(update_all(stream(), tensors, step, correct), what);
    std::vector<unsigned char> numbers = update_numbers(tensors, step, correct);
    if (context_.renewing()) return context_.renew(what, tensors, std::move(numbers));
    const void* const place = context_.record_numbers(what, tensors, std::move(numbers));
    done(update_all_by<Step>(stream(), tensors, place, context_.condition()), what);
  }
  template <class Step>
  void run(const char* what, std::span<const TensorUpdate> tensors, const Step& step) {
    run(what, tensors, step, [](TensorList::Entry&, const TensorUpdate&) {});
  }

  static void check_slopes(const char* who, std::int64_t pixels, int channels, int slopes) {
    check_channels(who, pixels, channels);
    if (slopes != 1 && slopes != channels)
      throw ShapeError(concat(who, ": ", slopes, " slopes for ", channels, " channels, wanted 1 or ", channels));
  }
  static void check_groups(const char* who, const GroupNormProblem& p) {
    check_channels(who, p.n * p.pixels, p.channels);
    if (p.n < 1 || p.groups < 1 || p.channels % p.groups != 0)
      throw ShapeError(concat(who, ": ", p.channels, " channels in ", p.groups, " groups"));
    check_size(who, {p.n, p.channels});
  }
  static void check_resize(const char* who, const ResizeProblem& p) {
    if (p.n < 1 || p.channels < 1 || p.rows.size < 1 || p.columns.size < 1 || p.rows.result < 1 || p.columns.result < 1)
      throw ShapeError(concat(who, ": ", p.n, "x", p.channels, "x", p.rows.size, "x", p.columns.size, " to ",
                              p.rows.result, " x ", p.columns.result));
    check_size(who, {p.n, p.rows.size, p.columns.size, p.channels});
    check_size(who, {p.n, p.rows.result, p.columns.result, p.channels});
  }
  static void check_pad(const char* who, const PadProblem& p) {
    const auto& [left, right, top, bottom] = p.margins;
    const bool reflect = p.mode == PaddingMode::reflect, circular = p.mode == PaddingMode::circular;
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();  // more than check_size allows
    if (std::max({left, right, top, bottom, p.h, p.w}) > most || p.n < 1 || p.channels < 1 || p.h < 1 || p.w < 1 ||
        p.out_h() < 1 || p.out_w() < 1 || std::min(top, bottom) < -p.h || std::min(left, right) < -p.w ||
        (reflect && (std::max(top, bottom) >= p.h || std::max(left, right) >= p.w)) ||
        (circular && (std::max(top, bottom) > p.h || std::max(left, right) > p.w)))
      throw ShapeError(concat(who, ": margins of ", left, ", ", right, ", ", top, ", ", bottom, " around ", p.n, "x",
                              p.channels, "x", p.h, "x", p.w));
    check_size(who, {p.n, p.h, p.w, p.channels});
    check_size(who, {p.n, p.out_h(), p.out_w(), p.channels});
    if (reflect) check_size(who, {4, std::max(p.h, p.w)});  // mirrored places lie as far away
  }
  static TargetShares target_shares(double label_smoothing, int classes) {
    return {float(1 - label_smoothing), float(label_smoothing / classes)};
  }
  static std::int64_t pool_output(const PoolProblem& p) { return p.n * p.out_h() * p.out_w() * p.channels; }
  static std::int64_t pool_input(const PoolProblem& p) { return p.n * p.h * p.w * p.channels; }
  static float window_share(const PoolProblem& p) { return 1.0f / float(p.kernel * p.kernel); }
  static void check_pool(const char* who, const PoolProblem& p) {
    if (p.n < 1 || p.channels < 1 || p.h < 1 || p.w < 1 || p.kernel < 1 || p.stride < 1 || p.padding < 0 ||
        2 * p.padding > p.kernel || p.out_h() < 1 || p.out_w() < 1)
      throw ShapeError(concat(who, ": windows of ", p.kernel, "x", p.kernel, ", stride ", p.stride, ", padding ",
                              p.padding, " on ", p.n, "x", p.channels, "x", p.h, "x", p.w));
    check_size(who, {p.n, p.h, p.w, p.channels});
    check_size(who, {p.n, p.out_h(), p.out_w(), p.channels});
  }
  static void check_program(const char* who, const ExpressionProgram& program) {
    if (!program.complete()) throw Error(concat(who, ": the program leaves no value, or more than one"));
  }
  static void check_classes(const char* who, std::int64_t rows, int classes) {
    if (rows < 1 || classes < 1) throw ShapeError(concat(who, ": got ", rows, " rows of ", classes, " classes"));
  }
  static std::vector<TensorUpdate> values_of(std::span<const TensorSpan> tensors) {
    std::vector<TensorUpdate> values;
    values.reserve(tensors.size());
    for (const TensorSpan& tensor : tensors) values.push_back({.size = tensor.size, .value = tensor.data});
    return values;
  }
};

}}}  // namespace strata::STRATA_ABI::cuda
