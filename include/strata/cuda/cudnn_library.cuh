// The functions of cuDNN that Strata calls, from the library as it is found at run time, and its descriptors as values
// that clean up after themselves.
//
//     st::cuda::CudnnLibrary cudnn;                                     // throws DeviceError where there is no cuDNN
//     st::cuda::Descriptor tensor(cudnn, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
//     tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT);
//     tensor.finalize();
#pragma once

#include <cudnn.h>

#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/cuda/shared_library.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// A call that cuDNN refused. status() tells an operation it has no engine for from a mistake.
struct CudnnError : LibraryError {
  CudnnError(const std::string& text, cudnnStatus_t status) : LibraryError(text), status_(status) {}
  cudnnStatus_t status() const { return status_; }

 private:
  cudnnStatus_t status_;
};

/// The functions have the names of cuDNN's without the prefix. The object must outlive all that is made from it.
class CudnnLibrary {
 public:
  static std::string default_name() { return concat("libcudnn.so.", CUDNN_MAJOR); }

  /// Throws DeviceError when the library is missing or of another major version than the header.
  explicit CudnnLibrary(const std::string& name = default_name()) : library_(name) {
    if (get_version() / 10000 != CUDNN_MAJOR)
      throw DeviceError(concat(name, " is cuDNN ", version(), "; this program was built for ", CUDNN_MAJOR, ".x"));
  }
  CudnnLibrary(const CudnnLibrary&) = delete;
  CudnnLibrary& operator=(const CudnnLibrary&) = delete;

  std::string version() const {
    const std::size_t number = get_version();
    return concat(number / 10000, ".", number / 100 % 100, ".", number % 100);
  }

  /// Throws CudnnError, with cuDNN's own explanation, unless `status` is success. `what` names the operation.
  void check(cudnnStatus_t status, const std::string& what) const {
    if (status == CUDNN_STATUS_SUCCESS) return;
    char reason[512] = {};
    get_last_error_string(reason, sizeof reason);
    throw CudnnError(concat("cuDNN: ", what, ": ", get_error_string(status), reason[0] != 0 ? ": " : "", reason),
                     status);
  }

 private:
  SharedLibrary library_;

 public:
#define STRATA_CUDNN_FUNCTION(name, symbol) \
  decltype(&symbol) name = library_.function<std::remove_pointer_t<decltype(&symbol)>>(#symbol)
  STRATA_CUDNN_FUNCTION(get_version, cudnnGetVersion);
  STRATA_CUDNN_FUNCTION(get_error_string, cudnnGetErrorString);
  STRATA_CUDNN_FUNCTION(get_last_error_string, cudnnGetLastErrorString);
  STRATA_CUDNN_FUNCTION(create, cudnnCreate);
  STRATA_CUDNN_FUNCTION(destroy, cudnnDestroy);
  STRATA_CUDNN_FUNCTION(set_stream, cudnnSetStream);
  STRATA_CUDNN_FUNCTION(create_descriptor, cudnnBackendCreateDescriptor);
  STRATA_CUDNN_FUNCTION(destroy_descriptor, cudnnBackendDestroyDescriptor);
  STRATA_CUDNN_FUNCTION(finalize, cudnnBackendFinalize);
  STRATA_CUDNN_FUNCTION(set_attribute, cudnnBackendSetAttribute);
  STRATA_CUDNN_FUNCTION(get_attribute, cudnnBackendGetAttribute);
  STRATA_CUDNN_FUNCTION(execute, cudnnBackendExecute);
#undef STRATA_CUDNN_FUNCTION
};

namespace detail {

template <class T>
inline constexpr cudnnBackendAttributeType_t attribute_type = [] {
  if constexpr (std::is_same_v<T, std::int64_t>)
    return CUDNN_TYPE_INT64;
  else if constexpr (std::is_same_v<T, double>)
    return CUDNN_TYPE_DOUBLE;
  else if constexpr (std::is_same_v<T, bool>)
    return CUDNN_TYPE_BOOLEAN;
  else if constexpr (std::is_same_v<T, char>)
    return CUDNN_TYPE_CHAR;
  else if constexpr (std::is_same_v<T, void*>)
    return CUDNN_TYPE_VOID_PTR;
  else if constexpr (std::is_same_v<T, cudnnHandle_t>)
    return CUDNN_TYPE_HANDLE;
  else if constexpr (std::is_same_v<T, cudnnDataType_t>)
    return CUDNN_TYPE_DATA_TYPE;
  else if constexpr (std::is_same_v<T, cudnnConvolutionMode_t>)
    return CUDNN_TYPE_CONVOLUTION_MODE;
  else if constexpr (std::is_same_v<T, cudnnPointwiseMode_t>)
    return CUDNN_TYPE_POINTWISE_MODE;
  else if constexpr (std::is_same_v<T, cudnnBackendHeurMode_t>)
    return CUDNN_TYPE_HEUR_MODE;
  else if constexpr (std::is_same_v<T, cudnnBackendNumericalNote_t>)
    return CUDNN_TYPE_NUMERICAL_NOTE;
  else if constexpr (std::is_same_v<T, cudnnBackendNormMode_t>)
    return CUDNN_TYPE_NORM_MODE;
  else if constexpr (std::is_same_v<T, cudnnBackendNormFwdPhase_t>)
    return CUDNN_TYPE_NORM_FWD_PHASE;
  else
    static_assert(!sizeof(T), "strata: no attribute of cuDNN has this type");
}();

}  // namespace detail

/// A backend descriptor: attributes are set, then it is finalized, then it can be used in others and read.
class Descriptor {
 public:
  Descriptor(const CudnnLibrary& library, cudnnBackendDescriptorType_t type) : library_(&library) {
    library.check(library.create_descriptor(type, &raw_), "creating a descriptor");
  }
  Descriptor(Descriptor&& other) noexcept : library_(other.library_), raw_(std::exchange(other.raw_, nullptr)) {}
  Descriptor& operator=(Descriptor other) noexcept {
    std::swap(library_, other.library_);
    std::swap(raw_, other.raw_);
    return *this;
  }
  ~Descriptor() {
    if (raw_ != nullptr) library_->destroy_descriptor(raw_);
  }

  cudnnBackendDescriptor_t raw() const { return raw_; }

  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, std::span<const T> values) {
    return set_raw(name, detail::attribute_type<T>, values.size(), values.data());
  }
  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, const T& value) {
    return set(name, std::span<const T>(&value, 1));
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& other) {
    return set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other.raw_);
  }
  Descriptor& set_descriptors(cudnnBackendAttributeName_t name, std::span<const cudnnBackendDescriptor_t> others) {
    return set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, others.size(), others.data());
  }

  Descriptor& finalize(const std::string& what) {
    library_->check(library_->finalize(raw_), what);
    return *this;
  }

  template <class T>
  T get(cudnnBackendAttributeName_t name) const {
    T value{};
    std::int64_t count = 0;
    library_->check(library_->get_attribute(raw_, name, detail::attribute_type<T>, 1, &count, &value),
                    concat("reading attribute ", int(name)));
    return value;
  }
  /// How many values an attribute has.
  std::int64_t count(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) const {
    std::int64_t count = 0;
    library_->check(library_->get_attribute(raw_, name, type, 0, &count, nullptr),
                    concat("counting attribute ", int(name)));
    return count;
  }
  template <class T>
  std::vector<T> get_all(cudnnBackendAttributeName_t name) const {
    std::vector<T> values(std::size_t(count(name, detail::attribute_type<T>)));
    std::int64_t count = 0;
    library_->check(library_->get_attribute(raw_, name, detail::attribute_type<T>, std::int64_t(values.size()), &count,
                                            values.data()),
                    concat("reading attribute ", int(name)));
    values.resize(std::size_t(count));
    return values;
  }
  /// Descriptors are read into ones that the caller has made.
  void get_into(cudnnBackendAttributeName_t name, std::vector<Descriptor>& places) const {
    std::vector<cudnnBackendDescriptor_t> raw;
    for (const Descriptor& place : places) raw.push_back(place.raw());
    std::int64_t count = 0;
    library_->check(library_->get_attribute(raw_, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::int64_t(raw.size()), &count,
                                            raw.data()),
                    concat("reading attribute ", int(name)));
    while (std::int64_t(places.size()) > count) places.pop_back();
  }

 private:
  Descriptor& set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::size_t count,
                      const void* values) {
    library_->check(library_->set_attribute(raw_, name, type, std::int64_t(count), values),
                    concat("setting attribute ", int(name)));
    return *this;
  }

  const CudnnLibrary* library_;
  cudnnBackendDescriptor_t raw_ = nullptr;
};

}}}  // namespace strata::STRATA_ABI::cuda
