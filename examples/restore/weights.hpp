// Weights for the engine: of a file, or of those built into the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "networks.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/io/safetensors_header.hpp"
#include "strata/io/weights.hpp"

namespace restore {

namespace st = strata;

/// The numbers of a network's deploy form, in the order of its lists.
template <class Net>
std::vector<float> flattened(const Net& net) {
  std::vector<float> numbers;
  const auto deployed = st::fold(net);
  st::for_each_buffer(deployed, [&](const std::string&, const st::Buffer& buffer) {
    const auto values = buffer.value<float>().span();
    numbers.insert(numbers.end(), values.begin(), values.end());
  });
  return numbers;
}

inline std::vector<float> load(Task task, const std::filesystem::path& path) {
  return with_network(task, [&]<class Net>(Net*) {
    Net net;
    for (const std::string& note : st::load_weights(path, net).notes) std::fprintf(stderr, "%s\n", note.c_str());
    return flattened(net);
  });
}

/// The same from the bytes of a safetensors file of float32, which the program trusts since it was built with them.
inline std::vector<float> load_built_in(Task task, std::span<const char> file) {
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  const std::size_t begin = sizeof header_bytes + std::size_t(header_bytes);
  const auto header =
      st::parse_safetensors_header(std::string_view(file.data() + sizeof header_bytes, std::size_t(header_bytes)),
                                   file.size() - begin, "built-in weights");
  return with_network(task, [&]<class Net>(Net*) {
    Net net;
    st::for_each_parameter(net, [&](const std::string& name, st::Parameter& parameter) {
      for (const st::TensorInfo& tensor : header.tensors)
        if (tensor.name == name && tensor.end - tensor.begin == std::uint64_t(parameter.size()) * sizeof(float)) {
          std::vector<float> values(std::size_t(parameter.size()));
          std::memcpy(values.data(), file.data() + begin + std::size_t(tensor.begin), values.size() * sizeof(float));
          st::from_nchw(parameter.value(), std::span<const float>(values));
          return;
        }
      throw st::Error(st::concat("the built-in weights have no ", name, " of ", parameter.shape().str()));
    });
    return flattened(net);
  });
}

}  // namespace restore
