// Arithmetic with the same bits everywhere. A compiler may turn a * b + c into one fused multiply-add, which rounds
// once instead of twice, and whether it does differs with the compiler, its flags and the processor. Data and starting
// weights must not: there every product that is added to something passes through here.
//
//     float y = x + st::detail::rounded(slope * step);
#pragma once

#include <type_traits>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// x itself, a number or a vector, as a value the compiler knows nothing of.
template <class V>
[[gnu::always_inline]] constexpr V rounded(V x) {
  if (!std::is_constant_evaluated()) {
#if defined(__AVX512F__)
    asm("" : "+v"(x));
#elif defined(__x86_64__)
    asm("" : "+x"(x));
#elif defined(__aarch64__)
    asm("" : "+w"(x));
#else
    asm("" : "+m"(x));
#endif
  }
  return x;
}

}}}  // namespace strata::STRATA_ABI::detail
