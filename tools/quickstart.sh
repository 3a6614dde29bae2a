#!/usr/bin/env bash
# From a fresh checkout to a backbone that learned without labels: sets up
# what is needed, then runs demo/quickstart.py, to which all arguments go.
#
#   bash tools/quickstart.sh [--work-dir DIR] [--max-iters N] [--debug]
#
# tools/setup.sh names the environment variables that change the set-up.
set -euo pipefail

# Before the set-up, which takes minutes and gigabytes.
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" && exit
fi
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/tools/setup.sh" core
python="$(bash "$root/tools/setup.sh" python)"
cd "$root"
# Threads that wait must not keep a core from those that work: on a machine
# with other load, spinning makes small networks several times slower.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
exec "$python" demo/quickstart.py "$@"
