#include <doctest/doctest.h>

#include <limits>
#include <numeric>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/tensor/image.hpp"

namespace st = strata;

TEST_CASE("a tensor is a handle, and clone copies") {
  st::Tensor<> a(st::Shape{2, 3});
  a.fill(1.5f);
  st::Tensor<> shared = a, copy = a.clone();
  shared.data()[4] = 7;
  CHECK(a.data()[4] == 7.0f);
  CHECK(copy.data()[4] == 1.5f);
  CHECK(a.span().size() == 6);
  CHECK(st::Tensor<>().size() == 0);
  CHECK(st::Tensor<>().empty());
  CHECK(st::Tensor<double>::zeros(st::Shape{}).data()[0] == 0.0);
  CHECK(st::Tensor<std::int64_t>::full(st::Shape{3}, 5).data()[2] == 5);
  CHECK(a.device() == st::Device::cpu());
}

TEST_CASE("reshaped keeps numbers and memory") {
  st::Tensor<> a = st::Tensor<>::full(st::Shape{2, 6}, 2.0f);
  const st::Tensor<> b = a.reshaped(st::Shape{3, 4});
  a.data()[11] = 9;
  CHECK(b.shape() == st::Shape{3, 4});
  CHECK(b.data()[11] == 9.0f);
  CHECK(a.shape() == st::Shape{2, 6});
  CHECK_THROWS_WITH_AS(a.reshaped(st::Shape{5}), doctest::Contains("2x6 has 12 elements, 5 has 5"), st::ShapeError);
}

TEST_CASE("a tensor that no memory can hold is an error, not a small tensor") {
  const std::int64_t big = std::int64_t{1} << 61;  // times 8 bytes is 2^64, which would wrap around to nothing
  CHECK_THROWS_AS(st::Tensor<double>(st::Shape{big}), st::ShapeError);
  CHECK_THROWS_AS(st::Tensor<float>(st::Shape{2, big}), st::ShapeError);
}

TEST_CASE("NCHW at the border, channels-last in memory") {
  st::Tensor<> tensor(st::Shape{2, 3, 2, 2});
  std::vector<float> nchw(24);
  std::iota(nchw.begin(), nchw.end(), 0.0f);
  st::from_nchw<float>(tensor, nchw);
  const float* memory = tensor.data();
  CHECK(memory[0] == 0);
  CHECK(memory[1] == 4);   // the second channel of the first pixel
  CHECK(memory[3] == 1);   // the first channel of the second
  CHECK(memory[12] == 12);  // the second image
  CHECK(st::to_nchw(tensor) == nchw);

  st::Tensor<> matrix(st::Shape{4, 6});
  st::from_nchw<float>(matrix, nchw);
  CHECK(matrix.data()[7] == 7);
  CHECK(st::to_nchw(matrix) == nchw);
  CHECK_THROWS_WITH_AS(st::from_nchw<float>(matrix, std::span(nchw).first(23)), doctest::Contains("23 values"),
                       st::ShapeError);
}

TEST_CASE("images are addressed by image, channel, row and column") {
  st::Image<3> image = st::Image<3>::full(2, 4, 5, 0.0f);
  image(1, 2, 3, 4) = 0.5f;
  image(0, 1, 0, 2) = 0.25f;
  CHECK(image.data()[2 * 4 * 5 * 3 - 1] == 0.5f);
  CHECK(image.data()[2 * 3 + 1] == 0.25f);
  CHECK(image.shape() == st::Shape{2, 3, 4, 5});
  CHECK(image.n() == 2);
  CHECK(image.h() == 4);
  CHECK(image.w() == 5);
  CHECK(std::as_const(image)(1, 2, 3, 4) == 0.5f);

  st::Image<3> shared = image, copy = image.clone();
  shared(0, 0, 0, 0) = 1;
  CHECK(image(0, 0, 0, 0) == 1.0f);
  CHECK(copy(0, 0, 0, 0) == 0.0f);
  CHECK(st::Image<3>().empty());
  CHECK(st::Image<3>().shape() == st::Shape{0, 3, 0, 0});
}

TEST_CASE("only a tensor of the right channel count is an image") {
  CHECK(st::Image<3>(st::Tensor<>(st::Shape{1, 3, 2, 2})).w() == 2);
  CHECK_THROWS_WITH_AS(st::Image<3>(st::Tensor<>(st::Shape{1, 1, 2, 2})), doctest::Contains("wanted (N, 3, H, W)"),
                       st::ShapeError);
  CHECK_THROWS_AS(st::Image<3>(st::Tensor<>(st::Shape{3, 3})), st::ShapeError);
  CHECK_THROWS_AS(st::Image<1>(-1, 2, 2), st::ShapeError);
}

TEST_CASE("names of devices") {
  CHECK(st::parse_device("cpu") == st::Device::cpu());
  CHECK(st::parse_device("cuda") == st::Device::cuda(0));
  CHECK(st::parse_device("cuda:3") == st::Device::cuda(3));
  CHECK(st::parse_device("cuda:3").str() == "cuda:3");
  CHECK(st::Device::cpu().str() == "cpu");
  for (const char* wrong :
       {"", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "cuda: 1", "cpu:0", "cuda:99999999999"})
    CHECK_THROWS_WITH_AS(st::parse_device(wrong), doctest::Contains("wanted cpu, cuda or cuda:N"), st::ValueError);
}

namespace {
st::Image<2> make(float value) { return st::Image<2>::full(1, 8, 8, value); }
}  // namespace

TEST_CASE("what is taken from a temporary lives on") {
  using Image = st::Image<2>;
  using Tensor = st::Tensor<>;
  static_assert(!std::is_reference_v<decltype(make(1).shape())> && !std::is_reference_v<decltype(make(1).tensor())>);
  static_assert(!std::is_reference_v<decltype(make(1)(0, 0, 0, 0))>);
  static_assert(!std::is_reference_v<decltype(std::declval<Tensor>().shape())>);
  static_assert(!std::is_pointer_v<decltype(make(1).data())> &&
                !std::is_pointer_v<decltype(std::declval<Tensor>().data())>);
  static_assert(!std::is_same_v<decltype(make(1).span()), std::span<float>>);
  static_assert(!std::is_same_v<decltype(std::declval<const Image>().span()), std::span<const float>>);
  static_assert(!std::ranges::contiguous_range<decltype(make(1).span())>);  // else a std::span could be made of it
  static_assert(std::ranges::random_access_range<decltype(make(1).span())>);

  double sum = 0;
  const auto numbers = make(3).data();
  const auto all = make(5).span();
  const Image other = make(-1);  // would take the memory of what is gone
  for (const float v : make(2).span()) sum += double(v);
  CHECK(sum == 2 * 128);
  CHECK(numbers[127] == 3.0f);
  CHECK(*numbers == 3.0f);
  CHECK(all.size() == 128);
  CHECK(std::accumulate(all.begin(), all.end(), 0.0f) == 5.0f * 128);
  CHECK(std::vector<float>(all.begin(), all.end()).back() == 5.0f);
  CHECK(make(7)(0, 1, 7, 7) == 7.0f);
  CHECK(make(7).tensor().data()[3] == 7.0f);
  CHECK(other.data()[0] == -1.0f);
}

TEST_CASE("clamp of an image, with numbers of any kind") {
  const auto image = st::Image<1>::full(1, 1, 2, 3.0f);
  CHECK(clamp(image, 0, 1).data()[0] == 1.0f);
  CHECK(clamp(image, 0.0f, 1.5).data()[0] == 1.5f);
  CHECK(clamp(image).data()[1] == 1.0f);
  CHECK_THROWS_AS(clamp(image, 1, 0), st::ValueError);
}
