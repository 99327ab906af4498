# Builds the unit tests that know of no device for AArch64, and runs them under qemu:
#
#     cmake -DSOURCE=<strata> -DWORK=<scratch> -DCXX=<compiler> -DEMULATOR=<qemu-aarch64> -P aarch64.cmake
cmake_minimum_required(VERSION 3.25)
if(NOT CXX OR NOT EMULATOR)
  message("SKIPPED: g++ for AArch64 or qemu-user is not on this machine (Debian: g++-aarch64-linux-gnu, qemu-user)")
  return()
endif()

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    list(JOIN ARGV " " command)
    message(FATAL_ERROR "failed (${status}): ${command}")
  endif()
endfunction()
run(${CMAKE_COMMAND} --preset aarch64 -S ${SOURCE} -B ${WORK} -DCMAKE_CXX_COMPILER=${CXX}
    -DCMAKE_CROSSCOMPILING_EMULATOR=${EMULATOR})
run(${CMAKE_COMMAND} --build ${WORK} --target bits test_core test_data test_autograd test_cpu)
run(${CMAKE_CTEST_COMMAND} --test-dir ${WORK} --output-on-failure --no-tests=error -R "^(portability/bits|(core|data|autograd|cpu)/.*)$")
