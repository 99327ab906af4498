// What the tests of the CUDA backend share: a device, arrays of exact size, references in double with the sum of
// magnitudes behind each element, and the orders in which threads and blocks run. The device is the host execution of
// kernels, or, where STRATA_TEST_ON_DEVICE is defined (tests/cuda_device), one of NVIDIA's, which has an order of its
// own.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "strata/core/random.hpp"
#include "strata/kernels/accelerator.hpp"
#if defined(STRATA_TEST_ON_DEVICE)
#include "cuda_device/device_memory.hpp"
#else
#include "cuda_on_host_control.hpp"
#endif

namespace device_test {

using Numbers = std::vector<float>;
#if defined(STRATA_TEST_ON_DEVICE)
namespace memory = cuda_device;
#else
namespace memory = cuda_on_host;
#endif

/// The backend, which the program holds once.
inline strata::Accelerator& gpu() { return strata::accelerator(strata::Device::cuda()); }

/// An array on the device, exactly as large as it says; NaN where nothing is given. download() waits for the backend's
/// work.
template <class T>
class DeviceArray : public memory::DeviceArray<T> {
 public:
  using memory::DeviceArray<T>::DeviceArray;
  std::vector<T> download() const {
    gpu().synchronize();
    return memory::DeviceArray<T>::download();
  }
};

#if defined(STRATA_TEST_ON_DEVICE)
template <class Test>
void in_every_order(Test&& test) {
  test();
  test();  // the same bits
}
template <class Test>
void in_random_order(Test&& test) {
  test();
}
#else
/// Runs test() with threads and blocks in forward, reverse and a random order.
template <class Test>
void in_every_order(Test&& test) {
  for (const auto order : {cuda_on_host::Order::forward, cuda_on_host::Order::reverse, cuda_on_host::Order::random}) {
    cuda_on_host::options().order = order;
    CAPTURE(int(order));
    test();
  }
  cuda_on_host::options().order = cuda_on_host::Order::forward;
}
/// Runs test() in a random order only: for what takes long.
template <class Test>
void in_random_order(Test&& test) {
  cuda_on_host::options().order = cuda_on_host::Order::random;
  test();
  cuda_on_host::options().order = cuda_on_host::Order::forward;
}

#endif

/// Numbers from -1 to 1, the same for the same seed.
inline Numbers numbers(std::int64_t count, std::uint32_t seed) {
  strata::Rng rng(seed);
  Numbers out(static_cast<std::size_t>(count));
  for (float& x : out) x = rng.uniform(-1, 1);
  return out;
}

/// Results in double, and the sum of magnitudes that went into each.
struct Reference {
  explicit Reference(std::int64_t count) : value(std::size_t(count), 0.0), magnitude(std::size_t(count), 0.0) {}
  void add(std::int64_t i, double term) {
    value[std::size_t(i)] += term;
    magnitude[std::size_t(i)] += std::abs(term);
  }
  void add(const Numbers& terms) {
    for (std::size_t i = 0; i < terms.size(); ++i) add(std::int64_t(i), double(terms[i]));
  }
  std::vector<double> value, magnitude;
};

/// The largest error as a fraction of the sum of magnitudes; infinite where an element is NaN, as one that was not
/// written.
inline double largest_error(const Numbers& got, const Reference& wanted) {
  REQUIRE(got.size() == wanted.value.size());
  double largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double(got[i]) - wanted.value[i]);
    if (!(error < std::numeric_limits<double>::infinity())) return std::numeric_limits<double>::infinity();
    if (error > 0) largest = std::max(largest, error / (wanted.magnitude[i] + 1e-30));
  }
  return largest;
}
inline double largest_error(const DeviceArray<float>& got, const Reference& wanted) {
  return largest_error(got.download(), wanted);
}

/// The same numbers in double.
inline std::vector<double> doubles(const Numbers& x) { return {x.begin(), x.end()}; }

/// The largest error as a fraction of scale + |wanted|; infinite where an element is NaN, as one that was not written.
inline double largest_error(const Numbers& got, const std::vector<double>& wanted, double scale = 1) {
  REQUIRE(got.size() == wanted.size());
  double largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double(got[i]) - wanted[i]) / (scale + std::abs(wanted[i]));
    if (!(error < std::numeric_limits<double>::infinity())) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, error);
  }
  return largest;
}
inline double largest_error(const DeviceArray<float>& got, const std::vector<double>& wanted, double scale = 1) {
  return largest_error(got.download(), wanted, scale);
}

inline constexpr double unit = 6e-8;  ///< half of float32's distance from 1 to the next number

}  // namespace device_test
