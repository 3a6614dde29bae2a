#!/usr/bin/env bash
# Runs every check that this machine can: lint, format, types, then the whole
# test suite, the slow, distributed, downstream and browser tests included.
#
#   bash tools/run_tests.sh [ARGUMENTS OF pytest]
#
# tools/setup.sh names the environment variables that change the set-up.
set -euo pipefail

# Before the set-up, which takes minutes and gigabytes.
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" && exit
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/tools/setup.sh" full
python="$(bash "$root/tools/setup.sh" python)"
cd "$root"
# See tools/quickstart.sh.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

echo '== ruff'
"$python" -m ruff check .
"$python" -m ruff format --check .
echo '== mypy'
"$python" -m mypy

# What is exact to the last digit, and what starts several processes, is so on
# CPUs: no test but those for a GPU sees one.
gpu=false
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
then
  gpu=true
fi
echo "== pytest -m 'not gpu', no GPU visible"
CUDA_VISIBLE_DEVICES='' "$python" -m pytest -m 'not gpu' --durations=15 "$@"
if "$gpu"; then
  echo "== pytest -m gpu"
  status=0
  "$python" -m pytest -m gpu --durations=15 "$@" || status=$?
  # 5: none was chosen, where the arguments name other tests.
  [[ "$status" == 5 ]] || exit "$status"
fi
