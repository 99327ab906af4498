// Networks and folders of the tests of files.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "message_of.hpp"
#include "strata/autograd/visit.hpp"

namespace io_test {

struct Conv {
  strata::Parameter weight{strata::Shape{3, 2, 3, 3}};
  strata::Parameter bias{strata::Shape{3}};
  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("bias", self.bias);
  }
};

struct Norm {
  strata::Parameter weight{strata::Shape{3}, 1};
  strata::Buffer running_mean{strata::Shape{3}};
  strata::Buffer num_batches_tracked = strata::Buffer::integers(strata::Shape{});
  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("running_mean", self.running_mean);
    f("num_batches_tracked", self.num_batches_tracked);
  }
};

struct Net {
  Conv head;
  Norm norm;
  Conv tail;
  static constexpr void visit(auto& self, auto&& f) {
    f("head", self.head);
    f("norm", self.norm);
    f("tail", self.tail);
  }
};

/// Numbers that tell every place in the network: 1, 2, 3, ... plus `offset`.
template <class M>
void number(M& net, double offset = 0) {
  double next = offset;
  strata::for_each_tensor(net, [&](const std::string&, auto& leaf) {
    std::visit([&]<class T>(strata::Tensor<T>& tensor) { for (T& x : tensor.span()) x = static_cast<T>(next += 1); },
               leaf.any_value());
  });
}

/// All numbers of a network, in its own memory order.
template <class M>
std::vector<double> numbers(const M& net) {
  std::vector<double> out;
  strata::for_each_tensor(net, [&](const std::string&, auto& leaf) {
    std::visit([&](const auto& tensor) { for (const auto x : tensor.span()) out.push_back(double(x)); },
               leaf.any_value());
  });
  return out;
}

/// An empty folder that goes when the test ends.
class Folder {
 public:
  explicit Folder(const std::filesystem::path& where = std::filesystem::temp_directory_path()) {
    std::string name = (where / "strata_io_test_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw strata::FileError("no folder for the test");
    path_ = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  std::size_t files() const {
    using Entries = std::filesystem::directory_iterator;
    return std::size_t(std::distance(Entries(path_), Entries()));
  }

 private:
  std::filesystem::path path_;
};

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}
inline void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), std::streamsize(bytes.size()));
}

/// A file with this header and this many bytes of data.
inline std::string file_bytes(std::string_view header, std::size_t data_bytes) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>((header.size() >> (8 * i)) & 255u);
  return bytes + std::string(header) + std::string(data_bytes, '\1');
}

/// The text of the FileError that call() throws; empty when it throws none.
std::string file_error(auto&& call) { return strata_test::message_of<strata::FileError>(call); }
inline bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace io_test
