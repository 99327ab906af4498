#!/usr/bin/env bash
# Runs the fuzzers of everything that reads files or command lines, under the address and undefined-behaviour sanitizers:
#
#     scripts/fuzz.sh                    # all of tests/fuzz, ten minutes each, one after another
#     scripts/fuzz.sh 60 pytorch image   # an hour each
#
# What they find interesting stays in build/fuzz/tests/fuzz/found and is where the next run begins. An input that fails is
# written beside it, and the script ends there; `build/fuzz/tests/fuzz/fuzz_<name> FILE` runs it again.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-10}
shift || true
names=("$@")
if [[ ${#names[@]} -eq 0 ]]; then
  for file in tests/fuzz/fuzz_*.cpp; do
    name=$(basename "$file" .cpp)
    names+=("${name#fuzz_}")
  done
fi

# Less to remember of each allocation, which changes what a report says and not what is found: twice the executions.
export ASAN_OPTIONS=max_uar_stack_size_log=16:quarantine_size_mb=16:malloc_context_size=2${ASAN_OPTIONS:+:$ASAN_OPTIONS}
cmake -S . -B build/fuzz -G Ninja -DSTRATA_BUILD_BENCHMARKS=OFF >/dev/null
cmake --build build/fuzz --target fuzzers
for name in "${names[@]}"; do
  folder=build/fuzz/tests/fuzz
  seeds=()
  for seed in "tests/fuzz/corpus/$name" "tests/golden/$name" "tests/golden/${name}s"; do
    [[ ! -d "$seed" ]] || seeds+=("$seed")
  done
  echo "== $name, $minutes minutes"
  "$folder/fuzz_$name" -max_total_time=$((60 * minutes)) -max_len=6000 -timeout=60 -rss_limit_mb=2500 -print_final_stats=1 \
    -artifact_prefix="$folder/$name-" "$folder/found/$name" "${seeds[@]}" 2>&1 | tee "$folder/$name.log" |
    grep -E 'ERROR|SUMMARY|artifact|DONE|stat::(number_of_executed_units|average_exec_per_sec|new_units_added)'
done
