// Sean Barrett's stb_image (JPEG only) and stb_image_write, inside a namespace of Strata: a program that has its own
// copy of stb, of any version and with any settings, before or after this header, is not touched.
//
//     stb::Memory memory(most_bytes);     // of all that stb takes until the end of the scope
//     unsigned char* pixels = stb::stbi_load_from_memory(...);
#pragma once

#pragma GCC system_header  // stb's warnings are not the user's

#include <climits>
#include <cmath>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail::stb {

using ::abs;  // strata::abs, of images, would hide it

/// What stb takes on this thread while this lives: `limit` bytes at most at any time, and given back at the end. Where
/// there is no more, bad_alloc is thrown through stb, which writes to nowhere where it looks at all.
class Memory {
 public:
  explicit Memory(std::size_t limit) : left_(limit), outer_(current()) { current() = this; }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    while (first_) give_back(first_ + 1);
    current() = outer_;
  }

  static void* take(std::size_t bytes) { return resize(nullptr, bytes); }
  static void* resize(void* memory, std::size_t bytes) {
    Memory& all = *current();
    Block* const old = memory ? static_cast<Block*>(memory) - 1 : nullptr;
    const std::size_t before = old ? old->bytes : 0;
    if (bytes > all.left_ + before) throw std::bad_alloc();
    // Zeros, of a whole block alone: of a damaged file stb may look at what it never filled.
    Block* const block =
        static_cast<Block*>(old ? std::realloc(old, sizeof(Block) + bytes) : std::calloc(sizeof(Block) + bytes, 1));
    if (!block) throw std::bad_alloc();
    if (!old) block->next = all.first_;
    block->bytes = bytes;
    (block->previous ? block->previous->next : all.first_) = block;
    if (block->next) block->next->previous = block;
    all.left_ = all.left_ + before - bytes;
    return block + 1;
  }
  static void give_back(void* memory) {
    if (!memory) return;
    Memory& all = *current();
    Block* const block = static_cast<Block*>(memory) - 1;
    (block->previous ? block->previous->next : all.first_) = block->next;
    if (block->next) block->next->previous = block->previous;
    all.left_ += block->bytes;
    std::free(block);
  }

 private:
  struct alignas(16) Block {
    Block *previous, *next;
    std::size_t bytes;
  };
  static Memory*& current() {
    thread_local Memory* memory = nullptr;
    return memory;
  }

  Block* first_ = nullptr;
  std::size_t left_;
  Memory* outer_;
};

}}}  // namespace strata::STRATA_ABI::detail::stb

// What stb's two headers look at or define and a user may have set.
#pragma push_macro("STBI_INCLUDE_STB_IMAGE_H")
#pragma push_macro("STB_IMAGE_IMPLEMENTATION")
#pragma push_macro("STB_IMAGE_STATIC")
#pragma push_macro("STBIDEF")
#pragma push_macro("STBI_ASSERT")
#pragma push_macro("STBI_MALLOC")
#pragma push_macro("STBI_REALLOC")
#pragma push_macro("STBI_REALLOC_SIZED")
#pragma push_macro("STBI_FREE")
#pragma push_macro("STBI_MAX_DIMENSIONS")
#pragma push_macro("STBI_NO_STDIO")
#pragma push_macro("STBI_NO_LINEAR")
#pragma push_macro("STBI_NO_FAILURE_STRINGS")
#pragma push_macro("STBI_FAILURE_USERMSG")
#pragma push_macro("STBI_NO_THREAD_LOCALS")
#pragma push_macro("STBI_NO_SIMD")
#pragma push_macro("STBI_NEON")
#pragma push_macro("STBI_SSE2")
#pragma push_macro("STBI_SIMD_ALIGN")
#pragma push_macro("STBI_ONLY_PNG")
#pragma push_macro("STBI_ONLY_JPEG")
#pragma push_macro("STBI_ONLY_BMP")
#pragma push_macro("STBI_ONLY_GIF")
#pragma push_macro("STBI_ONLY_HDR")
#pragma push_macro("STBI_ONLY_PIC")
#pragma push_macro("STBI_ONLY_PNM")
#pragma push_macro("STBI_ONLY_PSD")
#pragma push_macro("STBI_ONLY_TGA")
#pragma push_macro("STBI_NO_PNG")
#pragma push_macro("STBI_NO_JPEG")
#pragma push_macro("STBI_NO_BMP")
#pragma push_macro("STBI_NO_GIF")
#pragma push_macro("STBI_NO_HDR")
#pragma push_macro("STBI_NO_PIC")
#pragma push_macro("STBI_NO_PNM")
#pragma push_macro("STBI_NO_PSD")
#pragma push_macro("STBI_NO_TGA")
#pragma push_macro("STBI_NO_ZLIB")
#pragma push_macro("stbi_load_from_memory")
#pragma push_macro("stbi_failure_reason")
#pragma push_macro("INCLUDE_STB_IMAGE_WRITE_H")
#pragma push_macro("STB_IMAGE_WRITE_IMPLEMENTATION")
#pragma push_macro("STB_IMAGE_WRITE_STATIC")
#pragma push_macro("STBIWDEF")
#pragma push_macro("STBIW_ASSERT")
#pragma push_macro("STBIW_MALLOC")
#pragma push_macro("STBIW_REALLOC")
#pragma push_macro("STBIW_REALLOC_SIZED")
#pragma push_macro("STBIW_FREE")
#pragma push_macro("STBIW_MEMMOVE")
#pragma push_macro("STBIW_CRC32")
#pragma push_macro("STBIW_ZLIB_COMPRESS")
#pragma push_macro("STBI_WRITE_NO_STDIO")

#undef STBI_INCLUDE_STB_IMAGE_H
#undef STBIDEF
#undef STBI_ASSERT
#undef STBI_MALLOC
#undef STBI_REALLOC
#undef STBI_REALLOC_SIZED
#undef STBI_FREE
#undef STBI_MAX_DIMENSIONS
#undef STBI_NO_FAILURE_STRINGS
#undef STBI_NO_THREAD_LOCALS
#undef STBI_NO_SIMD
#undef STBI_NEON
#undef STBI_SSE2
#undef STBI_SIMD_ALIGN
#undef STBI_ONLY_BMP
#undef STBI_ONLY_GIF
#undef STBI_ONLY_HDR
#undef STBI_ONLY_PIC
#undef STBI_ONLY_PNM
#undef STBI_ONLY_PSD
#undef STBI_ONLY_TGA
#undef STBI_NO_PNG
#undef STBI_NO_JPEG
#undef STBI_NO_BMP
#undef STBI_NO_GIF
#undef STBI_NO_HDR
#undef STBI_NO_PIC
#undef STBI_NO_PNM
#undef STBI_NO_PSD
#undef STBI_NO_TGA
#undef STBI_NO_ZLIB
#undef INCLUDE_STB_IMAGE_WRITE_H
#undef STBIWDEF
#undef STBIW_ASSERT
#undef STBIW_MALLOC
#undef STBIW_REALLOC
#undef STBIW_REALLOC_SIZED
#undef STBIW_FREE
#undef STBIW_MEMMOVE
#undef STBIW_CRC32
#undef STBIW_ZLIB_COMPRESS

// Those left by a program's own implementation that came before.
#include "strata/data/detail/stb_undefine.inc"

#undef STB_IMAGE_IMPLEMENTATION
#undef STB_IMAGE_STATIC
#undef STBI_NO_STDIO
#undef STBI_NO_LINEAR
#undef STBI_ONLY_PNG
#undef STBI_ONLY_JPEG
#undef STBI_FAILURE_USERMSG
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
// stb_image's functions are extern "C", so in the assembler's file they have the names of a program's own stb, whatever
// namespace they are in. Unused ones are not compiled when they are inline, and the two that are used get names of
// ours.
#define STBIDEF static inline
#undef stbi_load_from_memory
#undef stbi_failure_reason
#define stbi_load_from_memory strata_stbi_load_from_memory
#define stbi_failure_reason strata_stbi_failure_reason
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_ONLY_JPEG
#define STBI_FAILURE_USERMSG
#define STBI_ASSERT(condition) ((void)0)
#define STBI_MALLOC(bytes) Memory::take(bytes)
#define STBI_REALLOC(memory, bytes) Memory::resize(memory, bytes)
#define STBI_FREE(memory) Memory::give_back(memory)

#undef STB_IMAGE_WRITE_IMPLEMENTATION
#undef STB_IMAGE_WRITE_STATIC
#undef STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#define STBIW_ASSERT(condition) ((void)0)
#define STBIW_MALLOC(bytes) Memory::take(bytes)
#define STBIW_REALLOC(memory, bytes) Memory::resize(memory, bytes)
#define STBIW_FREE(memory) Memory::give_back(memory)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
// Of a JPEG file whose image data ends early stb shifts a zero by more than 31 bits: the result is zero on every
// processor.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((no_sanitize("shift"))), apply_to = function)
#endif
namespace strata { inline namespace STRATA_ABI { namespace detail::stb {
#if __has_include(<stb/stb_image.h>) && __has_include(<stb/stb_image_write.h>)
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>
#elif __has_include(<stb_image.h>) && __has_include(<stb_image_write.h>)
#include <stb_image.h>
#include <stb_image_write.h>
#else
#error \
    "strata reads images through stb: install libstb-dev (Debian, Ubuntu), or put stb_image.h and stb_image_write.h on the include path"
#endif
}}}  // namespace strata::STRATA_ABI::detail::stb
#if defined(__clang__)
#pragma clang attribute pop
#endif
#pragma GCC diagnostic pop

// Those of this one, which would meet a user's other version of stb.
#include "strata/data/detail/stb_undefine.inc"

#pragma pop_macro("STBI_INCLUDE_STB_IMAGE_H")
#pragma pop_macro("STB_IMAGE_IMPLEMENTATION")
#pragma pop_macro("STB_IMAGE_STATIC")
#pragma pop_macro("STBIDEF")
#pragma pop_macro("STBI_ASSERT")
#pragma pop_macro("STBI_MALLOC")
#pragma pop_macro("STBI_REALLOC")
#pragma pop_macro("STBI_REALLOC_SIZED")
#pragma pop_macro("STBI_FREE")
#pragma pop_macro("STBI_MAX_DIMENSIONS")
#pragma pop_macro("STBI_NO_STDIO")
#pragma pop_macro("STBI_NO_LINEAR")
#pragma pop_macro("STBI_NO_FAILURE_STRINGS")
#pragma pop_macro("STBI_FAILURE_USERMSG")
#pragma pop_macro("STBI_NO_THREAD_LOCALS")
#pragma pop_macro("STBI_NO_SIMD")
#pragma pop_macro("STBI_NEON")
#pragma pop_macro("STBI_SSE2")
#pragma pop_macro("STBI_SIMD_ALIGN")
#pragma pop_macro("STBI_ONLY_PNG")
#pragma pop_macro("STBI_ONLY_JPEG")
#pragma pop_macro("STBI_ONLY_BMP")
#pragma pop_macro("STBI_ONLY_GIF")
#pragma pop_macro("STBI_ONLY_HDR")
#pragma pop_macro("STBI_ONLY_PIC")
#pragma pop_macro("STBI_ONLY_PNM")
#pragma pop_macro("STBI_ONLY_PSD")
#pragma pop_macro("STBI_ONLY_TGA")
#pragma pop_macro("STBI_NO_PNG")
#pragma pop_macro("STBI_NO_JPEG")
#pragma pop_macro("STBI_NO_BMP")
#pragma pop_macro("STBI_NO_GIF")
#pragma pop_macro("STBI_NO_HDR")
#pragma pop_macro("STBI_NO_PIC")
#pragma pop_macro("STBI_NO_PNM")
#pragma pop_macro("STBI_NO_PSD")
#pragma pop_macro("STBI_NO_TGA")
#pragma pop_macro("STBI_NO_ZLIB")
#pragma pop_macro("stbi_load_from_memory")
#pragma pop_macro("stbi_failure_reason")
#pragma pop_macro("INCLUDE_STB_IMAGE_WRITE_H")
#pragma pop_macro("STB_IMAGE_WRITE_IMPLEMENTATION")
#pragma pop_macro("STB_IMAGE_WRITE_STATIC")
#pragma pop_macro("STBIWDEF")
#pragma pop_macro("STBIW_ASSERT")
#pragma pop_macro("STBIW_MALLOC")
#pragma pop_macro("STBIW_REALLOC")
#pragma pop_macro("STBIW_REALLOC_SIZED")
#pragma pop_macro("STBIW_FREE")
#pragma pop_macro("STBIW_MEMMOVE")
#pragma pop_macro("STBIW_CRC32")
#pragma pop_macro("STBIW_ZLIB_COMPRESS")
#pragma pop_macro("STBI_WRITE_NO_STDIO")
