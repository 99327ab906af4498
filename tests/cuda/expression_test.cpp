// Expressions of the CUDA backend against math/functions.hpp in double: each operation, deep and long programs,
// repeated images, gradients that are added to, sums.
#include "device_test.hpp"
#include "strata/math/functions.hpp"

using namespace device_test;
using strata::ExpressionProgram, strata::GradientTarget, strata::Operation, strata::UpstreamGradient;
namespace math = strata::math;

namespace {

/// An expression as a program, and its value and derivatives for two numbers in double.
struct Case {
  const char* name;
  void (*write)(ExpressionProgram&, const float* a, const float* b);
  double (*value)(double a, double b);
  void (*gradient)(double a, double b, double g, double& ga, double& gb);
};

template <class F>
Case unary(const char* name, void (*write)(ExpressionProgram&, const float*, const float*)) {
  return {name, write, [](double a, double) { return F::value(a); },
          [](double a, double, double g, double& ga, double& gb) { ga = g * F::derivative(a, F::value(a)), gb = 0; }};
}
template <class F>
Case binary(const char* name, void (*write)(ExpressionProgram&, const float*, const float*)) {
  return {name, write, [](double a, double b) { return F::value(a, b); },
          [](double a, double b, double g, double& ga, double& gb) { F::backward(a, b, F::value(a, b), g, ga, gb); }};
}
template <Operation O>
void write_unary(ExpressionProgram& p, const float* a, const float*) {
  p.push_leaf(a), p.push(O);
}
template <Operation O>
void write_binary(ExpressionProgram& p, const float* a, const float* b) {
  p.push_leaf(a), p.push_leaf(b), p.push(O);
}
constexpr math::Clamp clamp{0.4, 0.9};

const Case cases[] = {
    unary<math::Negate>("negate", write_unary<Operation::negate>),
    unary<math::Square>("square", write_unary<Operation::square>),
    unary<math::Sqrt>("sqrt", write_unary<Operation::sqrt>),
    unary<math::Abs>("abs", write_unary<Operation::abs>),
    unary<math::Exp>("exp", write_unary<Operation::exp>),
    unary<math::Log>("log", write_unary<Operation::log>),
    unary<math::Sigmoid>("sigmoid", write_unary<Operation::sigmoid>),
    unary<math::Tanh>("tanh", write_unary<Operation::tanh>),
    unary<math::Erf>("erf", write_unary<Operation::erf>),
    {"clamp", [](ExpressionProgram& p, const float* a, const float*) { p.push_leaf(a), p.push_clamp(0.4f, 0.9f); },
     [](double a, double) { return clamp.value(a); },
     [](double a, double, double g, double& ga, double& gb) { ga = g * clamp.derivative(a, 0.0), gb = 0; }},
    {"leaky_relu(a - b)",
     [](ExpressionProgram& p, const float* a, const float* b) {
       write_binary<Operation::subtract>(p, a, b), p.push(Operation::leaky_relu, 0.25f);
     },
     [](double a, double b) { return a > b ? a - b : 0.25 * (a - b); },
     [](double a, double b, double g, double& ga, double& gb) { ga = g * (a > b ? 1 : 0.25), gb = -ga; }},
    {"relu(a - b)",
     [](ExpressionProgram& p, const float* a, const float* b) {
       write_binary<Operation::subtract>(p, a, b), p.push(Operation::leaky_relu, 0.0f);
     },
     [](double a, double b) { return a > b ? a - b : 0; },
     [](double a, double b, double g, double& ga, double& gb) { ga = a > b ? g : 0, gb = -ga; }},
    {"pow(a, 1.5)",
     [](ExpressionProgram& p, const float* a, const float*) { p.push_leaf(a), p.push(Operation::power, 1.5f); },
     [](double a, double) { return std::pow(a, 1.5); },
     [](double a, double, double g, double& ga, double& gb) { ga = g * 1.5 * std::sqrt(a), gb = 0; }},
    {"pow(a, 0)",
     [](ExpressionProgram& p, const float* a, const float*) { p.push_leaf(a), p.push(Operation::power, 0.0f); },
     [](double, double) { return 1.0; },
     [](double, double, double, double& ga, double& gb) { ga = gb = 0; }},
    binary<math::Add>("add", write_binary<Operation::add>),
    binary<math::Subtract>("subtract", write_binary<Operation::subtract>),
    binary<math::Multiply>("multiply", write_binary<Operation::multiply>),
    binary<math::Divide>("divide", write_binary<Operation::divide>),
    binary<math::Maximum>("maximum", write_binary<Operation::maximum>),
    binary<math::Minimum>("minimum", write_binary<Operation::minimum>),
    {"Charbonnier: sqrt(square(a - b) + constant)",
     [](ExpressionProgram& p, const float* a, const float* b) {
       write_binary<Operation::subtract>(p, a, b);
       p.push(Operation::square), p.push_constant(0.25f), p.push(Operation::add), p.push(Operation::sqrt);
     },
     [](double a, double b) { return std::sqrt((a - b) * (a - b) + 0.25); },
     [](double a, double b, double g, double& ga, double& gb) {
       ga = g * (a - b) / std::sqrt((a - b) * (a - b) + 0.25), gb = -ga;
     }},
    {"an image in several places: (a * a + b) / a - b",
     [](ExpressionProgram& p, const float* a, const float* b) {
       p.push_leaf(a), p.push_leaf(a), p.push(Operation::multiply), p.push_leaf(b), p.push(Operation::add);
       p.push_leaf(a), p.push(Operation::divide), p.push_leaf(b), p.push(Operation::subtract);
     },
     [](double a, double b) { return (a * a + b) / a - b; },
     [](double a, double b, double g, double& ga, double& gb) { ga = g * (1 - b / (a * a)), gb = g * (1 / a - 1); }},
    {"nested to the greatest depth: a - (a - (a - ...))",
     [](ExpressionProgram& p, const float* a, const float* b) {
       for (int i = 1; i < ExpressionProgram::max_depth; ++i) p.push_leaf(a);
       p.push_leaf(b);
       for (int i = 1; i < ExpressionProgram::max_depth; ++i) p.push(Operation::subtract);
     },
     [](double a, double b) { return a - b; },  // an odd number of subtractions
     [](double, double, double g, double& ga, double& gb) { ga = g, gb = -g; }},
    {"the greatest length: b + a * 0.9 * 0.9 ...",
     [](ExpressionProgram& p, const float* a, const float* b) {
       p.push_leaf(b), p.push_leaf(a);
       for (int i = 0; i < (ExpressionProgram::max_length - 3) / 2; ++i)
         p.push_constant(0.9f), p.push(Operation::multiply);
       p.push(Operation::add);
     },
     [](double a, double b) { return b + a * std::pow(double(0.9f), (ExpressionProgram::max_length - 3) / 2); },
     [](double, double, double g, double& ga, double& gb) {
       ga = g * std::pow(double(0.9f), (ExpressionProgram::max_length - 3) / 2), gb = g;
     }},
};

/// From 0.25 to 1, some pairs equal, some on the clamp's limits.
Numbers positive(std::int64_t count, std::uint32_t seed) {
  Numbers x = numbers(count, seed);
  for (float& v : x) v = 0.25f + 0.75f * std::abs(v);
  if (count > 2) x[0] = 0.5f, x[1] = 0.4f, x[2] = 0.9f;
  return x;
}

constexpr double tolerance = 60 * unit;  // of up to fifteen subtractions, and of functions a few units wrong

}  // namespace

TEST_CASE("every operation, forward and backward") {
  for (const Case& c : cases)
    for (const std::int64_t size : {1, 6, 130}) {
      CAPTURE(c.name);
  CAPTURE(size);
      in_random_order([&] {
        const std::size_t count = std::size_t(size);
        const Numbers a = positive(size, 1), b = positive(size, 2), gy = numbers(size, 3), old = numbers(size, 4);
        std::vector<double> y(count), ga(count), gb(count), sum = doubles(old), uniform(count);
        for (std::size_t i = 0; i < count; ++i) {
          double unused = 0;
          y[i] = c.value(double(a[i]), double(b[i]));
          c.gradient(double(a[i]), double(b[i]), double(gy[i]), ga[i], gb[i]);
          sum[i] += ga[i];
          c.gradient(double(a[i]), double(b[i]), 0.5 * double(gy[0]), uniform[i], unused);
        }
        const DeviceArray<float> dev_a(a), dev_b(b), dev_gy(gy), dev_y(count), dev_ga(count), dev_gb(count),
            dev_sum(old), dev_uniform(count);
        ExpressionProgram program;
        c.write(program, dev_a.data(), dev_b.data());
        REQUIRE(program.complete());
        gpu().expression_forward(program, size, dev_y.data());
        CHECK(largest_error(dev_y, y) <= tolerance);

        std::vector<GradientTarget<>> targets{{dev_ga.data(), false}, {dev_gb.data(), false}};
        if (program.leaf(0) == dev_b.data()) std::swap(targets[0], targets[1]);
        targets.resize(std::size_t(program.leaves()));
        const bool has_b = program.leaves() == 2, a_first = program.leaf(0) == dev_a.data();
        gpu().expression_backward(program, size, {.values = dev_gy.data()}, targets);
        CHECK(largest_error(dev_ga, ga) <= tolerance);
        if (has_b) CHECK(largest_error(dev_gb, gb) <= tolerance);

        std::vector<GradientTarget<>> only_a(targets.size());  // b's gradient is not wanted
        only_a[a_first ? 0 : 1] = {dev_sum.data(), true};
        gpu().expression_backward(program, size, {.values = dev_gy.data()}, only_a);
        CHECK(largest_error(dev_sum, sum) <= tolerance);
        only_a[a_first ? 0 : 1] = {dev_uniform.data(), false};
        gpu().expression_backward(program, size, {.values = dev_gy.data(), .uniform = true, .factor = 0.5f}, only_a);
        CHECK(largest_error(dev_uniform, uniform) <= tolerance);
      });
    }
}

TEST_CASE("the derivative of the absolute value at 0 is 0, and a clamp passes gradients at its ends") {
  const DeviceArray<float> x(Numbers{0, -1, 2, 0.5f, 3}), gy(Numbers(5, 1.0f)), dx(5);
  ExpressionProgram absolute, limited;
  absolute.push_leaf(x.data()), absolute.push(Operation::abs);
  limited.push_leaf(x.data()), limited.push_clamp(0, 2);
  const GradientTarget<> target{dx.data(), false};
  gpu().expression_backward(absolute, 5, {.values = gy.data()}, {&target, 1});
  CHECK(dx.download() == Numbers{0, -1, 1, 1, 1});
  gpu().expression_backward(limited, 5, {.values = gy.data()}, {&target, 1});
  CHECK(dx.download() == Numbers{1, 0, 1, 1, 0});
}

TEST_CASE("sums, at any alignment, in the same bits for every order") {
  for (const std::int64_t size : {1, 5, 4096, 10001})
    for (const std::int64_t shift : {0, 1}) {
      CAPTURE(size);
  CAPTURE(shift);
      const Numbers a = numbers(size + shift, 1), b = numbers(size + shift, 2);
      double wanted = 0;
      for (std::size_t i = std::size_t(shift); i < a.size(); ++i)
        wanted += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i])) + 0.25;
      const DeviceArray<float> dev_a(a), dev_b(b);
      ExpressionProgram program;
      write_binary<Operation::subtract>(program, dev_a.data() + shift, dev_b.data() + shift);
      program.push(Operation::square), program.push_constant(0.25f), program.push(Operation::add);
      float first = 0;
      in_every_order([&] {
        const DeviceArray<float> result(1);
        gpu().expression_sum(program, size, 0.5, result.data());
        const float got = result.download()[0];
        CHECK(std::abs(double(got) - 0.5 * wanted) <= 60 * unit * 0.5 * wanted);  // a number passes some 30 additions
        if (first == 0) first = got;
        CHECK(got == first);
      });
    }
}

TEST_CASE("programs that are none are errors") {
  const DeviceArray<float> x(4);
  ExpressionProgram program;
  CHECK_THROWS_AS(program.push(Operation::add), strata::Error);
  CHECK_THROWS_AS(gpu().expression_forward(program, 4, x.data()), strata::Error);
  for (int i = 0; i < ExpressionProgram::max_depth; ++i) program.push_leaf(x.data());
  CHECK_THROWS_AS(program.push_leaf(x.data()), strata::Error);
  ExpressionProgram wide;
  for (int i = 0; i < ExpressionProgram::max_leaves; ++i) wide.push_leaf(x.data() + i);
  CHECK_THROWS_AS(wide.push_leaf(x.data() + ExpressionProgram::max_leaves), strata::Error);
  ExpressionProgram one;
  one.push_leaf(x.data());
  CHECK_THROWS_AS(gpu().expression_backward(one, 4, {}, {}), strata::ShapeError);
}
