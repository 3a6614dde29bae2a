#!/usr/bin/env bash
# From a fresh checkout to a backbone that learned without labels: sets up
# what is needed, then runs demo/quickstart.py, to which all arguments go.
#
#   bash tools/quickstart.sh [ARGUMENTS OF demo/quickstart.py]
#
# tools/setup.sh names the environment variables that change the set-up.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
bash "$root/tools/setup.sh" core
python="$(bash "$root/tools/setup.sh" python)"
cd "$root"
exec "$python" demo/quickstart.py "$@"
