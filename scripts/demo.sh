#!/usr/bin/env bash
# Trains a small DnCNN on generated images for about three minutes, from a clean clone on a bare Debian machine:
#
#     scripts/demo.sh                # results in out/demo, or out/demo-2 and so on where there are results already
#     scripts/demo.sh FOLDER
#
# It needs no data: the images are dead leaves, drawn as they are needed.
set -euo pipefail
folder=$(realpath -m "${1:-$(dirname "$0")/../out/demo}")
cd "$(dirname "$0")/.."
first=$folder
for ((n = 2; ; ++n)); do
  [[ -e "$folder/latest.safetensors" ]] || break
  folder=$first-$n
done

scripts/install_dependencies.sh
cmake --preset release
cmake --build --preset release -j "$(scripts/jobs.sh)" --target dncnn_train

mkdir -p "$folder"
build/release/bin/dncnn_train --train-dir dead-leaves --valid-dir dead-leaves --sigma 25 --depth 8 --width 32 \
  --batch-size 16 --patch-size 40 --steps-per-epoch 200 --epochs 1000 --minutes 3 --checkpoint-dir "$folder"

echo
for file in before_after.png curve.svg log.csv; do
  [[ -e "$folder/$file" ]] || { echo "The program did not write $folder/$file." >&2; exit 1; }
done
echo "The results are in $folder:"
echo "  before_after.png   a noisy image, what the network makes of it, and the clean one"
echo "  curve.svg          loss and PSNR over time (log.csv has the figures)"
