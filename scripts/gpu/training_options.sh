# The training run that the CPU (prepare.sh) and the device (campaign.sh) both do. Read by bash.
# shellcheck shell=bash disable=SC2034
training_options=(--depth 17 --width 64 --batch-size 8 --patch-size 40 --steps-per-epoch 25 --epochs 4 --seed 1 --save-interval 0)
