# Strata for Conan 2, from a clone:
#
#     conan create cmake/packaging/conan -s compiler.cppstd=20 --build=missing
#
# A program then requires strata/VERSION, uses the generators CMakeToolchain and CMakeDeps, and finds the CMake package
# that Strata installs: find_package(strata), with the targets strata::strata, strata::kernels and strata::compiled.
# Programs that write ONNX files require protozero too, those that use Eigen or OpenCV these.
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load

required_conan_version = ">=2.0"


class StrataConan(ConanFile):
    name = "strata"
    description = "Convolutional networks as C++ types: a header-only C++20 toolkit that trains and runs them"
    license = "MIT"
    topics = ("deep-learning", "image-restoration", "cnn", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    no_copy_source = True

    @property
    def _sources(self):
        return os.path.join(self.recipe_folder, "..", "..", "..")

    def set_version(self):
        header = load(self, os.path.join(self._sources, "include", "strata", "version.hpp"))
        self.version = re.search(r'STRATA_VERSION "([^"]+)"', header)[1]

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*"):
            copy(self, pattern, src=self._sources, dst=self.export_sources_folder)

    def requirements(self):
        self.requires("stb/cci.20240531", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        self.info.clear()

    def layout(self):
        cmake_layout(self, src_folder=".")

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_BENCHMARKS", "CUDA"):
            toolchain.cache_variables[f"STRATA_{part}"] = "OFF"
        toolchain.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        # Strata's own CMake package, with all its targets.
        self.cpp_info.builddirs = [os.path.join("share", "cmake", "strata")]
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.set_property("pkg_config_name", "strata")
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]
