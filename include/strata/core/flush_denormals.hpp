// Treats denormal floats as zero while it lives. Denormals make x86 arithmetic up to a hundred times slower, and a
// network's activations reach them easily.
#pragma once

#include "strata/core/config.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace strata::inline STRATA_ABI {

/// Sets flush-to-zero and denormals-are-zero for the current thread; the destructor restores what was set before.
class FlushDenormals {
 public:
#if defined(__SSE__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(before_); }
#else
  FlushDenormals() {}
  ~FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__SSE__)
  unsigned before_;
#endif
};

}  // namespace strata::inline STRATA_ABI
