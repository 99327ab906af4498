// Pickles and files of torch.save, made by hand: such as PyTorch writes and such as it never would.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace io_test {

inline std::string text(std::string_view what) {
  return "\x8c" + std::string(1, static_cast<char>(what.size())) + std::string(what);
}
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string out = "}(";
  for (const auto& [key, value] : items) out += text(key) + value;
  return out + "u";
}
/// Three numbers, 1, 2 and 3.
inline std::string tensor() {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + "ctorch\nFloatStorage\n" + text("0") +
         text("cpu") + std::string("K\x03tQK\x00K\x03\x85K\x01\x85\x89NtR", 16);
}
/// A file of the older form with an object and that one storage.
inline std::string pth(const std::string& object) {
  const std::array numbers{1.0f, 2.0f, 3.0f};
  std::string bytes("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02");
  const bool has_storage = object.find("FloatStorage") != std::string::npos;
  bytes += object + "\x80\x02]" + (has_storage ? text("0") + "a." : ".");
  if (!has_storage) return bytes;
  bytes += std::string("\x03\0\0\0\0\0\0\0", 8);
  return bytes + std::string(reinterpret_cast<const char*>(numbers.data()), sizeof numbers);
}

/// An entry of a zip archive, and what its place in the list may say instead of the truth.
struct ZipEntry {
  std::string name, data;
  std::uint64_t size = ~std::uint64_t{0};    ///< not the data's
  std::uint64_t header = ~std::uint64_t{0};  ///< not where the entry is
  std::uint16_t method = 0;                  ///< 8: deflated, which the data is not
  bool wide = false;                         ///< numbers in a zip64 field
};
inline void put_number(std::string& to, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) to += static_cast<char>(i < 8 ? (value >> (8 * i)) & 255u : 0u);
}
/// What stands before the data of an entry.
inline std::string zip_header(const std::string& name, std::uint64_t size, std::uint16_t method = 0) {
  std::string out("PK\3\4\0\0\0\0", 8);
  put_number(out, method, 2);
  put_number(out, 0, 8);  // time, checksum: none
  put_number(out, size, 4), put_number(out, size, 4);
  put_number(out, name.size(), 2), put_number(out, 0, 2);
  return out + name;
}
inline std::string zip(const std::vector<ZipEntry>& entries) {
  std::string out, list;
  for (const ZipEntry& entry : entries) {
    const std::uint64_t size = entry.size == ~std::uint64_t{0} ? entry.data.size() : entry.size;
    const std::uint64_t header = entry.header == ~std::uint64_t{0} ? out.size() : entry.header;
    const std::uint64_t shown = entry.wide ? 0xFFFFFFFFu : size;
    if (entry.header == ~std::uint64_t{0}) out += zip_header(entry.name, shown, entry.method) + entry.data;
    list += std::string("PK\1\2\0\0\0\0\0\0", 10);
    put_number(list, entry.method, 2);
    put_number(list, 0, 8);
    put_number(list, shown, 4), put_number(list, shown, 4);
    put_number(list, entry.name.size(), 2), put_number(list, entry.wide ? 28 : 0, 2);
    put_number(list, 0, 10);
    put_number(list, entry.wide ? 0xFFFFFFFFu : header, 4);
    list += entry.name;
    if (!entry.wide) continue;
    put_number(list, 1, 2), put_number(list, 24, 2);
    put_number(list, size, 8), put_number(list, size, 8), put_number(list, header, 8);
  }
  const std::uint64_t begin = out.size();
  out += list + std::string("PK\5\6\0\0\0\0", 8);
  put_number(out, entries.size(), 2), put_number(out, entries.size(), 2), put_number(out, list.size(), 4);
  put_number(out, begin, 4), put_number(out, 0, 2);
  return out;
}

}  // namespace io_test
