// GPUs as cuDNN wants them described, for plans without a device. The numbers are those of the makers' data sheets and
// of the CUDA programming guide's table of compute capabilities; none was read off a device. The fields are those cuDNN
// 9 asks for; it names the first that is missing.
#pragma once

#include <cstdint>
#include <string>

#include "strata/core/error.hpp"

namespace strata_test {

struct DescribedDevice {
  const char* name;
  int compute_capability;  ///< 80 for 8.0
  int multiprocessors, clock_mhz, memory_clock_mhz, pci_id;
  std::int64_t l2_bytes, memory_bytes;
  int shared_bytes_opt_in, reserved_shared_bytes, blocks_per_multiprocessor, threads_per_multiprocessor;

  std::string json() const {
    const auto number = [](const char* field, std::int64_t value) {
      return strata::concat(",\"", field, "\":", value);
    };
    return strata::concat("{\"deviceName\":\"", name, "\"") + number("deviceVer", compute_capability * 10) +
           number("multiProcessorCount", multiprocessors) + number("smClockRateKHz", clock_mhz * 1000) +
           number("memClockRateKHz", memory_clock_mhz * 1000) + number("l2CacheSize", l2_bytes) +
           number("totalGlobalMem", memory_bytes) + number("maxSharedMemoryPerBlock", 48 << 10) +
           number("maxSharedMemoryPerBlockOptin", shared_bytes_opt_in) +
           number("reservedSharedMemoryPerBlock", reserved_shared_bytes) + number("maxRegistersPerSM", 65536) +
           number("regsPerBlock", 65536) + number("maxCtasPerSM", blocks_per_multiprocessor) +
           number("maxThreadsPerBlock", 1024) + number("maxThreadsPerSM", threads_per_multiprocessor) +
           ",\"maxGridSize\":[2147483647,65535,65535]" + ",\"maxBlockSize\":[1024,1024,64]" + number("warpSize", 32) +
           number("isTccDriver", 0) + number("supportCoopLaunch", 1) + number("driverVer", 13000) +
           number("cudaDeviceId", 0) + number("pciDeviceId", pci_id) + "}";
  }
};

inline constexpr DescribedDevice t4{.name = "Tesla T4",
                                    .compute_capability = 75,
                                    .multiprocessors = 40,
                                    .clock_mhz = 1590,
                                    .memory_clock_mhz = 5001,
                                    .pci_id = 0x1eb8,
                                    .l2_bytes = std::int64_t{4} << 20,
                                    .memory_bytes = std::int64_t{16} << 30,
                                    .shared_bytes_opt_in = 64 << 10,
                                    .reserved_shared_bytes = 0,
                                    .blocks_per_multiprocessor = 16,
                                    .threads_per_multiprocessor = 1024};
inline constexpr DescribedDevice a100{.name = "NVIDIA A100-SXM4-80GB",
                                      .compute_capability = 80,
                                      .multiprocessors = 108,
                                      .clock_mhz = 1410,
                                      .memory_clock_mhz = 1593,
                                      .pci_id = 0x20b2,
                                      .l2_bytes = std::int64_t{40} << 20,
                                      .memory_bytes = std::int64_t{80} << 30,
                                      .shared_bytes_opt_in = 163 << 10,
                                      .reserved_shared_bytes = 1024,
                                      .blocks_per_multiprocessor = 32,
                                      .threads_per_multiprocessor = 2048};
inline constexpr DescribedDevice h100{.name = "NVIDIA H100 80GB HBM3",
                                      .compute_capability = 90,
                                      .multiprocessors = 132,
                                      .clock_mhz = 1980,
                                      .memory_clock_mhz = 2619,
                                      .pci_id = 0x2330,
                                      .l2_bytes = std::int64_t{50} << 20,
                                      .memory_bytes = std::int64_t{80} << 30,
                                      .shared_bytes_opt_in = 227 << 10,
                                      .reserved_shared_bytes = 1024,
                                      .blocks_per_multiprocessor = 32,
                                      .threads_per_multiprocessor = 2048};

}  // namespace strata_test
