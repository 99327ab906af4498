// Losses that are more than one operation: against PyTorch (tests/golden/losses.py), and their gradients by
// differences.
#include "strata/nn/loss.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "autograd/random_image.hpp"
#include "golden/losses_golden.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/core/parallel.hpp"
#include "strata/nn/losses/adversarial.hpp"
#include "strata/nn/losses/nll.hpp"
#include "strata/nn/losses/segmentation.hpp"
#include "strata/nn/losses/similarity.hpp"
#include "strata/nn/losses/smoothness.hpp"
#include "strata/nn/softmax.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

/// f(i) for the elements in PyTorch's order.
template <class T, class F>
st::Image<3, T> image_of(F f) {
  st::Image<3, T> image(2, 2, 3);
  int i = 0;
  for (std::int64_t n = 0; n < 2; ++n)
    for (int c = 0; c < 3; ++c)
      for (std::int64_t y = 0; y < 2; ++y)
        for (std::int64_t x = 0; x < 3; ++x) image(n, c, y, x) = T(f(i++));
  return image;
}

template <class T, class Target, std::size_t N>
void check(const auto& loss, const Target& target, const double (&wanted)[N]) {
  constexpr double tolerance = std::is_same_v<T, float> ? 4e-6 : 1e-13;
  st::Train pass;
  const auto prediction = pass.watch(image_of<T>([](int i) { return std::nearbyint(8 * std::sin(i + 1)) / 4; }));
  const st::Scalar<T> value = loss(prediction, target);
  CHECK(std::abs(double(value.item()) - wanted[0]) <= tolerance * std::abs(wanted[0]));
  pass.backward(value);
  const st::Image<3, T> gradient = pass.gradient(prediction);
  double largest = 0;
  for (std::size_t i = 1; i < N; ++i) largest = std::max(largest, std::abs(wanted[i]));
  std::size_t i = 1;
  for (std::int64_t n = 0; n < 2; ++n)
    for (int c = 0; c < 3; ++c)
      for (std::int64_t y = 0; y < 2; ++y)
        for (std::int64_t x = 0; x < 3; ++x, ++i) {
          CAPTURE(i);
          CHECK(std::abs(double(gradient(n, c, y, x)) - wanted[i]) <= tolerance * largest);
        }
  CHECK(i == N);
}

template <class T>
void check_all() {
  const auto target = image_of<T>([](int i) { return std::nearbyint(8 * std::cos(2 * i)) / 4; });
  const auto probabilities =
      image_of<T>([](int i) { return std::min(std::max(0.5 + 0.7 * std::cos(2 * i), 0.0), 1.0); });
  st::Tensor<st::Label> labels(st::Shape{12});
  for (std::int64_t i = 0; i < 12; ++i) labels.data()[i] = i % 3;
  constexpr auto sum = st::Reduction::sum;
  check<T>(st::HuberLoss(), target, golden::huber);
  check<T>(st::HuberLoss({.delta = 0.5, .reduction = sum}), target, golden::huber_sum);
  check<T>(st::SmoothL1Loss(), target, golden::smooth_l1);
  check<T>(st::SmoothL1Loss({.beta = 0.5, .reduction = sum}), target, golden::smooth_l1_sum);
  check<T>(st::SmoothL1Loss({.beta = 0}), target, golden::smooth_l1_zero);
  check<T>(st::BCEWithLogitsLoss(), probabilities, golden::bce);
  const st::BCEWithLogitsLoss weighted({.pos_weight = 2.5, .reduction = sum});
  check<T>([&](const auto& x, const auto& y) { return weighted(40 * x, y); }, probabilities, golden::bce_sum);
  check<T>(st::CrossEntropyLoss({.label_smoothing = 0.1}), labels, golden::cross_entropy_smooth);
  check<T>(st::CrossEntropyLoss({.reduction = sum, .label_smoothing = 0.6}), labels, golden::cross_entropy_smooth_sum);
  const std::vector<double> weight{0.5, 2.0, 1.25};
  check<T>(st::CrossEntropyLoss({.weight = weight}), labels, golden::cross_entropy_weight);
  check<T>(st::CrossEntropyLoss({.ignore_index = 1}), labels.reshaped(st::Shape{2, 2, 3}),
           golden::cross_entropy_ignore);
  check<T>(st::CrossEntropyLoss({.weight = weight, .ignore_index = 2, .label_smoothing = 0.2}), labels,
           golden::cross_entropy_both);
  check<T>(st::CrossEntropyLoss({.weight = weight, .ignore_index = 0, .reduction = sum, .label_smoothing = 0.2}),
           labels, golden::cross_entropy_both_sum);
  check<T>(st::KLDivLoss(), probabilities, golden::kl_div);
  check<T>(st::KLDivLoss({.batchmean = true}), probabilities, golden::kl_div_batchmean);
  check<T>(st::KLDivLoss({.log_target = true}), target, golden::kl_div_log);
  check<T>(st::DiceLoss(), labels, golden::dice_labels);
  check<T>(st::DiceLoss({.smooth = 1, .batch = true, .include_background = false}), labels, golden::dice_foreground);
  check<T>(st::DiceLoss(), probabilities, golden::dice_areas);
  check<T>(st::FocalLoss(), probabilities, golden::focal);
  check<T>(st::FocalLoss({.gamma = 1.5, .alpha = -1, .reduction = sum}), probabilities, golden::focal_sum);
  check<T>(st::FocalLoss(), labels, golden::focal_labels);
  check<T>(st::DiceLoss({.ignore_index = 1}), labels, golden::dice_ignore);
  check<T>(st::FocalLoss({.ignore_index = 1}), labels, golden::focal_ignore);
  check<T>(st::NLLLoss(), labels, golden::nll);
  check<T>(st::NLLLoss({.weight = weight, .ignore_index = 2}), labels.reshaped(st::Shape{2, 2, 3}), golden::nll_both);
  check<T>(st::NLLLoss({.weight = weight, .ignore_index = 0, .reduction = sum}), labels, golden::nll_both_sum);
  check<T>([](const auto& x, const auto&) { return st::TotalVariationLoss()(x); }, target, golden::total_variation);
  check<T>(st::EdgeLoss(), target, golden::edge_sobel);
  check<T>(st::EdgeLoss({.filter = st::EdgeFilter::laplacian, .epsilon = 0.5}), target, golden::edge_laplacian);
  using enum st::GANMode;
  const auto check_gan = [&](st::GANOptions options, const auto& discriminator) {
    const st::GANLoss gan(options);
    check<T>([&](const auto& x, const auto& y) { return gan.discriminator(x, y - x); }, target, discriminator);
  };
  check_gan({.mode = vanilla, .real_label = 0.9}, golden::gan_vanilla);
  check_gan({.mode = least_squares}, golden::gan_least_squares);
  check_gan({.mode = hinge}, golden::gan_hinge);
  check_gan({.mode = wasserstein}, golden::gan_wasserstein);
  const auto check_generator = [&](st::GANMode mode, const auto& generator) {
    check<T>([&](const auto& x, const auto&) { return st::GANLoss({.mode = mode}).generator(x); }, target, generator);
  };
  check_generator(vanilla, golden::generator_vanilla);
  check_generator(least_squares, golden::generator_least_squares);
  check_generator(hinge, golden::generator_hinge);
  check_generator(wasserstein, golden::generator_hinge);
}

}  // namespace

TEST_CASE("losses and their gradients are torch's, in float64 and float32") {
  check_all<double>();
  check_all<float>();
}

TEST_CASE("gradients of losses by differences, for the target too") {
  const auto p = random_image<3>(2, 4, 3, 1), t = random_image<3>(2, 4, 3, 2);
  const auto check = [&](const auto& loss) {
    const auto report = st::gradient_check([&](auto&, const auto& a, const auto& b) { return loss(a, b); }, p, t);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  check(st::HuberLoss({.delta = 0.4}));
  check(st::SmoothL1Loss({.beta = 0.4}));
  check(st::SmoothL1Loss({.beta = 0, .reduction = st::Reduction::sum}));
  check(st::BCEWithLogitsLoss());
  check(st::BCEWithLogitsLoss({.pos_weight = 3, .reduction = st::Reduction::half_sum}));
  st::Tensor<st::Label> labels(st::Shape{24});
  for (std::int64_t i = 0; i < 24; ++i) labels.data()[i] = i % 3;
  for (const double smoothing : {0.2, 1.0}) {
    const st::CrossEntropyLoss loss({.label_smoothing = smoothing});
    const auto report = st::gradient_check([&](auto&, const auto& x) { return loss(5 * x, labels); }, p);
    CHECK_MESSAGE(report.ok(), report.str());
  }
}

TEST_CASE("gradients of losses that are computed by loops, by differences, over odd shapes") {
  for (const auto [n, h, w] : {std::array<std::int64_t, 3>{1, 1, 1}, {2, 5, 3}, {3, 1, 4}}) {
    const auto p = random_image<5, double>(n, h, w, 1), t = random_image<5, double>(n, h, w, 2, 0, 1);
    st::Tensor<st::Label> labels(st::Shape{n * h * w});
    for (std::int64_t i = 0; i < labels.size(); ++i) labels.data()[i] = (i * 7) % 5;
    const auto check = [&](const auto& loss) {
      const auto report = st::gradient_check([&](auto&, const auto& x) { return loss(3 * x); }, p);
      CHECK_MESSAGE(report.ok(), report.str());
    };
    check([&](const auto& x) {
      return st::CrossEntropyLoss({.weight = {1, 2, 0.5, 0, 3}, .ignore_index = 7, .label_smoothing = 0.1})(x, labels);
    });
    check([&](const auto& x) { return st::DiceLoss()(x, labels); });
    check([&](const auto& x) { return st::DiceLoss({.smooth = 1, .batch = true})(x, t); });
    check([&](const auto& x) { return st::FocalLoss({.gamma = 3})(x, labels); });
    const st::Label most = n * h * w == 1 ? -100 : labels.data()[0];  // one that occurs, but where no other is there
    check([&](const auto& x) { return st::DiceLoss({.smooth = 1, .ignore_index = most})(x, labels); });
    check([&](const auto& x) { return st::FocalLoss({.ignore_index = most})(x, labels); });
    check([&](const auto& x) { return st::NLLLoss({.weight = {1, 2, 0.5, 4, 3}, .ignore_index = most})(x, labels); });
    check([&](const auto& x) { return st::FocalLoss({.gamma = 0.5, .reduction = st::Reduction::half_sum})(x, t); });
    if (h * w == 1) continue;  // no neighbours, so no gradient either
    check([&](const auto& x) { return st::TotalVariationLoss()(x); });
    check([&](const auto& x) { return st::EdgeLoss()(x, t); });
    check([&](const auto& x) { return st::EdgeLoss({.filter = st::EdgeFilter::laplacian, .epsilon = 0.01})(x, t); });
  }
}

TEST_CASE("options of losses in every spelling") {
  const st::CrossEntropyLoss one({}), two, three{{}}, four = {}, five({.label_smoothing = 0.5}), six(five);
  const st::CrossEntropyOptions options{.label_smoothing = 0.5};
  const st::CrossEntropyLoss seven(options), eight(st::CrossEntropyOptions{});
  const auto p = random_image<3, double>(1, 2, 2, 1);
  st::Tensor<st::Label> labels(st::Shape{4});
  labels.fill(1);
  const double plain = two(p, labels).item(), smooth = five(p, labels).item();
  CHECK(plain != smooth);
  for (const auto* loss : {&one, &three, &four, &eight}) CHECK((*loss)(p, labels).item() == plain);
  for (const auto* loss : {&six, &seven}) CHECK((*loss)(p, labels).item() == smooth);
  CHECK(st::MSELoss({})(p, p).item() == 0);
  CHECK(st::DiceLoss({})(p, labels).item() == st::DiceLoss()(p, labels).item());
  CHECK(st::SSIMLoss({})(random_image<1>(1, 12, 12, 1), random_image<1>(1, 12, 12, 1)).item() < 1e-5);
}

TEST_CASE("NLLLoss of log_softmax is cross entropy") {
  const auto p = random_image<5, double>(2, 3, 4, 1);
  st::Tensor<st::Label> labels(st::Shape{24});
  for (std::int64_t i = 0; i < labels.size(); ++i) labels.data()[i] = (i * 7) % 5;
  const std::vector<double> weight{1, 2, 0.5, 4, 3};
  st::Train one, two;
  const auto x = one.watch(p), y = two.watch(p);
  const auto in_two = st::NLLLoss({.weight = weight, .ignore_index = 3})(st::log_softmax(one, 30 * x), labels);
  const auto at_once = st::CrossEntropyLoss({.weight = weight, .ignore_index = 3})(30 * y, labels);
  CHECK(in_two.item() == doctest::Approx(at_once.item()).epsilon(1e-13));
  one.backward(in_two);
  two.backward(at_once);
  const auto gx = one.gradient(x), gy = two.gradient(y);
  for (std::int64_t i = 0; i < gx.size(); ++i) CHECK(std::abs(gx.data()[i] - gy.data()[i]) <= 1e-13);
  labels.fill(3);
  CHECK_THROWS_WITH_AS((void)st::NLLLoss({.ignore_index = 3})(p, labels), doctest::Contains("no label counts"),
                       st::ValueError);
  CHECK_THROWS_WITH_AS((void)st::FocalLoss({.ignore_index = 3})(p, labels), doctest::Contains("no label counts"),
                       st::ValueError);
  CHECK(st::DiceLoss({.ignore_index = 3})(p, labels).item() == 0);
  labels.data()[0] = 9;
  CHECK_THROWS_WITH_AS((void)st::NLLLoss({.ignore_index = 3})(p, labels), doctest::Contains("label 9 is no class"),
                       st::ValueError);
}

TEST_CASE("their bits do not depend on the number of threads") {
  const auto p = random_image<3, float>(2, 61, 47, 1), t = random_image<3, float>(2, 61, 47, 2, 0, 1);
  st::Tensor<st::Label> labels(st::Shape{2 * 61 * 47});
  for (std::int64_t i = 0; i < labels.size(); ++i) labels.data()[i] = i % 3;
  const auto run = [&](int threads) {
    st::set_num_threads(threads);
    std::vector<float> numbers;
    const auto add = [&](const auto& loss) {
      st::Train pass;
      const auto x = pass.watch(p);
      const auto value = loss(x);
      pass.backward(value);
      const auto gradient = pass.gradient(x);
      numbers.push_back(value.item());
      numbers.insert(numbers.end(), gradient.span().begin(), gradient.span().end());
    };
    add([&](const auto& x) { return st::DiceLoss()(x, labels); });
    add([&](const auto& x) { return st::FocalLoss()(x, t); });
    add([&](const auto& x) { return st::FocalLoss()(x, labels); });
    add([&](const auto& x) { return st::TotalVariationLoss()(x); });
    add([&](const auto& x) { return st::EdgeLoss()(x, t); });
    add([&](const auto& x) { return st::CrossEntropyLoss({.ignore_index = 2})(x, labels); });
    return numbers;
  };
  const auto one = run(1);
  CHECK(one == run(2));
  CHECK(one == run(3));
  st::set_num_threads(2);
}

TEST_CASE("one number for each sample is a target too") {
  st::Tensor<float> wanted(st::Shape{3});
  for (std::int64_t i = 0; i < 3; ++i) wanted.data()[i] = float(i);
  const auto zero = st::Image<1>::full(3, 1, 1, 0.0f);
  CHECK(st::MSELoss()(zero, wanted).item() == doctest::Approx(5.0 / 3));
  CHECK(st::L1Loss({.reduction = st::Reduction::sum})(zero, wanted).item() == 3.0f);
  CHECK(st::HuberLoss()(zero, wanted).item() == doctest::Approx((0.5 + 1.5) / 3));
  CHECK_THROWS_AS(st::MSELoss()(st::Image<1>::full(2, 1, 1, 0.0f), wanted), st::ShapeError);
}

TEST_CASE("numbers far out") {
  const auto far = st::Image<2>::full(1, 1, 1, 1000.0f), zero = st::Image<2>::full(1, 1, 1, 0);
  CHECK(st::BCEWithLogitsLoss()(far, zero).item() == 1000.0f);
  CHECK(st::BCEWithLogitsLoss()(-far, zero).item() == 0.0f);
  CHECK(st::BCEWithLogitsLoss()(far, 0.0f).item() == 1000.0f);  // a number is the target of all
  CHECK(st::MSELoss()(far, 998.0f).item() == 4.0f);
  CHECK(st::BCEWithLogitsLoss()(zero, zero).item() == doctest::Approx(std::log(2.0)));
  CHECK(st::HuberLoss({.delta = 1e-3})(1e6f * far, zero).item() == doctest::Approx(1e6));
  CHECK(std::isnan(st::HuberLoss()(std::nanf("") * far, zero).item()));
  CHECK(std::isnan(st::SmoothL1Loss()(std::nanf("") * far, zero).item()));
  CHECK(std::isnan(st::BCEWithLogitsLoss()(std::nanf("") * far, zero).item()));
}

TEST_CASE("impossible losses are value errors") {
  CHECK_THROWS_WITH_AS(st::HuberLoss({.delta = 0}), "HuberLoss: delta is 0, wanted a number above 0", st::ValueError);
  CHECK_THROWS_AS(st::HuberLoss({.delta = std::nan("")}), st::ValueError);
  CHECK_THROWS_AS(st::SmoothL1Loss({.beta = -1}), st::ValueError);
  CHECK_THROWS_AS(st::BCEWithLogitsLoss({.pos_weight = -1}), st::ValueError);
  CHECK_THROWS_AS(st::CrossEntropyLoss({.label_smoothing = 1.5}), st::ValueError);
  CHECK_THROWS_AS(st::HuberLoss()(st::Image<1>(), st::Image<1>()), st::ShapeError);
  CHECK_THROWS_AS(st::CrossEntropyLoss({.weight = {1, -1}}), st::ValueError);
  CHECK_THROWS_AS(st::DiceLoss({.smooth = -1}), st::ValueError);
  CHECK_THROWS_AS(st::FocalLoss({.gamma = -1}), st::ValueError);
  CHECK_THROWS_AS(st::FocalLoss({.alpha = 2}), st::ValueError);
  CHECK_THROWS_AS(st::EdgeLoss({.epsilon = -1}), st::ValueError);
  CHECK_THROWS_AS(st::GANLoss({.real_label = 0}), st::ValueError);
  CHECK_THROWS_AS(st::TotalVariationLoss()(st::Image<1>()), st::ShapeError);
  const auto logits = st::Image<2>::full(1, 2, 3, 0.0f);
  const auto labels = [](const st::Shape& shape, st::Label label) { return st::Tensor<st::Label>::full(shape, label); };
  CHECK_THROWS_WITH_AS(st::CrossEntropyLoss({.weight = {1, 1, 1}})(logits, labels({6}, 0)),
                       "CrossEntropyLoss: 3 weights for 2 classes", st::ValueError);
  CHECK_THROWS_WITH_AS(st::CrossEntropyLoss()(logits, labels({6}, -100)), doctest::Contains("no label counts"),
                       st::ValueError);
  CHECK_THROWS_WITH_AS(st::CrossEntropyLoss()(logits, labels({1, 3, 2}, 0)), doctest::Contains("theirs are of shape"),
                       st::ShapeError);
  CHECK_THROWS_AS(st::CrossEntropyLoss()(logits, labels({6}, 2)), st::ValueError);
  CHECK_THROWS_AS(st::DiceLoss()(logits, labels({6}, 2)), st::ValueError);
  CHECK_THROWS_AS(st::DiceLoss()(logits, labels({5}, 1)), st::ShapeError);
  CHECK_THROWS_AS(st::FocalLoss()(logits, st::Image<2>::full(1, 3, 2, 0.0f)), st::ShapeError);
  st::Train pass;
  const auto x = pass.watch(logits);
  CHECK_THROWS_WITH_AS(st::DiceLoss()(logits, x), doctest::Contains("no gradient flows into its target"), st::Error);
}
