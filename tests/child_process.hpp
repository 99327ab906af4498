// Runs something in a child of fork(), and says how that ended.
#pragma once

#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#if defined(__SANITIZE_THREAD__)
#define STRATA_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STRATA_THREAD_SANITIZER 1
#endif
#endif

namespace strata_test {

// The thread sanitizer ends a child that starts threads when its parent had some.
#if defined(STRATA_THREAD_SANITIZER)
constexpr bool children_may_have_threads = false;
#else
constexpr bool children_may_have_threads = true;
#endif

/// The exit code of a child that returns work(), an int; 101 when it throws, 1000 and more when a signal ends it: 1014
/// after `seconds`, when it hangs.
template <class Work>
int in_child(Work work, unsigned seconds = 60) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(seconds);
    int result = 101;
    try {
      result = work();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "in a child: %s\n", error.what());
    }
    std::fflush(stdout);
    _exit(result);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return 102;
  return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// No more threads for this process, root's too; for children only, since nothing brings them back.
inline bool forbid_new_threads() {
  const rlimit none{0, 0};
  return setrlimit(RLIMIT_NPROC, &none) == 0 && (geteuid() != 0 || setreuid(65534, 65534) == 0);
}

#if defined(__linux__)
/// One of the processors it may use now, and no other, for this thread and those it makes.
inline bool allow_one_processor() {
  cpu_set_t allowed, one;
  CPU_ZERO(&one);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return false;
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &allowed)) CPU_SET(i, &one);
  return sched_setaffinity(0, sizeof one, &one) == 0;
}
#endif

}  // namespace strata_test
