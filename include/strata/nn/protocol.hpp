// What a layer says of itself, all of it in its own file. Passes over a network (fusing, folding, rows and tiles,
// memory, the summary, ONNX) name no layer: they ask for what stands here.
//
//     template <int In, int Out>
//     class Mine : public Layer<Mine<In, Out>> {
//      public:
//       using io = maps<In, Out>;                                  // or keeps
//       static constexpr void visit(auto& self, auto&& f);         // its parameters, buffers and modules
//       static auto forward(auto& self, auto& pass, auto x);       // Train and Infer, float and double
//
//       // A layer (what has the next line) speaks for itself; other modules are looked into and need say no more.
//       static constexpr bool is_leaf_layer = true;
//       static std::string name();                                 // as PyTorch prints it
//       static constexpr void trace(auto& t);                      // what it does to an image, what it costs
//       static LayerMemory memory(const Shape& x);                 // where it is not the usual (nn/following.hpp)
//       static auto onnx(auto& self, const auto& x);               // itself as ONNX nodes (io/onnx_export.hpp)
//
//       // What holds of some layers.
//       static constexpr bool idle_in_inference = true;            // an Infer pass gives x itself
//       static constexpr bool has_fixed_weights = true;            // nothing in it is learned
//
//       // What a neighbour may leave to it, or it to a neighbour (nn/fuse.hpp, deploy/fold.hpp).
//       static constexpr bool takes_activation = true;             // forward(self, pass, x, Activation)
//       static constexpr Activation activation = Activation::relu; // it is nothing but this activation
//       static constexpr bool is_affine = true;                    // in an Infer pass it is scale * x + shift:
//       template <class T> static auto affine(const auto& self, Device images); // c -> ScaleShift of channel c
//       static Tensor<float> affine_rows(const auto& self, Device images); // on an accelerator
//       static constexpr bool takes_affine = true;                 // its weights can be scaled, one row for each of
//       using with_bias = ...;                                     // Out, and this has a bias to be shifted
//       static constexpr Shape weight_shape, bool has_bias;        // of its members weight and bias; `packed`
//       static auto infer(pass, x, packed, key, weights, biases, activation); // runs it with other weights: see Conv2d
//       static LayerMemory inference_memory(const Shape& x);       // what that takes
//       static constexpr bool gathers_statistics = true;           // forward(self, pass, x, Activation, statistics)
//       static constexpr bool takes_statistics = true;             // forward_with(...): see BatchNorm2d
//       static constexpr bool looks_at_batch = true;               // over all shards: see SyncBatchNorm2d
//
//       // A kernel that moves over the image.
//       static constexpr Window window{.kernel = 3, .padding = 1};
//       static constexpr Bands bands{...};                         // it runs by bands of rows (deploy/row_layers.hpp),
//       static void convolve_padded(x, packed, weights, biases, activation, y); // whose padding is written out
//       static constexpr std::int64_t band_weight_bytes;           // what `packed` then holds
//     };
//
// A module around another one may say how passes look through it:
//
//     static constexpr auto join(auto& pass, const auto& x, const auto& y); // y = join(x, body(x)), by pixels: Add
//     using wraps = Body;                                          // but in training it is its `body`: Checkpoint
//     Body plain() const;                                          // with the weights as they are: SpectralNorm
//     auto fold() const;                                           // its deploy form
//
// nn/relu.hpp is a short example, nn/conv2d.hpp the whole of it.
#pragma once

#include <cstdint>

#include "strata/math/activation.hpp"

namespace strata { inline namespace STRATA_ABI {

/// A kernel of `kernel` x `kernel` taps that moves over an image, or of `kernel` rows and `kernel_w` columns.
struct Window {
  int kernel = 1, stride = 1, padding = 0, dilation = 1;
  int kernel_w = as_rows, padding_w = as_rows;
  static constexpr int as_rows = -1;

  /// Rows from its first tap to its last.
  constexpr std::int64_t reach() const { return std::int64_t{dilation} * (kernel - 1) + 1; }
  /// Whether an image keeps its height.
  constexpr bool keeps_rows() const { return stride == 1 && 2 * padding == dilation * (kernel - 1); }
  /// Whether an image keeps its height and width.
  constexpr bool keeps_size() const { return keeps_rows() && columns().keeps_rows(); }
  /// The window of columns, as a square one.
  constexpr Window columns() const {
    return {kernel_w == as_rows ? kernel : kernel_w, stride, padding_w == as_rows ? padding : padding_w, dilation};
  }
  constexpr bool square() const { return columns().kernel == kernel && columns().padding == padding; }
};

/// How a layer with a window runs on bands of rows whose padding is written out, with the bits of the whole image.
struct Bands {
  bool possible = false;
  std::int64_t together = 1;  ///< rows of the result that are computed together: where rounding errors repeat
  std::int64_t least =
      1;  ///< rows of the result to compute at a time, so that the kernel is the one of the whole image
};

/// y = scale * x + shift.
struct ScaleShift {
  double scale = 1, shift = 0;
};

namespace detail {

template <class M>
concept TakesActivation = requires { requires M::takes_activation; };
template <class M>
concept ActivationLayer = requires { requires M::activation != Activation::none; };
template <class M>
concept Affine = requires { requires M::is_affine; };
template <class M>
concept TakesAffine = requires { requires M::takes_affine; };
template <class M>
concept GathersStatistics = requires { requires M::gathers_statistics; };
template <class M>
concept TakesStatistics = requires { requires M::takes_statistics; };
template <class M>
concept LooksAtBatch = requires { requires M::looks_at_batch; };
template <class M>
concept IdleInInference = requires { requires M::idle_in_inference; };
template <class M>
concept RunsByBands = requires { requires M::bands.possible; };
template <class M>
concept LeafLayer = requires { M::is_leaf_layer; };

}  // namespace detail
}}  // namespace strata::STRATA_ABI
