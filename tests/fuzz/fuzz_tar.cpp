// Reads any bytes as a tar archive, with the checksums of its headers put right, and as a record of TensorBoard's. Nothing is read
// beyond the end, what an entry says lies inside, and memory is in proportion to the input.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "memory_bound.hpp"
#include "strata/data/detail/tar.hpp"
#include "strata/train/detail/event_format.hpp"

namespace st = strata;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  std::string archive(reinterpret_cast<const char*>(bytes), size);
  for (std::size_t at = 0; at + 512 <= size; at += 512) {  // of blocks of data too, which does no harm
    unsigned sum = 0;
    for (std::size_t i = 0; i < 512; ++i) sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(archive[at + i]);
    if (sum == 8 * ' ') continue;  // zeros
    char digits[8];
    std::snprintf(digits, sizeof digits, "%06o", sum);
    archive.replace(at + 148, 7, digits, 7);
  }
  {
    const fuzz::MemoryBound bound(size);
    try {
      const auto entries = st::detail::read_tar(size, [&](std::uint64_t offset, char* to, std::size_t count) {
        if (offset > size || count > size - offset) __builtin_trap();
        std::memcpy(to, archive.data() + offset, count);
      });
      for (const auto& entry : entries)
        if (entry.name.empty() || entry.offset > size || entry.size > size - entry.offset) __builtin_trap();
    } catch (const st::detail::BadTar&) {
    }
  }
  (void)st::detail::step_of_event(archive);
  std::string record;
  st::detail::append_record(record, archive);
  std::string_view rest = record, data;
  if (!st::detail::next_record(rest, data) || !rest.empty() || data != archive) __builtin_trap();
  return 0;
}
