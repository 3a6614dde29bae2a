#!/usr/bin/env bash
# Trains with several processes: one per GPU, or on the CPU (gloo).
#
#   bash tools/dist_train.sh CONFIG GPUS [ARGUMENTS OF train.py]
#
# On several machines, call it on each with NNODES, NODE_RANK, MASTER_ADDR,
# RDZV_ID (a name of the run, the same on all) and, if 29500 is taken, PORT;
# that port is open to whoever reaches the first machine.
#
# MAX_RESTARTS (0): so often the processes are started again if one dies; they
# go on from the newest checkpoint. SIGTERM and SIGUSR1 let the training save
# and end, with exit code 0. Ctrl-C ends everything within seconds.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then show_help && exit; fi
(($# >= 2)) || usage_error 'expected CONFIG GPUS [ARGUMENTS OF train.py]'
need_count GPUS "$2"
torchrun train.py "$2" "$1" --launcher pytorch "${@:3}"
