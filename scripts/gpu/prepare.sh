#!/usr/bin/env bash
# Builds what campaign.sh needs on a machine without a GPU into one folder that is carried to the GPU.
#
#     scripts/gpu/prepare.sh          # ARCHITECTURE=90 for an H100, 80 for an A100, 89 for an RTX 40; JOBS=1
#
# Result: build/gpu_campaign, some 30 MiB, which git ignores: carry it by name. Objects stay in build/gpu_campaign_build. About
# five minutes on two cores. REFERENCE=0 leaves the CPU's loss curve out (a minute). The GPU machine needs no compiler and none
# of the packages: all but the driver, and PyTorch with its cuDNN and cuBLASLt for the comparison, is in the programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
build=$repository/build/gpu_campaign_build result=$repository/build/gpu_campaign
mkdir -p "$build" "$result/bin" "$result/reference"
"$repository/scripts/install_dependencies.sh" tests

# Of the other machine's processor only AVX2 is taken for granted.
nice -n 10 cmake --preset gpu -S "$repository" -B "$build" -DCMAKE_CUDA_ARCHITECTURES="${ARCHITECTURE:-90}" -DSTRATA_NATIVE=OFF \
  -DCMAKE_CXX_FLAGS=-march=x86-64-v3 >"$build/configure.log" || { cat "$build/configure.log"; exit 1; }
nice -n 10 cmake --build "$build" -j "${JOBS:-1}" --target gpu_checks dncnn_train

for program in tests/cuda_device/test_gpu tests/cuda_device/test_gpu_network tests/cuda_device/test_gpu_engine \
  bin/dncnn_train bin/device_network bin/cuda_kernels; do
  cp "$build/$program" "$result/bin/"
  strip "$result/bin/$(basename "$program")"
done
cp "$here/campaign.sh" "$here/torch_side.py" "$here/table.py" "$here/training_options.sh" "$result/"
(cd "$repository/tests/cuda" && ls ./*_test.cpp) | sed 's:^\./::; s:_test\.cpp$::; /^missing$/d' >"$result/tests.txt"
git -C "$repository" log -1 --format='%h %s' >"$result/commit.txt"

# The CPU's loss curve, which the device's is held against.
if [ "${REFERENCE:-1}" = 1 ]; then
  # shellcheck source=scripts/gpu/training_options.sh
  . "$here/training_options.sh"
  rm -rf "$build/reference"
  nice -n 10 "$result/bin/dncnn_train" "${training_options[@]}" --device cpu --checkpoint-dir "$build/reference" \
    >"$result/reference/cpu.txt"
  cp "$build/reference/log.csv" "$result/reference/cpu.csv"
fi
du -sh "$result"
