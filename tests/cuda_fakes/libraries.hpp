// Where the fake libraries lie; CMake says so.
#pragma once

#include <string>

namespace strata_test {

inline std::string fake_cudnn_path() { return STRATA_FAKE_CUDNN; }
inline std::string fake_cublas_path() { return STRATA_FAKE_CUBLAS; }
#if defined(STRATA_FAKE_NCCL)
inline std::string fake_nccl_path() { return STRATA_FAKE_NCCL; }
#endif

}  // namespace strata_test
