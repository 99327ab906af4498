# What is installed as packages, after `cmake --preset release`, without a compilation:
#
#     (cd build/release && cpack)          # strata-0.1.0.tar.gz and, where there is dpkg, libstrata-dev_0.1.0_all.deb
#
# Both hold the headers, the CMake package and the pkg-config files, for every processor alike.
find_program(STRATA_DPKG dpkg DOC "Where it is, cpack makes a .deb too")
mark_as_advanced(STRATA_DPKG)

set(CPACK_GENERATOR TGZ)
if(STRATA_DPKG)
  list(APPEND CPACK_GENERATOR DEB)
endif()
set(CPACK_PACKAGE_NAME strata)
set(CPACK_PACKAGE_VENDOR "the Strata authors")
set(CPACK_PACKAGE_CONTACT "the Strata authors")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
string(CONCAT CPACK_PACKAGE_DESCRIPTION
  "Trains and runs convolutional networks from C++: headers, CMake package, pkg-config files.\n"
  "The network is a C++ type, and the compiler builds the program for exactly that network.")
set(CPACK_PACKAGE_FILE_NAME strata-${PROJECT_VERSION})
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGE_CHECKSUM SHA256)

# Debian's: libstrata-dev, what its programs need to compile, and what some of them do.
set(CPACK_DEBIAN_PACKAGE_NAME libstrata-dev)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_DEPENDS libstb-dev)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "g++ (>= 4:12) | clang-16 | c++-compiler, cmake (>= 3.25) | pkgconf")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "libprotozero-dev, libeigen3-dev, libopencv-core-dev, libopenmpi-dev")
include(CPack)
