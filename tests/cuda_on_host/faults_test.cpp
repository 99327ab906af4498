// The host execution of kernels finds every kind of fault that is planted in fault_kernels.cuh, and lets right kernels
// pass.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda_matrix.hpp"
#include "cuda_on_host_control.hpp"
#include "fault_kernels.cuh"
#include "largest.hpp"

using namespace faults;
using cuda_on_host::DeviceArray;
using cuda_on_host::Fault;
using cuda_on_host::Order;

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ADDRESS_SANITIZER 1
#endif
#endif
#if !defined(WITH_ADDRESS_SANITIZER)
#define WITH_ADDRESS_SANITIZER 0
#endif

namespace {

const bool instrumented = cuda_on_host::instrumented();
const bool with_sanitizer = WITH_ADDRESS_SANITIZER;

struct InOrder {
  explicit InOrder(Order order) { cuda_on_host::options().order = order; }
  ~InOrder() { cuda_on_host::options() = {}; }
};
constexpr Order orders[] = {Order::forward, Order::reverse, Order::random};

/// What the wait after `body` says, in each order; the three have to agree that there is a fault.
std::string fault_of(const std::function<void()>& body) {
  std::string message = "no fault";
  for (const Order order : orders) {
    const InOrder in_order(order);
    try {
      body();
      (void)cudaDeviceSynchronize();
      return "no fault";
    } catch (const Fault& fault) {
      message = fault.what();
    }
  }
  return message;
}
void runs(const std::function<void()>& body) {
  for (const Order order : orders) {
    const InOrder in_order(order);
    CHECK_NOTHROW(body());
    CHECK_NOTHROW((void)cudaDeviceSynchronize());
  }
}

/// What a child process that runs `body` says before it ends, and that it ends badly.
std::string last_words(const std::function<void()>& body) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    close(ends[0]);
    try {
      body();
      (void)cudaDeviceSynchronize();
    } catch (const Fault& fault) {
      (void)!write(2, fault.what(), std::strlen(fault.what()));
      _exit(3);
    }
    _exit(0);
  }
  close(ends[1]);
  std::string words;
  char buffer[4096];
  for (ssize_t count; (count = read(ends[0], buffer, sizeof buffer)) > 0;) words.append(buffer, std::size_t(count));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "ended well" : words;
}

/// Right where the accesses are seen, as a Fault; else where the processor or a sanitizer sees them.
std::string fault_or_last_words(const std::function<void()>& body) {
  return instrumented ? fault_of(body) : last_words(body);
}

bool says(const std::string& message, const std::string& part) {
  if (message.find(part) != std::string::npos) return true;
  MESSAGE("got: " << message);
  return false;
}

std::vector<float> numbers(std::size_t count) {
  std::vector<float> result(count);
  std::uint32_t state = 1;
  for (float& x : result) x = float((state = state * 1664525u + 1013904223u) >> 8) / float(1 << 24) - 0.5f;
  return result;
}

template <auto Kernel, class... Arguments>
void on(unsigned blocks, unsigned threads, std::size_t shared, Arguments... arguments) {
  REQUIRE(launch<Kernel>(blocks, threads, shared, nullptr, arguments...) == cudaSuccess);
}

template <bool BeforeUse, bool AfterUse>
double product_error() {
  const int m = 19, n = 37, k = 21;
  const std::vector<float> a = numbers(m * k), b = numbers(k * n);
  const DeviceArray<float> left(a), right(b), product(m * n);
  REQUIRE(launch<&matrix_product<8, BeforeUse, AfterUse>>(dim3(5, 3), dim3(8, 8), 0, nullptr, m, n, k, left.data(),
                                                          right.data(), product.data()) == cudaSuccess);
  const std::vector<float> c = product.download();
  double error = 0;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int l = 0; l < k; ++l) sum += double(a[std::size_t(i * k + l)]) * double(b[std::size_t(l * n + j)]);
      const double difference = std::fabs(sum - double(c[std::size_t(i * n + j)]));
      strata_test::keep_largest(error, difference);
    }
  return error;
}

}  // namespace

TEST_CASE("kernels that are right pass, in all orders") {
  SUBCASE("a product in tiles") {
    for (const Order order : orders) {
      const InOrder in_order(order);
      CHECK(product_error<true, true>() < 1e-5);
    }
  }
  SUBCASE("a sum by shuffles") {
    const std::vector<float> x = numbers(1001);
    double wanted = 0;
    for (const float value : x) wanted += double(value);
    runs([&] {
      const DeviceArray<float> values(x), sum(1);
      on<&block_sum<256>>(1, 256, 0, 1001, values.data(), sum.data());
      CHECK(double(sum.download()[0]) == doctest::Approx(wanted).epsilon(1e-5));
    });
  }
  SUBCASE("warps that synchronise themselves") {
    runs([] {
      std::vector<float> x(64);
      for (int i = 0; i < 64; ++i) x[std::size_t(i)] = float(i);
      const DeviceArray<float> values(x);
      on<&reverse_in_warps<true>>(1, 64, 0, values.data());
      const auto result = values.download();
      for (int i = 0; i < 64; ++i) CHECK(result[std::size_t(i)] == float(i ^ 31));
    });
  }
  SUBCASE("halves of a warp, each with its mask") {
    runs([] {
      const DeviceArray<float> x(32);
      on<&halves>(1, 32, 0, x.data());
      const auto result = x.download();
      for (int i = 0; i < 16; ++i) CHECK(result[std::size_t(i)] == float(15 - i + (i ^ 1)));
      for (int i = 16; i < 24; ++i) CHECK(result[std::size_t(i)] == float(i + 8));
    });
  }
  SUBCASE("atomic additions from many blocks") {
    runs([] {
      const DeviceArray<int> counter(std::vector<int>{0});
      on<&count_all<true>>(5, 96, 0, counter.data());
      CHECK(counter.download()[0] == 480);
    });
  }
  SUBCASE("asynchronous copies") {
    const std::vector<float> x = numbers(200);
    runs([&] {
      const DeviceArray<float> values(x), reversed(256);
      on<&copy_through_shared<true>>(1, 64, 0, 200, values.data(), reversed.data());
      const auto result = reversed.download();
      for (std::size_t i = 0; i < 256; ++i) CHECK(result[i] == (255 - i < 200 ? x[255 - i] : 0.0f));
    });
  }
}

TEST_CASE("tensor cores multiply as PTX's registers say") {
  const auto check = [](auto kernel, double epsilon, double underflow) {
    const int k = 48;
    const std::vector<float> a = numbers(16 * k), b = numbers(k * 8);
    const DeviceArray<float> left(a), right(b), product(16 * 8);
    kernel(left.data(), right.data(), product.data());
    const std::vector<float> d = product.download();
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j) {
        double sum = 0, size = 0;
        for (int l = 0; l < k; ++l) {
          const double term = double(a[std::size_t(i * k + l)]) * double(b[std::size_t(l * 8 + j)]);
          sum += term, size += std::fabs(term);
        }
        // Each factor is rounded once, by at most epsilon; the sums are much more exact.
        CHECK(std::fabs(sum - double(d[std::size_t(i * 8 + j)])) <= size * 2.1 * epsilon + underflow * k);
      }
  };
  const auto with = [](auto tag) {
    return [](const float* a, const float* b, float* d) {
      on<&tensor_product<decltype(tag)::value>>(1, 32, 0, 48, a, b, d);
    };
  };
  check(with(std::integral_constant<int, 0>{}), 0x1p-11, 0);
  check(with(std::integral_constant<int, 1>{}), 0x1p-11, 0x1p-25);
  check(with(std::integral_constant<int, 2>{}), 0x1p-8, 0);
}

TEST_CASE("float16 is rounded to nearest even, and back without loss") {
  using cuda_on_host::float_to_half, cuda_on_host::half_to_float;
  CHECK(float_to_half(1.0f) == 0x3c00);
  CHECK(float_to_half(-2.0f) == 0xc000);
  CHECK(float_to_half(65504.0f) == 0x7bff);
  CHECK(float_to_half(65519.0f) == 0x7bff);
  CHECK(float_to_half(65520.0f) == 0x7c00);
  CHECK(float_to_half(1.0f + 0x1p-11f) == 0x3c00);  // half way: to the even one
  CHECK(float_to_half(1.0f + 3 * 0x1p-11f) == 0x3c02);
  CHECK(float_to_half(0x1p-24f) == 1);
  CHECK(float_to_half(0x1p-25f) == 0);
  CHECK(float_to_half(0x1.8p-25f) == 1);
  CHECK(float_to_half(0x1.ff8p-15f) == 0x03ff);
  CHECK(float_to_half(0x1.fffp-15f) == 0x0400);
  CHECK(std::isnan(half_to_float(float_to_half(NAN))));
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto half = std::uint16_t(bits);
    if (!std::isnan(half_to_float(half))) CHECK(float_to_half(half_to_float(half)) == half);
  }
}

TEST_CASE("accesses past the end of device memory") {
  const auto words = fault_or_last_words([] {
    const DeviceArray<float> x(32);
    on<&write_past_the_end>(1, 32, 0, 32, x.data());
  });
  CHECK(says(words, "out of bounds"));
  if (instrumented)
    CHECK(
        says(words,
             "kernel write_past_the_end, block (0,0,0), thread (0,0,0): out of bounds: it writes 4 bytes at byte 128"));
  CHECK(says(fault_or_last_words([] {
               const DeviceArray<float> x(std::vector<float>(32, 1.0f)), y(32);
               on<&read_past_the_end>(1, 32, 0, 32, x.data(), y.data());
             }),
             "out of bounds"));
  // One that is no multiple of the vector's 16 bytes: what the pages cannot show.
  CHECK(says(fault_or_last_words([] {
               const DeviceArray<float> x(33);
               on<&write_past_the_end>(1, 32, 0, 33, x.data());
               (void)cudaDeviceSynchronize();
             }),
             with_sanitizer ? "AddressSanitizer"
             : instrumented ? "out of bounds"
                            : "something wrote byte 132"));
}

TEST_CASE("accesses past the end of shared memory") {
  const auto beyond = [](int by) {
    return fault_or_last_words([=] {
      const DeviceArray<float> x(64);
      on<&static_shared_overrun>(1, 64, 0, x.data(), by);
    });
  };
  const char* const wanted = instrumented     ? "of the shared array first, which has 256 bytes"
                             : with_sanitizer ? "rror"
                                              : "past the end of the shared array first";
  CHECK(says(beyond(1), wanted));
  if (instrumented || with_sanitizer) CHECK(says(beyond(-1), instrumented ? "out of bounds" : "rror"));
  CHECK(beyond(0) == (instrumented ? "no fault" : "ended well"));
  CHECK(says(fault_or_last_words([] {
               const DeviceArray<float> x(60);
               on<&dynamic_shared_overrun>(1, 60, 60 * sizeof(float), x.data());
             }),
             with_sanitizer ? "AddressSanitizer"
             : instrumented ? "of the shared array shared, which has 240 bytes"
                            : "past the end of the shared array shared"));
  CHECK(says(fault_of([] {
               const DeviceArray<float> x(32);
               on<&no_dynamic_shared>(1, 32, 0, x.data());
             }),
             "the launch gave no dynamic shared memory"));
  CHECK(says(fault_of([] {
               const DeviceArray<float> x(32);
               on<&much_static_shared>(1, 32, 0, x.data());
             }),
             "more than 48 KiB"));
}

TEST_CASE("memory that nobody has written") {
  for (const Order order : orders) {
    const InOrder in_order(order);
    const DeviceArray<float> x(64), y(64);
    on<&shared_not_written>(1, 64, 256, x.data());
    if (instrumented) {
      CHECK_THROWS_WITH_AS((void)x.download(),
                           "kernel shared_not_written, block (0,0,0), thread (0,0,0): it reads shared memory that "
                           "nobody has written: shared+0 bytes",
                           Fault);
      on<&copy>(1, 64, 0, x.data(), y.data());
      CHECK_THROWS_AS((void)y.download(), Fault);
    } else {
      CHECK(std::isnan(x.download()[0]));
      CHECK(x.download()[1] == 1.0f);
      const DeviceArray<float> fresh(64);
      on<&copy>(1, 64, 0, fresh.data(), y.data());
      CHECK(std::isnan(y.download()[3]));
    }
  }
}

TEST_CASE("barriers that not all threads reach") {
  const auto of = [](auto body) {
    return fault_of([&] {
      const DeviceArray<float> x(64);
      body(x.data());
    });
  };
  CHECK(says(of([](float* x) { on<&exit_before_barrier>(1, 64, 0, x); }),
             "barrier divergence: 24 threads have exited while 40 wait at __syncthreads"));
  CHECK(says(of([](float* x) { on<&barrier_or_shuffle>(1, 64, 0, x); }), "divergence: thread"));
  CHECK(says(of([](float* x) { on<&barrier_at_two_sites>(1, 64, 0, x); }),
             "threads wait at different barriers: thread 0 waits in __syncthreads at fault_kernels.cuh:"));
}

TEST_CASE("warp operations with masks that are wrong") {
  const auto of = [](auto body) {
    return fault_of([&] {
      const DeviceArray<float> x(64);
      body(x.data());
    });
  };
  CHECK(says(of([](float* x) { on<&shuffle_with_exited_lanes>(1, 64, 0, x); }), "which has exited"));
  CHECK(says(of([](float* x) { on<&lane_outside_its_mask>(1, 32, 0, x); }), "illegal mask: lane 31 calls __shfl_sync"));
  CHECK(says(of([](float* x) { on<&masks_that_differ>(1, 32, 0, x); }), "divergence"));
  CHECK(says(of([](float* x) { on<&mask_beyond_the_warp>(1, 40, 0, x); }), "and the warp has 8 lanes"));
}

TEST_CASE("races") {
  // Where accesses are not seen, a race shows in the results of one order or the other, if it shows at all.
  if (!instrumented) {
    bool differs = false;
    for (const Order order : orders) {
      const InOrder in_order(order);
      differs |= !(product_error<true, false>() < 1e-5);
    }
    CHECK(differs);
    {  // what an earlier launch left in shared memory does not hide it
      const DeviceArray<float> x(64);
      for (const Order order : {Order::forward, Order::reverse}) {
        const InOrder in_order(order);
        on<&neighbour_without_barrier>(1, 64, 0, x.data());
        const auto result = x.download();
        CHECK(std::isnan(result[5]) == (order == Order::reverse));
      }
    }
    return;
  }
  const auto of = [](auto body) {
    return fault_of([&] {
      const DeviceArray<float> x(std::vector<float>(64, 1.0f));
      body(x.data());
    });
  };
  CHECK(
      says(fault_of([] { (void)product_error<false, true>(); }), "shared memory"));  // a race, or not written, by order
  CHECK(says(fault_of([] { (void)product_error<true, false>(); }), "race on shared memory"));
  CHECK(says(of([](float* x) { on<&block_sum<256, false>>(1, 256, 0, 64, x, x + 32); }), "shared memory"));
  CHECK(says(of([](float* x) { on<&neighbour_without_barrier>(1, 64, 0, x); }), "shared memory"));
  CHECK(says(of([](float* x) { on<&all_write_the_same>(1, 64, 0, x); }),
             "race on shared memory, shared+0 bytes: it writes what thread"));
  CHECK(says(of([](float* x) { on<&write_after_read>(1, 64, 0, x); }), "race on shared memory"));
  CHECK(says(of([](float* x) { on<&reverse_in_warps<false>>(1, 64, 0, x); }), "shared memory"));
  CHECK(
      says(of([](float* x) { on<&count_all<false>>(1, 64, 0, reinterpret_cast<int*>(x)); }), "race on device memory"));
  CHECK(says(of([](float* x) { on<&count_all<false>>(2, 1, 0, reinterpret_cast<int*>(x)); }),
             "it writes what another block of the launch wrote"));
  CHECK(says(of([](float* x) { on<&blocks_read_each_other>(4, 1, 0, x); }), "another block of the launch"));
  CHECK(says(of([](float* x) { on<&blocks_overwrite_what_others_read>(4, 32, 0, x, x); }),
             "another block of the launch"));
}

TEST_CASE("asynchronous copies that nothing waits for") {
  const auto of = [](auto body) {
    return fault_of([&] {
      const DeviceArray<float> x(std::vector<float>(256, 1.0f)), y(256);
      body(x.data(), y.data());
    });
  };
  CHECK(says(of([](float* x, float* y) { on<&copy_through_shared<false>>(1, 64, 0, 256, x, y); }),
             "cp.async that nothing has waited for"));
  CHECK(says(of([](float* x, float* y) { on<&copy_through_shared<true, false>>(1, 64, 0, 256, x, y); }),
             "cp.async that nothing has waited for"));
}

TEST_CASE("vector accesses at addresses that are not aligned") {
  CHECK(says(fault_of([] {
               const DeviceArray<float> x(std::vector<float>(160, 1.0f)), y(128);
               on<&misaligned_vector>(1, 32, 0, x.data(), y.data());
             }),
             "misaligned access of 16 bytes"));
}

TEST_CASE("an index that overflows, where the sanitizer for undefined behaviour is on") {
  const auto words = last_words([] {
    const DeviceArray<float> x(64);
    on<&index_overflow>(1, 64, 0, 100000, x.data());
  });
  if (with_sanitizer) CHECK(says(words, "signed integer overflow"));
}

TEST_CASE("a thread whose stack is full") {
  const auto words = last_words([] {
    const DeviceArray<float> x(32);
    on<&deep_stack>(1, 32, 0, x.data());
  });
  CHECK(says(words, "the stack of a thread is full"));
}

TEST_CASE("the host and the device keep to their own memory") {
  CHECK(says(last_words([] {
               const DeviceArray<float> x(std::vector<float>(32, 1.0f));
               volatile const float* pointer = x.data();
               (void)*pointer;
             }),
             "the host uses a pointer of the device: byte 0 of the device allocation"));
  CHECK(says(last_words([] {
               DeviceArray<float> x(std::vector<float>(32, 1.0f));
               const float* pointer = x.data();
               x = DeviceArray<float>(1);
               const DeviceArray<float> y(32);
               on<&copy>(1, 32, 0, pointer, y.data());
             }),
             with_sanitizer ? "" : "byte 0 of the freed device allocation"));
  if (instrumented) {
    CHECK(says(fault_of([] {
                 const auto host = std::make_unique<std::array<float, 32>>();
                 const DeviceArray<float> y(32);
                 on<&copy>(1, 32, 0, host->data(), y.data());
               }),
               "it accesses 4 bytes of the host's memory"));
  }
}

TEST_CASE("launches beyond the limits are refused") {
  const DeviceArray<float> x(32);
  const auto status = [&](dim3 grid, dim3 block, std::size_t shared) {
    const cudaError_t result = launch<&copy>(grid, block, shared, nullptr, x.data(), x.data());
    CHECK(cudaGetLastError() == result);
    return result;
  };
  CHECK(status(1, 1025, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(1, dim3(1, 1, 65), 0) == cudaErrorInvalidConfiguration);
  CHECK(status(1, 0, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(0, 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(dim3(1, 65536), 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(dim3(1, 1, 65536), 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(status(1, 32, 200 * 1024) == cudaErrorInvalidValue);  // more than the device can give to who asks
  CHECK(cuda_on_host::launch<&copy>(1, 32, 49 * 1024, nullptr, static_cast<const float*>(x.data()), x.data()) ==
        cudaErrorInvalidConfiguration);  // more than 48 KiB, and nobody asked
  CHECK(launch<&large_argument>(1, 32, 0, nullptr, Large{}, x.data()) == cudaErrorInvalidConfiguration);
  (void)cudaGetLastError();
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cuda_on_host::pending_operations() == 0);
}
