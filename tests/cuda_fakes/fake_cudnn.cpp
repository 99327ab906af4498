// A cuDNN that computes what its descriptors say, on host memory, in double, and checks how it is called: attribute
// types and counts, what must be finalized before what, extents that fit, addresses inside allocations and aligned as
// promised. The real headers declare its functions.
#include "cuda_fakes/fake_cudnn.hpp"

#include <cudnn.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cuda_fakes/fake_device.hpp"
#include "cuda_fakes/numbers.hpp"

namespace {

using fake_device::Type;
using Extents = std::array<std::int64_t, 4>;

struct Attribute {
  cudnnBackendAttributeType_t type;
  std::vector<char> bytes;
  std::int64_t count;
};

struct Object {
  explicit Object(cudnnBackendDescriptorType_t t) : type(t) {}
  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<int, Attribute> attributes;
  int engine = 0;                 // of engines, configurations and plans
  const Object* graph = nullptr;  // of those and of heuristics
};

struct Engine {
  int number;
  std::vector<cudnnBackendNumericalNote_t> notes;
  std::int64_t workspace;
  float cost;
  bool makes_plans;
};

const std::vector<Engine> engines{
    {10, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE}, 4096, 5, true},
    {11, {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS}, 0, 1, true},
    {12, {CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC}, 0, 1, true},
    {13, {}, std::int64_t{2} << 30, 1, true},
    {14, {}, 0, 1, false},
    {15, {}, 1000, 3, true},
    {16, {}, 0, 2, true},
    {99, {}, 0, 9, true},
};
const Engine& engine_of(int number) {
  return *std::find_if(engines.begin(), engines.end(), [&](const Engine& e) { return e.number == number; });
}

std::set<Object*> live;
std::set<cudnnHandle_t> handles;
std::map<cudnnHandle_t, cudaStream_t> streams;
long plans_made = 0;
int last_engine = 0, refusal = 0;
std::string last_error;

cudnnStatus_t fail(cudnnStatus_t status, const std::string& text) {
  last_error = text;
  return status;
}
/// A mistake of the caller, which no test may have made unless it looks for it.
cudnnStatus_t wrong(const std::string& text) {
  fake_device::complain("cuDNN: " + text);
  return fail(CUDNN_STATUS_BAD_PARAM, text);
}

template <class T>
T get(const Object& object, int name, std::size_t index = 0) {
  T value{};
  const auto found = object.attributes.find(name);
  if (found == object.attributes.end() || found->second.bytes.size() < (index + 1) * sizeof(T)) {
    fake_device::complain("cuDNN: attribute " + std::to_string(name) + " is used and was not set");
    return value;
  }
  std::memcpy(&value, found->second.bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}
bool has(const Object& object, int name) { return object.attributes.count(name) != 0; }
std::int64_t count(const Object& object, int name) { return has(object, name) ? object.attributes.at(name).count : 0; }
const Object& part(const Object& object, int name, std::size_t index = 0) {
  static const Object nothing(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  auto* found = static_cast<Object*>(get<void*>(object, name, index));
  return found != nullptr ? *found : nothing;
}

/// The type every attribute must be set with; the table is that of cuDNN's documentation of its backend descriptors.
cudnnBackendAttributeType_t wanted_type(int name) {
  switch (name) {
    case CUDNN_ATTR_TENSOR_DATA_TYPE:
    case CUDNN_ATTR_CONVOLUTION_COMP_TYPE:
    case CUDNN_ATTR_POINTWISE_MATH_PREC:
      return CUDNN_TYPE_DATA_TYPE;
    case CUDNN_ATTR_TENSOR_DIMENSIONS:
    case CUDNN_ATTR_TENSOR_STRIDES:
    case CUDNN_ATTR_TENSOR_UNIQUE_ID:
    case CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT:
    case CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS:
    case CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS:
    case CUDNN_ATTR_CONVOLUTION_POST_PADDINGS:
    case CUDNN_ATTR_CONVOLUTION_DILATIONS:
    case CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES:
    case CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS:
      return CUDNN_TYPE_INT64;
    case CUDNN_ATTR_TENSOR_IS_VIRTUAL:
    case CUDNN_ATTR_TENSOR_IS_BY_VALUE:
      return CUDNN_TYPE_BOOLEAN;
    case CUDNN_ATTR_CONVOLUTION_CONV_MODE:
      return CUDNN_TYPE_CONVOLUTION_MODE;
    case CUDNN_ATTR_POINTWISE_MODE:
      return CUDNN_TYPE_POINTWISE_MODE;
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA:
    case CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA:
      return CUDNN_TYPE_DOUBLE;
    case CUDNN_ATTR_OPERATION_NORM_FWD_MODE:
    case CUDNN_ATTR_OPERATION_NORM_BWD_MODE:
      return CUDNN_TYPE_NORM_MODE;
    case CUDNN_ATTR_OPERATION_NORM_FWD_PHASE:
      return CUDNN_TYPE_NORM_FWD_PHASE;
    case CUDNN_ATTR_ENGINEHEUR_MODE:
      return CUDNN_TYPE_HEUR_MODE;
    case CUDNN_ATTR_OPERATIONGRAPH_HANDLE:
    case CUDNN_ATTR_EXECUTION_PLAN_HANDLE:
      return CUDNN_TYPE_HANDLE;
    case CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS:
    case CUDNN_ATTR_VARIANT_PACK_WORKSPACE:
      return CUDNN_TYPE_VOID_PTR;
    default:
      return CUDNN_TYPE_BACKEND_DESCRIPTOR;
  }
}

std::size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
      return 8;
    case CUDNN_TYPE_BOOLEAN:
      return sizeof(bool);
    default:
      return 4;  // enumerations
  }
}

// ---- tensors

Extents extents(const Object& tensor, int name = CUDNN_ATTR_TENSOR_DIMENSIONS) {
  Extents e{};
  for (std::size_t i = 0; i < 4; ++i) e[i] = get<std::int64_t>(tensor, name, i);
  return e;
}
std::int64_t volume(const Extents& e) { return e[0] * e[1] * e[2] * e[3]; }
std::int64_t uid(const Object& tensor) { return get<std::int64_t>(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID); }
bool flag(const Object& tensor, int name) { return has(tensor, name) && get<bool>(tensor, name); }
bool is_virtual(const Object& tensor) { return flag(tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL); }
bool by_value(const Object& tensor) { return flag(tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE); }
Type type_of(const Object& tensor) {
  const auto type = get<cudnnDataType_t>(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE);
  return type == CUDNN_DATA_HALF ? Type::fp16 : type == CUDNN_DATA_BFLOAT16 ? Type::bf16 : Type::fp32;
}
std::int64_t offset(const Extents& strides, const Extents& at) {
  return at[0] * strides[0] + at[1] * strides[1] + at[2] * strides[2] + at[3] * strides[3];
}

/// The numbers of a tensor in the order n, c, h, w, whatever its strides.
struct Values {
  Extents extents{};
  std::vector<double> numbers;
  explicit Values(const Extents& e) : extents(e), numbers(std::size_t(volume(e))) {}
  double& operator()(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w) {
    return numbers[std::size_t(((n * extents[1] + c) * extents[2] + h) * extents[3] + w)];
  }
};
template <class F>
void for_each_place(const Extents& e, F&& f) {
  for (std::int64_t n = 0; n < e[0]; ++n)
    for (std::int64_t c = 0; c < e[1]; ++c)
      for (std::int64_t h = 0; h < e[2]; ++h)
        for (std::int64_t w = 0; w < e[3]; ++w) f(Extents{n, c, h, w});
}

/// One run of a plan.
struct Run {
  std::map<std::int64_t, void*> addresses;
  std::map<std::int64_t, Values> between;
  const Engine* engine;

  void* address(const Object& tensor) {
    const auto found = addresses.find(uid(tensor));
    if (found == addresses.end()) {
      fake_device::complain("cuDNN: no address for tensor " + std::to_string(uid(tensor)));
      return nullptr;
    }
    void* address = found->second;
    if (by_value(tensor)) return address;
    const Extents e = extents(tensor), s = extents(tensor, CUDNN_ATTR_TENSOR_STRIDES);
    const std::int64_t last = offset(s, {e[0] - 1, e[1] - 1, e[2] - 1, e[3] - 1});
    if (!fake_device::holds(address, std::size_t(last + 1) * fake_device::size_of(type_of(tensor))))
      fake_device::complain("cuDNN: tensor " + std::to_string(uid(tensor)) + " does not lie inside an allocation");
    if (reinterpret_cast<std::uintptr_t>(address) %
            std::uintptr_t(get<std::int64_t>(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)) !=
        0)
      fake_device::complain("cuDNN: tensor " + std::to_string(uid(tensor)) + " is not aligned as its descriptor says");
    return address;
  }
  Values load(const Object& tensor) {
    if (is_virtual(tensor)) return between.at(uid(tensor));
    Values values(extents(tensor));
    const char* from = static_cast<const char*>(address(tensor));
    const Extents s = extents(tensor, CUDNN_ATTR_TENSOR_STRIDES);
    const Type type = type_of(tensor);
    if (from != nullptr)
      for_each_place(values.extents, [&](const Extents& at) {
        values(at[0], at[1], at[2], at[3]) =
            fake_device::read(type, from + offset(s, at) * std::int64_t(fake_device::size_of(type)));
      });
    return values;
  }
  /// Factors of a product, as the engine reads them.
  Values load_factor(const Object& tensor) {
    Values values = load(tensor);
    const bool fp32 = type_of(tensor) == Type::fp32;
    for (double& x : values.numbers) {
      if (engine->number == 10 && fp32) x = fake_device::to_tf32(x);
      if (engine->number == 11) {
        std::uint16_t place;
        fake_device::write(Type::bf16, &place, x);
        x = fake_device::read(Type::bf16, &place);
      }
    }
    return values;
  }
  void store(const Object& tensor, Values values, double beta = 0) {
    if (engine->number == 12)
      for (double& x : values.numbers) x *= 1.001;
    if (is_virtual(tensor)) {
      between.insert_or_assign(uid(tensor), std::move(values));
      return;
    }
    char* to = static_cast<char*>(address(tensor));
    const Extents s = extents(tensor, CUDNN_ATTR_TENSOR_STRIDES);
    const Type type = type_of(tensor);
    if (to == nullptr) return;
    for_each_place(values.extents, [&](const Extents& at) {
      char* place = to + offset(s, at) * std::int64_t(fake_device::size_of(type));
      double value = values(at[0], at[1], at[2], at[3]);
      if (beta != 0) value += beta * fake_device::read(type, place);
      fake_device::write(type, place, value);
    });
  }
};

// ---- operations

struct Window {
  std::int64_t padding[2], stride[2], dilation[2];
};
Window window_of(const Object& convolution) {
  Window w{};
  for (std::size_t i = 0; i < 2; ++i) {
    w.padding[i] = get<std::int64_t>(convolution, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i);
    w.stride[i] = get<std::int64_t>(convolution, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, i);
    w.dilation[i] = get<std::int64_t>(convolution, CUDNN_ATTR_CONVOLUTION_DILATIONS, i);
  }
  return w;
}

/// Calls f(n, o, c, output row, output column, kernel row, kernel column, input row, input column) inside the image.
template <class F>
void for_each_product(const Extents& x, const Extents& filter, const Extents& y, const Window& window, F&& f) {
  for (std::int64_t n = 0; n < y[0]; ++n)
    for (std::int64_t o = 0; o < y[1]; ++o)
      for (std::int64_t c = 0; c < x[1]; ++c)
        for (std::int64_t i = 0; i < y[2]; ++i)
          for (std::int64_t j = 0; j < y[3]; ++j)
            for (std::int64_t p = 0; p < filter[2]; ++p)
              for (std::int64_t q = 0; q < filter[3]; ++q) {
                const std::int64_t r = i * window.stride[0] + p * window.dilation[0] - window.padding[0];
                const std::int64_t s = j * window.stride[1] + q * window.dilation[1] - window.padding[1];
                if (r >= 0 && r < x[2] && s >= 0 && s < x[3]) f(n, o, c, i, j, p, q, r, s);
              }
}

struct ConvolutionNames {
  int convolution, x, w, y, alpha, beta;
};
ConvolutionNames names_of(cudnnBackendDescriptorType_t type) {
  if (type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)
    return {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
  if (type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR)
    return {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
  return {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
}

void convolution(Run& run, const Object& operation) {
  const ConvolutionNames names = names_of(operation.type);
  const Object &x = part(operation, names.x), &w = part(operation, names.w), &y = part(operation, names.y);
  const Window window = window_of(part(operation, names.convolution));
  const double alpha = get<double>(operation, names.alpha), beta = get<double>(operation, names.beta);
  if (operation.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR) {
    Values xs = run.load_factor(x), ws = run.load_factor(w), result(extents(y));
    for_each_product(xs.extents, ws.extents, result.extents, window,
                     [&](auto n, auto o, auto c, auto i, auto j, auto p, auto q, auto r, auto s) {
                       result(n, o, i, j) += alpha * xs(n, c, r, s) * ws(o, c, p, q);
                     });
    run.store(y, std::move(result), beta);
  } else if (operation.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR) {
    Values ys = run.load_factor(y), ws = run.load_factor(w), result(extents(x));
    for_each_product(result.extents, ws.extents, ys.extents, window,
                     [&](auto n, auto o, auto c, auto i, auto j, auto p, auto q, auto r, auto s) {
                       result(n, c, r, s) += alpha * ys(n, o, i, j) * ws(o, c, p, q);
                     });
    run.store(x, std::move(result), beta);
  } else {
    Values xs = run.load_factor(x), ys = run.load_factor(y), result(extents(w));
    for_each_product(xs.extents, result.extents, ys.extents, window,
                     [&](auto n, auto o, auto c, auto i, auto j, auto p, auto q, auto r, auto s) {
                       result(o, c, p, q) += alpha * ys(n, o, i, j) * xs(n, c, r, s);
                     });
    run.store(w, std::move(result), beta);
  }
}

void pointwise(Run& run, const Object& operation) {
  const auto mode = get<cudnnPointwiseMode_t>(part(operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR),
                                              CUDNN_ATTR_POINTWISE_MODE);
  Values x = run.load(part(operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
  if (mode == CUDNN_POINTWISE_RELU_FWD) {
    for (double& value : x.numbers) value = value > 0 ? value : value != value ? value : 0;
  } else {
    Values b = run.load(part(operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
    for_each_place(x.extents, [&](const Extents& at) {
      Extents from = at;
      for (std::size_t i = 0; i < 4; ++i)
        if (b.extents[i] == 1) from[i] = 0;
      double& value = x(at[0], at[1], at[2], at[3]);
      const double other = b(from[0], from[1], from[2], from[3]);
      value = mode == CUDNN_POINTWISE_ADD ? value + other : value * other;
    });
  }
  run.store(part(operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC), std::move(x));
}

void norm_forward(Run& run, const Object& operation) {
  const auto tensor = [&](int name) -> const Object& { return part(operation, name); };
  Values x = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_XDESC));
  Values scale = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_SCALE_DESC)),
         bias = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_BIAS_DESC));
  Values old_mean = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_INPUT_RUNNING_MEAN_DESC));
  Values old_var = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_INPUT_RUNNING_VAR_DESC));
  const double epsilon = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_EPSILON_DESC)).numbers[0];
  const double momentum = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_EXP_AVG_FACTOR_DESC)).numbers[0];
  const auto [n, c, h, w] = x.extents;
  const double count = double(n * h * w);
  Values mean({1, c, 1, 1}), inverse({1, c, 1, 1}), new_mean({1, c, 1, 1}), new_var({1, c, 1, 1});
  std::vector<double> sum(std::size_t(c), 0.0), squares(std::size_t(c), 0.0);
  for_each_place(x.extents, [&](const Extents& at) { sum[std::size_t(at[1])] += x(at[0], at[1], at[2], at[3]); });
  for_each_place(x.extents, [&](const Extents& at) {
    const double d = x(at[0], at[1], at[2], at[3]) - sum[std::size_t(at[1])] / count;
    squares[std::size_t(at[1])] += d * d;
  });
  for (std::size_t k = 0; k < std::size_t(c); ++k) {
    mean.numbers[k] = sum[k] / count;
    inverse.numbers[k] = 1 / std::sqrt(squares[k] / count + epsilon);
    new_mean.numbers[k] = (1 - momentum) * old_mean.numbers[k] + momentum * mean.numbers[k];
    new_var.numbers[k] = (1 - momentum) * old_var.numbers[k] + momentum * squares[k] / (count - 1);
  }
  for_each_place(x.extents, [&](const Extents& at) {
    const std::size_t k = std::size_t(at[1]);
    double& value = x(at[0], at[1], at[2], at[3]);
    value = scale.numbers[k] * (value - mean.numbers[k]) * inverse.numbers[k] + bias.numbers[k];
  });
  run.store(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_YDESC), std::move(x));
  run.store(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC), std::move(mean));
  run.store(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC), std::move(inverse));
  run.store(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_OUTPUT_RUNNING_MEAN_DESC), std::move(new_mean));
  run.store(tensor(CUDNN_ATTR_OPERATION_NORM_FWD_OUTPUT_RUNNING_VAR_DESC), std::move(new_var));
}

void norm_backward(Run& run, const Object& operation) {
  const auto tensor = [&](int name) -> const Object& { return part(operation, name); };
  Values x = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_BWD_XDESC)),
         dy = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_BWD_DYDESC));
  Values scale = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_BWD_SCALE_DESC)),
         mean = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_BWD_MEAN_DESC));
  Values inverse = run.load(tensor(CUDNN_ATTR_OPERATION_NORM_BWD_INV_VARIANCE_DESC));
  const double count = double(x.extents[0] * x.extents[2] * x.extents[3]);
  Values dscale(scale.extents), dbias(scale.extents), dx(x.extents);
  const auto normalised = [&](const Extents& at) {
    const std::size_t k = std::size_t(at[1]);
    return (x(at[0], at[1], at[2], at[3]) - mean.numbers[k]) * inverse.numbers[k];
  };
  for_each_place(x.extents, [&](const Extents& at) {
    const double g = dy(at[0], at[1], at[2], at[3]);
    dbias.numbers[std::size_t(at[1])] += g;
    dscale.numbers[std::size_t(at[1])] += g * normalised(at);
  });
  for_each_place(x.extents, [&](const Extents& at) {
    const std::size_t k = std::size_t(at[1]);
    dx(at[0], at[1], at[2], at[3]) =
        scale.numbers[k] * inverse.numbers[k] *
        (dy(at[0], at[1], at[2], at[3]) - dbias.numbers[k] / count - normalised(at) * dscale.numbers[k] / count);
  });
  run.store(tensor(CUDNN_ATTR_OPERATION_NORM_BWD_DXDESC), std::move(dx));
  run.store(tensor(CUDNN_ATTR_OPERATION_NORM_BWD_DSCALE_DESC), std::move(dscale));
  run.store(tensor(CUDNN_ATTR_OPERATION_NORM_BWD_DBIAS_DESC), std::move(dbias));
}

// ---- what finalizing checks

cudnnStatus_t check_convolution(const Object& operation) {
  const ConvolutionNames names = names_of(operation.type);
  const Extents x = extents(part(operation, names.x)), w = extents(part(operation, names.w)),
                y = extents(part(operation, names.y));
  const Window window = window_of(part(operation, names.convolution));
  if (x[0] != y[0] || x[1] != w[1] || y[1] != w[0]) return fail(CUDNN_STATUS_BAD_PARAM, "batch or channels do not fit");
  for (std::size_t i = 0; i < 2; ++i) {
    const std::int64_t reach = window.dilation[i] * (w[i + 2] - 1) + 1, room = x[i + 2] + 2 * window.padding[i] - reach;
    if (room < 0 || y[i + 2] != room / window.stride[i] + 1)
      return fail(CUDNN_STATUS_BAD_PARAM, "the output's extents do not fit");
  }
  get<double>(operation, names.alpha);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t check(Object& object) {
  for (const auto& [name, attribute] : object.attributes)
    if (attribute.type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
      for (std::int64_t i = 0; i < attribute.count; ++i) {
        auto* other = static_cast<Object*>(get<void*>(object, name, std::size_t(i)));
        if (live.count(other) == 0) return wrong("attribute " + std::to_string(name) + " is no living descriptor");
        if (!other->finalized) return wrong("attribute " + std::to_string(name) + " is not finalized");
      }
  switch (object.type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR: {
      const Extents e = extents(object);
      extents(object, CUDNN_ATTR_TENSOR_STRIDES);
      get<cudnnDataType_t>(object, CUDNN_ATTR_TENSOR_DATA_TYPE);
      const auto alignment = get<std::int64_t>(object, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
      if (alignment < 1 || (alignment & (alignment - 1)) != 0) return wrong("an alignment that is no power of two");
      for (const std::int64_t extent : e)
        if (extent < 1) return fail(CUDNN_STATUS_BAD_PARAM, "an extent below 1");
      return CUDNN_STATUS_SUCCESS;
    }
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR: {
      if (get<std::int64_t>(object, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS) != 2) return wrong("not two-dimensional");
      if (get<cudnnDataType_t>(object, CUDNN_ATTR_CONVOLUTION_COMP_TYPE) != CUDNN_DATA_FLOAT)
        return wrong("sums are not fp32");
      if (get<cudnnConvolutionMode_t>(object, CUDNN_ATTR_CONVOLUTION_CONV_MODE) != CUDNN_CROSS_CORRELATION)
        return wrong("not a cross-correlation");
      for (std::size_t i = 0; i < 2; ++i)
        if (get<std::int64_t>(object, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, i) !=
            get<std::int64_t>(object, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, i))
          return wrong("paddings before and behind differ");
      return CUDNN_STATUS_SUCCESS;
    }
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
      return check_convolution(object);
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
      if (count(object, CUDNN_ATTR_OPERATIONGRAPH_OPS) < 1) return wrong("a graph without operations");
      if (handles.count(get<cudnnHandle_t>(object, CUDNN_ATTR_OPERATIONGRAPH_HANDLE)) == 0)
        return wrong("a graph without a handle");
      return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
      object.graph = &part(object, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
      return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: {
      const Object& configuration = part(object, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
      if (handles.count(get<cudnnHandle_t>(object, CUDNN_ATTR_EXECUTION_PLAN_HANDLE)) == 0)
        return wrong("a plan without a handle");
      object.engine = configuration.engine;
      object.graph = configuration.graph;
      if (!engine_of(object.engine).makes_plans) return fail(CUDNN_STATUS_NOT_SUPPORTED, "this engine makes no plans");
      ++plans_made;
      return CUDNN_STATUS_SUCCESS;
    }
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
      if (count(object, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS) != count(object, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS))
        return wrong("as many names as addresses are wanted");
      return CUDNN_STATUS_SUCCESS;
    default:
      return CUDNN_STATUS_SUCCESS;
  }
}

std::vector<int> proposals(const Object& heuristics) {
  const auto mode = get<cudnnBackendHeurMode_t>(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE);
  std::vector<int> numbers;
  for (const Engine& engine : engines)
    if ((engine.number == 99) == (mode == CUDNN_HEUR_MODE_FALLBACK) && refusal < (engine.number == 99 ? 2 : 1))
      numbers.push_back(engine.number);
  return numbers;
}

}  // namespace

extern "C" {

std::size_t fake_cudnn_live_descriptors() { return live.size(); }
std::size_t fake_cudnn_live_handles() { return handles.size(); }
long fake_cudnn_plans_made() { return plans_made; }
int fake_cudnn_last_engine() { return last_engine; }
void fake_cudnn_refuse(int how) { refusal = how; }

std::size_t cudnnGetVersion() { return CUDNN_VERSION; }
const char* cudnnGetErrorString(cudnnStatus_t status) {
  return status == CUDNN_STATUS_SUCCESS     ? "CUDNN_STATUS_SUCCESS"
         : status == CUDNN_STATUS_BAD_PARAM ? "CUDNN_STATUS_BAD_PARAM"
                                            : "CUDNN_STATUS_NOT_SUPPORTED";
}
void cudnnGetLastErrorString(char* message, std::size_t max_size) {
  std::snprintf(message, max_size, "%s", last_error.c_str());
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  *handle = reinterpret_cast<cudnnHandle_t>(new char);
  handles.insert(*handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  if (handles.erase(handle) == 0) return wrong("destroying no handle");
  if (!live.empty()) fake_device::complain("cuDNN: the handle goes before its descriptors");
  delete reinterpret_cast<char*>(handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  if (handles.count(handle) == 0) return wrong("a stream for no handle");
  streams[handle] = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  auto* object = new Object(type);
  live.insert(object);
  *descriptor = object;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  auto* object = static_cast<Object*>(descriptor);
  if (live.erase(object) == 0) return wrong("destroying no living descriptor");
  delete object;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  auto& object = *static_cast<Object*>(descriptor);
  if (object.finalized) return wrong("finalizing twice");
  const cudnnStatus_t status = check(object);
  object.finalized = status == CUDNN_STATUS_SUCCESS;
  return status;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, std::int64_t element_count,
                                       const void* values) {
  auto& object = *static_cast<Object*>(descriptor);
  if (object.finalized) return wrong("setting attribute " + std::to_string(name) + " of a finalized descriptor");
  if (type != wanted_type(name))
    return wrong("attribute " + std::to_string(name) + " has type " + std::to_string(type));
  const auto* bytes = static_cast<const char*>(values);
  object.attributes[name] = {type, std::vector<char>(bytes, bytes + std::size_t(element_count) * size_of(type)),
                             element_count};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t, std::int64_t requested, std::int64_t* element_count,
                                       void* values) {
  auto& object = *static_cast<Object*>(descriptor);
  if (!object.finalized)
    return wrong("reading attribute " + std::to_string(name) + " of a descriptor that is not finalized");
  if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    const std::vector<int> numbers = proposals(object);
    *element_count = std::int64_t(numbers.size());
    if (requested == 0) return CUDNN_STATUS_SUCCESS;
    *element_count = std::min<std::int64_t>(requested, *element_count);
    for (std::int64_t i = 0; i < *element_count; ++i) {
      auto& configuration = *static_cast<Object*>(static_cast<cudnnBackendDescriptor_t*>(values)[i]);
      if (configuration.type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
        return wrong("an engine's configuration has another place");
      configuration.engine = numbers[std::size_t(i)];
      configuration.graph = object.graph;
      configuration.finalized = true;
    }
  } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
    auto& engine = *static_cast<Object*>(*static_cast<cudnnBackendDescriptor_t*>(values));
    if (engine.type != CUDNN_BACKEND_ENGINE_DESCRIPTOR) return wrong("an engine has another place");
    engine.engine = object.engine;
    engine.finalized = true;
    *element_count = 1;
  } else if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX) {
    *static_cast<std::int64_t*>(values) = object.engine;
    *element_count = 1;
  } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) {
    const auto& notes = engine_of(object.engine).notes;
    *element_count = std::int64_t(notes.size());
    for (std::int64_t i = 0; i < std::min(requested, *element_count); ++i)
      static_cast<cudnnBackendNumericalNote_t*>(values)[i] = notes[std::size_t(i)];
  } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
    *static_cast<std::int64_t*>(values) = engine_of(object.engine).workspace;
    *element_count = 1;
  } else {
    return wrong("reading attribute " + std::to_string(name));
  }
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_descriptor,
                                  cudnnBackendDescriptor_t pack_descriptor) {
  const auto &plan = *static_cast<Object*>(plan_descriptor), &pack = *static_cast<Object*>(pack_descriptor);
  if (handles.count(handle) == 0 || streams[handle] != fake_device::stream())
    return wrong("running without a handle on a stream");
  if (!plan.finalized || plan.type != CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR || !pack.finalized)
    return wrong("running what is not finalized");
  if (live.count(const_cast<Object*>(plan.graph)) == 0)
    return wrong("the plan's graph is gone, and this fake reads it");
  Run run{{}, {}, &engine_of(plan.engine)};
  for (std::int64_t i = 0; i < count(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS); ++i)
    if (!run.addresses
             .emplace(get<std::int64_t>(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, std::size_t(i)),
                      get<void*>(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, std::size_t(i)))
             .second)
      return wrong("two addresses for one tensor");
  if (run.engine->workspace > 0) {
    void* workspace = get<void*>(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (!fake_device::holds(workspace, std::size_t(run.engine->workspace))) return wrong("the workspace is too small");
    std::memset(workspace, 0xFF, std::size_t(run.engine->workspace));
  }
  for (std::int64_t i = 0; i < count(*plan.graph, CUDNN_ATTR_OPERATIONGRAPH_OPS); ++i) {
    const Object& operation = part(*plan.graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, std::size_t(i));
    switch (operation.type) {
      case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        pointwise(run, operation);
        break;
      case CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR:
        norm_forward(run, operation);
        break;
      case CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR:
        norm_backward(run, operation);
        break;
      default:
        convolution(run, operation);
    }
  }
  fake_device::spend(run.engine->cost);
  last_engine = run.engine->number;
  return CUDNN_STATUS_SUCCESS;
}

}  // extern "C"
