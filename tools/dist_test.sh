#!/usr/bin/env bash
# Evaluates a checkpoint with several processes: one per GPU, or on the CPU.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS OF test.py]
#
# On several machines, call it on each with NNODES, NODE_RANK, MASTER_ADDR,
# RDZV_ID (a name of the run, the same on all) and, if 29500 is taken, PORT;
# that port is open to whoever reaches the first machine.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then show_help && exit; fi
(($# >= 3)) ||
  usage_error 'expected CONFIG CHECKPOINT GPUS [ARGUMENTS OF test.py]'
need_count GPUS "$3"
torchrun test.py "$3" "$1" "$2" --launcher pytorch "${@:4}"
