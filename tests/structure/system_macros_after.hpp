// After headers of Strata: the macros of system_macros.hpp are as they were.
#if !(defined near && defined small && defined check && defined slots && defined interface && defined None && \
      defined min && defined I)
#error "a macro of the program is gone"
#endif
interface near_is_nothing { small letter = char(near 1); int smaller = min(3, 2) + None - Success; };
static_assert(near_is_nothing().smaller == 2);
