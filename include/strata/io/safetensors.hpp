// Reads and writes safetensors files: named tensors in PyTorch's memory order, as Python's `safetensors` does.
//
//     st::SafetensorsFile file("net.safetensors");
//     for (const st::TensorInfo& tensor : file.tensors()) std::cout << tensor.name << tensor.shape.str() << '\n';
//     st::Tensor<float> weight = file.read<float>(*file.find("conv.weight"));
//
// Nothing in a file is trusted: the header is checked whole when the file is opened (io/safetensors_header.hpp), memory
// is taken for one tensor at a time and never more than the file is long. What the reference implementation reads is
// read: tensors of types or with extents that nothing here has are listed, and refused when their numbers are asked
// for. Limit: header 100 MB.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/io/crc32.hpp"
#include "strata/io/file.hpp"
#include "strata/io/safetensors_header.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata::inline STRATA_ABI {

/// A safetensors file, open for reading. Safe to read from several threads.
class SafetensorsFile {
 public:
  /// Reads and checks the header. Throws FileError, beginning with the path, when the file cannot be read or trusted.
  explicit SafetensorsFile(const std::filesystem::path& path);

  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const& { return file_.path(); }
  std::filesystem::path path() const&& { return path(); }
  const Metadata& metadata() const& { return header_.metadata; }
  Metadata metadata() const&& { return metadata(); }

  /// All tensors, in the order of their places in the file.
  const std::vector<TensorInfo>& tensors() const& { return header_.tensors; }
  std::vector<TensorInfo> tensors() const&& { return tensors(); }

  /// The tensor of that name; null when there is none.
  const TensorInfo* find(const std::string& name) const&& = delete;  // it would not outlive the file
  const TensorInfo* find(const std::string& name) const&;

  /// The numbers of one of this file's tensors, in Strata's memory order. float and double take any type and round
  /// where they must; int64 takes whole numbers. Throws FileError when the file cannot be read or its type does not do.
  template <class T>
  Tensor<T> read(const TensorInfo& tensor) const {
    return std::get<Tensor<T>>(read_like(tensor, AnyTensor(Tensor<T>())));
  }

  /// The same, as the type that `like` has.
  AnyTensor read_like(const TensorInfo& tensor, const AnyTensor& like) const;

  /// Whether the file has a checksum.
  bool has_checksum() const;

  /// Reads the whole file and throws FileError when its checksum says otherwise, or it has none.
  void verify_checksum() const;

 private:
  [[noreturn]] void fail(std::string_view what) const;

  InputFile file_;
  std::string header_text_;
  SafetensorsHeader header_;
  TensorIndex index_;
  std::uint64_t data_begin_ = 0;
};

/// A tensor to be written. The tensor must live until then.
struct NamedTensor {
  std::string name;
  const AnyTensor* tensor = nullptr;
};

struct WriteOptions {
  bool checksum = false;       ///< adds a checksum of the whole file to its metadata
  bool keep_previous = false;  ///< keeps the file it replaces as previous_path(path)
};

/// Writes a file that appears at `path` whole or not at all. Wider types come first, so that every tensor is aligned;
/// within a type the given order stays. Throws FileError when it cannot be written, ValueError for a name given twice.
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const Metadata& metadata = {}, const WriteOptions& options = {});

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/safetensors_impl.hpp"
#endif
