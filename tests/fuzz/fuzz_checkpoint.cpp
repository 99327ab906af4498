// Loads any bytes as a checkpoint of a small network, SGD and a scheduler, and as its weights. A wrong checksum is put
// right first, so that the fuzzer sees what is behind it. Memory stays within a small multiple of the file's length.
#include <cstring>
#include <vector>

#include "checkpoint_run.hpp"
#include "memory_bound.hpp"
#include "memory_file.hpp"

namespace st = strata;

namespace {

void repair_checksum(std::vector<std::uint8_t>& bytes) {
  std::uint64_t header = 0;
  if (bytes.size() < sizeof header) return;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header > bytes.size() - sizeof header) return;
  char* text = reinterpret_cast<char*>(bytes.data()) + sizeof header;
  const std::size_t at = st::detail::find_checksum({text, std::size_t(header)}),
                    digits = st::detail::checksum_zeros.size();
  if (at == std::string_view::npos || header - at < digits) return;
  std::memcpy(text + at, st::detail::checksum_zeros.data(), digits);
  const std::string sum = st::detail::hex(st::crc32c(std::as_bytes(std::span(bytes))));
  std::memcpy(text + at, sum.data(), digits);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  static fuzz::Run run;
  std::vector<std::uint8_t> repaired(bytes, bytes + size);
  repair_checksum(repaired);
  const fuzz::MemoryBound bound(size);
  try {
    (void)st::load_checkpoint(fuzz::memory_file(repaired.data(), repaired.size()), run.net, run.sgd, run.scheduler);
  } catch (const st::FileError&) {
  }
  try {
    (void)st::load_weights(fuzz::memory_file(repaired.data(), repaired.size()), run.net);
  } catch (const st::FileError&) {
  }
  return 0;
}
