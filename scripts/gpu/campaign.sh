#!/usr/bin/env bash
# What a GPU is asked once there is one: tests, training, times beside PyTorch's, sanitizers, profiler. Run in the repository
# root on the GPU machine; prepare.sh has built everything before, and put this file beside it. Nothing is reset and no clock
# is touched.
#
#     bash build/gpu_campaign/campaign.sh [PART...]       # parts: facts tests engines training kernels network torch
#                                                         #        libraries sanitizer profiler; all of them, in this order
#
# Nothing stops at a failure. Each part has a time limit of its own and the whole has CAMPAIGN_SECONDS (470). A short table
# comes last; logs go to $OUT (eight files). CAMPAIGN_DRY=1: where there is no GPU, all parts are gone through, PyTorch's on
# the CPU.
set -u
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here/out}
dry=${CAMPAIGN_DRY:-0}
limit=${CAMPAIGN_SECONDS:-470}
bin=$here/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SECONDS=0
mkdir -p "$out"
chmod +x "$bin"/* 2>/dev/null
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CUDA_MODULE_LOADING=LAZY
chosen=" ${*:-facts tests engines training kernels network torch libraries sanitizer profiler} "

# cuDNN, cuBLASLt and NCCL of PyTorch's packages, for our programs alone: they look for libcudnn.so.9, libcublasLt.so.13 and
# libnccl.so.2 by name.
# Beside the latter lies a libnvperf_host.so, which ncu must not find before its own.
libraries=$(python3 - <<'PYTHON'
import glob, os, site, sysconfig
roots = {sysconfig.get_paths()[k] for k in ("purelib", "platlib")} | set(site.getsitepackages())
found = [os.path.dirname(p) for root in sorted(roots) for pattern in ("nvidia/cudnn/lib/libcudnn.so.9", "nvidia/nccl/lib/libnccl.so.2", "nvidia/*/lib/libcublasLt.so.1[0-9]")
         for p in sorted(glob.glob(os.path.join(root, pattern)))]
print(":".join(dict.fromkeys(found)))
PYTHON
)
ours() { LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$@"; }

summary=$out/summary.txt
: >"$summary"
say() { printf '%s\n' "$*" | tee -a "$summary"; }
part_end=$limit
left() { echo $((limit < part_end ? limit - SECONDS : part_end - SECONDS)); }  # of the part and of the whole
# The longest that a part may take, so that one that hangs leaves the others their time. Parts that are named have all of it.
longest() {
  case $1 in
    facts) echo 15 ;; tests) echo 130 ;; engines) echo 95 ;; training) echo 60 ;; kernels) echo 60 ;; network) echo 90 ;;
    torch) echo 180 ;; libraries) echo 60 ;; sanitizer) echo 120 ;; profiler) echo 100 ;;
  esac
}
wanted() { case "$chosen" in *" $1 "*) return 0 ;; *) return 1 ;; esac; }

# run SECONDS FILE COMMAND...: under its own limit and the whole's; output to $out/FILE and $work/last. Its exit code.
run() {
  local seconds=$1 file=$2 begin=$SECONDS code
  shift 2
  [ "$seconds" -le "$(left)" ] || seconds=$(left)
  if [ "$seconds" -lt 3 ]; then
    echo "no time left for: $*" | tee "$work/last" >>"$out/$file"
    return 125
  fi
  printf '\n=== %s\n' "$*" >>"$out/$file"
  case $1 in
    "$bin"/*) ours timeout -k 3 "$seconds" "$@" >"$work/last" 2>&1 ;;
    *) timeout -k 3 "$seconds" "$@" >"$work/last" 2>&1 ;;
  esac
  code=$?
  cat "$work/last" >>"$out/$file"
  printf -- '--- exit code %s, %s s\n' "$code" $((SECONDS - begin)) >>"$out/$file"
  return $code
}
word() { # of an exit code
  case $1 in 0) echo ok ;; 77) echo skipped ;; 124 | 137) echo TIMEOUT ;; 125) echo 'no time' ;; *) echo "FAILED ($1)" ;; esac
}

facts() {
  {
    cat "$here/commit.txt"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,ecc.mode.current,mig.mode.current,temperature.gpu --format=csv
    nvidia-smi | head -n 15
    nvcc --version | tail -n 2
    uname -sr
    ldd --version | head -n 1
    lscpu | grep -E 'Model name|^CPU\(s\)'
    ldconfig -p | grep -E 'libcudnn.so|libcublasLt.so|libnccl.so|libcuda.so'
    echo "LD_LIBRARY_PATH for our programs: $libraries"
    command -v ncu compute-sanitizer python3
  } >"$out/facts.txt" 2>&1
  say "facts: $(sed -n 3p "$out/facts.txt"); commit $(head -n 1 "$out/facts.txt")"
  say "facts: libraries $libraries"
}

# cases PROGRAM: its test cases, one a line. filter: a name as doctest's filter takes it.
cases() { ours timeout 60 "$bin/$1" --list-test-cases --no-colors 2>/dev/null | sed -n '2,$p' | grep -v '^\[doctest\]\|^===\|^on ' ; }
filter() { local name=${1//,/?}; printf '%s' "${name//\\/?}"; }

# test_program SECONDS PROGRAM FILTER...: the whole at once, and where that fails each case by itself, since one bad access ends a process.
test_program() {
  local seconds=$1 program=$2 code name numbers
  shift 2
  run "$seconds" tests.log "$bin/$program" --no-colors --duration=true "$@"
  code=$?
  numbers=$(grep -o 'test cases: .*' "$work/last" | tail -n 1)
  say "$(printf 'test  %-44s %-12s %s' "$program ${*#--source-file=}" "$(word $code)" "$numbers")"
  [ $code -eq 77 ] && say "      $(tail -n 1 "$work/last")"
  if [ $code -ne 0 ] && [ $code -ne 77 ] && [ $code -ne 125 ]; then
    while IFS= read -r name; do
      run 25 tests.log "$bin/$program" --no-colors --test-case="$(filter "$name")" "$@"
      code=$?
      grep -q 'test cases: *0 ' "$work/last" && continue  # of another file
      [ $code -eq 0 ] || say "$(printf '      %-12s %s: %s' "$(word $code)" "$name" "$(grep -m 1 -A 1 'ERROR' "$work/last" | tr '\n' ' ' | cut -c 1-150)")"
    done < <(cases "$program")
  fi
}

tests() {
  local file
  while read -r file; do
    test_program 45 test_gpu "--source-file=*/${file}_test.cpp" </dev/null
  done <"$here/tests.txt"
  test_program 45 test_gpu_network
}

engines() { test_program 90 test_gpu_engine; }  # cuDNN is loaded anew for each of its forty choices; NCCL too

training() {
  local precision code
  # shellcheck source=/dev/null
  . "$here/training_options.sh"
  say "training: loss of each epoch, PSNR at the end (batch 8, 100 steps; the CPU's first)"
  [ -e "$here/reference/cpu.csv" ] && cp "$here/reference/cpu.csv" "$work/cpu.csv"
  for precision in fp32 tf32 bf16 fp16; do
    # shellcheck disable=SC2154
    run 25 training.log "$bin/dncnn_train" "${training_options[@]}" --device cuda --precision $precision --checkpoint-dir "$work/$precision"
    code=$?
    [ -e "$work/$precision/log.csv" ] && cp "$work/$precision/log.csv" "$work/$precision.csv"
    [ $code -eq 0 ] || say "      $precision $(word $code): $(tail -n 1 "$work/last" | cut -c 1-150)"
  done
  python3 "$here/table.py" curves "$work"/*.csv 2>&1 | tee -a "$summary"
}

kernels() {
  run 60 kernels.txt "$bin/cuda_kernels"
  say "kernels: cuda_kernels $(word $?)"
  grep -E '^64-64 3x3|^copy|^batch norm|^cuDNN' "$work/last" | tee -a "$summary"
}

network() { # Strata's own kernels; bf16 and the small batch first
  run 90 bench.tsv "$bin/device_network" --engine native --seconds 80
  say "network: device_network, own kernels: $(word $?); $(grep -c 'replay check.*equal' "$work/last") of 4 replay checks equal"
  grep '^# accuracy\|DIFFERENT\|FAILED\|SKIPPED' "$work/last" | cut -c 1-200 | tee -a "$summary"
}

torch() {
  local extra=()
  [ "$dry" = 1 ] && extra=(--dry)
  run 130 bench.tsv python3 "$here/torch_side.py" --engine eager --seconds 115 "${extra[@]}"
  say "torch: eager $(word $?)"
  grep 'FAILED\|SKIPPED\|Error' "$work/last" | cut -c 1-200 | tee -a "$summary"
  [ "$dry" = 1 ] && return
  run 75 bench.tsv python3 "$here/torch_side.py" --engine compile --seconds 65
  say "torch: compile $(word $?)"
  grep 'FAILED\|SKIPPED\|Error' "$work/last" | cut -c 1-200 | tee -a "$summary"
}

libraries() {
  run 60 bench.tsv "$bin/device_network" --engine library,benchmark --mode queued --seconds 50
  say "libraries: device_network with cuDNN and cuBLASLt: $(word $?)"
  grep '^# engine\|FAILED' "$work/last" | cut -c 1-200 | tee -a "$summary"
}

# The test of running out of memory fails a call on purpose; large problems take too long under the tool.
sanitizer() {
  local tool file
  command -v compute-sanitizer >/dev/null || { say "sanitizer: no compute-sanitizer here"; return; }
  for tool in memcheck racecheck; do
    for file in conv2d batch_norm group_norm resize pooling elementwise expression loss optimizer; do
      [ "$tool $file" = "racecheck elementwise" ] && continue
      run 40 sanitizer.log compute-sanitizer --tool $tool --report-api-errors no --error-exitcode 9 --print-limit 20 \
        "$bin/test_gpu" --no-colors "--source-file=*/${file}_test.cpp"
      say "$(printf 'sanitizer %-9s %-12s %-12s %s' $tool $file "$(word $?)" "$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY|SKIPPED' "$work/last" | tail -n 1)")"
      [ "$(left)" -lt 60 ] && [ $tool = memcheck ] && break  # something for racecheck too
    done
  done
}

# profile SECONDS SKIP COUNT KERNELS PRECISION: ncu on launches of one training step. A metric that this ncu does not know is left out.
profile() {
  local seconds=$1 code
  local -a command=(ncu --clock-control none --section SpeedOfLight --section MemoryWorkloadAnalysis
    --section ComputeWorkloadAnalysis --section Occupancy --section LaunchStats --section WarpStateStats --print-details all
    --kernel-name-base demangled -k "regex:$4" --launch-skip "$2" --launch-count "$3")
  local -a program=("$bin/device_network" --once --only train --size 128x40 --precision "$5" --engine native --mode queued)
  run "$seconds" profile.txt "${command[@]}" \
    --metrics sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active,dram__bytes.sum,lts__t_bytes.sum "${program[@]}"
  code=$?
  if grep -qi 'failed to find metric\|invalid metric' "$work/last"; then
    run "$seconds" profile.txt "${command[@]}" "${program[@]}"
    code=$?
  fi
  say "profiler: $5 $(word $code)"
  python3 "$here/table.py" profile "$work/last" 2>&1 | tee -a "$summary"
}
profiler() {
  command -v ncu >/dev/null || { say "profiler: no ncu here"; return; }
  # The last two layers forward (convolution, statistics, normalisation), then one back: sums, gradient, weights, input.
  profile 60 39 11 'gather_kernel|weight_kernel|NormBackward|moments_of_chunks|NormApply' bf16
  profile 45 31 7 'winograd|gather_kernel' fp32  # a convolution's weights, and two of its ten chunks
}

for part in facts tests engines training kernels network torch libraries sanitizer profiler; do
  wanted $part || continue
  begin=$SECONDS
  part_end=$limit
  [ $# -gt 0 ] || part_end=$((SECONDS + $(longest $part)))
  "$part"
  say "-- $part: $((SECONDS - begin)) s, $((limit - SECONDS)) s left"
done
echo
echo "==================== the short table ===================="
[ -e "$out/bench.tsv" ] && python3 "$here/table.py" bench "$out/bench.tsv" 2>&1 | tee -a "$summary"
echo "tests and sanitizers: $(grep -cE '^(test|sanitizer) .* ok ' "$summary") ok; not ok:"
grep -E '^(test|sanitizer) ' "$summary" | grep -vE ' ok ' >"$work/not_ok"
grep -E '^(kernels|network|torch|libraries|profiler): |^      (fp32|tf32|bf16|fp16) ' "$summary" | grep -E 'FAILED|TIMEOUT|no time;' >>"$work/not_ok"
cat "$work/not_ok"
[ -s "$work/not_ok" ] || echo "none"
echo "logs: $out"
