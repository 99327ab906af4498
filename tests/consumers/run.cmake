# Configures, builds and runs one of the projects beside this file:
#
#     cmake -DKIND=find_package -DSOURCE=<strata> -DBUILD=<its build folder> -DWORK=<scratch> -DCXX=<compiler>
#           -DGENERATOR=<generator> -P run.cmake
#
# fetch_content and cpm get Strata by these without a network; cpm is skipped where -DCPM names no CPM.cmake.
# KIND missing_packages configures Strata where CLI11, stb and protozero are not to be found, and reads the message; no_cuda
# asks for CUDA where no toolkit is to be found; cuda builds a program with strata::cuda and runs it, with a device or without;
# cuda_programs does so with the DnCNN examples and with all that is for a GPU, which must run or say that it is skipped.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status OUTPUT_VARIABLE words ERROR_VARIABLE words)
  if(NOT status EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "failed (${status}): ${command}\n${words}")
  endif()
  message("${words}")
endfunction()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
set(configure ${CMAKE_COMMAND} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_BUILD_TYPE=Debug)
if(NOT KIND MATCHES "cuda")
  list(APPEND configure -DSTRATA_CUDA=OFF)
endif()

if(KIND STREQUAL "missing_packages")
  execute_process(COMMAND ${configure} -S ${SOURCE} -B ${WORK} -DCMAKE_DISABLE_FIND_PACKAGE_CLI11=ON
                          -DSTRATA_STB_INCLUDE_DIR=STRATA_STB_INCLUDE_DIR-NOTFOUND -DCMAKE_FIND_ROOT_PATH=${WORK}
                          -DCMAKE_FIND_ROOT_PATH_MODE_INCLUDE=ONLY
                  RESULT_VARIABLE status OUTPUT_VARIABLE words ERROR_VARIABLE words)
  string(REGEX REPLACE "[ \n]+" " " words "${words}")  # CMake breaks long lines
  string(FIND "${words}" "sudo apt install libstb-dev libprotozero-dev libcli11-dev" position)
  if(status EQUAL 0 OR position EQUAL -1)
    message(FATAL_ERROR "wanted a failure that names libstb-dev, libprotozero-dev and libcli11-dev, got (${status}):\n${words}")
  endif()
  return()
endif()

if(KIND STREQUAL "no_cuda")
  foreach(wanted IN ITEMS ON AUTO)
    execute_process(COMMAND ${CMAKE_COMMAND} -E env --unset=CUDACXX ${configure} -S ${SOURCE} -B ${WORK}/${wanted}
                            -DSTRATA_CUDA=${wanted} -DSTRATA_NVCC=STRATA_NVCC-NOTFOUND -DCMAKE_FIND_ROOT_PATH=${WORK}
                            -DCMAKE_FIND_ROOT_PATH_MODE_PROGRAM=ONLY -DSTRATA_BUILD_TESTS=OFF -DSTRATA_BUILD_EXAMPLES=OFF
                            -DSTRATA_BUILD_BENCHMARKS=OFF -DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}
                    RESULT_VARIABLE status OUTPUT_VARIABLE words ERROR_VARIABLE words)
    string(FIND "${words}" "no CUDA compiler that works was found" position)
    if(position EQUAL -1 OR (wanted STREQUAL "ON" AND status EQUAL 0) OR (wanted STREQUAL "AUTO" AND NOT status EQUAL 0))
      message(FATAL_ERROR "STRATA_CUDA=${wanted} without a toolkit: wanted a line that says so, got (${status}):\n${words}")
    endif()
  endforeach()
  return()
endif()

if(KIND MATCHES "^cuda")
  find_program(nvcc nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(NOT nvcc)
    message("SKIPPED: no program is built with strata::cuda, since nvcc is not installed")
    return()
  endif()
  list(APPEND configure -DCMAKE_CUDA_ARCHITECTURES=80)  # one, since it is quicker
endif()

if(KIND STREQUAL "cuda_programs")
  find_program(python NAMES python3 python REQUIRED)
  run(${configure} -S ${SOURCE} -B ${WORK} -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -DSTRATA_CUDA=ON
      -DSTRATA_CUDA_EXAMPLES=ON -DSTRATA_GPU_TESTS=ON -DSTRATA_UNIT_TESTS_ONLY=ON -DSTRATA_BUILD_BENCHMARKS=OFF)
  run(${CMAKE_COMMAND} --build ${WORK} --target gpu_checks dncnn_train dncnn_test dncnn_denoise)
  run(${python} ${SOURCE}/tests/programs/dncnn.py devices ${WORK}/bin)
  execute_process(COMMAND ${CMAKE_CTEST_COMMAND} -L gpu --no-tests=error WORKING_DIRECTORY ${WORK}
                  RESULT_VARIABLE status OUTPUT_VARIABLE words ERROR_VARIABLE words)
  message("${words}")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "the tests for a GPU ended with ${status}, where all had to pass or to be skipped")
  endif()
  execute_process(COMMAND ${WORK}/bin/cuda_kernels --quick RESULT_VARIABLE status OUTPUT_VARIABLE measured)
  message("${measured}")
  if(status EQUAL 77 AND NOT words MATCHES "Skipped")  # without a device none may look passed
    message(FATAL_ERROR "there is no device, and no test says that it was skipped:\n${words}")
  endif()
  return()
endif()

if(KIND MATCHES "^(find_package|cuda)$")
  run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
  list(APPEND configure -DCMAKE_PREFIX_PATH=${WORK}/prefix)
endif()
if(KIND STREQUAL "cpm" AND NOT CPM)
  message("SKIPPED: STRATA_CPM names no CPM.cmake")
  return()
endif()
run(${configure} -S ${CMAKE_CURRENT_LIST_DIR}/${KIND} -B ${WORK}/build -DSTRATA_SOURCE=${SOURCE} -DSTRATA_CPM=${CPM}
    -DFETCHCONTENT_SOURCE_DIR_STRATA=${SOURCE} -DCPM_strata_SOURCE=${SOURCE})
run(${CMAKE_COMMAND} --build ${WORK}/build --target consumer)
run(${WORK}/build/consumer)
