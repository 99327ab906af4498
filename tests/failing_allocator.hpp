// Memory that runs out at a chosen moment: what a test does must then end in an error, never in a crash.
//
//     for (long n = 1;; ++n) {
//       const strata_test::FailNthAllocation failing(n);
//       try { st::load_image<1>(path); } catch (const std::exception&) {}
//       if (!failing.failed()) break;                                          // it asked for memory less than n times
//     }
//
//     const strata_test::CountBytes counted;                                     // and how much is asked for in all
//
// For test programs that have failing_allocator.cpp among their sources. One at a time; allocations of all threads
// count. Where the C library is glibc all of malloc's family fail, which operator new, pools and C libraries ask;
// elsewhere, and under sanitizers, which have a malloc of their own, operator new does.
#pragma once

namespace strata_test {

class FailNthAllocation {
 public:
  /// The n-th allocation from here on fails, n from 1; with `and_all_after` those behind it too.
  explicit FailNthAllocation(long n, bool and_all_after = false);
  FailNthAllocation(const FailNthAllocation&) = delete;
  FailNthAllocation& operator=(const FailNthAllocation&) = delete;
  ~FailNthAllocation();

  /// Whether so many have been asked for.
  bool failed() const;
};

/// How many bytes all allocations from here on ask for, those given back again included. One at a time.
class CountBytes {
 public:
  CountBytes();
  CountBytes(const CountBytes&) = delete;
  CountBytes& operator=(const CountBytes&) = delete;
  ~CountBytes();

  long so_far() const;
};

}  // namespace strata_test
