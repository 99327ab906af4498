// Writes a network as an ONNX file (opset 17), for onnxruntime, OpenCV and whatever else reads it; batch, height and width
// stay open.
//
//     #include <strata/io/onnx_export.hpp>           // not part of strata.hpp: needs protozero (Debian: libprotozero-dev)
//     st::export_onnx("net.onnx", net);
//     st::export_onnx("net.onnx", net, {.fold_batch_norm = true, .names = st::Names::spliced});
//
// With CMake: find_package(strata COMPONENTS onnx), then link strata::onnx.
//
// The graph comes from the network's forward itself, run on symbols (io/detail/onnx_trace.hpp), so custom modules need nothing
// if they are written for images of any type: `auto operator()(P& pass, const auto& x)`. One that looks at numbers or extents
// is a compile-time error that says so, and gives a second call operator for symbols; Var<C, OnnxSymbol> shows one.
//
// Beside the file an input and the output that this network gives for it are written, net.input.pb and net.output.pb, as the
// format's own TensorProto: onnx.load_tensor and onnx.numpy_helper.to_array read them.
// Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, docs/IR.md and docs/Operators.md there.
#pragma once

#if !__has_include(<protozero/pbf_writer.hpp>)
#error "strata/io/onnx_export.hpp needs protozero, which is not on the include path (Debian: apt install libprotozero-dev)"
#endif

#include "strata/core/macros_away.inc"

#include <protozero/pbf_writer.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "strata/core/output_file.hpp"
#include "strata/core/random.hpp"
#include "strata/io/detail/onnx_trace.hpp"
#include "strata/io/file.hpp"
#include "strata/io/names.hpp"
#include "strata/io/tensor_info.hpp"
#include "strata/tensor/image.hpp"
#include "strata/version.hpp"

namespace strata::inline STRATA_ABI {

struct OnnxOptions {
  bool fold_batch_norm = false;  ///< takes batch norms into the convolutions before them
  Names names = Names::nested;   ///< what the network's tensors are called
  Metadata metadata = {};        ///< kept in the file's metadata_props
  bool sample = true;            ///< whether the input and output beside the file are written
  /// The sample's extents. Multiples of 32, which suit networks that halve an image up to five times.
  std::int64_t sample_n = 1, sample_h = 96, sample_w = 64;
};

namespace detail {

// Numbers of the fields and types of onnx.proto.
namespace onnx {
enum Type { float32 = 1, int64 = 7 };
enum AttributeType { attribute_float = 1, attribute_int = 2, attribute_string = 3, attribute_ints = 7 };
inline constexpr std::int64_t ir_version = 8, opset = 17;  // IR 8 is what opset 17 came with
}  // namespace onnx

template <class T>
void write_tensor(protozero::pbf_writer out, const std::string& name, const std::vector<std::int64_t>& shape,
                  std::span<const T> numbers) {
  for (const std::int64_t extent : shape) out.add_int64(1, extent);
  out.add_int32(2, std::is_same_v<T, float> ? onnx::float32 : onnx::int64);
  if (!name.empty()) out.add_string(8, name);
  out.add_bytes(9, reinterpret_cast<const char*>(numbers.data()), numbers.size_bytes());
}

inline void write_attribute(protozero::pbf_writer out, const OnnxAttribute& attribute) {
  out.add_string(1, attribute.name);
  if (const auto* number = std::get_if<float>(&attribute.value)) {
    out.add_float(2, *number);
    out.add_enum(20, onnx::attribute_float);
  } else if (const auto* whole = std::get_if<std::int64_t>(&attribute.value)) {
    out.add_int64(3, *whole);
    out.add_enum(20, onnx::attribute_int);
  } else if (const auto* text = std::get_if<std::string>(&attribute.value)) {
    out.add_bytes(4, *text);
    out.add_enum(20, onnx::attribute_string);
  } else {
    for (const std::int64_t value : std::get<std::vector<std::int64_t>>(attribute.value)) out.add_int64(8, value);
    out.add_enum(20, onnx::attribute_ints);
  }
}

/// A float image whose batch, and where they have names height and width, are open.
inline void write_value(protozero::pbf_writer out, const std::string& name, int channels, const std::string& height,
                        const std::string& width, bool flat) {
  out.add_string(1, name);
  protozero::pbf_writer type(out, 2), tensor(type, 1);
  tensor.add_int32(1, onnx::float32);
  protozero::pbf_writer shape(tensor, 2);
  const auto open = [&](const std::string& extent) { protozero::pbf_writer(shape, 1).add_string(2, extent); };
  open("batch");
  protozero::pbf_writer(shape, 1).add_int64(1, channels);
  if (flat) return;
  open(height);
  open(width);
}

/// The file's bytes.
inline std::string onnx_model(const OnnxGraph& graph, int in, int out, const OnnxValue& result, const Metadata& metadata) {
  std::string bytes;
  protozero::pbf_writer model(bytes);
  model.add_int64(1, onnx::ir_version);
  model.add_string(2, "strata");
  model.add_string(3, STRATA_VERSION);
  {
    protozero::pbf_writer body(model, 7);
    for (const OnnxNode& node : graph.nodes) {
      protozero::pbf_writer one(body, 1);
      for (const std::string& name : node.inputs) one.add_string(1, name);
      one.add_string(2, node.output);
      one.add_string(3, node.name);
      one.add_string(4, node.op);
      for (const OnnxAttribute& attribute : node.attributes) write_attribute(protozero::pbf_writer(one, 5), attribute);
    }
    body.add_string(2, "network");
    for (const auto& [name, tensor] : graph.tensors)
      std::visit(
          [&](const auto& numbers) {
            write_tensor(protozero::pbf_writer(body, 5), name, tensor.shape, std::span(numbers));
          },
          tensor.numbers);
    write_value(protozero::pbf_writer(body, 11), graph.input, in, "height", "width", false);
    const bool same = result.grid == 0;
    write_value(protozero::pbf_writer(body, 12), graph.output, out, same ? "height" : "out_height",
                same ? "width" : "out_width", result.flat);
  }
  protozero::pbf_writer(model, 8).add_int64(2, onnx::opset);
  for (const auto& [key, value] : metadata) {
    protozero::pbf_writer entry(model, 14);
    entry.add_string(1, key);
    entry.add_string(2, value);
  }
  return bytes;
}

template <int C>
std::string onnx_tensor(const std::string& name, const Image<C>& image, bool flat) {
  std::vector<std::int64_t> shape{image.n(), C};
  if (!flat) shape.insert(shape.end(), {image.h(), image.w()});
  std::string bytes;
  write_tensor(protozero::pbf_writer(bytes), name, shape, std::span<const float>(to_nchw(image.tensor())));
  return bytes;
}

inline void write_whole(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(bytes)));
  file.commit();
}

}  // namespace detail

/// Writes the network's inference as `path`. Throws FileError when a file cannot be written, ValueError for a network above
/// the 2 GB that protobuf allows or with a parameter called "input" or "output", ShapeError when the sample's extents do not
/// suit the network (give others, or sample = false), DeviceError for a network on an accelerator. The network must be of float32; its numbers stay as they are.
template <class Net>
void export_onnx(const std::filesystem::path& path, Net& net, const OnnxOptions& options = {}) {
  static_assert(requires { Net::io::in; Net::io::out; },
                "strata::export_onnx: the network must say how many channels it takes and gives: "
                "'using io = st::maps<In, Out>'");
  constexpr int in = Net::io::in, out = Net::io::out;
  require_host(net, "export_onnx");
  detail::OnnxGraph graph;
  for (const NamedTensor& tensor : detail::tensors_of(net, "", options.names)) {
    if (tensor.name == "input" || tensor.name == "output")
      throw ValueError(concat("export_onnx: a parameter of the network is called '", tensor.name,
                              "', as its image is: rename it"));
    graph.names.emplace(tensor.tensor, tensor.name);
  }
  Infer pass;
  const Var<out, OnnxSymbol> result = detail::call(net, pass, Var<in, OnnxSymbol>({&graph, graph.input, 0, false}));
  detail::OnnxValue last = result.symbol();
  if (last.name == graph.input) last.name = graph.add("Identity", "Identity", {last.name});
  graph.output = last.name;
  graph.rename(last.name, "output");
  if (options.fold_batch_norm) graph.fold_affines();

  const std::string model = detail::onnx_model(graph, in, out, last, options.metadata);
  constexpr std::size_t largest = 0x7FFFFFFF;
  if (model.size() > largest)
    throw ValueError(concat("export_onnx: the network takes ", model.size(), " bytes, and ONNX files have ", largest,
                            " at most"));

  if (options.sample) {
    Image<in> x(options.sample_n, options.sample_h, options.sample_w);
    Rng rng(0);
    for (float& value : x.span()) value = rng.uniform();
    const Image<out> y = [&] {
      try {
        return Image<out>(detail::call(net, pass, x).value());
      } catch (const ShapeError& error) {
        throw ShapeError(concat("export_onnx: the network does not take the sample of ", x.shape().str(), " that is written beside the file: ",
                                "give extents that suit it, in OnnxOptions::sample_h and sample_w, or .sample = false: ", error.what()));
      }
    }();
    detail::write_whole(std::filesystem::path(path).replace_extension(".input.pb"),
                        detail::onnx_tensor<in>(graph.input, x, false));
    detail::write_whole(std::filesystem::path(path).replace_extension(".output.pb"),
                        detail::onnx_tensor<out>(graph.output, y, last.flat));
  }
  detail::write_whole(path, model);
}

}  // namespace strata::inline STRATA_ABI

#include "strata/core/macros_back.inc"
