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
