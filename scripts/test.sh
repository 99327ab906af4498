#!/usr/bin/env bash
# Everything a change must pass, from a clean clone on a bare Debian machine:
#
#     scripts/test.sh            # installs what is missing, builds, runs all tests
#     scripts/test.sh ci         # without the sanitizers
#
# First the preset ci: optimised unit tests, examples, benchmarks (built only), structure, compile-fail and consumer
# tests. Then the preset asan: the unit tests under the address and undefined-behaviour sanitizers, less those checks of
# pointers that double the time to compile and find what the address sanitizer or a fault of the processor shows as well. g++ warns
# wrongly of uninitialised variables in instrumented code; the preset ci warns of them.
set -euo pipefail
cd "$(dirname "$0")/.."
presets=("$@")
[[ ${#presets[@]} -gt 0 ]] || presets=(ci asan)

scripts/install_dependencies.sh tests
jobs=$(scripts/jobs.sh)
summary=()
failed=0
for preset in "${presets[@]}"; do
  start=$SECONDS
  cmake --preset "$preset"
  if ! cmake --build --preset "$preset" -j "$jobs"; then
    summary+=("$preset: does not build")
    failed=1
    continue
  fi
  built=$SECONDS
  log=build/$preset/tests.log
  ctest --preset "$preset" -j "$(nproc)" 2>&1 | tee "$log" || failed=1
  summary+=("$preset: $(grep -E 'tests passed' "$log" || echo 'no test was run'); built in $((built - start)) s, tested in $((SECONDS - built)) s")
  while read -r line; do summary+=("  $line"); done < <(grep -E '^\s+[0-9]+ - .*\((Failed|Skipped|Timeout|Not Run|.*Exception.*)\)' "$log" | sort -u)
done

echo
echo "Strata $(git describe --always --dirty 2>/dev/null || true), $(c++ --version | head -n 1), $(nproc) cores:"
printf '%s\n' "${summary[@]}"
exit "$failed"
