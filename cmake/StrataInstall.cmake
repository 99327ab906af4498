# The installed package: headers, the exported target, and the files find_package(strata) reads.
include(CMakePackageConfigHelpers)

set(strata_package_dir ${CMAKE_INSTALL_DATADIR}/cmake/strata)
configure_package_config_file(cmake/strata-config.cmake.in ${PROJECT_BINARY_DIR}/strata-config.cmake
                              INSTALL_DESTINATION ${strata_package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/strata-config-version.cmake COMPATIBILITY SameMinorVersion
                                 ARCH_INDEPENDENT)

install(DIRECTORY include/strata DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp" PATTERN "*.cuh"
        PATTERN "*.cu" PATTERN "*.inc" PATTERN "*kernels.cpp" PATTERN "compiled.cpp"
        PATTERN "mpi.cpp")
install(TARGETS strata strata_kernels strata_compiled EXPORT strata-targets)
install(EXPORT strata-targets NAMESPACE strata:: DESTINATION ${strata_package_dir})
install(FILES ${PROJECT_BINARY_DIR}/strata-config.cmake ${PROJECT_BINARY_DIR}/strata-config-version.cmake
              cmake/StrataDependencies.cmake cmake/StrataCuda.cmake DESTINATION ${strata_package_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/strata)

# pkg-config's files name the prefix by their own place, so that the folder may be moved. Absolute folders stay so.
set(strata_pc_prefix ${CMAKE_INSTALL_PREFIX})
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_DATADIR}")
  file(RELATIVE_PATH strata_pc_up /${CMAKE_INSTALL_DATADIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" strata_pc_prefix "\${pcfiledir}/${strata_pc_up}")
endif()
set(strata_pc_includedir ${CMAKE_INSTALL_INCLUDEDIR})
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  set(strata_pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
# The headers look for <stb/stb_image.h>, then for <stb_image.h>.
set(strata_pc_stb " -I${STRATA_STB_INCLUDE_DIR}")
foreach(folder IN LISTS CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES)
  if(STRATA_STB_INCLUDE_DIR STREQUAL "${folder}" OR STRATA_STB_INCLUDE_DIR STREQUAL "${folder}/stb")
    set(strata_pc_stb "")
  endif()
endforeach()
foreach(file IN ITEMS strata strata-kernels strata-compiled)
  configure_file(cmake/packaging/${file}.pc.in ${PROJECT_BINARY_DIR}/${file}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${file}.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)
endforeach()

if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # headers: neither `make install` nor cpack compiles
  include(cmake/StrataPackages.cmake)
endif()
