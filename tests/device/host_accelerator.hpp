// An accelerator for tests, on the host: its kernels are the CPU's or plain loops, and its memory is closed to
// everybody else, so that host code which follows a device pointer is killed at that instruction, as it would be on a
// real device.
//
//     strata_test::HostAccelerator& device = strata_test::host_accelerator();    // is st::Device::cuda(0) from then on
#pragma once

#include <sys/mman.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "strata/strata.hpp"

namespace strata_test {

namespace st = strata;

/// Memory that can be read and written only while somebody holds it open. It grows and is never given back.
class ClosedMemory final : public st::MemorySource {
 public:
  ClosedMemory() {
    place_ = static_cast<char*>(mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (place_ == MAP_FAILED) throw std::bad_alloc();
  }
  st::Device device() const override { return st::Device::cuda(0); }
  void* allocate(std::size_t bytes) override {
    bytes = (bytes + 4095) / 4096 * 4096;
    if (used_ + bytes > reserved) throw std::bad_alloc();
    void* memory = place_ + used_;
    used_ += bytes;
    open();
    std::memset(memory, 0xFF, bytes);  // NaN: what nobody writes shows
    close();
    return memory;
  }
  void deallocate(void*, std::size_t) noexcept override {}

  void open() {
    if (opened_++ == 0 && used_ > 0) mprotect(place_, used_, PROT_READ | PROT_WRITE);
  }
  void close() {
    if (--opened_ == 0 && used_ > 0) mprotect(place_, used_, PROT_NONE);
  }

 private:
  static constexpr std::size_t reserved = std::size_t{1} << 32;
  char* place_;
  std::size_t used_ = 0;
  int opened_ = 0;
};

class HostAccelerator final : public st::Accelerator {
  /// Opens the memory for the length of a kernel, and counts it.
  class Kernel {
   public:
    explicit Kernel(HostAccelerator& device) : device_(device) {
      device_.source_.open();
      ++device_.calls;
    }
    ~Kernel() { device_.source_.close(); }

   private:
    HostAccelerator& device_;
  };

 public:
  int calls = 0, downloads = 0;
  st::Precision last_precision = st::Precision::fp32;

  st::Device device() const override { return st::Device::cuda(0); }
  std::string name() const override { return "the host, as a device"; }
  st::MemoryPool& pool() override { return pool_; }
  void upload(void* to, const void* host, std::size_t bytes) override {
    const Kernel kernel(*this);
    std::memcpy(to, host, bytes);
  }
  void download(void* host, const void* from, std::size_t bytes) override {
    const Kernel kernel(*this);
    ++downloads;
    std::memcpy(host, from, bytes);
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    const Kernel kernel(*this);
    std::memcpy(to, from, bytes);
  }
  void fill(float* to, std::int64_t count, float value) override {
    const Kernel kernel(*this);
    std::fill_n(to, count, value);
  }
  void synchronize() override {}
  void begin_recording() override { throw st::Error("HostAccelerator records nothing"); }
  std::unique_ptr<st::RecordedWork> end_recording() override { throw st::Error("HostAccelerator records nothing"); }

  // ---- convolution

  void conv2d_forward(const st::Conv2dProblem& p, const float* x, const float* w, const float* bias, float* y,
                      st::Activation activation, bool accumulate, st::Precision precision) override {
    const Kernel kernel(*this);
    last_precision = precision;
    constexpr int apart = st::cpu::groups_apart;
    if (!accumulate) return st::cpu::general_forward<apart, float>(p, x, w, bias, y, activation);
    std::vector<float> sum(std::size_t(p.output_size()));
    st::cpu::general_forward<apart, float>(p, x, w, nullptr, sum.data(), st::Activation::none);
    for (std::size_t i = 0; i < sum.size(); ++i) y[i] += sum[i];
  }
  void conv2d_backward_input(const st::Conv2dProblem& p, const float* dy, const float* w, float* dx, bool accumulate,
                             st::Precision precision) override {
    const Kernel kernel(*this);
    last_precision = precision;
    st::cpu::general_backward_input<st::cpu::groups_apart, float>(p, dy, w, dx, accumulate);
  }
  void conv2d_backward_weight(const st::Conv2dProblem& p, const float* x, const float* dy, st::GradientTarget<> dweight,
                              st::GradientTarget<> dbias, st::Precision precision) override {
    const Kernel kernel(*this);
    last_precision = precision;
    std::vector<float> dw(std::size_t(p.weight_size())), db(std::size_t(p.out));
    st::cpu::general_backward_weight<st::cpu::groups_apart, float>(p, x, dy, dw.data(), db.data(), false);
    write(dweight, dw);
    write(dbias, db);
  }

  // ---- batch normalisation

  void batch_norm_statistics(std::int64_t pixels, int channels, const float* x, const float* weight, const float* bias,
                             double eps, double momentum, float* running_mean, float* running_var,
                             std::int64_t* batches, const st::NormalisationRows& rows) override {
    const Kernel kernel(*this);
    std::vector<double> mean(static_cast<std::size_t>(channels)), variance(mean);
    st::cpu::batch_norm_statistics(pixels, channels, x, mean.data(), variance.data());
    for (int c = 0; c < channels; ++c) {
      const double m = mean[std::size_t(c)], v = variance[std::size_t(c)];
      set(rows, c, m, 1 / std::sqrt(v + eps), double(weight[c]), double(bias[c]));
      running_mean[c] = float((1 - momentum) * double(running_mean[c]) + momentum * m);
      running_var[c] =
          float((1 - momentum) * double(running_var[c]) + momentum * v * double(pixels) / double(pixels - 1));
    }
    if (batches != nullptr) ++*batches;
  }
  void batch_norm_inference(int channels, const float* weight, const float* bias, const float* running_mean,
                            const float* running_var, double eps, const st::NormalisationRows& rows) override {
    const Kernel kernel(*this);
    for (int c = 0; c < channels; ++c)
      set(rows, c, double(running_mean[c]), 1 / std::sqrt(double(running_var[c]) + eps), double(weight[c]),
          double(bias[c]));
  }
  void batch_norm_apply(std::int64_t pixels, int channels, const float* x, const st::NormalisationRows& rows, float* y,
                        st::Activation activation) override {
    const Kernel kernel(*this);
    st::cpu::batch_norm_apply<float>(pixels, channels, x, rows.scale, rows.shift, y, activation);
  }
  void batch_norm_backward(std::int64_t pixels, int channels, const st::NormalisationRows& rows,
                           st::Activation activation, const float* x, const float* dy, st::GradientTarget<> dweight,
                           st::GradientTarget<> dbias, st::GradientTarget<> dx) override {
    const Kernel kernel(*this);
    std::vector<double> sum_g(static_cast<std::size_t>(channels)), sum_gx(sum_g);
    const auto passed = [&](std::int64_t i) {
      const std::int64_t c = i % channels;
      return activation == st::Activation::relu && !(x[i] * rows.scale[c] + rows.shift[c] > 0) ? 0.0 : double(dy[i]);
    };
    const auto normalised = [&](std::int64_t i) {
      return (double(x[i]) - double(rows.mean[i % channels])) * double(rows.inverse_std[i % channels]);
    };
    for (std::int64_t i = 0; i < pixels * channels; ++i) {
      sum_g[std::size_t(i % channels)] += passed(i);
      sum_gx[std::size_t(i % channels)] += passed(i) * normalised(i);
    }
    if (dx)
      for (std::int64_t i = 0; i < pixels * channels; ++i) {
        const auto c = std::size_t(i % channels);
        const double value = double(rows.scale[c]) *
                             (passed(i) - sum_g[c] / double(pixels) - normalised(i) * sum_gx[c] / double(pixels));
        dx.data[i] = (dx.accumulate ? dx.data[i] : 0.0f) + float(value);
      }
    write(dweight, {sum_gx.begin(), sum_gx.end()});
    write(dbias, {sum_g.begin(), sum_g.end()});
  }
  void batch_norm_fold(int out, std::int64_t taps, const float* weight, const float* bias,
                       const st::NormalisationRows& rows, float* folded_weight, float* folded_bias) override {
    const Kernel kernel(*this);
    for (int o = 0; o < out; ++o) {
      for (std::int64_t t = 0; t < taps; ++t) folded_weight[o * taps + t] = weight[o * taps + t] * rows.scale[o];
      folded_bias[o] = rows.shift[o] + (bias != nullptr ? bias[o] * rows.scale[o] : 0.0f);
    }
  }

  // ---- normalisation of every image, and of every pixel, by itself

  void group_norm_forward(const st::GroupNormProblem& p, const float* x, const float* weight, const float* bias,
                          float* y, float* numbers) override {
    const Kernel kernel(*this);
    st::cpu::group_norm_forward(p, x, weight, bias, y, numbers);
  }
  void group_norm_backward(const st::GroupNormProblem& p, const float* x, const float* numbers, const float* dy,
                           st::GradientTarget<> dweight, st::GradientTarget<> dbias, st::GradientTarget<> dx) override {
    const Kernel kernel(*this);
    st::cpu::group_norm_backward(p, x, numbers, dy, dx.data, dx.accumulate, dweight.data, dweight.accumulate,
                                 dbias.data, dbias.accumulate);
  }
  void layer_norm_forward(std::int64_t pixels, int channels, double eps, const float* x, const float* weight,
                          const float* bias, float* y, float* numbers) override {
    const Kernel kernel(*this);
    st::cpu::layer_norm_forward(pixels, channels, eps, x, weight, bias, y, numbers);
  }
  void layer_norm_backward(std::int64_t pixels, int channels, const float* x, const float* numbers, const float* weight,
                           const float* dy, st::GradientTarget<> dweight, st::GradientTarget<> dbias,
                           st::GradientTarget<> dx) override {
    const Kernel kernel(*this);
    st::cpu::layer_norm_backward(pixels, channels, x, numbers, weight, dy, dx.data, dx.accumulate, dweight.data,
                                 dweight.accumulate, dbias.data, dbias.accumulate);
  }

  // ---- rectifiers

  void relu_forward(std::int64_t size, const float* x, float* y) override {
    const Kernel kernel(*this);
    st::cpu::relu_forward(size, x, y);
  }
  void relu_backward(std::int64_t size, const float* y, const float* dy, float* dx, bool accumulate) override {
    const Kernel kernel(*this);
    st::cpu::relu_backward(size, y, dy, dx, accumulate);
  }
  void leaky_relu_forward(std::int64_t size, const float* x, float* y, float slope) override {
    const Kernel kernel(*this);
    st::cpu::leaky_relu_forward(size, x, y, slope);
  }
  void leaky_relu_backward(std::int64_t size, const float* y, const float* dy, float* dx, float slope,
                           bool accumulate) override {
    const Kernel kernel(*this);
    st::cpu::leaky_relu_backward(size, y, dy, dx, slope, accumulate);
  }
  void prelu_forward(std::int64_t pixels, int channels, const float* x, const float* slope, int slopes,
                     float* y) override {
    const Kernel kernel(*this);
    st::cpu::prelu_forward(pixels, channels, x, slope, slopes, y);
  }
  void prelu_backward(std::int64_t pixels, int channels, const float* x, const float* slope, int slopes,
                      const float* dy, st::GradientTarget<> dx, st::GradientTarget<> dslope) override {
    const Kernel kernel(*this);
    std::vector<float> sums(std::size_t(slopes), 0.0f);
    st::cpu::prelu_backward(pixels, channels, x, slope, slopes, dy, dx.data, dx.accumulate, sums.data());
    write(dslope, sums);
  }

  // ---- windows, permutations, channels

  void max_pool_forward(const st::PoolProblem& p, const float* x, float* y, std::int32_t* place) override {
    const Kernel kernel(*this);
    std::vector<std::int64_t> from(std::size_t(p.n * p.out_h() * p.out_w() * p.channels));
    st::cpu::max_pool_forward(p, x, y, from.data());
    for (std::size_t i = 0; place != nullptr && i < from.size(); ++i) place[i] = std::int32_t(from[i]);
  }
  void max_pool_backward(const st::PoolProblem& p, const std::int32_t* place, const float* dy, float* dx,
                         bool accumulate) override {
    const Kernel kernel(*this);
    if (!accumulate) std::fill_n(dx, p.n * p.h * p.w * p.channels, 0.0f);
    for (std::int64_t i = 0; i < p.n * p.out_h() * p.out_w() * p.channels; ++i) dx[place[i]] += dy[i];
  }
  void avg_pool_forward(const st::PoolProblem& p, const float* x, float* y) override {
    const Kernel kernel(*this);
    st::cpu::avg_pool_forward(p, x, y);
  }
  void avg_pool_backward(const st::PoolProblem& p, const float* dy, float* dx, bool accumulate) override {
    const Kernel kernel(*this);
    if (!accumulate) std::fill_n(dx, p.n * p.h * p.w * p.channels, 0.0f);
    st::cpu::avg_pool_backward(p, dy, dx);
  }
  void global_avg_pool_forward(std::int64_t n, std::int64_t pixels, int channels, const float* x, float* y) override {
    const Kernel kernel(*this);
    st::cpu::global_avg_pool_forward(n, pixels, channels, x, y);
  }
  void global_avg_pool_backward(std::int64_t n, std::int64_t pixels, int channels, const float* dy, float* dx,
                                bool accumulate) override {
    const Kernel kernel(*this);
    st::cpu::global_avg_pool_backward(n, pixels, channels, dy, dx, accumulate);
  }
  void pixel_shuffle(std::int64_t n, std::int64_t h, std::int64_t w, int channels, int r, const float* from, float* to,
                     bool inverse, bool accumulate) override {
    const Kernel kernel(*this);
    st::cpu::pixel_shuffle(n, h, w, channels, r, from, to, inverse, accumulate);
  }
  void transpose(std::int64_t batch, std::int64_t rows, std::int64_t columns, const float* from, float* to,
                 bool accumulate) override {
    const Kernel kernel(*this);
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < columns; ++c) {
          float& y = to[(b * columns + c) * rows + r];
          y = (accumulate ? y : 0.0f) + from[(b * rows + r) * columns + c];
        }
  }
  void copy_channels(std::int64_t pixels, int count, const float* from, int from_channels, int from_first, float* to,
                     int to_channels, int to_first, bool accumulate) override {
    const Kernel kernel(*this);
    for (std::int64_t p = 0; p < pixels; ++p)
      for (int c = 0; c < count; ++c) {
        float& y = to[p * to_channels + to_first + c];
        y = (accumulate ? y : 0.0f) + from[p * from_channels + from_first + c];
      }
  }

  void resize_forward(const st::ResizeProblem& p, const float* x, float* y) override {
    const Kernel kernel(*this);
    st::cpu::resize_forward(p, x, y);
  }
  void resize_backward(const st::ResizeProblem& p, const float* dy, float* dx, bool accumulate) override {
    const Kernel kernel(*this);
    st::cpu::resize_backward(p, dy, dx, accumulate);
  }
  void pad_forward(const st::PadProblem& p, const float* x, float* y) override {
    const Kernel kernel(*this);
    st::cpu::pad_forward(p, x, y);
  }
  void pad_backward(const st::PadProblem& p, const float* dy, float* dx, bool accumulate) override {
    const Kernel kernel(*this);
    st::cpu::pad_backward(p, dy, dx, accumulate);
  }

  // ---- expressions

  void expression_forward(const st::ExpressionProgram& program, std::int64_t size, float* y) override {
    const Kernel kernel(*this);
    for (std::int64_t i = 0; i < size; ++i) y[i] = Evaluation(program, i).value();
  }
  void expression_backward(const st::ExpressionProgram& program, std::int64_t size,
                           const st::UpstreamGradient& upstream,
                           std::span<const st::GradientTarget<>> gradients) override {
    const Kernel kernel(*this);
    for (std::int64_t i = 0; i < size; ++i) {
      const float g = upstream.factor * (upstream.values == nullptr ? 1 : upstream.values[upstream.uniform ? 0 : i]);
      const auto sums = Evaluation(program, i).gradients(g);
      for (std::size_t leaf = 0; leaf < gradients.size(); ++leaf)
        if (const st::GradientTarget<>& target = gradients[leaf])
          target.data[i] = (target.accumulate ? target.data[i] : 0.0f) + sums[leaf];
    }
  }
  void expression_sum(const st::ExpressionProgram& program, std::int64_t size, double factor, float* result) override {
    const Kernel kernel(*this);
    double sum = 0;
    for (std::int64_t i = 0; i < size; ++i) sum += double(Evaluation(program, i).value());
    *result = float(sum * factor);
  }

  // ---- losses

  void cross_entropy_forward(std::int64_t rows, int classes, const float* logits, const std::int64_t* labels,
                             double smoothing, double factor, float* result) override {
    const Kernel kernel(*this);
    double sum = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      const bool no_class = labels[r] < 0 || labels[r] >= classes;
      for (int c = 0; c < classes; ++c)
        sum -= no_class ? std::nan("")
                        : target(smoothing, classes, c == labels[r]) * log_softmax(logits + r * classes, classes, c);
    }
    *result = float(sum * factor);
  }
  void cross_entropy_backward(std::int64_t rows, int classes, const float* logits, const std::int64_t* labels,
                              double smoothing, double factor, const st::UpstreamGradient& upstream, float* dlogits,
                              bool accumulate) override {
    const Kernel kernel(*this);
    const double g = factor * double(upstream.factor) * (upstream.values == nullptr ? 1.0 : double(upstream.values[0]));
    for (std::int64_t r = 0; r < rows; ++r)
      for (int c = 0; c < classes; ++c) {
        float& to = dlogits[r * classes + c];
        to = (accumulate ? to : 0.0f) + float(g * (std::exp(log_softmax(logits + r * classes, classes, c)) -
                                                   target(smoothing, classes, c == labels[r])));
      }
  }

  // ---- optimisers

  void sgd_update(std::span<const st::TensorUpdate> tensors, const st::SgdUpdate& update) override {
    const Kernel kernel(*this);
    for (const st::TensorUpdate& t : tensors) {
      st::SgdUpdate own = update;
      own.first = t.first;
      st::cpu::sgd_update(t.size, t.value, t.gradient, t.state1, own);
    }
  }
  void adam_update(std::span<const st::TensorUpdate> tensors, const st::AdamUpdate& update) override {
    const Kernel kernel(*this);
    for (const st::TensorUpdate& t : tensors) {
      st::AdamUpdate own = update;
      own.step = t.step;
      st::cpu::adam_update(t.size, t.value, t.gradient, t.state1, t.state2, own);
    }
  }
  void rmsprop_update(std::span<const st::TensorUpdate> tensors, const st::RmspropUpdate& update) override {
    const Kernel kernel(*this);
    for (const st::TensorUpdate& t : tensors)
      st::cpu::rmsprop_update(t.size, t.value, t.gradient, t.state1, t.state2, t.state3, update);
  }
  void average_update(std::span<const st::TensorUpdate> tensors, double decay) override {
    const Kernel kernel(*this);
    for (const st::TensorUpdate& t : tensors) st::cpu::average_update(t.size, t.value, t.gradient, decay);
  }
  void scale(std::span<const st::TensorSpan> tensors, double factor) override {
    const Kernel kernel(*this);
    for (const st::TensorSpan& t : tensors) st::cpu::scale(t.size, t.data, factor);
  }
  void clamp(std::span<const st::TensorSpan> tensors, double limit) override {
    const Kernel kernel(*this);
    for (const st::TensorSpan& t : tensors) st::cpu::clamp(t.size, t.data, limit);
  }
  double sum_of_squares(std::span<const st::TensorSpan> tensors) override {
    const Kernel kernel(*this);
    double sum = 0;
    for (const st::TensorSpan& t : tensors) sum += st::cpu::sum_of_squares(t.size, t.data);
    return sum;
  }

  void queue_sum_of_squares(std::span<const st::TensorSpan> tensors, float* result) override {
    const Kernel kernel(*this);
    *result = float(sum_of_squares(tensors));
  }
  void limit_norm(std::span<const st::TensorSpan> tensors, const float* squares, double max_norm) override {
    const Kernel kernel(*this);
    const double factor = max_norm / (std::sqrt(double(*squares)) + 1e-6);
    if (factor < 1) scale(tensors, factor);
  }
  void update_where_finite(const float*) override { throw st::Error("HostAccelerator records nothing"); }

  // ---- random numbers

  void dropout(const st::RandomStream& stream, double p, std::int64_t size, const float* x, float* y,
               bool accumulate) override {
    const Kernel kernel(*this);
    st::Rng rng(stream.seed, stream.a, stream.b);
    for (std::uint64_t word = 0; word < stream.word; ++word) rng.bits();
    const auto threshold = std::uint32_t(p * 4294967296.0);
    for (std::int64_t i = 0; i < size; ++i)
      y[i] = (accumulate ? y[i] : 0.0f) + (rng.bits() < threshold ? 0.0f : x[i] * float(1 / (1 - p)));
  }
  void add_normal(const st::RandomStream&, float, std::int64_t, const float*, float*) override {
    throw st::Error("no layer asks for this");
  }
  void noisy_patches(std::span<const st::PatchSource>, std::int64_t, int, float*, float*) override {
    throw st::Error("no layer asks for this");
  }

 private:
  static void write(st::GradientTarget<> target, const std::vector<float>& values) {
    if (!target) return;
    for (std::size_t i = 0; i < values.size(); ++i)
      target.data[i] = (target.accumulate ? target.data[i] : 0.0f) + values[i];
  }
  static void set(const st::NormalisationRows& rows, int c, double mean, double inverse, double weight, double bias) {
    rows.scale[c] = float(weight * inverse);
    rows.shift[c] = float(bias - mean * weight * inverse);
    rows.mean[c] = float(mean);
    rows.inverse_std[c] = float(inverse);
  }
  static double target(double smoothing, int classes, bool label) {
    return smoothing / classes + (label ? 1 - smoothing : 0);
  }
  static double log_softmax(const float* row, int classes, int c) {
    double largest = double(row[0]), total = 0;
    for (int i = 1; i < classes; ++i) largest = std::max(largest, double(row[i]));
    for (int i = 0; i < classes; ++i) total += std::exp(double(row[i]) - largest);
    return double(row[c]) - largest - std::log(total);
  }

  /// A program at one element: the value of every instruction, and the way back through them.
  class Evaluation {
   public:
    Evaluation(const st::ExpressionProgram& program, std::int64_t element) : program_(program) {
      std::array<int, st::ExpressionProgram::max_depth> stack{};
      int depth = 0;
      for (int i = 0; i < program.length(); ++i) {
        const auto& step = program[i];
        const int wanted = st::operand_count(step.operation);
        for (int k = wanted; k-- > 0;) operands_[at(i)][at(k)] = stack[at(--depth)];
        values_[at(i)] = step.operation == st::Operation::leaf       ? program.leaf(step.leaf)[element]
                         : step.operation == st::Operation::constant ? step.a
                                                                     : apply(i);
        stack[at(depth++)] = i;
      }
    }
    float value() const { return values_[at(program_.length() - 1)]; }
    std::array<float, st::ExpressionProgram::max_leaves> gradients(float upstream) const {
      std::array<float, st::ExpressionProgram::max_leaves> sums{};
      std::array<float, st::ExpressionProgram::max_length> g{};
      g[at(program_.length() - 1)] = upstream;
      for (int i = program_.length(); i-- > 0;) {
        const auto& step = program_[i];
        const int count = st::operand_count(step.operation);
        if (step.operation == st::Operation::leaf) sums[step.leaf] += g[at(i)];
        if (count == 0) continue;
        const int left = operands_[at(i)][0], right = count == 2 ? operands_[at(i)][1] : left;
        float ga = 0, gb = 0;
        back(i, values_[at(left)], values_[at(right)], g[at(i)], ga, gb);
        g[at(left)] += ga;
        if (count == 2) g[at(right)] += gb;
      }
      return sums;
    }

   private:
    static std::size_t at(int i) { return static_cast<std::size_t>(i); }
    /// f(function, is binary) with the function of instruction i.
    template <class F>
    auto with(int i, F&& f) const {
      namespace m = st::math;
      switch (program_[i].operation) {
        case st::Operation::negate:
          return f(m::Negate(), std::false_type());
        case st::Operation::square:
          return f(m::Square(), std::false_type());
        case st::Operation::sqrt:
          return f(m::Sqrt(), std::false_type());
        case st::Operation::abs:
          return f(m::Abs(), std::false_type());
        case st::Operation::exp:
          return f(m::Exp(), std::false_type());
        case st::Operation::log:
          return f(m::Log(), std::false_type());
        case st::Operation::sigmoid:
          return f(m::Sigmoid(), std::false_type());
        case st::Operation::tanh:
          return f(m::Tanh(), std::false_type());
        case st::Operation::erf:
          return f(m::Erf(), std::false_type());
        case st::Operation::leaky_relu:
          return f(m::LeakyRelu{double(program_[i].a)}, std::false_type());
        case st::Operation::power:
          return f(m::Power{double(program_[i].a)}, std::false_type());
        case st::Operation::clamp:
          return f(m::Clamp{double(program_[i].a), double(program_[i].b)}, std::false_type());
        case st::Operation::subtract:
          return f(m::Subtract(), std::true_type());
        case st::Operation::multiply:
          return f(m::Multiply(), std::true_type());
        case st::Operation::divide:
          return f(m::Divide(), std::true_type());
        case st::Operation::maximum:
          return f(m::Maximum(), std::true_type());
        case st::Operation::minimum:
          return f(m::Minimum(), std::true_type());
        default:
          return f(m::Add(), std::true_type());
      }
    }
    float apply(int i) const {
      const float a = values_[at(operands_[at(i)][0])], b = values_[at(operands_[at(i)][1])];
      return with(i, [&](auto function, auto binary) {
        if constexpr (binary)
          return function.value(a, b);
        else
          return function.value(a);
      });
    }
    void back(int i, float a, float b, float g, float& ga, float& gb) const {
      with(i, [&](auto function, auto binary) {
        if constexpr (binary)
          function.backward(a, b, values_[at(i)], g, ga, gb);
        else
          ga = g * function.derivative(a, values_[at(i)]);
      });
    }

    const st::ExpressionProgram& program_;
    std::array<float, st::ExpressionProgram::max_length> values_{};
    std::array<std::array<int, 2>, st::ExpressionProgram::max_length> operands_{};
  };

  ClosedMemory source_;
  st::MemoryPool pool_{source_};
};

/// The one HostAccelerator, which is device cuda:0 of the program from the first call on.
inline HostAccelerator& host_accelerator() {
  static HostAccelerator& device = *new HostAccelerator;
  static const st::AcceleratorProvider provider{
      [] { return 1; },
      [](int index) { return index == 0 ? std::string() : st::concat("cuda:", index, ": there is 1 device, cuda:0"); },
      [](int index) -> st::Accelerator& {
        if (index != 0) throw st::DeviceError(st::concat("cuda:", index, ": there is 1 device, cuda:0"));
        return host_accelerator();
      }};
  static const bool registered = (st::register_cuda(provider), true);
  (void)registered;
  return device;
}

}  // namespace strata_test
