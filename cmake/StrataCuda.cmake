# CUDA, for those who have it: the target strata::cuda, which a program links instead of strata::strata. It adds one .cu file
# to the program, which CMake compiles with nvcc for CMAKE_CUDA_ARCHITECTURES (all-major unless given); CUDA's runtime is
# linked statically, so the program starts on machines without CUDA as well. cuDNN and cuBLAS are looked for when the program
# runs, and used where they are.
#
# STRATA_CUDA says what is wanted:
#     AUTO   strata::cuda where a toolkit is found; one line says what was found
#     ON     an error where there is none
#     OFF    CUDA is not looked for
#
#     strata_add_cuda(FOLDER)        # the folder that holds strata/cuda/cuda.cu
#
# A macro, since a language is enabled for the directory that calls it. Used by this project's own build and, installed
# beside it, by the package that find_package(strata COMPONENTS cuda) reads.
include_guard()

set(STRATA_CUDA AUTO CACHE STRING "The target strata::cuda: AUTO, ON or OFF")
set_property(CACHE STRATA_CUDA PROPERTY STRINGS AUTO ON OFF)

set(STRATA_CUDA_LEAST_VERSION 12.4)

macro(strata_add_cuda folder)
  set(_strata_cuda_problem "")
  string(TOUPPER "${STRATA_CUDA}" _strata_cuda)
  if(NOT _strata_cuda MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "STRATA_CUDA is '${STRATA_CUDA}'; it can be AUTO, ON or OFF")
  endif()
  if(NOT _strata_cuda STREQUAL "OFF" AND NOT TARGET strata::cuda)
    _strata_enable_cuda()
    if(_strata_cuda_problem STREQUAL "")
      find_package(CUDAToolkit ${STRATA_CUDA_LEAST_VERSION} QUIET)
      if(NOT CUDAToolkit_FOUND)
        set(_strata_cuda_problem "there is no CUDA toolkit of version ${STRATA_CUDA_LEAST_VERSION} or newer beside ${CMAKE_CUDA_COMPILER}")
      elseif(CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA" AND CMAKE_CUDA_COMPILER_VERSION VERSION_LESS STRATA_CUDA_LEAST_VERSION)
        set(_strata_cuda_problem "${CMAKE_CUDA_COMPILER} is version ${CMAKE_CUDA_COMPILER_VERSION}, and ${STRATA_CUDA_LEAST_VERSION} is needed")
      endif()
    endif()
    if(_strata_cuda_problem STREQUAL "")
      add_library(strata_cuda INTERFACE)
      add_library(strata::cuda ALIAS strata_cuda)
      target_sources(strata_cuda INTERFACE "${folder}/strata/cuda/cuda.cu")
      if("cuda_std_20" IN_LIST CMAKE_CUDA_COMPILE_FEATURES)
        target_compile_features(strata_cuda INTERFACE cuda_std_20)
      else()  # a CMake that does not know that nvcc can
        target_compile_options(strata_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>)
      endif()
      # The instruction set is part of the names in the program, so nvcc's host code takes the one in the C++ flags.
      if(NOT "${CMAKE_CUDA_FLAGS}" MATCHES "-march=" AND "${CMAKE_CXX_FLAGS}" MATCHES "-march=([^ ]+)")
        target_compile_options(strata_cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-march=${CMAKE_MATCH_1}>)
      endif()
      target_link_libraries(strata_cuda INTERFACE strata::strata CUDA::cudart_static ${CMAKE_DL_LIBS})
      _strata_find_cudnn_header()
      message(STATUS "Strata: CUDA ${CMAKE_CUDA_COMPILER_VERSION} at ${CMAKE_CUDA_COMPILER}, for ${CMAKE_CUDA_ARCHITECTURES}; the target strata::cuda")
    elseif(_strata_cuda STREQUAL "ON")
      message(FATAL_ERROR "STRATA_CUDA is ON, and ${_strata_cuda_problem}")
    else()
      message(STATUS "Strata: no target strata::cuda, since ${_strata_cuda_problem}")
    endif()
  endif()
endmacro()

# cudnn.h, without which the backend has no call of cuDNN and cuBLASLt: beside the toolkit, or in NVIDIA's package for Python.
macro(_strata_find_cudnn_header)
  find_path(STRATA_CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} DOC "The folder that holds cudnn.h")
  if(NOT STRATA_CUDNN_INCLUDE_DIR)
    execute_process(COMMAND python3 -c "import importlib.util as u; print(u.find_spec('nvidia.cudnn').submodule_search_locations[0])"
                    OUTPUT_VARIABLE _strata_cudnn ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(_strata_cudnn)
      find_path(STRATA_CUDNN_INCLUDE_DIR cudnn.h PATHS ${_strata_cudnn}/include NO_DEFAULT_PATH)
      if(STRATA_CUDNN_INCLUDE_DIR)
        target_include_directories(strata_cuda SYSTEM INTERFACE "${STRATA_CUDNN_INCLUDE_DIR}")
        message(STATUS "Strata: cudnn.h from ${STRATA_CUDNN_INCLUDE_DIR}")
      endif()
    endif()
  endif()
  if(NOT STRATA_CUDNN_INCLUDE_DIR)
    message(STATUS "Strata: strata::cuda without cuDNN and cuBLASLt, since there is no cudnn.h: install cuDNN 9 with its headers, "
                   "pip install nvidia-cudnn-cu${CUDAToolkit_VERSION_MAJOR}, or set STRATA_CUDNN_INCLUDE_DIR")
  endif()
endmacro()

# Enables the language CUDA, or says in _strata_cuda_problem why it cannot.
macro(_strata_enable_cuda)
  get_property(_strata_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if(NOT "CUDA" IN_LIST _strata_languages)
    if(NOT CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
      set(_strata_cuda_problem "this project has not enabled the language: project(${CMAKE_PROJECT_NAME} LANGUAGES CXX CUDA)")
    else()
      # Where nvcc installs itself is not always on the path.
      if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
        find_program(STRATA_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin
                     DOC "CUDA's compiler")
        mark_as_advanced(STRATA_NVCC)
        if(STRATA_NVCC)
          set(CMAKE_CUDA_COMPILER ${STRATA_NVCC})
        endif()
      endif()
      if(CMAKE_CUDA_COMPILER OR DEFINED ENV{CUDACXX})
        include(CheckLanguage)
        check_language(CUDA)
      endif()
      if(CMAKE_CUDA_COMPILER)
        if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
          set(CMAKE_CUDA_ARCHITECTURES all-major)
        endif()
        enable_language(CUDA)
      else()
        set(_strata_cuda_problem "no CUDA compiler that works was found (nvcc; or set CMAKE_CUDA_COMPILER)")
      endif()
    endif()
  endif()
endmacro()
