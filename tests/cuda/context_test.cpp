// The device itself: memory, copies that overlap, and recordings.
#include "device_test.hpp"

using namespace device_test;
using strata::Device, strata::DeviceError;

TEST_CASE("uploads of any size arrive, in order with the kernels around them") {
  // the last: several pieces
  for (const std::size_t count : {std::size_t{1}, std::size_t{1000}, std::size_t{3} << 20}) {
    const Numbers first = numbers(std::int64_t(count), 1), second = numbers(std::int64_t(count), 2);
    const DeviceArray<float> x(count), y(count);
    Numbers host = first;
    gpu().upload(x.data(), host.data(), count * sizeof(float));
    gpu().copy(y.data(), x.data(), count * sizeof(float));
    host = second;  // it has been read
    gpu().upload(x.data(), host.data(), count * sizeof(float));
    host.assign(count, 0.0f);
    Numbers got(count);
    gpu().download(got.data(), y.data(), count * sizeof(float));
    CHECK(got == first);
    gpu().download(got.data(), x.data(), count * sizeof(float));
    CHECK(got == second);
  }
}

TEST_CASE("the pool hands blocks out again, and asks the device for none after the first round") {
  const auto round = [] {
    const strata::Storage a = gpu().pool().take(1000), b = gpu().pool().take(50000);
    CHECK(a.device() == Device::cuda());
    gpu().fill(static_cast<float*>(b.data()), 12500, 1);
  };
  round();
  const std::size_t before = gpu().pool().fresh_blocks();
  for (int i = 0; i < 5; ++i) round();
  CHECK(gpu().pool().fresh_blocks() == before);
}

TEST_CASE("no memory left: an error that says how much there was") {
  CHECK_THROWS_WITH_AS(gpu().pool().take(std::size_t{1} << 45), doctest::Contains("use smaller batches"), DeviceError);
}

TEST_CASE("a recording does the work again, on memory that nobody else gets") {
  const strata::Conv2dProblem p{.n = 1, .h = 4, .w = 4, .in = 8, .out = 8};
  const DeviceArray<float> x(numbers(p.input_size(), 1)), w(numbers(p.weight_size(), 2)),
      y(std::size_t(p.output_size()));
  const auto work = [&] {  // takes workspaces from the pool
    gpu().conv2d_forward(p, x.data(), w.data(), nullptr, y.data(), strata::Activation::relu, false,
                         strata::Precision::fp32);
    gpu().relu_forward(p.output_size(), y.data(), y.data());
  };
  work();
  const Numbers wanted = y.download();
  gpu().fill(y.data(), p.output_size(), -1);
  gpu().synchronize();

  gpu().begin_recording();
  CHECK_THROWS_AS(gpu().synchronize(), strata::Error);
  CHECK_THROWS_AS(gpu().begin_recording(), strata::Error);
  float number = 0;
  CHECK_THROWS_AS(gpu().upload(y.data(), &number, sizeof number), strata::Error);
  work();
  const auto recording = gpu().end_recording();
  CHECK(y.download() == Numbers(wanted.size(), -1.0f));  // written down, not done
  recording->replay();
  CHECK(y.download() == wanted);

  const Numbers other = numbers(p.input_size(), 3);  // replays read what lies there then
  const strata::Storage held = gpu().pool().take(std::size_t(p.weight_size()) * 8 * sizeof(float));
  gpu().fill(static_cast<float*>(held.data()), p.weight_size(), 5);
  gpu().upload(x.data(), other.data(), other.size() * sizeof(float));
  recording->replay();
  const Numbers replayed = y.download();
  work();
  CHECK(y.download() == replayed);
  CHECK(replayed != wanted);
  Numbers kept(std::size_t(p.weight_size()));
  gpu().download(kept.data(), held.data(), kept.size() * sizeof(float));
  CHECK(kept == Numbers(kept.size(), 5.0f));
  CHECK_THROWS_AS(gpu().end_recording(), strata::Error);
}

TEST_CASE(
    "what is taken from an input's pool while work is recorded is the recording's, and outlives it where it is held") {
  constexpr std::size_t count = 1000;
  const auto fill = [](const strata::Storage& block, float value) {
    gpu().fill(static_cast<float*>(block.data()), count, value);
  };
  const auto holds = [](const strata::Storage& block, float value) {
    Numbers got(count);
    gpu().download(got.data(), block.data(), count * sizeof(float));
    return got == Numbers(count, value);
  };
  const strata::Storage input = gpu().pool().take(count * sizeof(float));
  gpu().begin_recording();
  const strata::Storage result = input.pool().take(count * sizeof(float));
  fill(result, 2);
  fill(input.pool().take(count * sizeof(float)), 1);  // given back at once, as images between layers are
  auto recording = gpu().end_recording();

  const strata::Storage other = input.pool().take(count * sizeof(float));
  fill(other, 5);
  recording->replay();
  CHECK(holds(result, 2));
  CHECK(holds(other, 5));
  const strata::Storage next = result.pool().take(count * sizeof(float));  // computed from the result
  fill(next, 6);
  recording->replay();
  CHECK(holds(next, 6));
  recording.reset();
  CHECK(holds(result, 2));
}
