// Cross entropy of the CUDA backend against the formula in double.
#include <algorithm>

#include "device_test.hpp"

using namespace device_test;

namespace {

double log_sum_exp(const float* row, int classes) {
  const double largest = double(*std::max_element(row, row + classes));
  double total = 0;
  for (int c = 0; c < classes; ++c) total += std::exp(double(row[c]) - largest);
  return largest + std::log(total);
}

void check(std::int64_t rows, int classes, float size_of_logits, double smoothing = 0) {
  const std::string shape = strata::concat(rows, " rows of ", classes, " classes, smoothing ", smoothing);
  CAPTURE(shape);
  Numbers x = numbers(rows * classes, 1);
  for (float& v : x) v *= size_of_logits;
  strata::Rng rng(2);
  std::vector<std::int64_t> labels(static_cast<std::size_t>(rows));
  for (auto& label : labels) label = rng.below(std::uint32_t(classes));
  const Numbers old = numbers(rows * classes, 3);
  const double factor = 1.0 / double(rows);
  double loss = 0;
  std::vector<double> dx(x.size()), added = doubles(old);
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* row = x.data() + r * classes;
    const double total = log_sum_exp(row, classes);
    for (int c = 0; c < classes; ++c) {
      const std::size_t i = std::size_t(r * classes + c);
      const double target = smoothing / classes + (c == labels[std::size_t(r)] ? 1 - smoothing : 0);
      loss += factor * target * (total - double(row[c]));
      dx[i] = 0.5 * factor * (std::exp(double(row[c]) - total) - target);
      added[i] += dx[i];
    }
  }
  const DeviceArray<float> dev_x(x), result(1), dev_dx(x.size()), dev_added(old), upstream(Numbers{0.5f});
  const DeviceArray<std::int64_t> dev_labels(labels);
  gpu().cross_entropy_forward(rows, classes, dev_x.data(), dev_labels.data(), smoothing, factor, result.data());
  // logits of size s are subtracted from each other with an error of s units
  CHECK(std::abs(double(result.download()[0]) - loss) <= (20 + 2 * double(size_of_logits)) * unit * (1 + loss));
  gpu().cross_entropy_backward(rows, classes, dev_x.data(), dev_labels.data(), smoothing, factor,
                               {.values = upstream.data(), .uniform = true}, dev_dx.data(), false);
  CHECK(largest_error(dev_dx, dx, factor) <= (20 + 2 * double(size_of_logits)) * unit);
  gpu().cross_entropy_backward(rows, classes, dev_x.data(), dev_labels.data(), smoothing, factor, {.factor = 0.5f},
                               dev_added.data(), true);
  // What is added to is of size 1, and rounds by as much; the gradient is of size `factor`.
  CHECK(largest_error(dev_added, added) <= (3 + factor * (20 + 2 * double(size_of_logits))) * unit);
}

}  // namespace

TEST_CASE("cross entropy, forward and backward") {
  in_every_order([] {
    check(5, 10, 1);
    check(5, 10, 1, 0.1);
  });
  in_random_order([] {
    check(1, 1, 1);
    check(1, 2, 200);  // exp(200) would be infinite
    check(130, 33, 3);
    check(4, 100, 10);
    check(1, 1, 1, 1);
    check(130, 33, 3, 0.25);
    check(4, 100, 10, 1);
  });
}

TEST_CASE("one large logit, first among its lane's classes: the exponentials of the others do not overflow") {
  Numbers logits(100, 0.0f);
  logits[3] = 300;
  const DeviceArray<float> x(logits), result(1), dx(100);
  const DeviceArray<std::int64_t> labels(std::vector<std::int64_t>{5});
  gpu().cross_entropy_forward(1, 100, x.data(), labels.data(), 0, 1, result.data());
  gpu().cross_entropy_backward(1, 100, x.data(), labels.data(), 0, 1, {}, dx.data(), false);
  CHECK(result.download()[0] == 300);
  Numbers wanted(100, 0.0f);
  wanted[3] = 1, wanted[5] = -1;
  CHECK(dx.download() == wanted);
}

TEST_CASE("a label that is no class makes the loss NaN") {
  for (const std::int64_t label : {-1, 3}) {
    const DeviceArray<float> x(Numbers{1, 2, 3}), result(1);
    const DeviceArray<std::int64_t> labels(std::vector<std::int64_t>{label});
    gpu().cross_entropy_forward(1, 3, x.data(), labels.data(), 0.1, 1, result.data());
    CHECK(std::isnan(result.download()[0]));
  }
}
