#!/usr/bin/env bash
# Several processes on the CPUs of this machine, also where it has GPUs; the cores are shared out among them. The first argument
# is how many processes, the others are those of `attnrec`:
#   launch/cpu.sh 2 train CONFIG.yaml
# LAUNCH names another strategy than launch/ddp.yaml, as for launch/ddp.sh, which this calls.
set -euo pipefail
if ! [[ "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  echo "how many processes? type: $0 2 train CONFIG.yaml" >&2
  exit 2
fi
cores="$(nproc)"
threads="${OMP_NUM_THREADS:-$((cores > $1 ? cores / $1 : 1))}"
export ACCELERATE_USE_CPU=true CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS="$threads"
echo "+ export ACCELERATE_USE_CPU=true CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=$threads" >&2
exec "$(dirname "$0")/ddp.sh" "$@"
