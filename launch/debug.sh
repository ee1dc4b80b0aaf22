#!/usr/bin/env bash
# One process without a launcher, so that a debugger and plain tracebacks work. Arguments are those of `attnrec`:
#   launch/debug.sh train CONFIG.yaml --train.max_steps 10
#   PYTHON="python -m pdb" launch/debug.sh train CONFIG.yaml
set -euo pipefail
# shellcheck disable=SC2086  # PYTHON may hold several words
set -- ${PYTHON:-python} -m attnrec_dist "$@"
export ATTNREC_DEBUG=1
echo "+ $*" >&2
exec "$@"
