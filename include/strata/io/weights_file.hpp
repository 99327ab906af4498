// A file of named tensors, whatever its format: safetensors, or what torch.save wrote. Its content tells, not its name.
//
//     st::WeightsFile file("net.pth");
//     for (const st::TensorInfo& tensor : file.tensors()) std::cout << tensor.name << tensor.shape.str() << '\n';
//     st::Tensor<float> weight = file.read<float>(*file.find("conv.weight"));
#pragma once

#include <filesystem>
#include <new>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "strata/io/pytorch_file.hpp"
#include "strata/io/safetensors.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// What a reader says when memory runs out: that file cannot be read, and others may be.
[[noreturn]] inline void no_memory_for(const std::filesystem::path& path) {
  throw FileError(concat(path.string(), ": cannot be read: there is not enough memory"));
}

}  // namespace detail

class WeightsFile {
 public:
  /// Throws FileError, beginning with the path, when the file cannot be read or trusted. `key` says which dict of a file of
  /// torch.save is meant (PytorchFileOptions); ValueError when it is given for another file.
  explicit WeightsFile(const std::filesystem::path& path, const std::string& key = {}) : file_(open(path, key)) {}

  const std::filesystem::path& path() const& {
    return std::visit([](const auto& file) -> const std::filesystem::path& { return file.path(); }, file_);
  }
  std::filesystem::path path() const&& { return path(); }
  const std::vector<TensorInfo>& tensors() const& {
    return std::visit([](const auto& file) -> const std::vector<TensorInfo>& { return file.tensors(); }, file_);
  }
  std::vector<TensorInfo> tensors() const&& { return tensors(); }
  /// The tensor of that name; null when there is none.
  const TensorInfo* find(const std::string& name) const&& = delete;  // it would not outlive the file
  const TensorInfo* find(const std::string& name) const& {
    return std::visit([&](const auto& file) { return file.find(name); }, file_);
  }
  /// The numbers of one of this file's tensors; see SafetensorsFile::read.
  template <class T>
  Tensor<T> read(const TensorInfo& tensor) const {
    return std::get<Tensor<T>>(read_like(tensor, AnyTensor(Tensor<T>())));
  }
  AnyTensor read_like(const TensorInfo& tensor, const AnyTensor& like) const {
    try {
      return std::visit([&](const auto& file) { return file.read_like(tensor, like); }, file_);
    } catch (const std::bad_alloc&) {
      detail::no_memory_for(path());
    }
  }

  /// Empty for a file of torch.save.
  const Metadata& metadata() const& {
    static const Metadata none;
    const auto* file = std::get_if<SafetensorsFile>(&file_);
    return file != nullptr ? file->metadata() : none;
  }
  Metadata metadata() const&& { return metadata(); }
  /// What is no tensor in the dict of a file of torch.save: names and Python's words for what they are.
  const std::vector<std::pair<std::string, std::string>>& others() const& {
    static const std::vector<std::pair<std::string, std::string>> none;
    const auto* file = std::get_if<PytorchFile>(&file_);
    return file != nullptr ? file->others() : none;
  }
  std::vector<std::pair<std::string, std::string>> others() const&& { return others(); }

  /// The key of the dict that was read from a file of torch.save; empty for the file's own, and for others.
  std::string key() const {
    const auto* file = std::get_if<PytorchFile>(&file_);
    return file != nullptr ? file->key() : std::string();
  }
  /// What a user should know of the file besides its tensors, a sentence each that begins with the path: which of several
  /// dicts was read, and which Python objects were left alone.
  std::vector<std::string> notes() const {
    std::vector<std::string> notes;
    const auto* file = std::get_if<PytorchFile>(&file_);
    if (file == nullptr) return notes;
    if (!file->other_dicts().empty())
      notes.push_back(concat(path().string(), ": ",
                             file->key().empty() ? std::string("its own tensors are") : detail::shown(file->key()) + " is",
                             " read; it has other dicts of tensors: ", file->other_dicts()));
    std::string names;
    for (const std::string& name : file->unknown_names()) names += (names.empty() ? "" : ", ") + name;
    if (!names.empty())
      notes.push_back(concat(path().string(), ": names Python code, none of which was run: ", names));
    return notes;
  }

  /// Compares the file with the checksums it has, if any. Throws FileError when it is damaged.
  void verify_checksums() const {
    if (const auto* file = std::get_if<PytorchFile>(&file_)) return file->verify_checksums();
    if (const auto& file = std::get<SafetensorsFile>(file_); file.has_checksum()) file.verify_checksum();
  }

 private:
  using AnyFile = std::variant<SafetensorsFile, PytorchFile>;

  static AnyFile open(const std::filesystem::path& path, const std::string& key) try {
    if (PytorchFile::recognises(InputFile(path)))
      return AnyFile(std::in_place_type<PytorchFile>, path, PytorchFileOptions{.key = key});
    if (!key.empty())
      throw ValueError(concat(path.string(), ": has no dict under the key '", key, "': it is no file of torch.save"));
    return AnyFile(std::in_place_type<SafetensorsFile>, path);
  } catch (const std::bad_alloc&) {
    detail::no_memory_for(path);
  }

  AnyFile file_;
};

}  // namespace strata::inline STRATA_ABI
