// Times of whole networks on the device: a training step and inference of DnCNN-17x64, batch norm folded for inference.
// Host code: it links strata::cuda and needs no CUDA header. scripts/gpu/torch_side.py measures PyTorch's.
//
//     device_network [--seconds S] [--only train|infer] [--precision fp32,tf32,bf16,fp16] [--engine native,library,benchmark]
//                    [--mode step,queued,graph] [--size 128x40] [--small] [--once]
//
// One line a measurement, tab-separated, as torch_side.py prints them:
//     strata  train|infer  SIZE  PRECISION  ENGINE  MODE  median ms  least ms  runs
// Modes. step: as a program trains, the loss is read in every step (two waits for the device: the loss, and with fp16
// the scaler's norm). queued: the same kernels without reading the loss: what the device alone takes. graph: the queued
// step recorded once and replayed. Inference: queued is a loop of calls, graph a replay. Clock: the host's, around
// groups of runs that end with a synchronize; the median and the least of the groups. Before: how far each precision is
// from the CPU's float32, and whether a replay does what calls do.
// --once: one run of each, no groups (for profilers). --small: tiny sizes (for machines without a GPU).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "strata/cuda.hpp"
#include "strata/strata.hpp"

namespace {

namespace st = strata;
using Clock = std::chrono::steady_clock;

template <int Width, int Depth>
using Trained = st::Residual<st::Sequential<
    st::Conv2d<1, Width>, st::ReLU,
    st::Repeat<Depth - 2, st::Sequential<st::Conv2d<Width, Width, 3, st::no_bias>, st::BatchNorm2d<Width>, st::ReLU>>,
    st::Conv2d<Width, 1, 3, st::no_bias>>>;
template <int Width, int Depth>
using Folded = st::Residual<
    st::Sequential<st::Conv2d<1, Width>, st::ReLU,
                   st::Repeat<Depth - 2, st::Sequential<st::Conv2d<Width, Width>, st::ReLU>>, st::Conv2d<Width, 1>>>;

struct Options {
  double seconds = 1e9;
  std::string only, precision = "fp32,tf32,bf16,fp16", engine = "native,library,benchmark", mode = "step,queued,graph",
                    size;
  bool once = false, small = false;
};
Options options;
Clock::time_point started = Clock::now();
double elapsed() { return std::chrono::duration<double>(Clock::now() - started).count(); }

bool listed(const std::string& list, const std::string& name) {
  return ("," + list + ",").find("," + name + ",") != std::string::npos;
}

st::Accelerator& gpu() { return st::accelerator(st::Device::cuda()); }

st::Image<1> noise(std::int64_t n, std::int64_t h, std::int64_t w, std::uint64_t seed) {
  st::Image<1> image(n, h, w);
  st::Rng rng(seed);
  for (float& x : image.span()) x = rng.uniform();
  return image.to(st::Device::cuda());
}

struct Line {
  const char *what, *precision, *engine, *mode;
  std::string size;
};

/// Prints one line. What fails is said in it, and does not end the program.
void measure(const Line& line, const std::function<void()>& prepare, const std::function<void()>& work) {
  if (!listed(options.mode, line.mode) || (!options.size.empty() && !listed(options.size, line.size))) return;
  std::printf("strata\t%s\t%s\t%s\t%s\t%s\t", line.what, line.size.c_str(), line.precision, line.engine, line.mode);
  if (elapsed() > options.seconds) {
    std::printf("-\t-\tout of time\n");
    return;
  }
  try {
    prepare();
    gpu().synchronize();
    if (options.once) {
      work();
      gpu().synchronize();
      std::printf("-\t-\tran once\n");
      std::fflush(stdout);
      return;
    }
    const auto group = [&](int runs) {
      const auto begin = Clock::now();
      for (int i = 0; i < runs; ++i) work();
      gpu().synchronize();
      return std::chrono::duration<double, std::milli>(Clock::now() - begin).count() / runs;
    };
    group(2);
    const double about = group(2);
    const int runs = std::clamp(int(60 / std::max(about, 1e-3)), 2, 200), groups = options.small ? 2 : 7;
    std::vector<double> times;
    for (int g = 0; g < groups; ++g) times.push_back(group(runs));
    std::sort(times.begin(), times.end());
    std::printf("%.4f\t%.4f\t%d\n", times[times.size() / 2], times.front(), runs * groups);
  } catch (const std::exception& error) {
    std::string text = error.what();
    std::replace(text.begin(), text.end(), '\n', ' ');
    std::printf("-\t-\tFAILED: %s\n", text.c_str());
  }
  std::fflush(stdout);
}

/// A network with its batch and optimiser, in three ways to train it.
template <class Net>
class Training {
 public:
  Training(std::int64_t n, std::int64_t side, st::Precision precision)
      : precision_(precision),
        x_(noise(n, side, side, 1)),
        target_(noise(n, side, side, 2)),
        loss_(gpu().pool().take(sizeof(float))),
        scaler_({.enabled = precision == st::Precision::fp16}) {
    st::initialize(net_, 0);
    st::to(net_, st::Device::cuda());
    sgd_ = std::make_unique<st::SGD>(net_, st::SGDOptions{.lr = 1e-4, .momentum = 0.9});
  }

  /// As examples/dncnn/train.cpp.
  void step() {
    st::Train pass({.precision = precision_});
    const auto loss = mean(square(net_(pass, x_) - target_));
    sgd_->zero_grad();
    pass.backward(scaler_.scale(loss));
    scaler_.step(*sgd_);
    scaler_.update();
  }

  /// Nothing is read: the loss stays on the device. fp16's scale is fixed, and no step is left out.
  void queued() {
    st::Train pass({.precision = precision_});
    const st::Var<1> y = net_(pass, x_);
    st::ExpressionProgram squares;
    squares.push_leaf(y.data()), squares.push_leaf(target_.data());
    squares.push(st::Operation::subtract), squares.push(st::Operation::square);
    gpu().expression_sum(squares, y.size(), 1 / double(y.size()), static_cast<float*>(loss_.data()));
    sgd_->zero_grad();
    const double scale = precision_ == st::Precision::fp16 ? 1024 : 1;
    const auto to = pass.tape()->template target<float>(y.id());
    const st::GradientTarget<> gradients[] = {{to.data, to.accumulate}, {}};
    gpu().expression_backward(squares, y.size(), {.factor = float(scale / double(y.size()))}, gradients);
    pass.tape()->backward();
    if (scale != 1) {
      std::vector<st::TensorSpan> all;
      sgd_->each_parameter([&](const std::string&, st::Parameter& p) { all.push_back({p.size(), p.grad().data()}); });
      gpu().scale(all, 1 / scale);
    }
    sgd_->step();
  }

  void record() {
    queued(), queued();  // memory, plans, the velocity
    gpu().begin_recording();
    queued();
    recorded_ = gpu().end_recording();
  }
  void replay() { recorded_->replay(); }

  float loss() {
    float value = 0;
    gpu().download(&value, loss_.data(), sizeof value);
    return value;
  }

 private:
  st::Precision precision_;
  Net net_;
  st::Image<1> x_, target_;
  st::Storage loss_;
  st::GradScaler scaler_;
  std::unique_ptr<st::SGD> sgd_;
  std::unique_ptr<st::RecordedWork> recorded_;
};

/// Whether replays train as calls do, in every bit.
template <class Net>
void check_replay(std::int64_t n, std::int64_t side, st::Precision precision, const char* name) {
  Training<Net> called(n, side, precision), replayed(n, side, precision);
  for (int i = 0; i < 5; ++i) called.queued();
  replayed.record();  // two steps; what is recorded is not done
  for (int i = 0; i < 3; ++i) replayed.replay();
  std::printf("# replay check, %s: loss of step 5 %.9g by calls, %.9g by replays: %s\n", name, double(called.loss()),
              double(replayed.loss()), called.loss() == replayed.loss() ? "equal" : "DIFFERENT");
}

/// |got - wanted| / |wanted|; NaN where there is one.
class Distance {
 public:
  void add(double got, double wanted) { off_ += (got - wanted) * (got - wanted), all_ += wanted * wanted; }
  double value() const { return std::sqrt(off_ / all_); }

 private:
  double off_ = 0, all_ = 0;
};

/// How far inference and gradients on the device are from the CPU's in float32, for sizes of many blocks.
template <class Net, class Flat>
void check_accuracy(std::int64_t h, std::int64_t w, std::int64_t n, std::int64_t side, st::Precision precision,
                    const char* name) {
  const st::Device cpu = st::Device::cpu(), cuda = st::Device::cuda();
  Distance output, gradient;
  {
    Flat here;
    st::initialize(here, 0);
    Flat there = here;
    st::to(there, cuda);
    const st::Image<1> x = noise(1, h, w, 3), host = x.to(cpu);
    st::Infer here_pass, there_pass({.precision = precision});
    const st::Image<1> wanted = std::as_const(here)(here_pass, host).value();
    const st::Image<1> got = st::Image<1>(std::as_const(there)(there_pass, x).value()).to(cpu);
    for (std::int64_t i = 0; i < got.size(); ++i)  // of what the network takes away
      output.add(double(host.data()[i]) - double(got.data()[i]), double(host.data()[i]) - double(wanted.data()[i]));
  }
  Net here;
  st::initialize(here, 0);
  Net there = here;
  st::to(there, cuda);
  const st::Image<1> x = noise(n, side, side, 4), target = noise(n, side, side, 5);
  const float scale = precision == st::Precision::fp16 ? 1024 : 1;
  const auto back = [&](Net& net, st::Precision p, const st::Image<1>& from, const st::Image<1>& to) {
    st::Train pass({.precision = p});
    pass.backward(mean(square(net(pass, from) - to)) * scale);
  };
  back(here, st::Precision::fp32, x.to(cpu), target.to(cpu));
  back(there, precision, x, target);
  std::vector<st::Tensor<>> wanted;
  st::for_each_parameter(here, [&](const std::string&, st::Parameter& p) { wanted.push_back(p.grad()); });
  std::size_t next = 0;
  st::for_each_parameter(there, [&](const std::string&, st::Parameter& p) {
    const st::Tensor<> got = p.grad().to(cpu), &right = wanted[next++];
    for (std::int64_t i = 0; i < got.size(); ++i) gradient.add(double(got.data()[i]), double(right.data()[i]));
  });
  std::printf(
      "# accuracy, %s: off the CPU's float32 by %.2e in inference of %lldx%lld, %.2e in the gradient of %lldx%lld\n",
      name, output.value(), static_cast<long long>(w), static_cast<long long>(h), gradient.value(),
      static_cast<long long>(n), static_cast<long long>(side));
}

template <class F>
void with_precisions(F&& f) {
  for (const auto& [name, precision] : {std::pair{"bf16", st::Precision::bf16}, std::pair{"tf32", st::Precision::tf32},
                                        std::pair{"fp32", st::Precision::fp32}, std::pair{"fp16", st::Precision::fp16}})
    if (listed(options.precision, name)) f(name, precision);
}

/// The engine called `name`, or false and the reason.
bool choose(const char* name) {
  if (!listed(options.engine, name)) return false;
  try {
    gpu().set_engine({.engine = std::strcmp(name, "library") == 0     ? st::Engine::library
                                : std::strcmp(name, "benchmark") == 0 ? st::Engine::benchmark
                                                                      : st::Engine::native});
    return true;
  } catch (const std::exception& error) {
    std::printf("# engine %s: %s\n", name, error.what());
    return false;
  }
}

template <class Net>
void train(const char* engine, std::int64_t n, std::int64_t side) {
  const std::string size = st::concat(n, "x", side);
  with_precisions([&](const char* name, st::Precision precision) {
    const bool library = std::strcmp(engine, "native") != 0;
    if (library && precision != st::Precision::fp32 && precision != st::Precision::tf32) return;
    std::unique_ptr<Training<Net>> training;
    const auto make = [&] {
      if (training == nullptr) training = std::make_unique<Training<Net>>(n, side, precision);
    };
    measure({"train", name, engine, "step", size}, make, [&] { training->step(); });
    measure({"train", name, engine, "queued", size}, make, [&] { training->queued(); });
    measure(
        {"train", name, engine, "graph", size}, [&] { make(), training->record(); }, [&] { training->replay(); });
  });
}

template <class Net>
void infer(const char* engine, std::int64_t h, std::int64_t w) {
  const std::string size = st::concat(w, "x", h);
  Net net;
  st::initialize(net, 0);
  st::to(net, st::Device::cuda());
  const Net& fixed = net;
  const st::Image<1> x = noise(1, h, w, 1);
  with_precisions([&](const char* name, st::Precision precision) {
    const bool library = std::strcmp(engine, "native") != 0;
    if (library && precision != st::Precision::fp32 && precision != st::Precision::tf32) return;
    const auto call = [&] {
      st::Infer pass({.precision = precision});
      (void)st::Image<1>(fixed(pass, x).value());
    };
    std::unique_ptr<st::RecordedWork> recorded;
    const auto record = [&] {
      call();
      gpu().begin_recording();
      call();
      recorded = gpu().end_recording();
    };
    measure({"infer", name, engine, "queued", size}, call, call);
    measure({"infer", name, engine, "graph", size}, record, [&] { recorded->replay(); });
  });
}

template <int Width, int Depth>
void all() {
  using Net = Trained<Width, Depth>;
  using Flat = Folded<Width, Depth>;
  const std::int64_t batch = options.small ? 2 : 128, side = options.small ? 8 : 40;
  const bool training = options.only.empty() || options.only == "train",
             inference = options.only.empty() || options.only == "infer";
  std::printf("# on %s; DnCNN-%dx%d\n", gpu().name().c_str(), Depth, Width);
  if (training && !options.once && listed(options.engine, "native"))
    with_precisions([&](const char* name, st::Precision precision) {
      try {
        options.small ? check_accuracy<Net, Flat>(9, 10, 2, 8, precision, name)
                      : check_accuracy<Net, Flat>(200, 300, 16, 40, precision, name);
      } catch (const std::exception& error) {
        std::printf("# accuracy, %s: FAILED: %s\n", name, error.what());
      }
      try {
        check_replay<Net>(2, 16, precision, name);
      } catch (const std::exception& error) {
        std::printf("# replay check, %s: FAILED: %s\n", name, error.what());
        try {  // leave no recording open
          (void)gpu().end_recording();
        } catch (const std::exception&) {
        }
      }
    });
  for (const char* engine : {"native", "library", "benchmark"}) {
    if (!choose(engine)) continue;
    if (training) train<Net>(engine, batch, side);
    if (inference) infer<Flat>(engine, options.small ? 16 : 1080, options.small ? 24 : 1920);
    if (training) train<Net>(engine, options.small ? 3 : 256, options.small ? 9 : 64);
    if (inference) infer<Flat>(engine, options.small ? 9 : 512, options.small ? 9 : 512);
  }
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--once")
      options.once = true;
    else if (name == "--small")
      options.small = true;
    else if (i + 1 == argc)
      return std::fprintf(stderr, "device_network: %s?\n", argv[i]), 2;
    else if (name == "--seconds")
      options.seconds = std::atof(argv[++i]);
    else if (name == "--only")
      options.only = argv[++i];
    else if (name == "--precision")
      options.precision = argv[++i];
    else if (name == "--engine")
      options.engine = argv[++i];
    else if (name == "--mode")
      options.mode = argv[++i];
    else if (name == "--size")
      options.size = argv[++i];
    else
      return std::fprintf(stderr, "device_network: %s?\n", argv[i]), 2;
  }
  if (const std::string reason = st::cuda_missing(); !reason.empty()) {
    std::printf("SKIPPED, nothing was measured: %s\n", reason.c_str());
    return 77;
  }
  try {
    options.small ? all<16, 4>() : all<64, 17>();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "device_network: %s\n", error.what());
    return 1;
  }
}
