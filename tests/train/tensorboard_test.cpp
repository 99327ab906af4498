// TensorBoard's event files. tests/train/read_events.py reads what the last case writes with TensorBoard itself.
#include "strata/train/tensorboard.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "temporary_folder.hpp"

namespace st = strata;
namespace fs = std::filesystem;

namespace {

std::vector<std::int64_t> steps_in(const fs::path& path) {
  const std::string text = st::detail::read_whole(path);
  std::string_view rest = text, event;
  std::vector<std::int64_t> steps;
  while (st::detail::next_record(rest, event)) steps.push_back(st::detail::step_of_event(event));
  CHECK(rest.empty());
  return steps;
}

fs::path only_file(const fs::path& folder) {
  fs::path found;
  int count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    found = entry.path();
    ++count;
  }
  CHECK(count == 1);
  return found;
}

}  // namespace

TEST_CASE("masked checksums are those of TFRecord") {
  // The first record that every event file of TensorFlow's has: its length is 24.
  CHECK(st::detail::masked_crc(std::string_view("\x18\0\0\0\0\0\0\0", 8)) == 0x224b7fa3u);
}

TEST_CASE("a resumed run goes on in one file: later steps are cut off, and so is a torn end") {
  const strata_test::TemporaryFolder folder;
  {
    st::TensorBoard board(folder / "tb");
    for (int step = 1; step <= 5; ++step) board.scalar("loss", 1.0 / step, step);
  }
  const fs::path file = only_file(folder / "tb");
  CHECK(steps_in(file) == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5});
  {
    st::TensorBoard board(folder / "tb", {.resume_step = 3});
    board.scalar("loss", 0.25, 4);
  }
  CHECK(only_file(folder / "tb") == file);
  CHECK(steps_in(file) == std::vector<std::int64_t>{0, 1, 2, 3, 4});
  const auto size = fs::file_size(file);
  for (std::uintmax_t cut = size - 1; cut > size - 30; cut -= 7) {  // a program killed while it wrote
    fs::resize_file(file, cut);
    st::TensorBoard board(folder / "tb");
    board.scalar("loss", 0.25, 4);
    board.flush();
    CHECK(steps_in(file) == std::vector<std::int64_t>{0, 1, 2, 3, 4});
  }
}

TEST_CASE("a file that is no event file is left alone") {
  const strata_test::TemporaryFolder folder;
  st::write_file(folder / "events.out.tfevents.1.host.2.strata",
                 "these are somebody's notes, and long enough to be a record");
  CHECK_THROWS_WITH_AS(st::TensorBoard(folder.path()), doctest::Contains("does not begin as TensorBoard's"),
                       st::FileError);
  CHECK(fs::file_size(folder / "events.out.tfevents.1.host.2.strata") == 58);
}

TEST_CASE("the step of damaged events: told, or refused, and never read beyond the end") {
  st::detail::ProtoMessage event;
  event.real(1, 1.5).integer(2, 300).bytes(5, "summary");
  const std::string& whole = event.str();
  CHECK(st::detail::step_of_event(whole) == 300);
  for (std::size_t length = 0; length < whole.size(); ++length)
    (void)st::detail::step_of_event(std::string_view(whole).substr(0, length));
  for (std::size_t at = 0; at < whole.size(); ++at)
    for (int value = 0; value < 256; ++value) {
      std::string damaged = whole;
      damaged[at] = char(value);
      (void)st::detail::step_of_event(damaged);
    }
  CHECK(st::detail::step_of_event("\x2a\xff\xff\xff\xff\xff\xff\xff\xff\x01") == -1);  // a field longer than the event
  CHECK(st::detail::step_of_event("\x0f") == -1);
}

TEST_CASE("what cannot be meant is refused") {
  const strata_test::TemporaryFolder folder;
  st::TensorBoard board(folder.path());
  CHECK_THROWS_AS(board.scalar("", 1, 1), st::ValueError);
  CHECK_THROWS_AS(board.scalar("loss", 1, -1), st::ValueError);
  CHECK_THROWS_AS(board.image("empty", st::Image<1>(), 1), st::ShapeError);
  CHECK_THROWS_AS(board.histogram("nan", std::vector<double>{1, std::nan("")}, 1), st::NumericError);
}

TEST_CASE("events of every kind, for TensorBoard to read") {
  const strata_test::TemporaryFolder own;
  const char* const given = std::getenv("STRATA_EVENTS_FOLDER");
  st::TensorBoard board(given ? fs::path(given) : own.path());
  board.hparams({{"lr", 1e-3}, {"optimizer", "adam"}, {"augment", true}, {"depth", 17}}, {"metrics/psnr"});
  for (int step = 0; step < 20; ++step) board.scalar("losses/l_pix", std::exp(-0.1 * step), step);
  board.scalar("metrics/psnr", 29.5, 19);
  st::Image<3> picture(1, 5, 7);
  for (std::int64_t i = 0; i < picture.size(); ++i) picture.data()[i] = float(i) / float(picture.size());
  picture(0, 0, 0, 0) = std::numeric_limits<float>::quiet_NaN();
  board.image("samples/one", picture, 3);
  board.image("samples/batch", st::Image<1>::full(2, 4, 4, 0.5f), 3);
  std::vector<float> numbers;
  for (int i = -50; i < 50; ++i) numbers.push_back(float(i) / 10);
  board.histogram("weights/head", numbers, 4);
  board.histogram("weights/none", std::vector<float>{}, 4);
  board.text("notes", "a **bold** note", 0);
  board.flush();
  CHECK(steps_in(board.path()).size() == 29);
}
