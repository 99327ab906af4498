#!/usr/bin/env bash
# Prints how many compilations to run at once: one per core, and 2.5 GiB of free memory for each.
set -euo pipefail
cores=$(nproc)
by_memory=$(awk '/^MemAvailable:/ {print int($2 / 2621440)}' /proc/meminfo)
jobs=$((by_memory < cores ? by_memory : cores))
echo $((jobs < 1 ? 1 : jobs))
