#!/usr/bin/env bash
# Trains on a Slurm cluster, one task per GPU.
#
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS OF train.py]
#
# Environment: GPUS (8), GPUS_PER_NODE (8, or GPUS if fewer),
# CPUS_PER_TASK (5), SRUN_ARGS (more arguments of srun).
#
# In a batch job that is stopped (its time is over, others have priority) the
# state is saved and the job is put into the queue again, to go on there:
#
#   sbatch --requeue --open-mode=append --signal=USR1@90 ... --wrap \
#     'bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG'
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then show_help && exit; fi
(($# >= 3)) ||
  usage_error 'expected PARTITION JOB_NAME CONFIG [ARGUMENTS OF train.py]'
gpus="${GPUS:-8}"
need_count GPUS "$gpus"
per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
need_count GPUS_PER_NODE "$per_node"
cpus="${CPUS_PER_TASK:-5}"
need_count CPUS_PER_TASK "$cpus"
command -v srun >/dev/null ||
  usage_error 'srun not found: this is no login node of a Slurm cluster'
choose_python
read -ra more <<<"${SRUN_ARGS:-}"
work_dir=$(work_dir_of "${@:3}")

# srun passes signals on to its tasks; two SIGINT within a second end them.
signal_srun() { kill -s "$1" "$2" 2>/dev/null || true; }
interrupt_srun() { signal_srun INT "$1" && signal_srun INT "$1"; }

status=0
run_interruptible signal_srun interrupt_srun \
  srun --partition="$1" --job-name="$2" \
  --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
  --cpus-per-task="$cpus" --kill-on-bad-exit=1 ${more[@]+"${more[@]}"} \
  "$python" -u "$tools/train.py" "$3" --launcher slurm \
  "${@:4}" || status=$?
if [[ -e $work_dir/PREEMPTED && -n ${SLURM_JOB_ID:-} ]]; then
  printf '%s\n' "${0##*/}: pre-empted; job $SLURM_JOB_ID is queued again" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
