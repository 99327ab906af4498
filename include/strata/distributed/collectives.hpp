// What all ranks do together, made of Communicator::exchange alone.
//
//     st::detail::broadcast(communicator, bytes);            // rank 0's bytes, on all
//     std::vector<std::string> hosts = st::detail::gather_texts(communicator, host);
//
// All ranks call each of them, in the same order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "strata/distributed/communicator.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// Rank 0's bytes to all, whose spans are as long: log2(ranks) messages one after another.
inline void broadcast(Communicator& ranks, std::span<std::byte> bytes) {
  const int rank = ranks.rank(), size = ranks.size();
  int distance = 1;
  while (distance < size) distance *= 2;
  for (distance /= 2; distance >= 1; distance /= 2) {
    if (rank % (2 * distance) == 0 && rank + distance < size)
      ranks.send(rank + distance, bytes);
    else if (rank % (2 * distance) == distance)
      ranks.receive(rank - distance, bytes);
  }
}

/// Rank 0's vector to all, whatever theirs were.
template <class T>
void broadcast(Communicator& ranks, std::vector<T>& values) {
  std::uint64_t count = values.size();
  broadcast(ranks, std::as_writable_bytes(std::span(&count, 1)));
  values.resize(std::size_t(count));
  if (count > 0) broadcast(ranks, std::as_writable_bytes(std::span(values)));
}

/// The numbers of all ranks, in the order of ranks, on all; each rank may give another count.
template <class T>
std::vector<T> gather(Communicator& ranks, const std::vector<T>& own) {
  std::vector<T> all = own;
  const int size = ranks.size();
  for (int from = 1; from < size; ++from) {
    std::uint64_t count = own.size();
    const auto count_bytes = std::as_writable_bytes(std::span(&count, 1));
    if (ranks.rank() == from) {
      ranks.send(0, count_bytes);
      if (count > 0) ranks.send(0, std::as_bytes(std::span(own)));
    } else if (ranks.rank() == 0) {
      ranks.receive(from, count_bytes);
      all.resize(all.size() + std::size_t(count));
      if (count > 0) ranks.receive(from, std::as_writable_bytes(std::span(all).last(std::size_t(count))));
    }
  }
  broadcast(ranks, all);
  return all;
}

/// As many bytes of each rank, in the order of ranks, on all: `all` holds a rank's own in their place. log2(ranks)
/// messages where the ranks are a power of two, else ranks - 1; each byte is sent to each rank once.
inline void all_gather(Communicator& ranks, std::span<std::byte> all) {
  const auto rank = std::size_t(ranks.rank()), size = std::size_t(ranks.size()), part = all.size() / size;
  if ((size & (size - 1)) == 0) {
    for (std::size_t distance = 1; distance < size; distance *= 2) {
      const std::size_t own = rank / distance * distance, others = own ^ distance;
      const int partner = int(rank ^ distance);
      ranks.exchange(partner, all.subspan(own * part, distance * part), partner,
                     all.subspan(others * part, distance * part));
    }
    return;
  }
  for (std::size_t turn = 0; turn + 1 < size; ++turn) {
    const std::size_t out = (rank + size - turn) % size, in = (out + size - 1) % size;
    ranks.exchange(int((rank + 1) % size), all.subspan(out * part, part), int((rank + size - 1) % size),
                   all.subspan(in * part, part));
  }
}

/// Each rank's text, on all.
inline std::vector<std::string> gather_texts(Communicator& ranks, const std::string& own) {
  const auto size = std::size_t(ranks.size());
  const std::vector<std::uint64_t> lengths = gather(ranks, std::vector<std::uint64_t>{own.size()});
  const std::vector<char> letters = gather(ranks, std::vector<char>(own.begin(), own.end()));
  std::vector<std::string> texts(size);
  std::size_t at = 0;
  for (std::size_t i = 0; i < size; ++i) {
    texts[i].assign(letters.data() + at, std::size_t(lengths[i]));
    at += std::size_t(lengths[i]);
  }
  return texts;
}

/// The bits that any rank has set, on all. No rank leaves before all have come.
inline std::uint8_t any_of(Communicator& ranks, std::uint8_t own) {
  auto yes = std::byte(own);
  const int rank = ranks.rank(), size = ranks.size();
  for (int distance = 1; distance < size; distance *= 2) {
    if (rank % (2 * distance) == distance) {
      ranks.send(rank - distance, {&yes, 1});
      break;
    }
    if (rank + distance < size) {
      std::byte other{};
      ranks.receive(rank + distance, {&other, 1});
      yes |= other;
    }
  }
  broadcast(ranks, std::span(&yes, 1));
  return std::uint8_t(yes);
}

}}}  // namespace strata::STRATA_ABI::detail
