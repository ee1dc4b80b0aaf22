#!/usr/bin/env bash
# Several processes on this machine. The first argument is how many, the others are those of `attnrec`:
#   launch/ddp.sh 4 train CONFIG.yaml
#   launch/ddp.sh 4 evaluate RUN_DIR
#   launch/ddp.sh 4 recommend RUN_DIR --output lists.parquet
# LAUNCH names another strategy than launch/ddp.yaml: LAUNCH=launch/fsdp2.yaml launch/ddp.sh 4 train CONFIG.yaml
set -euo pipefail
if ! [[ "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
  echo "how many processes? type: $0 2 train CONFIG.yaml" >&2
  exit 2
fi
processes="$1"
shift
# shellcheck disable=SC2086  # PYTHON may hold several words
set -- ${PYTHON:-python} -m accelerate.commands.launch --config_file "${LAUNCH:-$(dirname "$0")/ddp.yaml}" \
  --num_processes "$processes" --main_process_port 0 -m attnrec_dist "$@"
echo "+ $*" >&2
exec "$@"
