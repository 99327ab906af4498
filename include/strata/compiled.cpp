// Compiles what is no template, for programs that define STRATA_COMPILED (core/config.hpp), beside cpu/kernels.cpp:
//
//     target_link_libraries(program PRIVATE strata::strata strata::compiled)                     # CMake does all of it
//     flags="-std=c++20 -O3 -march=native -I include"                                              # or by hand
//     g++ $flags -c include/strata/compiled.cpp include/strata/cpu/kernels.cpp
//     g++ $flags -DSTRATA_COMPILED -DSTRATA_COMPILED_KERNELS program.cpp compiled.o kernels.o -pthread
#ifndef STRATA_COMPILED
#define STRATA_COMPILED
#endif

#include "strata/core/crc32_impl.hpp"
#include "strata/core/macros_away.inc"

#include "strata/core/output_file_impl.hpp"
#include "strata/core/parallel_impl.hpp"
#include "strata/core/processors_impl.hpp"
#include "strata/data/cifar10_impl.hpp"
#include "strata/data/image_file_impl.hpp"
#include "strata/data/mnist_impl.hpp"
#include "strata/data/raw_image_impl.hpp"
#include "strata/io/checkpoint_impl.hpp"
#include "strata/io/detail/weights_read_impl.hpp"
#include "strata/io/file_impl.hpp"
#include "strata/io/folder_lock_impl.hpp"
#include "strata/io/names_impl.hpp"
#include "strata/io/pytorch_file_impl.hpp"
#include "strata/io/safetensors_header_impl.hpp"
#include "strata/io/safetensors_impl.hpp"
#include "strata/io/tensor_info_impl.hpp"
#include "strata/io/weights_file_impl.hpp"

#include "strata/core/macros_back.inc"
