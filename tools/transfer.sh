#!/usr/bin/env bash
# Fine-tunes a backbone on a task, tests it, and appends the figures to
# results.jsonl in the work dir, for tools/report.py.
#
#   bash tools/transfer.sh CKPT TASK [GPUS] [--data-root DIR] [--check]
#                          [ARGUMENTS OF train.py]
#
# CKPT is a file, or supervised (torchvision), or random. TASK is one of
# voc-det, coco-det, coco-mask, lvis, cityscapes-inst, cityscapes-seg, voc-seg,
# ade-seg, digits-det, digits-seg. GPUS is 1 if it is left out. --check only
# looks whether checkpoint and data are there. Call it again to go on where it
# was stopped; the work dir is work_dirs/TASK/CKPT-HASH, or --work-dir.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then show_help && exit; fi
(($# >= 2)) || usage_error 'expected CKPT TASK [GPUS] [ARGUMENTS OF train.py]'
checkpoint=$1 task=$2 gpus=1
shift 2
if (($#)) && [[ $1 != -* ]]; then
  gpus=$1
  need_count GPUS "$gpus"
  shift
fi
choose_python
if ((gpus == 1)) && [[ ${NNODES:-1} == 1 ]]; then
  exec "$python" "$tools/transfer.py" "$checkpoint" "$task" "$@"
fi
# What is wrong is said once, before any process starts.
"$python" "$tools/transfer.py" "$checkpoint" "$task" "$@" --check >/dev/null
for argument; do [[ $argument != --check ]] || exit 0; done
torchrun transfer.py "$gpus" "$checkpoint" "$task" --launcher pytorch "$@"
