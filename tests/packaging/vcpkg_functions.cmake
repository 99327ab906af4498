# Runs a portfile where there is no vcpkg: what its functions do to this port, without downloads and triplets.
# Arguments that these do not know are errors. With VCPKG_ROOT in the environment the test takes vcpkg's own.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status OUTPUT_VARIABLE words ERROR_VARIABLE words)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "ended with ${status}: ${ARGV}\n${words}")
  endif()
endfunction()

macro(know_arguments one several)
  cmake_parse_arguments(arg "" "${one}" "${several}" ${ARGN})
  if(arg_UNPARSED_ARGUMENTS OR arg_KEYWORDS_MISSING_VALUES)
    message(FATAL_ERROR "arguments that are not known: ${arg_UNPARSED_ARGUMENTS} ${arg_KEYWORDS_MISSING_VALUES}")
  endif()
endmacro()

function(vcpkg_cmake_configure)
  know_arguments("SOURCE_PATH" "OPTIONS" ${ARGN})
  run(${CMAKE_COMMAND} -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER}
      -S ${arg_SOURCE_PATH} -B ${CURRENT_BUILDTREES_DIR} -DCMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR}
      -DCMAKE_PREFIX_PATH=${CURRENT_INSTALLED_DIR} ${arg_OPTIONS})
endfunction()

function(vcpkg_cmake_install)
  know_arguments("" "" ${ARGN})
  run(${CMAKE_COMMAND} --install ${CURRENT_BUILDTREES_DIR})
endfunction()

# share/cmake/strata to share/strata, one folder nearer to the prefix.
function(vcpkg_cmake_config_fixup)
  know_arguments("CONFIG_PATH" "" ${ARGN})
  file(RENAME ${CURRENT_PACKAGES_DIR}/${arg_CONFIG_PATH} ${CURRENT_PACKAGES_DIR}/share/${PORT})
  file(REMOVE_RECURSE ${CURRENT_PACKAGES_DIR}/share/cmake)
  file(READ ${CURRENT_PACKAGES_DIR}/share/${PORT}/${PORT}-config.cmake text)
  string(REPLACE "/../../../\"" "/../../\"" text "${text}")
  file(WRITE ${CURRENT_PACKAGES_DIR}/share/${PORT}/${PORT}-config.cmake "${text}")
  file(READ ${CURRENT_PACKAGES_DIR}/share/${PORT}/${PORT}-targets.cmake text)
  string(REGEX REPLACE "(CMAKE_CURRENT_LIST_FILE}\" PATH\\)\n)get_filename_component[^\n]*\n" "\\1" text "${text}")
  file(WRITE ${CURRENT_PACKAGES_DIR}/share/${PORT}/${PORT}-targets.cmake "${text}")
endfunction()

function(vcpkg_fixup_pkgconfig)
  know_arguments("" "" ${ARGN})
endfunction()

function(vcpkg_install_copyright)
  know_arguments("COMMENT" "FILE_LIST" ${ARGN})
  file(INSTALL ${arg_FILE_LIST} DESTINATION ${CURRENT_PACKAGES_DIR}/share/${PORT} RENAME copyright)
endfunction()

include(${CURRENT_PORT_DIR}/portfile.cmake)
