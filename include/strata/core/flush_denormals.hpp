// Treats denormal floats as zero while it lives. Denormals make x86 arithmetic up to a hundred times slower, and a
// network's activations reach them easily.
#pragma once

#include "strata/core/config.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace strata { inline namespace STRATA_ABI {

/// Sets flush-to-zero and denormals-are-zero for the current thread, or takes them back with flush = false; the
/// destructor restores what was set before.
class FlushDenormals {
 public:
#if defined(__SSE__)
  explicit FlushDenormals(bool flush = true) : before_(_mm_getcsr()) {
    _mm_setcsr(flush ? before_ | bits : before_ & ~bits);
  }
  ~FlushDenormals() { _mm_setcsr(before_); }
  /// Whether they are set now.
  static bool on() { return (_mm_getcsr() & bits) == bits; }
#else
  explicit FlushDenormals(bool = true) {}
  ~FlushDenormals() {}
  static bool on() { return false; }
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__SSE__)
  static constexpr unsigned bits = 0x8040u;
  unsigned before_;
#endif
};

}}  // namespace strata::STRATA_ABI
