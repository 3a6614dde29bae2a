#!/usr/bin/env bash
# Trains on a Slurm cluster, one task per GPU.
#
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS OF train.py]
#
# Environment: GPUS (8), GPUS_PER_NODE (8, or GPUS if fewer),
# CPUS_PER_TASK (5), SRUN_ARGS (more arguments of srun).
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
exec srun --partition="$1" --job-name="$2" \
  --gres="gpu:$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
  --cpus-per-task="$cpus" --kill-on-bad-exit=1 ${more[@]+"${more[@]}"} \
  "$python" -u "$tools/train.py" "$3" --launcher slurm "${@:4}"
