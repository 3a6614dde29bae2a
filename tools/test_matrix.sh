#!/usr/bin/env bash
# Builds environments as users have them, one after the other, installs mmmoco
# into each, tests it there, and prints a table for docs/compatibility.md.
#
#   bash tools/test_matrix.sh [NAME...]
#
# A NAME is that of a file in requirements/stacks, which says which Python and
# which versions; without any, all are tested. Each environment takes 6 GB in a
# folder of its own below TMPDIR, removed before the next is built. pip keeps
# wheels in its own cache; compiled ops of mmcv are those that tools/setup.sh
# compiled before, and without them mmdet and mmseg are not tested. What was
# printed meanwhile is kept in work_dirs/matrix. Environment variables:
#   MMMOCO_PYTHON_310=PATH  the Python 3.10, if it is not on PATH; likewise
#                           MMMOCO_PYTHON_311, … Without one the row says so.
#   MMMOCO_CACHE=DIR        as for tools/setup.sh
set -euo pipefail

# What an iteration computes, what is read and written, what is hostile: the
# parts of the suite that versions below us can change.
tests=(tests/golden tests/functional tests/models tests/engine tests/convert
  tests/security tests/test_*.py)
downstream=(tests/downstream/test_mmdet_backbone.py
  tests/downstream/test_segmentation.py)

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
stacks="$root/requirements/stacks"
wheels="${MMMOCO_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/mmmoco}/wheels"
logs="$root/work_dirs/matrix"
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_NO_INPUT=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export CUDA_VISIBLE_DEVICES='' OMP_WAIT_POLICY=PASSIVE
print_versions="
from platform import python_version
import numpy, torch
from mmmoco.openmmlab import DISTRIBUTIONS, owner_of
owners = filter(None, map(owner_of, DISTRIBUTIONS))
print(f'{python_version()}, {torch.__version__}, {numpy.__version__} | '
      + ', '.join(f'{x.metadata[\"Name\"]} {x.version}' for x in owners))"
print_figures="
import json, sys
found = json.load(open(sys.argv[1]))
names = 'random_init_top1', 'raw_pixel_top1', 'trained_top1'
print(', '.join(f'{found[x]:.1f} %' for x in names))"
# What is started must not come from the current folder.
cd "$root"
work=
trap '[[ -z $work ]] || rm -rf "$work"' EXIT

main() {
  local known name rows='' outcome=0
  known=$(cd "$stacks" && printf '%s\n' *.txt | sed 's/\.txt$//')
  if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
    return
  fi
  for name in "$@"; do
    grep -qxF -- "$name" <<<"$known" && continue
    echo "test_matrix.sh: there is no stack '$name', only" $known >&2
    exit 2
  done
  mkdir -p "$logs"
  for name in ${*:-$known}; do
    row "$name" || outcome=1
    rows+="| $name | $cells |"$'\n'
  done
  echo '| stack | Python, torch, numpy | OpenMMLab | core tests | mmdet, mmseg | quickstart: untrained, pixels, trained | minutes |'
  echo '| --- | --- | --- | --- | --- | --- | --- |'
  printf '%s' "$rows"
  return $outcome
}

# Sets the cells of a row; fails if something was tried and failed.
row() { # NAME
  local log="$logs/$1.log" start=$SECONDS outcome=0 version base free
  version=$(sed -n '1s/^# Python \(3\.[0-9]*\):.*/\1/p' "$stacks/$1.txt")
  local variable="MMMOCO_PYTHON_${version/./}"
  base="${!variable:-python$version}"
  if ! "$base" -c "import ensurepip, venv, sys
sys.exit('%d.%d' % sys.version_info[:2] != '$version')" >/dev/null 2>&1; then
    cells="not run: $base is no working Python $version ($variable) | | | | |"
    return
  fi
  free=$(df -Pk "${TMPDIR:-/tmp}" | awk 'NR == 2 { print int($4 / 1048576) }')
  if ((free < 8)); then
    cells="not run: ${TMPDIR:-/tmp} has $free GB free, 8 are needed | | | | |"
    return
  fi
  work=$(mktemp -d "${TMPDIR:-/tmp}/mmmoco-matrix-XXXXXX")
  python="$work/env/bin/python"
  echo "== $1, in $work; details: $log" >&2
  if build "$stacks/$1.txt" "$base" >"$log" 2>&1; then
    cd "$work/checkout"
    versions=$("$python" -c "$print_versions" 2>>"$log") || outcome=1
    suite core_said "$log" ${tests[@]} || outcome=1
    if "$python" -c 'import torch, mmcv._ext, mmdet, mmseg' 2>/dev/null; then
      suite downstream_said "$log" \
        -m 'downstream and not dist' "${downstream[@]}" || outcome=1
    else
      downstream_said='not run: no compiled ops'
    fi
    if "$python" demo/quickstart.py --work-dir "$work/quickstart" \
      >>"$log" 2>&1; then
      figures=$("$python" -c "$print_figures" "$work/quickstart/summary.json")
    else
      figures=failed outcome=1
    fi
    cd "$root"
    cells="$versions | $core_said | $downstream_said | $figures"
    cells+=" | $(((SECONDS - start + 30) / 60))"
  else
    outcome=1
    cells="not built: $(grep -m 1 '^ERROR: ' "$log" || tail -n 1 "$log")"
    cells+=' | | | | |'
  fi
  rm -rf "$work"
  work=
  return $outcome
}

build() { # STACK PYTHON
  local stack=$1 places folder links=()
  "$2" -m venv "$work/env" || return 1
  pip -U pip || return 1
  pip -c "$stack" torch torchvision numpy || return 1
  # What setup.sh compiled for this torch and this Python.
  places=$("$python" -c "
import sys, torch
tag = 'cp%d%d' % sys.version_info[:2]
print(f'*_ops-*_torch-{torch.__version__}_{tag}_*')")
  for folder in "$wheels"/$places; do
    [[ ! -d $folder ]] || links+=(--find-links "$folder")
  done
  # The environment of a user, before there is an mmmoco. Without torch in the
  # environments of builds, mmcv compiles nothing.
  pip -r "$stack" --build-constraint "$stack" "${links[@]}" || return 1
  # As tools/setup.sh does: both packages fill the same folder.
  if "$python" -m pip show -q opencv-python; then
    "$python" -m pip uninstall -q -y opencv-python opencv-python-headless &&
      pip --no-deps -c "$stack" opencv-python-headless || return 1
  fi
  # A copy, so that nothing is built in the checkout.
  mkdir "$work/checkout"
  (cd "$root" && git ls-files -coz --exclude-standard |
    tar --null --ignore-failed-read -T - -c) | tar -x -C "$work/checkout"
  contents >"$work/before"
  pip "$work/checkout" || return 1
  contents >"$work/after"
  echo '== what the plain installation of mmmoco did'
  diff "$work/before" "$work/after" | grep dist-info/METADATA
  if comm -23 "$work/before" "$work/after" | grep .; then
    echo 'ERROR: the plain installation of mmmoco changed these files'
    return 1
  fi
  pip -c "$stack" --build-constraint "$stack" "$work/checkout[test,optional]"
}

# What pip unpacks goes with the environment, even if this is killed.
pip() { TMPDIR="$work" "$python" -m pip install --progress-bar off "$@"; }

# Files of the environment with size and time, without compiled Python.
contents() {
  (cd "$work"/env/lib/python*/site-packages &&
    find . -type f ! -name '*.pyc' -printf '%p %s %T@\n') | LC_ALL=C sort
}

# Runs pytest; what it says last becomes the value of a variable.
suite() { # VARIABLE LOG ARGUMENTS OF pytest...
  local status=0 said=$1 log=$2
  shift 2
  OMP_NUM_THREADS=1 "$python" -m pytest -q -n 2 --dist worksteal \
    -p no:cacheprovider --basetemp "$work/tmp" "$@" >>"$log" 2>&1 || status=$?
  printf -v "$said" '%s' "$(tail -n 1 "$log" |
    grep -oE '[0-9]+ (passed|failed|skipped|errors?)' | paste -sd , | sed 's/,/, /g')"
  if ((status)); then grep -E '^(FAILED|ERROR) ' "$log" >&2 || true; fi
  return $status
}

main "$@"
