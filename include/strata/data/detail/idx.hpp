// The IDX format of MNIST's files: two zero bytes, 8 for bytes as elements, the number of dimensions, then each
// dimension's size in four bytes, most significant first, then the elements.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/data/detail/gzip.hpp"
#include "strata/data/detail/idx_file.hpp"
#include "strata/data/detail/image_bytes.hpp"

namespace strata::inline STRATA_ABI::detail {

/// The sizes in the header of a file of `size` bytes in all, which must be those that they make. Throws BadImage.
inline std::array<std::int64_t, 3> idx_sizes(Bytes head, std::size_t size, std::size_t rank) {
  const std::uint32_t magic = big_endian(part(head, 0, 4, "the IDX header")), wanted = 0x0800u + std::uint32_t(rank);
  if (magic != wanted)
    throw BadImage(concat("its first four bytes are the number ", magic, ", wanted ", wanted,
                          ": it is no IDX file of bytes with ", rank, rank == 1 ? " dimension" : " dimensions"));
  std::array<std::int64_t, 3> sizes{};
  std::size_t elements = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t count = big_endian(part(head, 4 + 4 * i, 4, "the IDX header"));
    sizes[i] = std::int64_t(count);
    if (count == 0) throw BadImage("it holds nothing: a size in its header is 0");
    // What is more than the file has stays so: no product overflows.
    elements = elements > size / count ? size + 1 : elements * count;
  }
  const std::size_t header = 4 + 4 * rank, there = size - header;
  if (elements != there) {
    std::string product = concat(sizes[0]);
    for (std::size_t i = 1; i < rank; ++i) product += concat(" x ", sizes[i]);
    throw BadImage(concat("its header says ", product, " bytes follow, there are ", there,
                          elements > there ? " (truncated?)" : ""));
  }
  return sizes;
}

/// An IDX file of bytes with `rank` dimensions, 1 to 3, as it is or compressed by gzip. Nothing of the size that its
/// header says is allocated before that is known to be there. Throws BadImage.
inline IdxFile read_idx(std::vector<unsigned char> file, std::size_t rank) {
  const std::size_t header = 4 + 4 * rank;
  IdxFile out;
  out.begin = header;
  if (!is_gzip(file)) {
    out.sizes = idx_sizes(file, file.size(), rank);
    out.bytes = std::move(file);
    return out;
  }
  const std::size_t size = file.size();
  file.resize(size + inflate_padding);
  const Bytes compressed = Bytes(file).first(size);
  const GzipMember member = read_gzip(compressed);
  out.sizes = idx_sizes(gunzip(compressed, member, header), member.size, rank);
  out.bytes = gunzip(compressed, member, member.size);
  return out;
}

}  // namespace strata::inline STRATA_ABI::detail
