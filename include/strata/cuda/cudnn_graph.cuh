// The computations that cuDNN is asked for, as graphs of its backend API. A graph needs neither a device nor a driver.
//
//     st::cuda::CudnnLibrary cudnn;
//     st::cuda::CudnnConvolution forward{.problem = {.n = 128, .h = 40, .w = 40, .in = 64, .out = 64}};
//     st::cuda::CudnnGraph graph = st::cuda::convolution_graph(cudnn, forward);
//
// Layouts: activations N,H,W,C, weights O,KH,KW,I, all channel vectors C. cuDNN is given extents in the order N,C,H,W
// and O,I,KH,KW with strides that say the same. Sums are taken in fp32, or tf32 products with fp32 sums where allowed.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/cuda/cudnn_library.cuh"
#include "strata/math/activation.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/math/precision.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

enum class ConvolutionPass { forward, backward_input, backward_weight };

/// One convolution as cuDNN sees it; all of it decides which kernel is best, so all of it is the key of a plan.
struct CudnnConvolution {
  Conv2dProblem problem{};
  ConvolutionPass pass = ConvolutionPass::forward;
  Precision precision = Precision::fp32;
  bool bias = false;                         ///< forward only
  Activation activation = Activation::none;  ///< forward only
  bool accumulate = false;                   ///< the result is added to what is there; without bias and activation
  int alignment = 16;                        ///< bytes that divide every address

  bool operator==(const CudnnConvolution&) const = default;
  std::string str() const;
};

/// Batch normalisation in training: with the batch's statistics, which are also written. Without activation.
struct CudnnBatchNorm {
  enum class Pass { training, inference, backward };
  std::int64_t n = 1, h = 1, w = 1;
  int channels = 1;
  Pass pass = Pass::training;
  Precision precision = Precision::fp32;
  Activation activation = Activation::none;  ///< inference only
  int alignment = 16;

  bool operator==(const CudnnBatchNorm&) const = default;
  std::string str() const;
};

/// What a tensor of a graph is. The numbers name the addresses when a plan runs.
enum class Role : std::int64_t {
  x = 1,
  weight,
  bias,
  y,
  dx,
  dy,
  dweight,
  dbias,
  mean,
  inverse_std,
  running_mean,
  running_var,
  new_running_mean,
  new_running_var,
  epsilon,
  momentum,
  sum,
  biased  // inside a graph, never in memory
};

/// What a convolution's factors are in memory.
inline cudnnDataType_t cudnn_type(Precision precision) {
  return precision == Precision::fp16   ? CUDNN_DATA_HALF
         : precision == Precision::bf16 ? CUDNN_DATA_BFLOAT16
                                        : CUDNN_DATA_FLOAT;
}
inline const char* name_of(cudnnDataType_t type) {
  return type == CUDNN_DATA_HALF ? "fp16" : type == CUDNN_DATA_BFLOAT16 ? "bf16" : "fp32";
}
inline const char* name_of(Precision precision) {
  return precision == Precision::tf32 ? "tf32" : name_of(cudnn_type(precision));
}

/// A finished operation graph and the descriptors it stands on.
class CudnnGraph {
 public:
  /// `handle`: for plans on a device; nullptr for plans on a described one.
  CudnnGraph(const CudnnLibrary& library, std::string name, cudnnHandle_t handle)
      : library_(&library),
        name_(std::move(name)),
        graph_(library, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR),
        handle_(handle) {}

  using Extents = std::array<std::int64_t, 4>;
  /// n images of c channels in N,H,W,C order. Weights are o images of i channels.
  const Descriptor& tensor(Role role, Extents nchw, cudnnDataType_t type, int alignment) {
    const auto [n, c, h, w] = nchw;
    Descriptor d = tensor_of(role, nchw, {h * w * c, 1, w * c, c}, type, alignment);
    return keep(std::move(d), "a tensor");
  }
  /// A vector with a number for each channel.
  const Descriptor& channels(Role role, std::int64_t c, cudnnDataType_t type, int alignment) {
    return tensor(role, {1, c, 1, 1}, type, alignment);
  }
  /// A tensor between two operations.
  const Descriptor& between(Role role, Extents nchw) {
    const auto [n, c, h, w] = nchw;
    Descriptor d = tensor_of(role, nchw, {h * w * c, 1, w * c, c}, CUDNN_DATA_FLOAT, 16);
    d.set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, true);
    return keep(std::move(d), "a tensor between operations");
  }
  /// A number that is given on the host when the plan runs.
  const Descriptor& number(Role role) {
    Descriptor d = tensor_of(role, {1, 1, 1, 1}, {1, 1, 1, 1}, CUDNN_DATA_FLOAT, 4);
    d.set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, true);
    return keep(std::move(d), "a number");
  }
  Descriptor make(cudnnBackendDescriptorType_t type) const { return {*library_, type}; }
  /// Finalizes a descriptor and keeps it as long as the graph.
  const Descriptor& keep(Descriptor descriptor, const std::string& what) {
    descriptor.finalize(concat(name_, ": ", what));
    parts_.push_back(std::make_unique<Descriptor>(std::move(descriptor)));
    return *parts_.back();
  }
  void add_operation(Descriptor operation, const std::string& what) {
    operations_.push_back(keep(std::move(operation), what).raw());
  }
  /// A pointwise operation y = f(x) or f(x, b).
  void add_pointwise(cudnnPointwiseMode_t mode, const Descriptor& x, const Descriptor* b, const Descriptor& y) {
    Descriptor function = make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    function.set(CUDNN_ATTR_POINTWISE_MODE, mode).set(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    const Descriptor& kept = keep(std::move(function), "a pointwise function");
    Descriptor operation = make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kept).set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b != nullptr) operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, *b);
    operation.set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add_operation(std::move(operation), "a pointwise operation");
  }
  void finish() {
    graph_.set_descriptors(CUDNN_ATTR_OPERATIONGRAPH_OPS, operations_);
    if (handle_ != nullptr) graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle_);
    graph_.finalize(concat(name_, ": the graph"));
  }

  const Descriptor& graph() const { return graph_; }
  const std::string& name() const { return name_; }
  const CudnnLibrary& library() const { return *library_; }
  cudnnHandle_t handle() const { return handle_; }

 private:
  Descriptor tensor_of(Role role, Extents extents, Extents strides, cudnnDataType_t type, int alignment) const {
    Descriptor d = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    d.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
        .set(CUDNN_ATTR_TENSOR_DIMENSIONS, std::span<const std::int64_t>(extents))
        .set(CUDNN_ATTR_TENSOR_STRIDES, std::span<const std::int64_t>(strides))
        .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, std::int64_t(role))
        .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, std::int64_t(alignment));
    return d;
  }

  const CudnnLibrary* library_;
  std::string name_;
  std::vector<std::unique_ptr<Descriptor>> parts_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  Descriptor graph_;
  cudnnHandle_t handle_;
};

inline std::string CudnnConvolution::str() const {
  constexpr const char* names[] = {"convolution", "convolution's input gradient", "convolution's weight gradient"};
  return concat(names[int(pass)], bias ? " + bias" : "", activation == Activation::relu ? " + relu" : "",
                accumulate ? " (added)" : "", " ", name_of(precision), " ", problem.n, "x", problem.in, "x", problem.h,
                "x", problem.w, " to ", problem.out, " channels, kernel ", problem.kernel, ", stride ", problem.stride,
                ", padding ", problem.padding, ", dilation ", problem.dilation);
}

inline std::string CudnnBatchNorm::str() const {
  constexpr const char* names[] = {"batch norm in training", "batch norm in inference", "batch norm's gradient"};
  return concat(names[int(pass)], activation == Activation::relu ? " + relu" : "", " ", name_of(precision), " ", n, "x",
                channels, "x", h, "x", w);
}

/// y = activation(bias + convolution of x with weight), dx (+)= the gradient for the input, or dweight (+)= that for
/// the weights. Throws CudnnError when cuDNN calls the problem none.
inline CudnnGraph convolution_graph(const CudnnLibrary& library, const CudnnConvolution& c,
                                    cudnnHandle_t handle = nullptr) {
  const Conv2dProblem& p = c.problem;
  const cudnnDataType_t type = cudnn_type(c.precision);
  const CudnnGraph::Extents input{p.n, p.in, p.h, p.w}, filter{p.out, p.in, p.kernel, p.kernel},
      output{p.n, p.out, p.out_h(), p.out_w()};
  CudnnGraph graph(library, c.str(), handle);

  const auto pair = [](std::int64_t value) { return std::array{value, value}; };
  Descriptor made = graph.make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  const auto both_ways = [&](cudnnBackendAttributeName_t name, std::int64_t value) {
    made.set(name, std::span<const std::int64_t>(pair(value)));
  };
  made.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, std::int64_t{2});
  made.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT)
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_CROSS_CORRELATION);
  both_ways(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, p.padding);
  both_ways(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, p.padding);
  both_ways(CUDNN_ATTR_CONVOLUTION_DILATIONS, p.dilation);
  both_ways(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, p.stride);
  const Descriptor& convolution = graph.keep(std::move(made), "the convolution's extents");
  const double alpha = 1, beta = c.accumulate ? 1 : 0;

  if (c.pass == ConvolutionPass::forward) {
    if (c.accumulate && (c.bias || c.activation != Activation::none))
      throw ValueError(concat(c.str(), ": a result that is added takes neither bias nor activation"));
    const bool relu = c.activation == Activation::relu;
    const Descriptor& x = graph.tensor(Role::x, input, type, c.alignment);
    const Descriptor& w = graph.tensor(Role::weight, filter, type, c.alignment);
    const Descriptor& y = graph.tensor(Role::y, output, type, c.alignment);
    const Descriptor& sum = c.bias || relu ? graph.between(Role::sum, output) : y;
    Descriptor operation = graph.make(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, convolution)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, w)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, sum)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, alpha)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, beta);
    graph.add_operation(std::move(operation), "the convolution");
    if (c.bias) {
      const Descriptor& bias = graph.channels(Role::bias, p.out, type, c.alignment);
      const Descriptor& biased = relu ? graph.between(Role::biased, output) : y;
      graph.add_pointwise(CUDNN_POINTWISE_ADD, sum, &bias, biased);
      if (relu) graph.add_pointwise(CUDNN_POINTWISE_RELU_FWD, biased, nullptr, y);
    } else if (relu) {
      graph.add_pointwise(CUDNN_POINTWISE_RELU_FWD, sum, nullptr, y);
    }
  } else if (c.pass == ConvolutionPass::backward_input) {
    const Descriptor& dy = graph.tensor(Role::dy, output, type, c.alignment);
    const Descriptor& w = graph.tensor(Role::weight, filter, type, c.alignment);
    const Descriptor& dx = graph.tensor(Role::dx, input, type, c.alignment);
    Descriptor operation = graph.make(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, convolution)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, dy)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, w)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, dx)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, alpha)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, beta);
    graph.add_operation(std::move(operation), "the input gradient");
  } else {
    const Descriptor& x = graph.tensor(Role::x, input, type, c.alignment);
    const Descriptor& dy = graph.tensor(Role::dy, output, type, c.alignment);
    const Descriptor& dw = graph.tensor(Role::dweight, filter, type, c.alignment);
    Descriptor operation = graph.make(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, convolution)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, x)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, dy)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, dw)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, alpha)
        .set(CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, beta);
    graph.add_operation(std::move(operation), "the weight gradient");
  }
  graph.finish();
  return graph;
}

/// training:   y = weight * (x - mean) * inverse_std + bias; writes mean and inverse_std of the batch and
///             new_running = (1 - momentum) * running + momentum * batch (the variance unbiased)
/// inference:  y = activation(x * weight + bias), where weight and bias have taken the running statistics in
/// backward:   dx, dweight and dbias from x, dy, weight and the mean and inverse_std that training wrote
/// Weights, statistics and their gradients are fp32 whatever x is. Throws ShapeError for extents below 1.
inline CudnnGraph batch_norm_graph(const CudnnLibrary& library, const CudnnBatchNorm& b,
                                   cudnnHandle_t handle = nullptr) {
  if (b.n < 1 || b.h < 1 || b.w < 1 || b.channels < 1)
    throw ShapeError(concat(b.str(), ": each extent must be at least 1"));
  const cudnnDataType_t type = cudnn_type(b.precision);
  const CudnnGraph::Extents extents{b.n, b.channels, b.h, b.w};
  CudnnGraph graph(library, b.str(), handle);
  const auto image = [&](Role role) -> const Descriptor& { return graph.tensor(role, extents, type, b.alignment); };
  const auto vector = [&](Role role) -> const Descriptor& {
    return graph.channels(role, b.channels, CUDNN_DATA_FLOAT, b.alignment);
  };

  if (b.pass == CudnnBatchNorm::Pass::training) {
    Descriptor operation = graph.make(CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_NORM_FWD_MODE, CUDNN_BATCH_NORM)
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_PHASE, CUDNN_NORM_FWD_TRAINING)
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_XDESC, image(Role::x))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_SCALE_DESC, vector(Role::weight))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_BIAS_DESC, vector(Role::bias))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC, vector(Role::mean))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC, vector(Role::inverse_std))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_INPUT_RUNNING_MEAN_DESC, vector(Role::running_mean))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_INPUT_RUNNING_VAR_DESC, vector(Role::running_var))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_OUTPUT_RUNNING_MEAN_DESC, vector(Role::new_running_mean))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_OUTPUT_RUNNING_VAR_DESC, vector(Role::new_running_var))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_EPSILON_DESC, graph.number(Role::epsilon))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_EXP_AVG_FACTOR_DESC, graph.number(Role::momentum))
        .set(CUDNN_ATTR_OPERATION_NORM_FWD_YDESC, image(Role::y));
    graph.add_operation(std::move(operation), "the normalisation");
  } else if (b.pass == CudnnBatchNorm::Pass::inference) {
    const bool relu = b.activation == Activation::relu;
    const Descriptor &x = image(Role::x), &y = image(Role::y);
    const Descriptor& scaled = graph.between(Role::sum, extents);
    graph.add_pointwise(CUDNN_POINTWISE_MUL, x, &vector(Role::weight), scaled);
    const Descriptor& shifted = relu ? graph.between(Role::biased, extents) : y;
    graph.add_pointwise(CUDNN_POINTWISE_ADD, scaled, &vector(Role::bias), shifted);
    if (relu) graph.add_pointwise(CUDNN_POINTWISE_RELU_FWD, shifted, nullptr, y);
  } else {
    Descriptor operation = graph.make(CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR);
    operation.set(CUDNN_ATTR_OPERATION_NORM_BWD_MODE, CUDNN_BATCH_NORM)
        .set(CUDNN_ATTR_OPERATION_NORM_BWD_XDESC, image(Role::x))
        .set(CUDNN_ATTR_OPERATION_NORM_BWD_DYDESC, image(Role::dy))
        .set(CUDNN_ATTR_OPERATION_NORM_BWD_SCALE_DESC, vector(Role::weight))
        .set(CUDNN_ATTR_OPERATION_NORM_BWD_MEAN_DESC, vector(Role::mean))
        .set(CUDNN_ATTR_OPERATION_NORM_BWD_INV_VARIANCE_DESC, vector(Role::inverse_std))
        .set(CUDNN_ATTR_OPERATION_NORM_BWD_DSCALE_DESC, vector(Role::dweight))
        .set(CUDNN_ATTR_OPERATION_NORM_BWD_DBIAS_DESC, vector(Role::dbias))
        .set(CUDNN_ATTR_OPERATION_NORM_BWD_DXDESC, image(Role::dx));
    graph.add_operation(std::move(operation), "the normalisation's gradient");
  }
  graph.finish();
  return graph;
}

}}}  // namespace strata::STRATA_ABI::cuda
