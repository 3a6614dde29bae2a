#!/usr/bin/env bash
# Runs every check that this machine can: lint, format, types, then the whole
# test suite, the slow, distributed, downstream and browser tests included.
#
#   bash tools/run_tests.sh [ARGUMENTS OF pytest]
#
# tools/setup.sh names the environment variables that change the set-up.
set -euo pipefail

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

# The GPU tests run where there is a GPU.
markers='not gpu'
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
then
  markers=''
fi
echo "== pytest -m '$markers'"
exec "$python" -m pytest -m "$markers" --durations=15 "$@"
