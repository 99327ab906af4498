// Convolutions of the CUDA backend against the definition in double. Errors are compared with the sum of magnitudes that went
// into a result. A sum of k products is off by at most k units of it, and by a few where they are added in parts, as here;
// Winograd's transforms multiply that by about ten, and spread it over the 4 x 4 tile.
#include <algorithm>
#include <bit>

#include "device_test.hpp"
#include "strata/cuda/winograd_plan.hpp"

using namespace device_test;
using strata::Activation, strata::Conv2dProblem, strata::Precision;

namespace {

/// x rounded to `bits` bits of fraction, ties to even, or away from 0.
float rounded(float x, int bits, bool away) {
  const std::uint32_t word = std::bit_cast<std::uint32_t>(x), cut = std::uint32_t(23 - bits), half = 1u << (cut - 1);
  const std::uint32_t odd = word >> cut & 1u;
  return std::bit_cast<float>((word + (away ? half : half - 1 + odd)) >> cut << cut);
}
float as_factor(float x, Precision precision) {
  switch (precision) {
    case Precision::tf32: return rounded(x, 10, true);
    case Precision::bf16: return rounded(x, 7, false);
    case Precision::fp16: return rounded(x, 10, false);  // of numbers that are normal in fp16
    default: return x;
  }
}
Numbers as_factors(Numbers x, Precision precision) {
  for (float& v : x) v = as_factor(v, precision);
  return x;
}
/// Numbers of at least 2^-10, so that none is subnormal in fp16.
Numbers factors(std::int64_t count, std::uint32_t seed) {
  Numbers x = numbers(count, seed);
  for (float& v : x) v = std::abs(v) < 0x1p-10f ? 0x1p-10f : v;
  return x;
}

/// Calls f(y index, x index, weight index) for every product of a convolution.
template <class F>
void for_each_product(const Conv2dProblem& p, F&& f) {
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < p.out_h(); ++i)
      for (std::int64_t j = 0; j < p.out_w(); ++j)
        for (int q = 0; q < p.kernel; ++q)
          for (int r = 0; r < p.kernel_columns(); ++r) {
            const std::int64_t h = strata::padded_source(p.padding_mode, i * p.stride + q * p.dilation - p.padding, p.h);
            const std::int64_t w = strata::padded_source(p.padding_mode, j * p.stride + r * p.dilation - p.padding_columns(), p.w);
            if (h < 0 || w < 0) continue;
            for (int o = 0; o < p.out; ++o)
              for (int c = 0; c < p.group_in(); ++c)
                f(((n * p.out_h() + i) * p.out_w() + j) * p.out + o,
                  ((n * p.h + h) * p.w + w) * p.in + o / p.group_out() * p.group_in() + c,
                  ((std::int64_t(o) * p.kernel + q) * p.kernel_columns() + r) * p.group_in() + c);
          }
}

/// Gives each pixel of an image the largest magnitude of its 4 x 4 tile.
void share_magnitudes(Reference& reference, std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c) {
  std::vector<double> shared = reference.magnitude;
  for (std::int64_t image = 0; image < n; ++image)
    for (std::int64_t i = 0; i < h; ++i)
      for (std::int64_t j = 0; j < w; ++j)
        for (std::int64_t k = 0; k < c; ++k) {
          double& largest = shared[std::size_t(((image * h + i) * w + j) * c + k)];
          for (std::int64_t a = i / 4 * 4; a < std::min(h, i / 4 * 4 + 4); ++a)
            for (std::int64_t b = j / 4 * 4; b < std::min(w, j / 4 * 4 + 4); ++b)
              largest = std::max(largest, reference.magnitude[std::size_t(((image * h + a) * w + b) * c + k)]);
        }
  reference.magnitude = shared;
}

/// What is computed in float32 whatever is asked for.
bool thin(const Conv2dProblem& p) { return p.in <= 4 || p.out <= 4 || p.general(); }

void check(const Conv2dProblem& p, Precision precision = Precision::fp32) {
  const std::string shape = strata::concat(p.n, "x", p.in, "x", p.h, "x", p.w, " to ", p.out, ", kernel ", p.kernel, ", stride ",
                                           p.stride, ", padding ", p.padding, ", dilation ", p.dilation);
  CAPTURE(shape);
  CAPTURE(int(precision));
  const Precision used = thin(p) ? Precision::fp32 : precision;
  const Numbers x = factors(p.input_size(), 1), weight = factors(p.weight_size(), 2), bias = numbers(p.out, 3);
  const Numbers dy = factors(p.output_size(), 4), old_dx = numbers(p.input_size(), 5), old_dw = numbers(p.weight_size(), 6);
  const Numbers xf = as_factors(x, used), wf = as_factors(weight, used), gf = as_factors(dy, used);
  Reference y(p.output_size()), dx(p.input_size()), dw(p.weight_size()), db(p.out);
  for_each_product(p, [&](std::int64_t iy, std::int64_t ix, std::int64_t iw) {
    const double xv = double(xf[std::size_t(ix)]), wv = double(wf[std::size_t(iw)]), gv = double(gf[std::size_t(iy)]);
    y.add(iy, xv * wv), dx.add(ix, gv * wv), dw.add(iw, gv * xv);
  });
  for (std::int64_t i = 0; i < p.output_size(); ++i) db.add(i % p.out, double(dy[std::size_t(i)]));
  const bool winograd = used == Precision::fp32 && !thin(p) && strata::cuda::use_winograd(p, p.out_h(), p.out_w());
  if (winograd) share_magnitudes(y, p.n, p.out_h(), p.out_w(), p.out), share_magnitudes(dx, p.n, p.h, p.w, p.in);
  const double tolerance = winograd ? 2e-6 : 1e-6;

  const DeviceArray<float> device_x(x), device_weight(weight), device_bias(bias), device_dy(dy);
  {
    const DeviceArray<float> result(y.value.size());
    gpu().conv2d_forward(p, device_x.data(), device_weight.data(), nullptr, result.data(), Activation::none, false, precision);
    CHECK(largest_error(result, y) <= tolerance);
    Reference sum = y;
    sum.add(result.download());
    gpu().conv2d_forward(p, device_x.data(), device_weight.data(), nullptr, result.data(), Activation::none, true, precision);
    CHECK(largest_error(result, sum) <= tolerance);
  }
  {
    Reference activated = y;
    for (std::int64_t i = 0; i < p.output_size(); ++i) {
      activated.add(i, double(bias[std::size_t(i % p.out)]));
      activated.value[std::size_t(i)] = std::max(activated.value[std::size_t(i)], 0.0);
    }
    const DeviceArray<float> result(y.value.size());
    gpu().conv2d_forward(p, device_x.data(), device_weight.data(), device_bias.data(), result.data(), Activation::relu, false,
                         precision);
    CHECK(largest_error(result, activated) <= tolerance);
  }
  {
    const DeviceArray<float> result(dx.value.size());
    gpu().conv2d_backward_input(p, device_dy.data(), device_weight.data(), result.data(), false, precision);
    CHECK(largest_error(result, dx) <= tolerance);
    Reference sum = dx;
    sum.add(old_dx);
    const DeviceArray<float> added(old_dx);
    gpu().conv2d_backward_input(p, device_dy.data(), device_weight.data(), added.data(), true, precision);
    CHECK(largest_error(added, sum) <= tolerance);
  }
  {
    const DeviceArray<float> result(dw.value.size()), bias_result(db.value.size());
    gpu().conv2d_backward_weight(p, device_x.data(), device_dy.data(), {result.data(), false}, {bias_result.data(), false},
                                 precision);
    CHECK(largest_error(result, dw) <= tolerance);
    CHECK(largest_error(bias_result, db) <= tolerance);
    Reference sum = dw;
    sum.add(old_dw);
    const DeviceArray<float> added(old_dw);
    gpu().conv2d_backward_weight(p, device_x.data(), device_dy.data(), {added.data(), true}, {}, precision);
    CHECK(largest_error(added, sum) <= tolerance);
  }
}

}  // namespace

TEST_CASE("matrix products: every kernel size, stride, padding and dilation, odd extents") {
  in_random_order([] {
    check({.n = 1, .h = 1, .w = 1, .in = 5, .out = 6});                                        // one pixel, mostly padding
    check({.n = 2, .h = 5, .w = 3, .in = 7, .out = 9});                                        // channels in no fours
    check({.n = 1, .h = 20, .w = 15, .in = 5, .out = 6});                                      // weights in two ranges
    check({.n = 1, .h = 6, .w = 5, .in = 8, .out = 36, .kernel = 1, .padding = 0});            // two column blocks of 32
    check({.n = 1, .h = 7, .w = 6, .in = 20, .out = 8, .kernel = 5, .stride = 2, .padding = 2});
    check({.n = 1, .h = 8, .w = 7, .in = 8, .out = 12, .kernel = 3, .stride = 3, .padding = 1, .dilation = 2});
    check({.n = 1, .h = 6, .w = 6, .in = 8, .out = 8, .kernel = 2, .stride = 2, .padding = 0});
    check({.n = 1, .h = 5, .w = 6, .in = 8, .out = 8, .kernel = 1, .stride = 2, .padding = 0});  // pixels no tap reaches
  });
}

TEST_CASE("more than one block of pixels and of channels, all orders") {
  in_every_order([] { check({.n = 1, .h = 12, .w = 11, .in = 68, .out = 72, .kernel = 1, .padding = 0}); });
}

TEST_CASE("tensor cores: the factors are rounded, the sums are not") {
  for (const Precision precision : {Precision::tf32, Precision::bf16, Precision::fp16}) {
    in_random_order([&] {
      check({.n = 1, .h = 5, .w = 4, .in = 20, .out = 36}, precision);
      check({.n = 2, .h = 9, .w = 8, .in = 6, .out = 5, .kernel = 1, .padding = 0}, precision);
      check({.n = 1, .h = 3, .w = 3, .in = 3, .out = 8}, precision);  // thin: float32 all the same
    });
    in_every_order([&] { check({.n = 1, .h = 3, .w = 4, .in = 8, .out = 8}, precision); });
  }
}

TEST_CASE("Winograd: odd extents, images that end within a tile, paddings") {
  in_random_order([] {
    check({.n = 1, .h = 8, .w = 8, .in = 16, .out = 16});
    check({.n = 2, .h = 7, .w = 6, .in = 17, .out = 19});
    check({.n = 1, .h = 9, .w = 10, .in = 16, .out = 16, .padding = 0});
    check({.n = 1, .h = 6, .w = 6, .in = 16, .out = 20, .padding = 2});
  });
  in_every_order([] { check({.n = 1, .h = 4, .w = 4, .in = 16, .out = 16}); });
}

TEST_CASE("one to four channels on a side") {
  in_random_order([] {
    check({.n = 2, .h = 5, .w = 7, .in = 1, .out = 64});
    check({.n = 1, .h = 6, .w = 5, .in = 64, .out = 1});
    check({.n = 1, .h = 5, .w = 5, .in = 3, .out = 10, .kernel = 5, .padding = 2});
    check({.n = 1, .h = 9, .w = 8, .in = 13, .out = 3, .kernel = 3, .stride = 2, .padding = 1});
    check({.n = 1, .h = 7, .w = 6, .in = 4, .out = 12, .kernel = 4, .stride = 2, .padding = 1});
    check({.n = 1, .h = 5, .w = 4, .in = 2, .out = 2});
    check({.n = 7, .h = 1, .w = 1, .in = 30, .out = 2, .kernel = 1, .padding = 0});
    check({.n = 1, .h = 11, .w = 11, .in = 132, .out = 4, .kernel = 1, .padding = 0});  // lanes go round twice
  });
  in_every_order([] {
    check({.n = 1, .h = 4, .w = 5, .in = 1, .out = 8});
    check({.n = 1, .h = 4, .w = 5, .in = 8, .out = 1});
  });
}

TEST_CASE("groups, padding made of the image, kernels that are not square") {
  using strata::PaddingMode;
  in_random_order([] {
    check({.n = 2, .h = 5, .w = 7, .in = 6, .out = 6, .groups = 6});
    check({.n = 1, .h = 9, .w = 6, .in = 8, .out = 16, .kernel = 5, .stride = 2, .padding = 1, .groups = 4}, Precision::fp16);
    check({.n = 1, .h = 1, .w = 1, .in = 3, .out = 9, .groups = 3});
    check({.n = 2, .h = 7, .w = 6, .in = 20, .out = 12, .kernel = 1, .stride = 2, .padding = 0, .groups = 2});
    check({.n = 1, .h = 8, .w = 9, .in = 5, .out = 7, .kernel = 1, .padding = 0, .kernel_w = 7, .padding_w = 3});
    check({.n = 1, .h = 8, .w = 9, .in = 18, .out = 20, .kernel = 3, .stride = 2, .padding = 2, .dilation = 2, .kernel_w = 1, .padding_w = 0});
    for (const PaddingMode mode : {PaddingMode::reflect, PaddingMode::replicate, PaddingMode::circular}) {
      check({.n = 2, .h = 4, .w = 5, .in = 3, .out = 5, .padding_mode = mode});
      check({.n = 1, .h = 5, .w = 7, .in = 4, .out = 8, .kernel = 5, .stride = 2, .padding = 4, .groups = 2, .padding_mode = mode});
      check({.n = 1, .h = 4, .w = 7, .in = 4, .out = 4, .kernel = 2, .padding = 0, .groups = 4, .padding_mode = mode, .kernel_w = 5, .padding_w = 6});
    }
  });
  in_every_order([] {
    const Conv2dProblem p{.n = 2, .h = 12, .w = 12, .in = 4, .out = 4, .groups = 4, .padding_mode = PaddingMode::reflect};
    static Numbers first;
    const DeviceArray<float> x(numbers(p.input_size(), 1)), dy(numbers(p.output_size(), 2)), dw(std::size_t(p.weight_size()));
    gpu().conv2d_backward_weight(p, x.data(), dy.data(), {dw.data(), false}, {}, Precision::fp32);
    const Numbers got = dw.download();
    if (first.empty()) first = got;
    CHECK(first == got);
  });
}

TEST_CASE("linear layers are convolutions of one image whose pixels are the batch") {
  in_random_order([] { check({.n = 1, .h = 5, .w = 1, .in = 50, .out = 10, .kernel = 1, .padding = 0}); });
}

TEST_CASE("a gradient does not depend on the order in which blocks run") {
  const Conv2dProblem p{.n = 2, .h = 17, .w = 16, .in = 8, .out = 8};
  const DeviceArray<float> x(numbers(p.input_size(), 1)), dy(numbers(p.output_size(), 2));
  Numbers first;
  in_every_order([&] {
    const DeviceArray<float> dw(std::size_t(p.weight_size()));
    gpu().conv2d_backward_weight(p, x.data(), dy.data(), {dw.data(), false}, {}, Precision::fp32);
    const Numbers got = dw.download();
    if (first.empty()) first = got;
    CHECK(got == first);
  });
}

TEST_CASE("what makes no convolution is an error") {
  const DeviceArray<float> x(16);
  float* const any = x.data();
  CHECK_THROWS_AS(gpu().conv2d_forward({.h = 1, .w = 1, .kernel = 3, .padding = 0}, any, any, nullptr, any, Activation::none,
                                       false, Precision::fp32),
                  strata::ShapeError);
  CHECK_THROWS_AS(gpu().conv2d_forward({.n = 1 << 20, .h = 64, .w = 64}, any, any, nullptr, any, Activation::none, false,
                                       Precision::fp32),
                  strata::ShapeError);
  CHECK_THROWS_AS(gpu().conv2d_forward({.h = 2, .w = 2}, any, any, any, any, Activation::none, true, Precision::fp32),
                  strata::ValueError);
}
