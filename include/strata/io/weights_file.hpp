// A file of named tensors, whatever its format: safetensors, or what torch.save wrote. Its content tells, not its name.
//
//     st::WeightsFile file("net.pth");
//     for (const st::TensorInfo& tensor : file.tensors()) std::cout << tensor.name << tensor.shape.str() << '\n';
//     st::Tensor<float> weight = file.read<float>(*file.find("conv.weight"));
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/io/tensor_info.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// What a reader says when memory runs out: that file cannot be read, and others may be.
[[noreturn]] void no_memory_for(const std::filesystem::path& path);

}  // namespace detail

class WeightsFile {
 public:
  /// Throws FileError, beginning with the path, when the file cannot be read or trusted. `key` says which dict of a
  /// file of torch.save is meant (PytorchFileOptions); ValueError when it is given for another file.
  explicit WeightsFile(const std::filesystem::path& path, const std::string& key = {});
  ~WeightsFile();

  const std::filesystem::path& path() const&;
  std::filesystem::path path() const&& { return path(); }
  const std::vector<TensorInfo>& tensors() const&;
  std::vector<TensorInfo> tensors() const&& { return tensors(); }
  /// The tensor of that name; null when there is none.
  const TensorInfo* find(const std::string& name) const&& = delete;  // it would not outlive the file
  const TensorInfo* find(const std::string& name) const&;
  /// The numbers of one of this file's tensors; see SafetensorsFile::read.
  template <class T>
  Tensor<T> read(const TensorInfo& tensor) const {
    return std::get<Tensor<T>>(read_like(tensor, AnyTensor(Tensor<T>())));
  }
  AnyTensor read_like(const TensorInfo& tensor, const AnyTensor& like) const;

  /// Empty for a file of torch.save.
  const Metadata& metadata() const&;
  Metadata metadata() const&& { return metadata(); }
  /// What is no tensor in the dict of a file of torch.save: names and Python's words for what they are.
  const std::vector<std::pair<std::string, std::string>>& others() const&;
  std::vector<std::pair<std::string, std::string>> others() const&& { return others(); }

  /// The key of the dict that was read from a file of torch.save; empty for the file's own, and for others.
  std::string key() const;
  /// What a user should know of the file besides its tensors, a sentence each that begins with the path: which of
  /// several dicts was read, and which Python objects were left alone.
  std::vector<std::string> notes() const;

  /// Compares the file with the checksums it has, if any. Throws FileError when it is damaged.
  void verify_checksums() const;

 private:
  class Either;  // a SafetensorsFile or a PytorchFile
  std::unique_ptr<const Either> file_;
};

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/weights_file_impl.hpp"
#endif
