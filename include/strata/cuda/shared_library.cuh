// A library that is looked for when it is first needed, so that a program built with it starts where it is missing.
//
//     st::cuda::SharedLibrary blas("libcublasLt.so.13");
//     auto* create = blas.function<decltype(cublasLtCreate)>("cublasLtCreate");
#pragma once

#include <dlfcn.h>

#include <string>
#include <utility>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// A call that a library refused: it cannot do this, or was asked wrongly.
struct LibraryError : DeviceError {
  using DeviceError::DeviceError;
};

/// A library stays in the program once it is there, whoever closes it: what cuDNN and cuBLAS keep for themselves is not
/// made to be unloaded.
class SharedLibrary {
 public:
  /// Opens the library by its path, or by its name as the system's loader finds it (LD_LIBRARY_PATH, ldconfig). Throws
  /// DeviceError, with the loader's words, when it is not there.
  explicit SharedLibrary(std::string name)
      : name_(std::move(name)), handle_(dlopen(name_.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
    if (handle_ == nullptr)
      throw DeviceError(concat("the library ", name_, " is missing: install it, or add its folder to LD_LIBRARY_PATH (",
                               last_error(), ")"));
  }
  SharedLibrary(SharedLibrary&& other) noexcept
      : name_(std::move(other.name_)), handle_(std::exchange(other.handle_, nullptr)) {}
  SharedLibrary& operator=(SharedLibrary other) noexcept {
    std::swap(name_, other.name_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~SharedLibrary() {
    if (handle_ != nullptr) dlclose(handle_);
  }

  const std::string& name() const { return name_; }

  /// The function called `symbol`. Throws DeviceError when the library has none.
  template <class Function>
  Function* function(const char* symbol) const {
    void* address = dlsym(handle_, symbol);
    if (address == nullptr)
      throw DeviceError(concat("the library ", name_, " has no function ", symbol,
                               ": it is of another version than this program was built for"));
    return reinterpret_cast<Function*>(address);
  }

 private:
  static std::string last_error() {
    const char* text = dlerror();
    return text != nullptr ? text : "no reason given";
  }

  std::string name_;
  void* handle_;
};

}}}  // namespace strata::STRATA_ABI::cuda
