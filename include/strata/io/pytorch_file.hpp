// Reads what torch.save wrote (.pth, .pt): a state dict, or a dict that holds one.
//
//     st::PytorchFile file("net.pth");
//     for (const st::TensorInfo& tensor : file.tensors()) std::cout << tensor.name << tensor.shape.str() << '\n';
//     st::Tensor<float> weight = file.read<float>(*file.find("conv.weight"));
//
// Both forms are read: the zip archive, and what came before PyTorch 1.6 or _use_new_zipfile_serialization=False. A
// .pth is a Python pickle, which can name any program to be run when it is opened; here nothing is run. What a pickle
// names besides tensors, dicts, lists, tuples, numbers and strings stays a name (io/detail/pickle.hpp): schedulers,
// arrays or options beside the weights do no harm, and a network pickled whole, with its class, is refused by it: save
// net.state_dict() instead.
//
// Which dict is read: the one under PytorchFileOptions::key; else the first of "state_dict", "model_state_dict",
// "params_ema", "params", "model", "net", "network", "generator", "g_ema", "netG", "net_g", "model_state", "module" and
// "weights" that holds tensors; else the file's own; else the only dict with tensors that there is, under one key or
// two.
//
// Limits: pickle 64 MB, 4 million steps of it; a tensor that repeats elements (of stride 0) has 4 million at most.
// Memory taken besides the tensors that are read is at most 64 times the pickle's bytes, whatever it says.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/io/file.hpp"
#include "strata/io/tensor_info.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata::inline STRATA_ABI {

struct PytorchFileOptions {
  /// Of the dict to be read, as "generator", or "model.ema" for one in another; empty: see the top of
  /// io/pytorch_file.hpp.
  std::string key = {};
};

/// A file of torch.save, open for reading. Safe to read from several threads.
class PytorchFile {
 public:
  /// Reads and checks everything but the numbers. Throws FileError, beginning with the path.
  explicit PytorchFile(const std::filesystem::path& path, const PytorchFileOptions& options = {});
  ~PytorchFile();

  PytorchFile(const PytorchFile&) = delete;
  PytorchFile& operator=(const PytorchFile&) = delete;

  /// Whether the file begins as a zip archive or as the form before it.
  static bool recognises(const InputFile& file);

  const std::filesystem::path& path() const&;
  std::filesystem::path path() const&& { return path(); }

  /// The key of the dict that was read; empty for the file's own.
  const std::string& key() const&;
  std::string key() const&& { return key(); }

  /// The dict's tensors, in its order.
  const std::vector<TensorInfo>& tensors() const&;
  std::vector<TensorInfo> tensors() const&& { return tensors(); }

  /// What else the dict holds: names and Python's words for what they are.
  const std::vector<std::pair<std::string, std::string>>& others() const&;
  std::vector<std::pair<std::string, std::string>> others() const&& { return others(); }

  /// Other dicts with tensors than the one that was read, in words: "'params', 'discriminator'".
  const std::string& other_dicts() const&;
  std::string other_dicts() const&& { return other_dicts(); }

  /// The classes and functions that the file names and nothing here knows, 16 at most, as they may be shown: nothing
  /// was done with them. Python would call them to open the file.
  const std::vector<std::string>& unknown_names() const&;
  std::vector<std::string> unknown_names() const&& { return unknown_names(); }

  /// The tensor of that name; null when there is none.
  const TensorInfo* find(std::string_view name) const&& = delete;  // it would not outlive the file
  const TensorInfo* find(std::string_view name) const&;

  /// The numbers of one of this file's tensors, in Strata's memory order. float and double take any type and round
  /// where they must; int64 takes whole numbers. Throws FileError when the file cannot be read or its type does not do.
  template <class T>
  Tensor<T> read(const TensorInfo& tensor) const {
    return std::get<Tensor<T>>(read_like(tensor, AnyTensor(Tensor<T>())));
  }

  /// The same, as the type that `like` has.
  AnyTensor read_like(const TensorInfo& tensor, const AnyTensor& like) const;

  /// Reads the whole archive and throws FileError when a checksum does not agree. Files of the older form have none,
  /// nor have those saved after torch.serialization.set_crc32_options(False).
  void verify_checksums() const;

 private:
  class Contents;
  std::unique_ptr<const Contents> contents_;
};

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/pytorch_file_impl.hpp"
#endif
