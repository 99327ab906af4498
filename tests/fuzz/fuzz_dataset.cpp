// Reads any bytes as a data set's file: IDX with one to three dimensions, plain or compressed by gzip, and CIFAR-10's.
// The checksum at a gzip file's end is put right first, so that the fuzzer sees what is behind it.
#include <cstdint>
#include <vector>

#include "strata/data/cifar10.hpp"
#include "strata/data/mnist.hpp"

namespace st = strata;

namespace {

/// Puts in the checksum of what the stream holds, where it can be decompressed.
void repair_checksum(std::vector<std::uint8_t>& bytes) {
  if (!st::detail::is_gzip(bytes) || bytes.size() < 18) return;
  const std::size_t size = bytes.size();
  bytes.resize(size + st::detail::inflate_padding);
  try {
    const st::detail::Bytes file = st::detail::Bytes(bytes).first(size);
    const st::detail::GzipMember member = st::detail::read_gzip(file);
    if (member.size > 0) {
      std::vector<std::uint8_t> data(member.size + st::detail::inflate_padding);
      st::detail::Inflater inflater(file.data() + member.begin, member.end - member.begin, data.data(), member.size,
                                    false);
      inflater.run_deflate();
      const std::uint32_t crc = st::crc32(st::detail::Bytes(data).first(member.size));
      for (std::size_t i = 0; i < 4; ++i) bytes[member.end + i] = std::uint8_t(crc >> (8 * i));
    }
  } catch (const st::detail::BadImage&) {
  }
  bytes.resize(size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  std::vector<std::uint8_t> repaired(bytes, bytes + size);
  repair_checksum(repaired);
  for (std::size_t rank = 1; rank <= 3; ++rank) try {
      const st::detail::IdxFile file = st::detail::read_idx(repaired, rank);
      std::int64_t elements = 1;
      for (std::size_t i = 0; i < rank; ++i) elements *= file.sizes[i];
      if (elements <= 0 || std::size_t(elements) != file.bytes.size() - file.begin) __builtin_trap();
    } catch (const st::detail::BadImage&) {
    }
  try {
    st::detail::check_cifar(repaired);
    if (repaired.size() % st::detail::cifar_record != 0) __builtin_trap();
  } catch (const st::detail::BadImage&) {
  }
  return 0;
}
