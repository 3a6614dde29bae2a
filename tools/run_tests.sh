#!/usr/bin/env bash
# Runs every check that this machine can: lint, format, types, then the whole
# test suite, the slow, distributed, downstream and browser tests included.
#
#   bash tools/run_tests.sh [ARGUMENTS OF pytest]
#
# Tests that can run side by side do so in two processes of one thread each
# (-n N changes it, 0 for none); those that start several processes, kill,
# measure or open a browser run alone. All parts run; the exit code is that of
# the first that failed. A test that lacks an optional library fails here.
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

export MMMOCO_FULL=1  # No test may be skipped for want of a library.
outcome=5             # pytest's code where no test was chosen.
part() { # TITLE ARGUMENTS OF pytest...
  local status=0
  echo "== $1"
  shift
  "$python" -m pytest --durations=15 "$@" || status=$?
  # What failed first stays; a part without tests is none that failed.
  if [[ $outcome == [05] && $status != 5 ]]; then outcome=$status; fi
}

# What is exact to the last digit, and what starts several processes, is so on
# CPUs: no test but those for a GPU sees one.
CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=1 \
  part 'the tests that run side by side' \
  -m 'not gpu' --part together -n 2 --dist worksteal "$@"
CUDA_VISIBLE_DEVICES='' \
  part 'the tests that run alone' -m 'not gpu' --part alone "$@" -n 0
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
then
  part 'the tests for a GPU' -m gpu "$@" -n 0
fi
exit "$outcome"
