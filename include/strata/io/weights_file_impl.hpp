// Definitions of io/weights_file.hpp.
#pragma once

#include <filesystem>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/io/file.hpp"
#include "strata/io/pytorch_file.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/io/weights_file.hpp"

namespace strata::inline STRATA_ABI {

STRATA_INLINE void detail::no_memory_for(const std::filesystem::path& path) {
  throw FileError(concat(path.string(), ": cannot be read: there is not enough memory"));
}

class WeightsFile::Either {
 public:
  Either(const std::filesystem::path& path, const std::string& key) {
    if (PytorchFile::recognises(InputFile(path))) {
      file_.emplace<PytorchFile>(path, PytorchFileOptions{.key = key});
      return;
    }
    if (!key.empty())
      throw ValueError(concat(path.string(), ": has no dict under the key '", key, "': it is no file of torch.save"));
    file_.emplace<SafetensorsFile>(path);
  }

  /// f(file) with the reader of its kind.
  decltype(auto) ask(auto&& f) const {
    return file_.index() == 1 ? f(std::get<SafetensorsFile>(file_)) : f(std::get<PytorchFile>(file_));
  }
  const SafetensorsFile* safetensors() const { return std::get_if<SafetensorsFile>(&file_); }
  const PytorchFile* pytorch() const { return std::get_if<PytorchFile>(&file_); }

 private:
  std::variant<std::monostate, SafetensorsFile, PytorchFile> file_;
};

STRATA_INLINE WeightsFile::WeightsFile(const std::filesystem::path& path, const std::string& key) try
    : file_(std::make_unique<const Either>(path, key)) {
} catch (const std::bad_alloc&) {
  detail::no_memory_for(path);
}
STRATA_INLINE WeightsFile::~WeightsFile() = default;

STRATA_INLINE const std::filesystem::path& WeightsFile::path() const& {
  return file_->ask([](const auto& file) -> const std::filesystem::path& { return file.path(); });
}
STRATA_INLINE const std::vector<TensorInfo>& WeightsFile::tensors() const& {
  return file_->ask([](const auto& file) -> const std::vector<TensorInfo>& { return file.tensors(); });
}
STRATA_INLINE const TensorInfo* WeightsFile::find(const std::string& name) const& {
  return file_->ask([&](const auto& file) { return file.find(name); });
}

STRATA_INLINE AnyTensor WeightsFile::read_like(const TensorInfo& tensor, const AnyTensor& like) const {
  try {
    return file_->ask([&](const auto& file) { return file.read_like(tensor, like); });
  } catch (const std::bad_alloc&) {
    detail::no_memory_for(path());
  }
}

STRATA_INLINE const Metadata& WeightsFile::metadata() const& {
  static const Metadata none;
  const SafetensorsFile* file = file_->safetensors();
  return file != nullptr ? file->metadata() : none;
}
STRATA_INLINE const std::vector<std::pair<std::string, std::string>>& WeightsFile::others() const& {
  static const std::vector<std::pair<std::string, std::string>> none;
  const PytorchFile* file = file_->pytorch();
  return file != nullptr ? file->others() : none;
}
STRATA_INLINE std::string WeightsFile::key() const {
  const PytorchFile* file = file_->pytorch();
  return file != nullptr ? file->key() : std::string();
}

STRATA_INLINE std::vector<std::string> WeightsFile::notes() const {
  std::vector<std::string> notes;
  const PytorchFile* file = file_->pytorch();
  if (file == nullptr) return notes;
  if (!file->other_dicts().empty())
    notes.push_back(
        concat(path().string(), ": ",
               file->key().empty() ? std::string("its own tensors are") : detail::shown(file->key()) + " is",
               " read; it has other dicts of tensors: ", file->other_dicts()));
  std::string names;
  for (const std::string& name : file->unknown_names()) names += (names.empty() ? "" : ", ") + name;
  if (!names.empty()) notes.push_back(concat(path().string(), ": names Python code, none of which was run: ", names));
  return notes;
}

STRATA_INLINE void WeightsFile::verify_checksums() const {
  if (const PytorchFile* file = file_->pytorch()) return file->verify_checksums();
  if (const SafetensorsFile* file = file_->safetensors(); file->has_checksum()) file->verify_checksum();
}

}  // namespace strata::inline STRATA_ABI
