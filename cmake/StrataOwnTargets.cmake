# What holds for Strata's own programs and tests alone: warnings, the processor, the folders. Nothing here reaches the
# target strata::strata or a project that uses it.
include(CheckCXXCompilerFlag)

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release)
  endif()
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  find_program(STRATA_CCACHE ccache)
  mark_as_advanced(STRATA_CCACHE)
  if(STRATA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${STRATA_CCACHE})
  endif()
endif()
set(CMAKE_CXX_EXTENSIONS OFF)

set(strata_warnings -Wall -Wextra -Wconversion -Wshadow -Wpedantic)
if(STRATA_WERROR)
  list(APPEND strata_warnings -Werror)
endif()

set(strata_native_flag "")
if(STRATA_NATIVE)
  check_cxx_compiler_flag(-march=native STRATA_HAS_MARCH_NATIVE)
  if(STRATA_HAS_MARCH_NATIVE)
    set(strata_native_flag -march=native)
  endif()
endif()

add_library(strata_own_flags INTERFACE)
target_link_libraries(strata_own_flags INTERFACE strata::strata)
target_compile_options(strata_own_flags INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${strata_warnings}>" ${strata_native_flag})

# Compiled once for all of them: what strata::compiled adds to a single program.
add_library(strata_own_compiled OBJECT EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/include/strata/compiled.cpp
                                                        ${PROJECT_SOURCE_DIR}/include/strata/cpu/kernels.cpp
                                                        ${PROJECT_SOURCE_DIR}/include/strata/cpu/grouped_kernels.cpp)
target_link_libraries(strata_own_compiled PRIVATE strata_own_flags)
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize=")
  # Under sanitizers g++ 12 takes a quarter of an hour to compile these: their test puts arrays between closed pages.
  set_source_files_properties(${PROJECT_SOURCE_DIR}/include/strata/cpu/grouped_kernels.cpp PROPERTIES
    COMPILE_OPTIONS -fno-sanitize=all)
endif()
add_library(strata_own INTERFACE)
target_sources(strata_own INTERFACE $<TARGET_OBJECTS:strata_own_compiled>)
target_compile_definitions(strata_own INTERFACE $<$<COMPILE_LANGUAGE:CXX>:STRATA_COMPILED>
                                                $<$<COMPILE_LANGUAGE:CXX>:STRATA_COMPILED_KERNELS>
                                                $<$<COMPILE_LANGUAGE:CXX>:STRATA_COMPILED_GROUPED_KERNELS>)
target_link_libraries(strata_own INTERFACE strata_own_flags)

# The code for NVIDIA's devices, compiled once for all of Strata's own programs: they link this in place of strata::cuda.
if(TARGET strata::cuda)
  add_library(strata_own_cuda_code OBJECT EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/include/strata/cuda/cuda.cu)
  target_link_libraries(strata_own_cuda_code PRIVATE strata_own strata::cuda)
  add_library(strata_own_cuda INTERFACE)
  target_sources(strata_own_cuda INTERFACE $<TARGET_OBJECTS:strata_own_cuda_code>)
  target_link_libraries(strata_own_cuda INTERFACE strata_own CUDA::cudart_static ${CMAKE_DL_LIBS})
endif()
