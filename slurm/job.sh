# The body of slurm/*.sbatch, sourced by them from the directory where sbatch was typed: trains, and asks for another turn when
# the time is up. Arguments are those of `attnrec train`.
#
# Slurm tells this shell shortly before the end (--signal=B:USR2@...). It makes the file STOP in the run directory; all ranks
# see it, stop at one step and write a checkpoint. What then stands in status.json decides:
#   stopped           requeued, and the next turn goes on from there; unless somebody wants it to end, by STOP or by scancel
#   done              the job ends well
#   user_error        a mistake in the configuration, the data, the run directory: another turn would not mend it
#   fault, running    a NaN, a full disk, a lost process; a failed node is requeued by Slurm itself (--requeue)
#   not written       the job was refused before it changed anything there, as with a misspelt key or a mistyped --data
set -uo pipefail

if [[ ! -f slurm/site.env ]]; then
  echo "slurm/site.env is not in $PWD; type sbatch in the directory that holds slurm/" >&2
  exit 2
fi
. slurm/site.env
export PYTHON LAUNCH OMP_NUM_THREADS

# The run directory, by the rule of `attnrec train`.
run_dir="" config=""
for ((i = 1; i <= $#; i++)); do
  case "${!i}" in
    --run_dir=*) run_dir="${!i#*=}" ;;
    --run_dir) j=$((i + 1)) run_dir="${!j:-}" ;;
    *.yaml | *.yml) config="${config:-${!i}}" ;;
  esac
done
if [[ -z "$config" ]]; then
  echo "which run? type: sbatch ${SLURM_JOB_NAME:-slurm/train.sbatch} CONFIG.yaml [--run_dir DIR] [--any.key VALUE]" >&2
  exit 2
fi
config_name="$(basename "$config")"
run_dir="${run_dir:-runs/${config_name%.*}}"

# Whether status.json is of this turn: each time it is written it is another file.
written() { stat -c '%i %y' "$run_dir/status.json" 2>/dev/null; }
value() { sed -n "s/^ *\"$1\": \"\{0,1\}\(.*[^\",]\)\"\{0,1\},\{0,1\}\$/\1/p" "$run_dir/status.json"; }

# STOP with a job's id in it was made below, by Slurm's wish. Where that was an earlier turn of this job, or a job that is over,
# it was killed before it could obey, and to obey now would end this one. Any other STOP is somebody's who means it, or is of a
# job that runs here: this one does not hold the run directory yet.
asked="$(sed -n 's/^job \([0-9]*\)$/\1/p' "$run_dir/STOP" 2>/dev/null)"
if [[ -n "$asked" ]] && { [[ "$asked" == "$SLURM_JOB_ID" ]] || [[ -z "$(squeue --noheader --jobs "$asked" 2>/dev/null)" ]]; }; then
  rm -f "$run_dir/STOP"
fi
before="$(written)"

told=0 interrupted=0
tell() {
  interrupted=1
  [[ -e "$run_dir/STOP" ]] && return # there already: ours, told twice, or of somebody who wants this job to end
  told=1
  echo "job ${SLURM_JOB_ID}: asked by Slurm to stop; making $run_dir/STOP" >&2
  mkdir -p -m 700 "$run_dir" && echo "job $SLURM_JOB_ID" >"$run_dir/STOP"
}
trap tell USR2 TERM

head_node="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port=$((20000 + SLURM_JOB_ID % 20000))
echo "job ${SLURM_JOB_ID}, turn $((${SLURM_RESTART_COUNT:-0} + 1)): ${SLURM_NNODES} nodes of $PROCESSES processes; run directory $run_dir" >&2
# The CPUs are said again because srun no longer takes them over from sbatch (since Slurm 22.05).
# shellcheck disable=SC2016  # the node's rank is known on the node only
srun --nodes "$SLURM_NNODES" --ntasks "$SLURM_NNODES" --ntasks-per-node 1 --kill-on-bad-exit=1 \
  ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  bash -c 'exec launch/nodes.sh "$SLURM_NNODES" "$SLURM_NODEID" "$@"' nodes "$head_node:$port" "$PROCESSES" train "$@" &
step=$!
while :; do # a trap ends `wait` early
  interrupted=0
  wait "$step"
  code=$?
  ((interrupted)) || break
done
trap "" USR2 TERM # of a requeue, too

if [[ "$(written)" == "$before" ]]; then
  echo "job ${SLURM_JOB_ID}: ended before it changed the run directory (see above); not requeued" >&2
  exit $((code ? code : 1))
fi
state="$(value state)" reason="$(value reason)"
echo "job ${SLURM_JOB_ID}: $state at step $(value step)${reason:+ ($reason)}" >&2
case "$state" in
  done) exit 0 ;;
  user_error) exit 2 ;;
  stopped)
    if [[ "$reason" == "file STOP" ]] && ((!told)); then
      echo "job ${SLURM_JOB_ID}: STOP was not made by Slurm's wish; not requeued. The same sbatch goes on" >&2
      exit 75
    fi
    # A job that Slurm is ending is COMPLETING, whatever made it end; the time limit alone leaves a reason. A requeue would take
    # scancel back, and what was preempted Slurm has put back into the queue already.
    case "$(scontrol show job -o "$SLURM_JOB_ID" | sed 's/.*JobState=\([^ ]*\) Reason=\([^ ]*\).*/\1 \2/')" in
      *" TimeLimit") ;;
      CANCELLED* | COMPLETING*)
        echo "job ${SLURM_JOB_ID}: cancelled, or requeued by Slurm itself; not requeued here. The same sbatch goes on" >&2
        exit 75
        ;;
    esac
    if ((${SLURM_RESTART_COUNT:-0} >= MAX_RESTARTS)); then
      echo "job ${SLURM_JOB_ID}: had $MAX_RESTARTS more turns already (MAX_RESTARTS in slurm/site.env); not requeued" >&2
      exit 75
    fi
    echo "job ${SLURM_JOB_ID}: requeued" >&2
    scontrol requeue "$SLURM_JOB_ID" && sleep 60 # Slurm ends this shell
    exit 75
    ;;
  *) exit $((code ? code : 1)) ;;
esac
