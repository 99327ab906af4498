// What a device other than the CPU has to do: the kernels behind the layers, losses and optimisers, as virtual
// functions on raw pointers and plain structs. The network's templates call it; none of them passes through a device
// compiler.
//
//     st::Accelerator& gpu = st::accelerator(st::Device::cuda());  // DeviceError, with the reason, where there is none
//     st::Tensor<> x(st::Shape{16, 64, 40, 40}, gpu.pool());
//     gpu.upload(x.data(), numbers.data(), bytes);
//     gpu.relu_forward(x.size(), x.data(), x.data());
//
// Rules for every function:
//   - Pointers are to memory of this device (gpu.pool()) unless the comment says host. They are aligned as their type
//     is; 16-byte alignment is used where it is there. Numbers are float32; activations N,H,W,C; convolution weights
//     O,KH,KW,I.
//   - "=" overwrites without reading; "(+)=" overwrites, or adds where `accumulate` is set. Outputs do not overlap
//     inputs unless the comment says so.
//   - Work is queued in the order of the calls and runs later: an argument's memory may be given back to the pool as
//     soon as the call returns, since the pool's next user is queued behind. Host memory is read or written before the
//     call returns.
//   - The same calls give the same bits: sums are added in an order that the problem's size fixes.
//   - One thread at a time calls one device.
//   - Extents are checked: ShapeError or ValueError. What the device reports is a DeviceError, from this or a later
//     call.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "strata/core/error.hpp"
#include "strata/math/activation.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/math/engine_options.hpp"
#include "strata/math/expression_program.hpp"
#include "strata/math/gradient_target.hpp"
#include "strata/math/group_norm_problem.hpp"
#include "strata/math/optimizer_update.hpp"
#include "strata/math/pad_problem.hpp"
#include "strata/math/pool_problem.hpp"
#include "strata/math/precision.hpp"
#include "strata/math/random_stream.hpp"
#include "strata/math/resize_problem.hpp"
#include "strata/tensor/device.hpp"
#include "strata/tensor/storage.hpp"

/// Outside of the inline namespace, so that files compiled for different instruction sets see each other here.
namespace strata_any_build {
/// What the CUDA code in the program was compiled for; null where there is none.
inline std::atomic<const char*> cuda_instruction_set{nullptr};
}  // namespace strata_any_build

namespace strata { inline namespace STRATA_ABI {

/// The four rows of C numbers that batch normalisation keeps: y = x * scale + shift.
struct NormalisationRows {
  float *scale = nullptr, *shift = nullptr;      ///< weight * inverse_std;  bias - mean * scale
  float *mean = nullptr, *inverse_std = nullptr; ///< of the batch, or the running ones
};

/// A tensor to be updated by its gradient. state1 and state2 are SGD's velocity (nullptr without momentum) and none,
/// Adam's first and second moments, RMSprop's averages of the squares and of the gradients (nullptr: not centered), or
/// none; state3 is RMSprop's momentum (nullptr without).
struct TensorUpdate {
  std::int64_t size = 0;
  float* value = nullptr;
  const float* gradient = nullptr;
  float *state1 = nullptr, *state2 = nullptr, *state3 = nullptr;
  bool first = false;     ///< SGD: the velocity is written without being read
  std::int64_t step = 1;  ///< Adam: the tensor's own count of steps, from 1
};

struct TensorSpan {
  std::int64_t size = 0;
  float* data = nullptr;
};

/// The gradient of an expression's value at element i: factor * values[i], factor * values[0] when `uniform`, factor
/// where values is nullptr.
struct UpstreamGradient {
  const float* values = nullptr;
  bool uniform = false;
  float factor = 1;
};

/// One training sample to be cut out of an image that lies on the device.
struct PatchSource {
  const float* image = nullptr;    ///< H,W,C
  std::int64_t h = 0, w = 0;       ///< of the image
  std::int64_t y = 0, x = 0;       ///< where the patch begins; it lies inside
  int orientation = 0;             ///< 0 to 7, as dihedral(patch, k)
  float sigma = 0;                 ///< standard deviation of the noise, in the image's units
  RandomStream random;             ///< where the noise begins
};

/// Work that was recorded once and is done again by one launch, on the same memory.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual void replay() = 0;
  /// Other numbers for the updates of optimisers in it (a learning rate, Adam's count of steps): updates() makes those
  /// calls again, in the same order and of the same tensors. They are not done; the replays that follow use their
  /// numbers. Throws Error where they are other calls than were recorded, and then changes nothing.
  virtual void renew(const std::function<void()>& updates) = 0;
};

class Accelerator {
 public:
  virtual ~Accelerator() = default;

  virtual Device device() const = 0;
  /// As people call it: "NVIDIA A100-SXM4-80GB (compute capability 8.0)".
  virtual std::string name() const = 0;

  /// Which kernels compute convolutions, where the device has a choice. Throws ValueError where it has none.
  virtual void set_engine(const EngineOptions& options) {
    if (options.engine != Engine::native)
      throw ValueError(concat(device().str(), ": has no library to choose, only Strata's kernels"));
  }

  // ---- memory

  /// The device's memory. Lives as long as the accelerator.
  virtual MemoryPool& pool() = 0;
  /// Host to device. The host memory may be changed when the call returns; the copy overlaps with kernels queued
  /// before.
  virtual void upload(void* to, const void* host, std::size_t bytes) = 0;
  /// Device to host: waits for all work before it.
  virtual void download(void* host, const void* from, std::size_t bytes) = 0;
  /// Device to device.
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  /// to[i] = value.
  virtual void fill(float* to, std::int64_t count, float value) = 0;
  /// Waits until all work is done. Throws DeviceError for what went wrong in it.
  virtual void synchronize() = 0;

  /// From now on work is written down instead of done, until end_recording. What is taken meanwhile from the
  /// device's pool, also by layers from the pool of their input, is the recording's own and stays as long as the
  /// recording or its results, so that a replay writes over nobody's memory. Numbers that are arguments (a place in a
  /// random stream) are recorded as they are, those of optimisers' updates until RecordedWork::renew. Whatever waits or
  /// reads host memory (upload, download, synchronize, sum_of_squares, noisy_patches) throws Error in between. Run the
  /// same work once before, so that nothing has to be prepared.
  virtual void begin_recording() = 0;
  virtual std::unique_ptr<RecordedWork> end_recording() = 0;
  /// Optimisers' updates that are recorded from here on change nothing in a replay where *number, on the device, is not
  /// finite. Throws Error while nothing is recorded.
  virtual void update_where_finite(const float* number) = 0;

  // ---- convolution (Linear is kernel 1, padding 0, n 1, h the batch, w 1)

  /// y = activation(bias + x * weight), the formula of Conv2dProblem, with its groups and padding mode; bias may be
  /// nullptr. With `accumulate` y += x * weight, and neither bias nor activation is allowed.
  virtual void conv2d_forward(const Conv2dProblem&, const float* x, const float* weight, const float* bias, float* y,
                              Activation, bool accumulate, Precision) = 0;
  /// dx[n, i, j, c] (+)= sum over o, p, q of dy[n, (i + padding - p*dilation) / stride, (j + ...) / stride, o] *
  /// weight[o, p, q, c], over whole quotients inside the image.
  virtual void conv2d_backward_input(const Conv2dProblem&, const float* dy, const float* weight, float* dx,
                                     bool accumulate, Precision) = 0;
  /// dweight[o, p, q, c] (+)= sum over n, i, j of dy[n, i, j, o] * x[n, i*stride + p*dilation - padding, ..., c];
  /// dbias[o] (+)= sum over n, i, j of dy[n, i, j, o]. Each of the two may be absent.
  virtual void conv2d_backward_weight(const Conv2dProblem&, const float* x, const float* dy, GradientTarget<> dweight,
                                      GradientTarget<> dbias, Precision) = 0;

  // ---- batch normalisation: `pixels` counts n*h*w

  /// With m and v the mean and biased variance of each channel of x over all pixels (at least 2):
  ///   rows = {weight / sqrt(v + eps), bias - m * scale, m, 1 / sqrt(v + eps)}
  ///   running_mean = (1 - momentum) * running_mean + momentum * m
  ///   running_var  = (1 - momentum) * running_var  + momentum * v * pixels / (pixels - 1)
  ///   *batches += 1 (nullptr: not wanted)
  virtual void batch_norm_statistics(std::int64_t pixels, int channels, const float* x, const float* weight,
                                     const float* bias, double eps, double momentum, float* running_mean,
                                     float* running_var, std::int64_t* batches, const NormalisationRows& rows) = 0;
  /// rows from running statistics: {weight / sqrt(var + eps), bias - mean * scale, mean, 1 / sqrt(var + eps)}.
  virtual void batch_norm_inference(int channels, const float* weight, const float* bias, const float* running_mean,
                                    const float* running_var, double eps, const NormalisationRows& rows) = 0;
  /// y = activation(x * scale + shift). y may be x.
  virtual void batch_norm_apply(std::int64_t pixels, int channels, const float* x, const NormalisationRows& rows,
                                float* y, Activation) = 0;
  /// With g = dy where the activation let the value through (x * scale + shift > 0 for ReLU), else 0, and
  /// xhat = (x - mean) * inverse_std:
  ///   dbias (+)= sum g,   dweight (+)= sum g * xhat
  ///   dx (+)= scale * (g - sum g / pixels - xhat * sum (g * xhat) / pixels)      dx may be dy
  /// Each of the three may be absent.
  virtual void batch_norm_backward(std::int64_t pixels, int channels, const NormalisationRows& rows, Activation,
                                   const float* x, const float* dy, GradientTarget<> dweight, GradientTarget<> dbias,
                                   GradientTarget<> dx) = 0;
  /// A convolution and the normalisation behind it as one: with taps = weight elements for each output channel,
  ///   folded_weight[o, t] = weight[o, t] * scale[o]
  ///   folded_bias[o] = shift[o] + bias[o] * scale[o]; bias nullptr: zeros
  virtual void batch_norm_fold(int out, std::int64_t taps, const float* weight, const float* bias,
                               const NormalisationRows& rows, float* folded_weight, float* folded_bias) = 0;

  // ---- normalisation of every image, and of every pixel, by itself

  /// With m and v the mean and biased variance of the numbers of a group of an image, and four rows of `channels`
  /// numbers for each image, numbers = {weight / sqrt(v + eps), bias - m * scale, m, 1 / sqrt(v + eps)} (weight and
  /// bias nullptr: 1 and 0):
  ///   y = x * scale + shift
  virtual void group_norm_forward(const GroupNormProblem&, const float* x, const float* weight, const float* bias,
                                  float* y, float* numbers) = 0;
  /// With xhat = (x - m) / sqrt(v + eps), g = dy * weight and means over the numbers of a group of an image:
  ///   dbias (+)= sum dy,   dweight (+)= sum dy * xhat   over all images and pixels
  ///   dx (+)= (g - mean g - xhat * mean (g * xhat)) / sqrt(v + eps)
  /// Each of the three may be absent. `numbers` is what the forward kept.
  virtual void group_norm_backward(const GroupNormProblem&, const float* x, const float* numbers, const float* dy,
                                   GradientTarget<> dweight, GradientTarget<> dbias, GradientTarget<> dx) = 0;
  /// With m and v the mean and biased variance of a pixel's channels, numbers[pixel] = {m, 1 / sqrt(v + eps)} (nullptr:
  /// not wanted):   y = (x - m) / sqrt(v + eps) * weight + bias
  virtual void layer_norm_forward(std::int64_t pixels, int channels, double eps, const float* x, const float* weight,
                                  const float* bias, float* y, float* numbers) = 0;
  /// The gradients as group_norm_backward's, with means over the channels of a pixel.
  virtual void layer_norm_backward(std::int64_t pixels, int channels, const float* x, const float* numbers,
                                   const float* weight, const float* dy, GradientTarget<> dweight,
                                   GradientTarget<> dbias, GradientTarget<> dx) = 0;

  // ---- rectifiers

  /// y = max(x, 0); NaN stays NaN. y may be x.
  virtual void relu_forward(std::int64_t size, const float* x, float* y) = 0;
  /// dx (+)= dy where y > 0, else 0. dx may be dy.
  virtual void relu_backward(std::int64_t size, const float* y, const float* dy, float* dx, bool accumulate) = 0;
  /// y = x where x is not below 0, slope * x otherwise; slope from 0 to 1. y may be x.
  virtual void leaky_relu_forward(std::int64_t size, const float* x, float* y, float slope) = 0;
  /// dx (+)= dy where y > 0, else slope * dy. dx may be dy.
  virtual void leaky_relu_backward(std::int64_t size, const float* y, const float* dy, float* dx, float slope,
                                   bool accumulate) = 0;
  /// y = x above 0, slope[c] * x otherwise; `slopes` is 1 or channels.
  virtual void prelu_forward(std::int64_t pixels, int channels, const float* x, const float* slope, int slopes,
                             float* y) = 0;
  /// dx (+)= dy * (x > 0 ? 1 : slope[c]);  dslope[c] (+)= sum of dy * x where x is not above 0. Each may be absent.
  virtual void prelu_backward(std::int64_t pixels, int channels, const float* x, const float* slope, int slopes,
                              const float* dy, GradientTarget<> dx, GradientTarget<> dslope) = 0;

  // ---- windows, permutations, channels

  /// y = the largest value of each window, the first of equals, NaN where there is one. place[...] = kernel row *
  /// kernel + kernel column of where it was (nullptr: not wanted). place and y have the same shape.
  virtual void max_pool_forward(const PoolProblem&, const float* x, float* y, std::int32_t* place) = 0;
  /// dx (+)= the sum of dy over the windows whose largest value the pixel was.
  virtual void max_pool_backward(const PoolProblem&, const std::int32_t* place, const float* dy, float* dx,
                                 bool accumulate) = 0;
  /// y = the mean of each window.
  virtual void avg_pool_forward(const PoolProblem&, const float* x, float* y) = 0;
  /// dx (+)= the sum of dy / the pixels that count, over the windows that the pixel lies in.
  virtual void avg_pool_backward(const PoolProblem&, const float* dy, float* dx, bool accumulate) = 0;
  /// y[n, c] = mean over `pixels` of x[n, pixel, c].
  virtual void global_avg_pool_forward(std::int64_t n, std::int64_t pixels, int channels, const float* x, float* y) = 0;
  /// dx[n, pixel, c] (+)= dy[n, c] / pixels.
  virtual void global_avg_pool_backward(std::int64_t n, std::int64_t pixels, int channels, const float* dy, float* dx,
                                        bool accumulate) = 0;
  /// large (c, i*r + p, j*r + q) is small (c*r*r + p*r + q, i, j); `channels` those of the large image, h and w of the
  /// small. to (+)= from: small to large, or large to small with `inverse`.
  virtual void pixel_shuffle(std::int64_t n, std::int64_t h, std::int64_t w, int channels, int r, const float* from,
                             float* to, bool inverse, bool accumulate) = 0;
  /// to[b, column, row] (+)= from[b, row, column]: Flatten is batch n, rows pixels, columns channels; so is NHWC to
  /// NCHW.
  virtual void transpose(std::int64_t batch, std::int64_t rows, std::int64_t columns, const float* from, float* to,
                         bool accumulate) = 0;
  /// to[pixel, to_first + c] (+)= from[pixel, from_first + c] for c below count, where pixels have from_channels and
  /// to_channels channels: joining images, and taking the gradient apart. from_channels of 0 repeats one pixel.
  virtual void copy_channels(std::int64_t pixels, int count, const float* from, int from_channels, int from_first,
                             float* to, int to_channels, int to_first, bool accumulate) = 0;

  /// y is x at another size: the shares of ResizeAxis::taps. A pixel without a share is not read.
  virtual void resize_forward(const ResizeProblem&, const float* x, float* y) = 0;
  /// dx (+)= the sum of dy over the new pixels that the pixel has a share in, times the share.
  virtual void resize_backward(const ResizeProblem&, const float* dy, float* dx, bool accumulate) = 0;
  /// y = x with the problem's rows and columns around it, or less of it.
  virtual void pad_forward(const PadProblem&, const float* x, float* y) = 0;
  /// dx (+)= the sum of dy over the new pixels that show the pixel.
  virtual void pad_backward(const PadProblem&, const float* dy, float* dx, bool accumulate) = 0;

  // ---- expressions: programs as in math/expression_program.hpp, of complete() programs

  /// y[i] = the program's value at element i. y may be one of its leaves.
  virtual void expression_forward(const ExpressionProgram&, std::int64_t size, float* y) = 0;
  /// gradients[l][i] (+)= upstream(i) * (derivative of the program's value at i for leaf l, all its occurrences
  /// together). One target for each leaf, in the order of their numbers.
  virtual void expression_backward(const ExpressionProgram&, std::int64_t size, const UpstreamGradient&,
                                   std::span<const GradientTarget<>> gradients) = 0;
  /// *result = factor * (sum of the program's values over all elements).
  virtual void expression_sum(const ExpressionProgram&, std::int64_t size, double factor, float* result) = 0;

  // ---- losses

  /// *result = factor * sum over rows of -sum over classes of target * log softmax(logits[row]), where the target is
  /// label_smoothing / classes, and 1 - label_smoothing more at labels[row]. Labels are on the device; one that is no
  /// class makes the result NaN.
  virtual void cross_entropy_forward(std::int64_t rows, int classes, const float* logits, const std::int64_t* labels,
                                     double label_smoothing, double factor, float* result) = 0;
  /// dlogits[row, c] (+)= factor * upstream * (softmax(logits[row])[c] - target[row, c]); upstream is uniform.
  virtual void cross_entropy_backward(std::int64_t rows, int classes, const float* logits, const std::int64_t* labels,
                                      double label_smoothing, double factor, const UpstreamGradient& upstream,
                                      float* dlogits, bool accumulate) = 0;

  // ---- optimisers: any number of tensors in one launch. The formulas: math/optimizer_update.hpp; its `first` and
  // `step` are taken from each tensor instead.

  virtual void sgd_update(std::span<const TensorUpdate> tensors, const SgdUpdate&) = 0;
  virtual void adam_update(std::span<const TensorUpdate> tensors, const AdamUpdate&) = 0;
  virtual void rmsprop_update(std::span<const TensorUpdate> tensors, const RmspropUpdate&) = 0;
  /// value = decay * value + (1 - decay) * gradient, where `gradient` is the tensor that is averaged.
  virtual void average_update(std::span<const TensorUpdate> tensors, double decay) = 0;
  /// x *= factor.
  virtual void scale(std::span<const TensorSpan> tensors, double factor) = 0;
  /// The same as an update: work that is recorded takes the factor that it is renewed with.
  virtual void rescale(std::span<const TensorSpan> tensors, double factor) { scale(tensors, factor); }
  /// x = min(max(x, -limit), limit); NaN stays NaN.
  virtual void clamp(std::span<const TensorSpan> tensors, double limit) = 0;
  /// The sum of squares of all elements of all tensors. Waits for the result.
  virtual double sum_of_squares(std::span<const TensorSpan> tensors) = 0;
  /// *result = the same, on the device. Waits for nothing.
  virtual void queue_sum_of_squares(std::span<const TensorSpan> tensors, float* result) = 0;
  /// x *= max_norm / (sqrt(*squares) + 1e-6) where that is below 1, as clip_grad_norm_; `squares` is on the device.
  virtual void limit_norm(std::span<const TensorSpan> tensors, const float* squares, double max_norm) = 0;

  // ---- random numbers: the words of core/random.hpp

  /// y[i] (+)= word i of the stream < p * 2^32 ? 0 : x[i] / (1 - p). y may be x without accumulate.
  virtual void dropout(const RandomStream&, double p, std::int64_t size, const float* x, float* y, bool accumulate) = 0;
  /// y[i] = x[i] + sigma * (normal number i of the stream, as Rng::normal draws them). y may be x; x nullptr: zeros.
  virtual void add_normal(const RandomStream&, float sigma, std::int64_t size, const float* x, float* y) = 0;
  /// clean[s] = the patch of sources[s] in its orientation; noisy[s] = clean[s] + its sigma * normal numbers, as
  /// random_crop, dihedral and add_gaussian_noise make them. `sources` is host memory. Both results are
  /// (sources.size(), patch, patch, channels); noisy may be nullptr.
  virtual void noisy_patches(std::span<const PatchSource> sources, std::int64_t patch, int channels, float* clean,
                             float* noisy) = 0;
};

/// How a program finds accelerators of one kind. The backend that is linked in registers one.
struct AcceleratorProvider {
  /// Number of usable devices.
  int (*count)() = nullptr;
  /// Why there is no device `index`: a sentence; empty where there is one.
  std::string (*missing)(int index) = nullptr;
  /// The device, made at the first call and kept. Throws DeviceError with missing(index) where there is none.
  Accelerator& (*get)(int index) = nullptr;
};

namespace detail {
inline std::atomic<const AcceleratorProvider*> cuda_provider{nullptr};
}  // namespace detail

/// Makes CUDA devices known. `provider` must live as long as the program.
inline void register_cuda(const AcceleratorProvider& provider) {
  detail::cuda_provider.store(&provider, std::memory_order_release);
  strata_any_build::cuda_instruction_set.store(STRATA_ISA, std::memory_order_release);
}

/// Why `device` cannot be used: a sentence that says whether build, library, driver or device is missing. Empty where
/// it can.
inline std::string missing_reason(Device device) {
  if (device.kind == DeviceKind::cpu) return {};
  const AcceleratorProvider* provider = detail::cuda_provider.load(std::memory_order_acquire);
  if (provider == nullptr) {
    if (const char* const other = strata_any_build::cuda_instruction_set.load(std::memory_order_acquire))
      return concat(device.str(), ": nvcc compiled this program's CUDA code for the instruction set ", other,
                    ", and the file that asks is compiled for " STRATA_ISA
                    ": give both the same -march (CMAKE_CUDA_FLAGS, or nvcc's -Xcompiler)");
    return device.str() + ": this program was built without CUDA; link strata::cuda instead of strata::strata";
  }
  return provider->missing(device.index);
}

/// The accelerator of a device. Throws DeviceError with the reason where there is none, and for the CPU, which is none.
inline Accelerator& accelerator(Device device) {
  if (device.kind == DeviceKind::cpu) throw DeviceError("accelerator: the CPU is used directly, not through one");
  const AcceleratorProvider* provider = detail::cuda_provider.load(std::memory_order_acquire);
  if (provider == nullptr) throw DeviceError(missing_reason(device));
  return provider->get(device.index);
}

}}  // namespace strata::STRATA_ABI
