// Reads any bytes as an LMDB database. The input's first byte says whether the two states' beginnings are put right, so
// that what lies behind is reached. Nothing is read beyond the end, values lie inside, keys rise, and memory is in
// proportion to the input. Pages are of 512 bytes, the least, so that a small input has several.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "memory_bound.hpp"
#include "strata/data/lmdb.hpp"

namespace st = strata;

namespace {

void put(std::string& bytes, std::size_t at, std::uint64_t value, std::size_t count) {
  for (std::size_t i = 0; i < count && at + i < bytes.size(); ++i) bytes[at + i] = char(value >> (8 * i) & 0xFF);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 != 0) {
    for (const std::size_t number : {0u, 1u}) {
      const std::size_t page = number * 512;
      put(bytes, page, number, 8);
      put(bytes, page + 10, st::detail::lmdb_meta, 2);
      put(bytes, page + 16, 0x1BEEFC0DE, 8);
      put(bytes, page + 40, 512, 4);
    }
    for (std::size_t page = 2; 512 * page < bytes.size(); ++page) put(bytes, 512 * page, page, 8);
  }
  {
    const fuzz::MemoryBound bound(size);
    try {
      const auto directory =
          st::detail::read_lmdb(bytes.size(), [&](std::uint64_t offset, char* to, std::size_t count) {
            if (offset > bytes.size() || count > bytes.size() - offset) __builtin_trap();
            std::memcpy(to, bytes.data() + offset, count);
          });
      std::string_view before;
      for (const auto& entry : directory.entries) {
        if (entry.offset > bytes.size() || entry.size > bytes.size() - entry.offset || entry.key <= before)
          __builtin_trap();
        before = entry.key;
      }
    } catch (const st::detail::BadLmdb&) {
    }
  }
  if (const auto line = st::detail::lmdb_meta_line(bytes); line && (line->h < 1 || line->w < 1)) __builtin_trap();
  return 0;
}
