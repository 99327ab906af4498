# For AArch64 from a machine of another kind, with Debian's g++-aarch64-linux-gnu; programs run under qemu-user:
#
#     cmake --preset aarch64 && cmake --build --preset aarch64 && ctest --preset aarch64
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
if(NOT CMAKE_CXX_COMPILER)
  set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
endif()
set(CMAKE_CXX_FLAGS_INIT -Wno-psabi)  # notes on arguments that g++ before 10 passed in other registers
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
if(NOT CMAKE_CROSSCOMPILING_EMULATOR)
  set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
endif()
