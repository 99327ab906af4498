#include "counting.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <unordered_map>
#include <vector>

#include "block.hpp"
#include "device_memory.hpp"
#include "shared_memory.hpp"

namespace cuda_on_host {
namespace {

constexpr unsigned sector = 32;

struct WarpAccess {
  std::uint32_t lanes = 0;
  std::int32_t address[32];  // from base
  std::uint64_t base = 0;    // the first lane's address, from the beginning of the arena
  std::uint64_t of(int lane) const { return base + std::uint64_t(std::int64_t{address[lane]}); }
};
struct Instruction {
  Access access = Access::read;
  bool shared = false;
  unsigned bytes = 0;
  std::uint32_t done[32] = {};  // how often each lane has run it in this interval
  std::vector<WarpAccess> accesses;
};
using Warp = std::unordered_map<std::uint64_t, Instruction>;

std::map<std::string, Counters> totals;
Counters* now = nullptr;
std::vector<Warp> warps;

// Which sectors of device memory the launch has touched.
struct Touched {
  std::vector<std::uint64_t> bits;
  std::vector<std::size_t> words;  // those that are not zero
  std::uint64_t count = 0;
  void add(std::uint64_t number) {
    const std::size_t word = number / 64;
    if (word >= bits.size()) bits.resize(word + 1 + word / 2);
    if (bits[word] == 0) words.push_back(word);
    const std::uint64_t bit = std::uint64_t{1} << number % 64;
    count += (bits[word] & bit) == 0;
    bits[word] |= bit;
  }
  void clear() {
    for (const std::size_t word : words) bits[word] = 0;
    words.clear();
    count = 0;
  }
};
Touched loaded, stored;

void finish_global(const Instruction& instruction, const WarpAccess& access) {
  static std::vector<std::uint64_t> sectors;  // any number: a struct may be read as a whole
  sectors.clear();
  std::uint64_t addresses[32];
  int lane_count = 0;
  for (std::uint32_t rest = access.lanes; rest != 0; rest &= rest - 1) {
    const std::uint64_t address = access.of(std::countr_zero(rest));
    addresses[lane_count++] = address;
    for (std::uint64_t s = address / sector; s <= (address + instruction.bytes - 1) / sector; ++s) sectors.push_back(s);
  }
  std::ranges::sort(sectors);
  sectors.erase(std::unique(sectors.begin(), sectors.end()), sectors.end());
  std::sort(addresses, addresses + lane_count);
  lane_count = int(std::unique(addresses, addresses + lane_count) - addresses);
  std::uint64_t bytes = 0, end = 0;  // each byte once
  for (int i = 0; i < lane_count; ++i) {
    const std::uint64_t from = std::max(addresses[i], end);
    end = addresses[i] + instruction.bytes;
    bytes += end - std::min(from, end);
  }
  const std::uint64_t ideal = (bytes + sector - 1) / sector;
  if (instruction.access != Access::write) {
    ++now->load_accesses;
    now->load_bytes += bytes, now->load_sectors += sectors.size(), now->load_ideal_sectors += ideal;
    for (const std::uint64_t touched : sectors) loaded.add(touched);
  }
  if (instruction.access != Access::read) {
    ++now->store_accesses;
    now->store_bytes += bytes, now->store_sectors += sectors.size(), now->store_ideal_sectors += ideal;
    for (const std::uint64_t touched : sectors) stored.add(touched);
  }
  if (instruction.access == Access::atomic) now->atomics += unsigned(std::popcount(access.lanes));
}

// 32 banks of 4 bytes. An access of 8 or 16 bytes is served in 2 or 4 parts, of 16 or 8 lanes each.
void finish_shared(const Instruction& instruction, const WarpAccess& access) {
  const unsigned parts = std::max(1u, instruction.bytes / 4), lanes = 32 / std::min(parts, 32u);
  for (unsigned part = 0; part < parts; ++part) {
    std::uint32_t words[32 * 4];
    int count = 0;
    for (unsigned lane = part * lanes; lane < (part + 1) * lanes; ++lane) {
      if ((access.lanes >> lane & 1u) == 0) continue;
      for (unsigned k = 0; k < parts && count < 128; ++k) words[count++] = std::uint32_t(access.of(int(lane)) / 4) + k;
    }
    if (count == 0) continue;
    std::sort(words, words + count);
    count = int(std::unique(words, words + count) - words);
    unsigned in_bank[32] = {};
    for (int i = 0; i < count; ++i) ++in_bank[words[i] % 32];
    now->shared_wavefronts += *std::max_element(in_bank, in_bank + 32);
    now->shared_ideal_wavefronts += 1;
  }
  ++now->shared_accesses;
}

}  // namespace

void begin_counting_launch() {
  now = nullptr;
  if (!options().count) return;
  now = &totals[block.kernel];
  now->kernel = block.kernel;
  ++now->launches;
  const dim3 grid = block.launch->grid;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  now->blocks += blocks;
  now->threads += blocks * block.thread_count;
  now->block_threads = block.thread_count;
  warps.resize((block.thread_count + 31) / 32);
  block.barriers = 0;
}

void end_counting_launch() {
  if (now == nullptr) return;
  now->barriers += block.barriers;
  now->shared_bytes = shared_bytes_in_use();
  now->load_unique_bytes += loaded.count * sector;
  now->store_unique_bytes += stored.count * sector;
  loaded.clear();
  stored.clear();
  now = nullptr;
}

void count_access(std::uintptr_t address, std::size_t bytes, Access access, bool shared, const void* instruction) {
  if (now == nullptr) return;
  // One call of load_vector, say, may serve several kinds of access: a function that the compiler has not inlined.
  const std::uint64_t kind = std::uint64_t(access) | std::uint64_t{shared} << 2 | std::uint64_t(bytes) << 3;
  Instruction& entry = warps[block.current->warp][reinterpret_cast<std::uint64_t>(instruction) ^ kind << 52];
  entry.access = access, entry.shared = shared, entry.bytes = unsigned(bytes);
  const unsigned lane = block.current->lane;
  const std::size_t number = entry.done[lane]++;
  if (number >= entry.accesses.size()) entry.accesses.resize(number + 1);
  WarpAccess& group = entry.accesses[number];
  const std::uint64_t offset = address - (shared ? shared_arena : device_arena);
  if (group.lanes == 0) group.base = offset;
  group.lanes |= 1u << lane;
  group.address[lane] = std::int32_t(std::int64_t(offset - group.base));  // within 2 GiB of each other
}

void end_counting_interval() {
  if (now == nullptr) return;
  for (std::size_t w = 0; w < warps.size(); ++w) {
    const unsigned lanes = std::min(32u, block.thread_count - unsigned(w) * 32);
    const std::uint32_t all = lanes == 32 ? ~0u : (1u << lanes) - 1;
    for (auto& [address, instruction] : warps[w]) {
      for (const WarpAccess& access : instruction.accesses) {
        now->partial_accesses += access.lanes != all;
        if (instruction.shared) {
          finish_shared(instruction, access);
        } else {
          finish_global(instruction, access);
        }
      }
      instruction.accesses.clear();
      std::ranges::fill(instruction.done, 0u);
    }
  }
}

void count_matrix_operations(std::uint64_t multiply_adds) {
  if (now != nullptr) now->matrix_operations += multiply_adds;
}

std::vector<Counters> counters() {
  std::vector<Counters> result;
  for (const auto& [name, counts] : totals) result.push_back(counts);
  return result;
}
void reset_counters() { totals.clear(); }

}  // namespace cuda_on_host
