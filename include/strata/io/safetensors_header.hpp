// The header of a safetensors file: a JSON object that says of each tensor its type, shape and place.
//
//     {"__metadata__":{"epoch":"3"},"conv.weight":{"dtype":"F32","shape":[64,1,3,3],"data_offsets":[0,2304]}}
//
// Of other things, as further keys of a tensor, the reader sees that they are JSON and passes over them, without
// recursion; every length is bounded by the file. A JSON library would do it too, but costs every program that includes
// this header 5.5 s and 220 MB of compilation (nlohmann 3.11, g++ 12 -O2, measured). Format:
// https://github.com/huggingface/safetensors
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "strata/io/tensor_info.hpp"

namespace strata::inline STRATA_ABI {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  ///< in the order of their places in the file
  Metadata metadata;
};

/// Reads a header whose tensors must fill `data_bytes` bytes without gap or overlap. Throws FileError, beginning with
/// `path`, for everything that is not so: names twice, unknown types, offsets outside.
SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes, const std::string& path);

/// The header's JSON text, padded with spaces so that the data begins at a multiple of 8 bytes.
std::string format_safetensors_header(const SafetensorsHeader& header);

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/safetensors_header_impl.hpp"
#endif
