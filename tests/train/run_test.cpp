// A run's folder: what is in it, that a run which was stopped and resumed leaves the same as one that was not, and the
// report.
#include "strata/train/run.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/optim/adam.hpp"
#include "strata/train/curve.hpp"
#include "temporary_folder.hpp"

namespace st = strata;
namespace fs = std::filesystem;

namespace {

using Net = st::Sequential<st::Conv2d<1, 2>, st::ReLU, st::Conv2d<2, 1>>;

std::string text_of(const fs::path& path) { return st::detail::read_whole(path); }

/// Everything of a text but what the clock writes: numbers are compared as they stand in the columns that count.
std::vector<std::string> csv_without_times(const fs::path& path) {
  std::vector<std::string> lines;
  std::string line;
  for (const char letter : text_of(path)) {
    if (letter != '\n') {
      line += letter;
      continue;
    }
    for (int i = 0; i < 3; ++i) line.resize(line.rfind(','));  // time, data, seconds
    lines.push_back(std::exchange(line, {}));
  }
  CHECK(line.empty());
  return lines;
}

struct Ending {
  std::int64_t after_step = -1;  // the program "is killed" there: it ends without a word
};

/// 3 epochs of 5 steps; the loss is a function of the step alone. Returns where it ended.
st::CheckpointInfo train(const fs::path& root, bool resume, Ending ending = {}, int* saves = nullptr) {
  st::Run run({.name = "tiny",
               .root = root,
               .resume = resume,
               .total_steps = 15,
               .log_interval = 2,
               .keep = 2,
               .metrics = {{"set/psnr"}, {.name = "set/error", .higher_is_better = false}},
               .quiet = true,
               .hooks = {.saved = [&](const st::CheckpointInfo&, const fs::path& file) {
                 CHECK(fs::exists(file));
                 if (saves) ++*saves;
               }}});
  run.config({{"lr", 1e-3}, {"name", "tiny \"one\""}, {"data.augment", true}, {"data.crop.size", 40}});
  Net net;
  st::Adam adam(net, {.lr = 1e-3});
  run.layers(net, 8, 8);
  st::CheckpointInfo at = run.start(net, adam);
  while (at.epoch < 3 && !run.stopping()) {
    while (at.batch < 5) {
      ++at.step, ++at.batch;
      run.step(at, {.lr = 1e-3, .losses = {{"loss", 1.0 / double(at.step)}}, .data_seconds = 0.001 * double(at.batch)});
      if (at.step == ending.after_step) return at;
    }
    // The second epoch is the best.
    run.validated(at, {{"set/psnr", at.epoch == 1 ? 31.5 : 30.0 + 0.1 * double(at.epoch)},
                       {"set/error", 5.0 - double(at.epoch)}});
    run.picture(at, "set/one", st::Image<1>::full(1, 6, 8, 0.1f * float(at.epoch)), st::Image<1>::full(1, 6, 8, 0.9f));
    ++at.epoch, at.batch = 0;
    run.save(at, net, adam);
  }
  run.finish(at, net, adam);
  return at;
}

/// The values at each step that a report shows.
std::string curves_of(const fs::path& report) {
  const std::string page = text_of(report);
  const std::size_t begin = page.find("\"series\":"), end = page.find(",\"pictures\":");
  REQUIRE(begin < end);
  REQUIRE(end < page.size());
  return page.substr(begin, end - begin);
}

}  // namespace

TEST_CASE("a run leaves its folder: configuration, logs, the last checkpoints and the best, pictures, events, report") {
  const strata_test::TemporaryFolder folder;
  int saves = 0;
  train(folder.path(), false, {}, &saves);
  CHECK(saves == 3);
  const fs::path run = folder / "tiny";
  CHECK(text_of(run / "config.toml") ==
        "lr = 0.001\nname = \"tiny \\\"one\\\"\"\n\n[data]\naugment = true\n\n[data.crop]\nsize = 40\n");
  CHECK_FALSE(fs::exists(run / "models/checkpoint-5.safetensors"));
  CHECK(st::read_checkpoint_info(run / "models/checkpoint-10.safetensors").epoch == 2);
  CHECK(st::read_checkpoint_info(run / "models/checkpoint-15.safetensors").epoch == 3);
  CHECK(st::read_checkpoint_info(run / "models/best.safetensors").step == 10);
  const auto rows = csv_without_times(run / "log.csv");
  REQUIRE(rows.size() == 1 + 8 + 3);  // steps 2, 4, ..., 14 and the last; three validations
  CHECK(rows[0] == "epoch,step,lr,loss,set/psnr,set/error");
  CHECK(rows[1] == "1,2,0.001,0.75,,");
  CHECK(rows[3] == "1,5,,,30,5");
  const std::string log = text_of(run / "log.txt");
  CHECK(log.find("[tiny][epoch 1, iter 4, lr 1.0e-03] [eta ") != std::string::npos);
  CHECK(log.find(", time (data) ") != std::string::npos);
  CHECK(log.find("] loss 2.9e-01\n") != std::string::npos);  // the mean of 1/3 and 1/4
  CHECK(log.find("set/psnr 31.5000 (best) set/error 4.0000 (best)") != std::string::npos);
  CHECK(log.find("set/psnr 30.2000 (best 31.5000 at iter 10)") != std::string::npos);
  CHECK(fs::exists(run / "visualization/set_one_00000015_before.png"));
  CHECK(fs::exists(run / "report.html"));
  CHECK_FALSE(fs::exists(run / "run.lock"));
}

TEST_CASE("a name that is taken: the time is added, and nothing of the other run is touched") {
  const strata_test::TemporaryFolder folder;
  train(folder.path(), false);
  const std::string before = text_of(folder / "tiny" / "log.txt");
  train(folder.path(), false);
  CHECK(text_of(folder / "tiny" / "log.txt") == before);
  int folders = 0;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    ++folders;
    CHECK(entry.path().filename().string().starts_with("tiny"));
  }
  CHECK(folders == 2);
  const st::Run holds({.name = "held", .root = folder.path(), .quiet = true});
  CHECK_THROWS_WITH_AS(st::Run({.name = "held", .root = folder.path(), .resume = true, .quiet = true}),
                       doctest::Contains("another run works in this folder"), st::FileError);
}

TEST_CASE("a run that is killed after any step and resumed leaves one log, events, curves and the same best") {
  const strata_test::TemporaryFolder whole;
  train(whole.path(), false);
  const auto wanted = csv_without_times(whole / "tiny" / "log.csv");
  const std::string curves = curves_of(whole / "tiny" / "report.html");
  CHECK(curves.find("\"tag\":\"loss\",\"steps\":[2,4,6,8,10,12,14,15]") != std::string::npos);
  for (std::int64_t step = 1; step <= 14; step += 3) {
    CAPTURE(step);
    const strata_test::TemporaryFolder folder;
    train(folder.path(), false, {.after_step = step});
    const st::CheckpointInfo at = train(folder.path(), true);
    CHECK(at.step == 15);
    const fs::path run = folder / "tiny";
    CHECK(csv_without_times(run / "log.csv") == wanted);
    CHECK(st::read_checkpoint_info(run / "models/best.safetensors").step == 10);
    CHECK(curves_of(run / "report.html") == curves);
    int files = 0;
    for (const auto& entry : fs::directory_iterator(run / "tb")) {
      ++files;
      const std::string text = text_of(entry.path());
      std::string_view rest = text, event;
      std::int64_t last = 0, events = 0;
      while (st::detail::next_record(rest, event)) {
        CHECK(st::detail::step_of_event(event) >= last);
        last = st::detail::step_of_event(event);
        ++events;
      }
      CHECK(rest.empty());
      CHECK(events == 1 + 2 + 8 * 2 + 3 * 2 + 3 * 2);  // header, hyperparameters, lines, validations, pictures
    }
    CHECK(files == 1);
  }
}

TEST_CASE(
    "where the latest checkpoint is damaged the one before it is taken, and a best that is missing is written again") {
  const strata_test::TemporaryFolder folder;
  train(folder.path(), false, {.after_step = 12});
  const fs::path models = folder / "tiny" / "models";
  fs::remove(models / "best.safetensors");
  std::string bytes = text_of(models / "checkpoint-10.safetensors");
  st::CheckpointInfo at = train(folder.path(), true, {.after_step = 11});
  CHECK(at.step == 11);
  CHECK(st::read_checkpoint_info(models / "best.safetensors").step == 10);
  bytes[bytes.size() / 2] ^= 1;
  st::write_file(models / "checkpoint-10.safetensors", bytes);
  at = train(folder.path(), true, {.after_step = 6});
  CHECK(at.step == 6);  // from checkpoint-5
  CHECK(text_of(folder / "tiny" / "log.txt").find("taking the one before it") != std::string::npos);
}

TEST_CASE("what cannot be meant is refused") {
  const strata_test::TemporaryFolder folder;
  for (const char* name : {"", ".", "..", "a/b"})
    CHECK_THROWS_AS(st::Run({.name = name, .root = folder.path()}), st::ValueError);
  CHECK_THROWS_AS(st::Run({.name = "a", .root = folder.path(), .keep = 0}), st::ValueError);
  CHECK_THROWS_AS(st::Run({.name = "a", .root = folder.path(), .losses = {"a,b"}}), st::ValueError);
  CHECK_THROWS_AS(st::Run({.name = "a", .root = folder.path(), .metrics = {{"loss"}}}), st::ValueError);
  st::Run run({.name = "b", .root = folder.path(), .metrics = {{"psnr"}}, .quiet = true});
  Net net;
  st::CheckpointInfo at = run.start(net);
  // no start()
  CHECK_THROWS_AS(st::Run({.name = "c", .root = folder.path(), .quiet = true}).validated(at, {}), st::Error);
  CHECK_THROWS_AS(run.step(at, {.losses = {{"other", 1}}}), st::ValueError);
  CHECK_THROWS_AS(run.step(at, {}), st::ValueError);
  CHECK_THROWS_AS(run.validated(at, {{"ssim", 1}}), st::ValueError);
  CHECK_THROWS_AS(run.validated(at, {{"psnr", std::nan("")}}), st::NumericError);
  net.layer<0>().weight.value().data()[0] = INFINITY;
  CHECK_THROWS_AS(run.save(at, net), st::NumericError);
  CHECK_FALSE(run.latest());
}

TEST_CASE("the report is one file that nothing in a name or number can break") {
  st::Report report{.name = "</script><b>\"\\\n\xff", .running = true};
  report.series.push_back({"loss", {1, 2, 3}, {1.5, NAN, -INFINITY}});
  report.pictures.push_back({"one", 3, "", "PNG"});
  const std::string page = st::report_html(report);
  CHECK(page.find("</script><b>") == std::string::npos);
  CHECK(page.find("\\u003c/script>\\u003cb>\\u0022\\u005c\\u000a\\ufffd") != std::string::npos);
  CHECK(page.find("\"values\":[1.5,null,null]") != std::string::npos);
  CHECK(page.find("data:image/png;base64,UE5H") != std::string::npos);
  for (std::size_t at = page.find("http:"); at != std::string::npos; at = page.find("http:", at + 1))
    CHECK(page.substr(at, 26) == "http://www.w3.org/2000/svg");  // nothing is fetched; that is a name
  CHECK(page.find("https:") == std::string::npos);
  CHECK(st::detail::base64("") == "");
  CHECK(st::detail::base64("M") == "TQ==");
  CHECK(st::detail::base64("Ma") == "TWE=");
  CHECK(st::detail::base64("Man") == "TWFu");
}

TEST_CASE("ticks are round, and a value stands at its own step") {
  const auto texts = [](const std::vector<double>& ticks) {
    std::string all;
    for (const double tick : ticks) all += st::detail::tick_text(tick) + " ";
    return all;
  };
  CHECK(texts(st::detail::round_ticks(0.3, 10.2, 6)) == "2 4 6 8 10 ");
  CHECK(texts(st::detail::round_ticks(-0.05, 0.22, 6)) == "-0.05 0 0.05 0.1 0.15 0.2 ");
  CHECK(texts(st::detail::round_ticks(29.01, 31.3, 6)) == "29.5 30 30.5 31 ");
  CHECK(st::detail::round_ticks(1, 1, 6).empty());
  CHECK(st::detail::round_ticks(0, INFINITY, 6).empty());
  CHECK(st::detail::round_logarithmic_ticks(-2.4, -0.9, 6).size() == 5);  // 0.005 0.01 0.02 0.05 0.1
  CHECK(st::detail::round_logarithmic_ticks(-9, 3, 6).size() <= 6);
  CHECK(st::detail::round_logarithmic_ticks(-1.01, -1.0, 6).size() >= 3);
  CHECK(st::detail::tick_text(20000) == "20,000");
  CHECK(st::detail::tick_text(-1234567) == "-1,234,567");
  CHECK(st::detail::tick_text(0.25) == "0.25");
  // Steps 0, 500, 1000 and an early end at 1100: 5/11 and 10/11 of the way.
  const std::string svg = st::detail::curve_panel(
      {.title = "a < b", .values = {1, 2, 3, 4}, .at = {0, 500, 1000, 1100}, .unit = "step"}, 30);
  CHECK(svg.find("cx='370.909'") != std::string::npos);
  CHECK(svg.find("cx='661.818'") != std::string::npos);
  CHECK(svg.find("cx='720'") != std::string::npos);
  CHECK(svg.find("a &lt; b") != std::string::npos);
}

// Not only a test: tests/train/report.py looks at the page of this run in a browser.
TEST_CASE("a run for the report") {
  const strata_test::TemporaryFolder own;
  const char* const given = std::getenv("STRATA_RUN_ROOT");
  const fs::path root = given ? fs::path(given) : own.path();
  train(root, false);
  CHECK(fs::file_size(root / "tiny" / "report.html") > 10000);
}
