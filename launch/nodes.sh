#!/usr/bin/env bash
# Several nodes by hand: type it on every node, with that node's rank. Arguments: how many nodes, this one's rank (0, 1, ...),
# address:port of node 0, processes a node, then those of `attnrec`. All nodes must see the data and the run directory.
#   node 0:  launch/nodes.sh 2 0 10.0.0.1:29500 8 train CONFIG.yaml
#   node 1:  launch/nodes.sh 2 1 10.0.0.1:29500 8 train CONFIG.yaml
# LAUNCH names another strategy than launch/ddp.yaml; with launch/fsdp2-hybrid.yaml a node is a group. Under Slurm use
# slurm/train-multinode.sbatch, which calls this.
set -euo pipefail
if ! [[ "${1:-}" =~ ^[1-9][0-9]*$ && "${2:-}" =~ ^[0-9]+$ && "${3:-}" =~ ^.+:[0-9]+$ && "${4:-}" =~ ^[1-9][0-9]*$ ]]; then
  echo "nodes, this node's rank, address:port of node 0, processes a node? type: $0 2 0 10.0.0.1:29500 8 train CONFIG.yaml" >&2
  exit 2
fi
nodes="$1" rank="$2" meeting="$3" processes="$(($1 * $4))" launch="${LAUNCH:-$(dirname "$0")/ddp.yaml}" groups=""
if [[ "$launch" -ef "$(dirname "$0")/fsdp2-hybrid.yaml" ]]; then # not of a copy, which has sizes of its own
  groups="--parallelism_config_dp_replicate_size $nodes --parallelism_config_dp_shard_size $4"
fi
shift 4
# shellcheck disable=SC2086  # PYTHON and groups hold several words
set -- ${PYTHON:-python} -m accelerate.commands.launch --config_file "$launch" $groups \
  --num_machines "$nodes" --machine_rank "$rank" --main_process_ip "${meeting%:*}" --main_process_port "${meeting##*:}" \
  --num_processes "$processes" -m attnrec_dist "$@"
echo "+ $*" >&2
exec "$@"
