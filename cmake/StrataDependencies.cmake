# Finds what Strata stands on, and names everything that is missing in one message, each with its Debian package. Used by
# this project's own build and, installed beside it, by the package that find_package(strata) reads.
#
#     strata_find_dependencies(message threads stb)     # message is empty when all are there
#
# Sets STRATA_STB_INCLUDE_DIR and STRATA_PROTOZERO_INCLUDE_DIR (cache): the folders that hold stb_image.h and protozero/.
include_guard()

macro(strata_find_dependencies out_message)
  set(_strata_missing "")
  set(_strata_packages "")
  foreach(_strata_need IN ITEMS ${ARGN})
    if(_strata_need STREQUAL "threads")
      set(THREADS_PREFER_PTHREAD_FLAG ON)
      find_package(Threads QUIET)
      _strata_require(Threads_FOUND "a thread library" libc6-dev)
    elseif(_strata_need STREQUAL "stb")
      find_path(STRATA_STB_INCLUDE_DIR stb_image.h PATH_SUFFIXES stb DOC "The folder that holds stb_image.h")
      mark_as_advanced(STRATA_STB_INCLUDE_DIR)
      _strata_require(STRATA_STB_INCLUDE_DIR "stb (stb_image.h; or set STRATA_STB_INCLUDE_DIR)" libstb-dev)
    elseif(_strata_need STREQUAL "protozero")
      find_path(STRATA_PROTOZERO_INCLUDE_DIR protozero/pbf_writer.hpp DOC "The folder that holds protozero/pbf_writer.hpp")
      mark_as_advanced(STRATA_PROTOZERO_INCLUDE_DIR)
      _strata_require(STRATA_PROTOZERO_INCLUDE_DIR "protozero, for ONNX files (or set STRATA_PROTOZERO_INCLUDE_DIR)"
                      libprotozero-dev)
    elseif(_strata_need STREQUAL "doctest")
      find_package(doctest CONFIG QUIET)
      _strata_require(doctest_FOUND "doctest, for the tests" doctest-dev)
    elseif(_strata_need STREQUAL "python")
      find_package(Python3 QUIET COMPONENTS Interpreter)
      _strata_require(Python3_Interpreter_FOUND "Python 3, for the structure and compile-fail tests" python3)
    elseif(_strata_need STREQUAL "cli11")
      find_package(CLI11 CONFIG QUIET)
      _strata_require(CLI11_FOUND "CLI11, for the examples" libcli11-dev)
    else()
      message(FATAL_ERROR "strata_find_dependencies: unknown dependency '${_strata_need}'")
    endif()
  endforeach()
  set(${out_message} "")
  if(_strata_missing)
    list(JOIN _strata_missing "\n" _strata_missing)
    list(JOIN _strata_packages " " _strata_packages)
    string(CONCAT ${out_message} "Strata did not find:\n${_strata_missing}\n"
                                 "On Debian or Ubuntu: sudo apt install ${_strata_packages}")
  endif()
endmacro()

macro(_strata_require found what package)
  if(NOT ${found})
    list(APPEND _strata_missing "  - ${what}: package ${package}")
    list(APPEND _strata_packages ${package})
  endif()
endmacro()
