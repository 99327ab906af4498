#include <doctest/doctest.h>

#include <csignal>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <sys/wait.h>
#include <unistd.h>

#include "io/io_test_net.hpp"
#include "strata/core/random.hpp"
#include "strata/io/checkpoint.hpp"
#include "strata/optim/adam.hpp"
#include "strata/optim/ema.hpp"
#include "strata/optim/lr_scheduler.hpp"
#include "strata/optim/reduce_lr_on_plateau.hpp"
#include "strata/optim/rmsprop.hpp"
#include "strata/optim/sgd.hpp"

namespace st = strata;
using io_test::contains;
using io_test::file_error;

namespace {

void set_gradients(io_test::Net& net, int step) {
  st::for_each_parameter(net, [&](const std::string& name, st::Parameter& parameter) {
    st::Rng rng(9, std::uint32_t(step), std::uint32_t(name.size()));
    parameter.zero_grad();
    rng.fill_normal({parameter.grad_target<float>().data, std::size_t(parameter.size())}, 0, 1);
  });
}

/// A training run with everything that has a state.
template <class Optimizer>
struct Run {
  io_test::Net net;
  Optimizer optimizer;
  st::SequentialLR scheduler;
  st::ExponentialMovingAverage ema;

  explicit Run(const auto& options)
      : optimizer(net, options),
        scheduler(optimizer, {.schedules = {st::LinearSchedule{.start_factor = 0.1, .total_iters = 3},
                                            st::CosineAnnealingSchedule{.t_max = 7}},
                              .milestones = {3}}),
        ema(net, {.decay = 0.9, .use_buffers = true}) {
    io_test::number(net);
  }

  void train(int first, int last) {
    for (int step = first; step < last; ++step) {
      set_gradients(net, step);
      optimizer.step();
      scheduler.step();
      ema.update();
    }
  }
  void save(const std::filesystem::path& path, const st::CheckpointInfo& info = {}) const {
    st::save_checkpoint(path, info, net, optimizer, scheduler, ema);
  }
  st::CheckpointInfo load(const std::filesystem::path& path) {
    return st::load_checkpoint(path, net, optimizer, scheduler, ema);
  }
  /// Every number there is, those of the next steps included.
  std::vector<double> everything() {
    std::vector<double> all = io_test::numbers(net);
    all.push_back(optimizer.lr());
    all.push_back(double(scheduler.step_count()));
    const auto swapped = ema.swap();
    for (const double x : io_test::numbers(net)) all.push_back(x);
    return all;
  }
};

template <class Optimizer>
void check_resume(const auto& options) {
  const io_test::Folder folder;
  const auto at_0 = folder / "0.safetensors", at_4 = folder / "4.safetensors";
  Run<Optimizer> straight(options), stopped(options), resumed(options);
  straight.train(0, 9);
  stopped.save(at_0);
  stopped.train(0, 4);
  stopped.save(at_4);
  for (const int stop : {4, 0}) {  // from 0 in the second round: state that was not there yet goes again
    resumed.load(stop == 4 ? at_4 : at_0);
    resumed.train(stop, 9);
    CHECK(resumed.everything() == straight.everything());
    CHECK(resumed.ema.updates() == 9);
  }
}

}  // namespace

TEST_CASE("stop and resume equals never having stopped, bit for bit") {
  check_resume<st::SGD>(st::SGDOptions{.lr = 0.1, .momentum = 0.9, .dampening = 0.1, .weight_decay = 1e-3});
  check_resume<st::SGD>(st::SGDOptions{.lr = 0.1});
  check_resume<st::Adam>(st::AdamOptions{.lr = 0.1});
  check_resume<st::AdamW>(st::AdamWOptions{.lr = 0.1});
  check_resume<st::RMSprop>(st::RMSpropOptions{.lr = 0.1});
  check_resume<st::RMSprop>(st::RMSpropOptions{.lr = 0.1, .momentum = 0.9, .centered = true});
}

TEST_CASE("ReduceLROnPlateau resumes wherever it is stopped: waiting, just lowered, cooling down") {
  const io_test::Folder folder;
  const auto path = folder / "plateau.safetensors";
  const st::ReduceLROnPlateauOptions options{.factor = 0.5, .patience = 1, .cooldown = 2};
  const double metrics[] = {3, 2, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 1, 1, 1, 1};
  const auto run = [&](int stop) {
    std::vector<double> lrs;
    io_test::Net net, other;
    st::SGD sgd(net, {.lr = 0.1}), other_sgd(other, {.lr = 0.7});
    st::ReduceLROnPlateau first(sgd, options), second(other_sgd, options);
    for (int i = 0; i < 12; ++i) {
      if (i == stop) {
        st::save_checkpoint(path, {}, net, sgd, first);
        st::load_checkpoint(path, other, other_sgd, second);
        CHECK(second.best() == first.best());
        CHECK(second.step_count() == i);
      }
      (i < stop ? first : second).step(metrics[i]);
      lrs.push_back(i < stop ? sgd.lr() : other_sgd.lr());
    }
    return lrs;
  };
  const auto straight = run(12);
  CHECK(straight.back() == 0.1 / 8);
  for (int stop = 0; stop < 12; ++stop) CHECK(run(stop) == straight);
}

TEST_CASE("the info comes back") {
  const io_test::Folder folder;
  const auto path = folder / "run.safetensors";
  io_test::Net net;
  const st::CheckpointInfo info{.epoch = 12, .batch = 345, .step = -6, .seed = 0xFFFFFFFFFFFFFFFFu, .best = 0.1,
                                .extra = {{"epoch", "mine"}, {"dataset", "Set12\n"}}};
  st::save_checkpoint(path, info, net);
  st::CheckpointInfo back = st::load_checkpoint(path, net);
  CHECK(back.epoch == 12);
  CHECK(back.batch == 345);
  CHECK(back.step == -6);
  CHECK(back.seed == 0xFFFFFFFFFFFFFFFFu);
  CHECK(back.best == 0.1);
  CHECK(back.extra == info.extra);
  st::CheckpointInfo numbers;
  numbers.set_number("third", 1.0 / 3);
  CHECK(numbers.number("third") == 1.0 / 3);
  CHECK_THROWS_WITH_AS((void)back.number("third"), doctest::Contains("'third'"), st::FileError);
  CHECK_THROWS_WITH_AS((void)back.number("dataset"), doctest::Contains("\"Set12"), st::FileError);
  st::save_checkpoint(path, {.best = -std::numeric_limits<double>::infinity()}, net);
  CHECK(st::load_checkpoint(path, net).best == -std::numeric_limits<double>::infinity());
  st::save_checkpoint(path, {}, net);
  back = st::load_checkpoint(path, net);
  CHECK_FALSE(back.best.has_value());
  CHECK(back.extra.empty());
}

TEST_CASE("the info is read without objects, and what is not finite is found wherever it is") {
  const io_test::Folder folder;
  const auto path = folder / "run.safetensors";
  Run<st::Adam> run(st::AdamOptions{.lr = 0.1});
  run.train(0, 2);
  run.save(path, {.epoch = 3, .best = 0.1, .extra = {{"note", "a"}}});
  const st::CheckpointInfo info = st::read_checkpoint_info(path);
  CHECK(info.epoch == 3);
  CHECK(info.best == 0.1);
  CHECK(info.extra == st::Metadata{{"note", "a"}});
  std::string bytes = io_test::read_bytes(path);
  bytes.back() ^= 1;
  io_test::write_bytes(path, bytes);
  CHECK(contains(file_error([&] { st::read_checkpoint_info(path); }), "is damaged"));

  const auto found = [&] { return st::first_not_finite(run.net, run.optimizer, run.scheduler, run.ema); };
  CHECK(found() == "");
  const auto with = [&](float& number, float value) {
    const float before = std::exchange(number, value);
    const std::string name = found();
    number = before;
    return name;
  };
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(with(run.net.tail.bias.value().data()[2], nan) == "net.tail.bias");
  CHECK(with(run.net.norm.running_mean.value().data()[0], -infinity) == "net.norm.running_mean");
  struct {
    float* state = nullptr;
    std::string name;
    void operator()(std::string_view, double&) {}
    void operator()(std::string_view, std::int64_t&) {}
    void operator()(std::string_view of, st::AnyTensor& tensor, const st::AnyTensor&) {
      state = &std::get<st::Tensor<float>>(tensor).span().back();
      name = "state.adam." + std::string(of);
    }
  } last;
  st::Adam::state(run.optimizer, last);
  REQUIRE(last.state != nullptr);
  CHECK(with(*last.state, infinity) == last.name);
  CHECK(found() == "");
}

TEST_CASE("two objects of one kind are told apart by their order") {
  const io_test::Folder folder;
  const auto path = folder / "run.safetensors";
  io_test::Net net;
  st::SGD a(net, {.lr = 0.1}), b(net, {.lr = 0.2});
  st::save_checkpoint(path, {}, net, a, b);
  st::load_checkpoint(path, net, b, a);
  CHECK(a.lr() == 0.2);
  CHECK(b.lr() == 0.1);
}

TEST_CASE("a checkpoint of another network or other objects is refused with a list, and nothing is changed") {
  const io_test::Folder folder;
  const auto path = folder / "run.safetensors";
  const st::SGDOptions options{.lr = 0.1, .momentum = 0.9};
  Run<st::SGD> run(options), other(options);
  run.train(0, 3);
  run.save(path);
  other.train(0, 1);
  const auto before = other.everything();

  const auto refused = [&](auto&& load, std::string_view part) {
    const std::string text = file_error(load);
    CAPTURE(text);
    CHECK(text.starts_with(path.string()));
    CHECK(contains(text, part));
    CHECK(other.everything() == before);
  };
  refused([&] { st::load_checkpoint(path, other.net, other.optimizer, other.scheduler); },
          "unexpected in the file (8):\n    state.ema.head.bias (3 F32)");
  refused([&] { st::load_checkpoint(path, other.net, other.optimizer, other.ema); }, "state.lr_scheduler.base_lr");
  refused([&] { st::load_checkpoint(path, other.net, other.optimizer, other.optimizer, other.scheduler, other.ema); },
          "missing from the file (1):\n    state.sgd2.lr");
  st::Adam adam(other.net);
  refused([&] { st::load_checkpoint(path, other.net, adam, other.scheduler, other.ema); },
          "state.adam.head.weight.steps");
  refused([&] { st::load_checkpoint(path, other.net.head, other.optimizer, other.scheduler, other.ema); },
          "missing from the file (2):\n    net.weight (3x2x3x3 F32)");
  {
    const auto swapped = other.ema.swap();
    CHECK_THROWS_AS(other.save(path), st::Error);
    CHECK_THROWS_AS(other.load(path), st::Error);
  }
  CHECK(other.everything() == before);
  io_test::Net doubles;
  st::to<double>(doubles);
  io_test::Net floats;
  st::save_checkpoint(path, {}, floats);
  refused([&] { st::load_checkpoint(path, doubles); },
          "the file's net.head.weight (3x2x3x3 F32), wanted net.head.weight (3x2x3x3 F64)");
  st::save_weights(path, floats);
  refused([&] { st::load_checkpoint(path, other.net); }, "is not a checkpoint");
}

TEST_CASE("metadata that is no number is refused even with a good checksum") {
  const io_test::Folder folder;
  const auto path = folder / "run.safetensors";
  io_test::Net net;
  st::SGD sgd(net, {.lr = 0.5});
  const auto refused = [&](std::string_view key, std::string_view value, std::string_view reason) {
    st::detail::CheckpointWriter writer;
    writer.add(st::CheckpointInfo{});
    writer.add_network(net);
    writer.add(sgd);
    writer.metadata[std::string(key)] = value;
    st::write_safetensors(path, writer.tensors, writer.metadata, {.checksum = true});
    const std::string text = file_error([&] { st::load_checkpoint(path, net, sgd); });
    CAPTURE(text);
    CHECK(contains(text, reason));
    CHECK(sgd.lr() == 0.5);
  };
  refused("info.epoch", "", "info.epoch is '', wanted a number");
  refused("info.epoch", "1x", "info.epoch is '1x', wanted a number");
  refused("info.epoch", "99999999999999999999", "wanted a number");
  refused("info.seed", "-1", "wanted a number");
  refused("info.best", "good", "wanted a number");
  refused("state.sgd.lr", "nan", "finite");
  refused("state.sgd.lr", "0.1 ", "wanted a number");
  refused("strata.checkpoint", "2", "version '2'");
}

TEST_CASE("damage is found wherever it is, the text names the checkpoint before, and nothing is changed") {
  const io_test::Folder folder;
  const auto path = folder / "run.safetensors";
  const st::SGDOptions options{.lr = 0.1, .momentum = 0.9};
  Run<st::SGD> run(options), other(options);
  run.train(0, 2);
  run.save(path, {.epoch = 1});
  CHECK(folder.files() == 1);
  const std::string first = io_test::read_bytes(path);
  run.train(2, 4);
  run.save(path, {.epoch = 2});
  CHECK(folder.files() == 2);
  CHECK(io_test::read_bytes(st::previous_path(path)) == first);
  const std::string whole = io_test::read_bytes(path);
  const auto before = other.everything();

  st::Rng rng(3);
  for (int round = 0; round < 150; ++round) {
    std::string bytes = whole;
    if (round % 3 == 0)
      bytes.resize(rng.below(std::uint32_t(whole.size())));
    else
      bytes[rng.below(std::uint32_t(whole.size()))] ^= static_cast<char>(1u << rng.below(8));
    io_test::write_bytes(path, bytes);
    const std::string text = file_error([&] { other.load(path); });
    CAPTURE(round);
    CHECK(text.starts_with(path.string()));
    CHECK(contains(text, "The checkpoint before it is still there: " + st::previous_path(path).string()));
    CHECK(other.everything() == before);
  }
  CHECK(other.load(st::previous_path(path)).epoch == 1);
  std::filesystem::remove(path);
  CHECK(contains(file_error([&] { other.load(path); }), "The checkpoint before it is still there"));
  std::filesystem::remove(st::previous_path(path));
  CHECK_FALSE(contains(file_error([&] { other.load(path); }), "still there"));
}

TEST_CASE("load_weights takes a checkpoint, and finds damage in it") {
  const io_test::Folder folder;
  const auto path = folder / "run.safetensors";
  Run<st::AdamW> run(st::AdamWOptions{.lr = 0.1});
  run.train(0, 2);
  run.save(path);
  io_test::Net net;
  st::load_weights(path, net);
  CHECK(io_test::numbers(net) == io_test::numbers(run.net));
  st::load_weights(path, net, {.match = st::Match::by_order});
  CHECK(io_test::numbers(net) == io_test::numbers(run.net));
  std::string bytes = io_test::read_bytes(path);
  bytes.back() ^= 1;
  io_test::write_bytes(path, bytes);
  CHECK(contains(file_error([&] { st::load_weights(path, net); }), "is damaged"));
}

TEST_CASE("a program that is killed while it saves leaves a whole checkpoint") {
  const io_test::Folder folder;
  const auto path = folder / "run.safetensors";
  io_test::Net net;
  io_test::number(net);
  st::save_checkpoint(path, {.epoch = 0}, net);
  for (int round = 0; round < 15; ++round) {
    const ::pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      try {
        for (std::int64_t epoch = 1;; ++epoch) st::save_checkpoint(path, {.epoch = epoch}, net);
      } catch (...) {
        ::_exit(1);
      }
    }
    ::usleep(::useconds_t(1000 + 700 * round));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    io_test::Net back;
    CHECK(st::load_checkpoint(path, back).epoch >= 0);
    CHECK(io_test::numbers(back) == io_test::numbers(net));
  }
  CHECK(folder.files() <= 3);  // a .partial may lie there; the next save takes it away
  st::save_checkpoint(path, {}, net);
  CHECK(folder.files() == 2);
}
