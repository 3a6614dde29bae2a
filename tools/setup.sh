#!/usr/bin/env bash
# Prepares this checkout for work. A second call takes seconds.
#
#   bash tools/setup.sh core     pre-training, evaluation, the fast tests
#   bash tools/setup.sh full     core, then mmcv's compiled ops, mmdet, mmseg
#                                and the optional libraries; a Chromium for
#                                the tests of the report; OpenMMLab's original
#                                packages in a folder that only tests import
#   bash tools/setup.sh python   print the interpreter that they prepare
#
# Everything goes into .venv in the checkout, at the versions pinned in
# requirements/constraints.txt. Environment variables:
#   MMMOCO_USE_ACTIVE=1   use the active virtual environment instead
#   MMMOCO_PYTHON=PATH    the Python to make .venv with (3.11 or 3.12)
#   MMMOCO_CACHE=DIR      where compiled wheels are kept, default
#                         ${XDG_CACHE_HOME:-$HOME/.cache}/mmmoco
#   MAX_JOBS=N            compiler processes, default one per core
#   FORCE_CUDA=1          compile mmcv's CUDA ops without a visible GPU
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
constraints="$root/requirements/constraints.txt"
original_pins="$root/requirements/stacks/originals-torch2.6.txt"
cache="${MMMOCO_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/mmmoco}"
[[ $cache == /* ]] || cache="$PWD/$cache"
[[ ${MMMOCO_PYTHON:-/} != [!/]*/* ]] || MMMOCO_PYTHON="$PWD/$MMMOCO_PYTHON"
# Else a pip.py or torch.py in the current folder would be imported.
cd "$root"
use_active="${MMMOCO_USE_ACTIVE:-0}"
browser=/usr/bin/chromium
full_extras=onedl-det,onedl-seg,all,test,browser
heartbeat=
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 PIP_USER=0 PIP_NO_INPUT=1
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '%s\n' "$*"; }

fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

stop_heartbeat() {
  if [[ -n $heartbeat ]]; then
    kill "$heartbeat" 2>/dev/null || true
    heartbeat=
  fi
}
trap stop_heartbeat EXIT

# step TITLE DURATION ADVICE COMMAND...: runs the command with its output in
# the log; a failure shows the end of the log and the advice.
step() {
  local title=$1 duration=$2 advice=$3 start=$SECONDS
  shift 3
  say "== $title ($duration)"
  {
    while sleep 30 >/dev/null 2>&1; do
      printf '   ... %d s\n' $((SECONDS - start))
    done
  } 8>&- &
  heartbeat=$!
  disown "$heartbeat"
  local status=0
  printf '\n== %s\n' "$title" >>"$log"
  "$@" >>"$log" 2>&1 </dev/null || status=$?
  stop_heartbeat
  if ((status)); then
    say "   failed; the last lines of $log:"
    tail -n 25 "$log" | sed 's/^/   | /'
    fail "\"$title\" failed." "$advice"
  fi
  say "   done in $((SECONDS - start)) s"
}

# ---------------------------------------------------------------- the system

# apt_install PACKAGE...: installs Debian packages as root, else names them.
apt_install() {
  local command="apt-get install -y --no-install-recommends $*"
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    fail "these system packages are missing: $*" \
      "install them, e.g. with: sudo $command" \
      'then run this again.'
  fi
  step "Install system packages: $*" 'up to 2 minutes' \
    "try it by hand: apt-get update && $command" \
    apt_run "$@"
}

apt_run() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update && apt-get install -y --no-install-recommends "$@"
}

# fits PYTHON: it starts, and is a version that the pins are made for.
fits() {
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in
      [(3, 11), (3, 12)])' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [[ -n ${MMMOCO_PYTHON:-} ]]; then
    fits "$MMMOCO_PYTHON" ||
      fail "MMMOCO_PYTHON=$MMMOCO_PYTHON is no working Python 3.11 or 3.12."
    say "$MMMOCO_PYTHON"
    return
  fi
  for candidate in python3.11 python3.12 python3 python; do
    if command -v "$candidate" >/dev/null && fits "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

need_disk() { # DIRECTORY GIGABYTES WHAT_FOR
  local free
  free=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1048576) }')
  if ((free < $2)); then
    fail "$1 has $free GB free, $3 needs $2 GB." \
      'make room, or use another place (MMMOCO_USE_ACTIVE=1, TMPDIR).'
  fi
}

# ----------------------------------------------------------- the environment

# Sets prefix and python; makes nothing.
locate_environment() {
  if [[ $use_active == 1 ]]; then
    prefix="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
    [[ -n $prefix ]] || fail \
      'MMMOCO_USE_ACTIVE=1, but no virtual environment is active.' \
      'activate one, or unset MMMOCO_USE_ACTIVE to use .venv.'
  else
    prefix="$root/.venv"
  fi
  python="$prefix/bin/python"
}

make_environment() {
  if [[ $use_active == 1 ]]; then
    fits "$python" ||
      fail "the active environment's $python is no Python 3.11 or 3.12."
    return
  fi
  if fits "$python" && "$python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  local base version
  if ! base=$(find_python); then
    [[ -z ${MMMOCO_PYTHON:-} ]] || exit 1
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
      apt_install python3 python3-venv
    fi
    base=$(find_python) || fail \
      'found no Python 3.11 or 3.12.' \
      'on Debian 12 or Ubuntu 24.04: sudo apt-get install python3 python3-venv' \
      'elsewhere, name one: MMMOCO_PYTHON=/path/to/python3.11'
  fi
  if ! "$base" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt_install "python$version-venv"
  fi
  step "Make .venv with $base" 'a few seconds' \
    "remove $prefix and run this again." \
    "$base" -m venv --clear "$prefix"
}

# ------------------------------------------------------------------- checks

pin() { sed -n "s/^$1==\([^ ]*\).*/\1/p" "$constraints"; }

fingerprint() { # MODE
  {
    printf '%s\n' "$1" "$root"
    "$python" -VV
    cat "$constraints" "$original_pins" "$root/setup.py" "$root/tools/setup.sh"
  } | sha256sum | cut -d ' ' -f 1
}

# Reads only metadata, so that it costs a second: every needed package at its
# pinned version, one OpenCV, mmcv with ops for full, this checkout linked.
check_metadata() { # MODE EXTRAS
  "$python" - "$constraints" "$root" "$@" <<'PYTHON'
import json
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement

constraints, root, mode, extras = sys.argv[1:]
pins = dict(
    re.findall(r'^([a-z0-9-]+)==([^\s#]+)', Path(constraints).read_text(), re.M)
)
problems = []
seen = set()
todo = [Requirement(f'mmmoco[{extras}]')]
while todo:
    need = todo.pop()
    name = re.sub(r'[-_.]+', '-', need.name).lower()
    if (name, *sorted(need.extras)) in seen:
        continue
    seen.add((name, *sorted(need.extras)))
    if name == 'opencv-python':  # its headless twin stands in
        name = 'opencv-python-headless'
    try:
        found = distribution(name)
    except PackageNotFoundError:
        problems.append(f'{name} is not installed')
        continue
    have = found.version.split('+')[0]
    if name != 'mmmoco' and have != pins.get(name):
        problems.append(f'{name} {have}, pinned: {pins.get(name)}')
    for line in found.requires or []:
        sub = Requirement(line)
        for extra in need.extras or {''}:
            if sub.marker is None or sub.marker.evaluate({'extra': extra}):
                todo.append(sub)

try:
    version('opencv-python')
    problems.append('opencv-python beside opencv-python-headless')
except PackageNotFoundError:
    pass

try:
    mmcv = [str(f) for f in distribution('onedl-mmcv').files or []]
    if mode == 'full' and not any(f.startswith('mmcv/_ext') for f in mmcv):
        problems.append('mmcv has no compiled ops')
    url = json.loads(distribution('mmmoco').read_text('direct_url.json'))
    if url['url'] != Path(root).as_uri():
        problems.append(f'mmmoco is installed from {url["url"]}')
except (PackageNotFoundError, TypeError):
    problems.append('mmmoco or mmcv is not installed from where it should')
for name in ('configs', 'tools'):
    if not (Path(root) / 'mmmoco' / '.mim' / name).is_dir():
        problems.append(f'mmmoco/.mim/{name} does not lead to {name}')

print('\n'.join(problems))
sys.exit(bool(problems))
PYTHON
}

ready() { # MODE EXTRAS
  local stamp="$prefix/.mmmoco-setup-$1"
  [[ -f $stamp && $(<"$stamp") == "$(fingerprint "$1")" ]] &&
    { [[ $1 != full ]] || [[ -x $browser && -d $prefix/originals ]]; } &&
    check_metadata "$1" "$2" >/dev/null 2>&1
}

# What full sets up is enough for core.
complete() { # MODE EXTRAS
  if ready "$@" || { [[ $1 == core ]] && ready full "$full_extras"; }; then
    say "setup: $1 is complete in $prefix"
  else
    return 1
  fi
}

check_imports() {
  "$python" - "$root" <<'PYTHON'
import importlib.util
import sys

import cv2
import mmcv
import mmengine
import mmpretrain
import numpy
import torch
import torchvision

boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]])
scores = torch.tensor([0.9, 0.8, 0.7])
keep = torchvision.ops.nms(boxes, scores, 0.5).tolist()
assert keep == [0, 2], 'torchvision does not fit torch'
assert cv2.resize(numpy.zeros((4, 4), numpy.uint8), (2, 2)).shape == (2, 2)
found = importlib.util.find_spec('mmmoco')
places = list(found.submodule_search_locations) if found else []
assert f'{sys.argv[1]}/mmmoco' in places, f'mmmoco is found in {places}'
PYTHON
}

# The compiled file alone: mmcv itself needs packages that come later.
check_extension() {
  "$python" - <<'PYTHON'
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location

import torch

mmcv = distribution('onedl-mmcv')
(file,) = [f for f in mmcv.files if str(f).startswith('mmcv/_ext')]
spec = spec_from_file_location('mmcv._ext', mmcv.locate_file(file))
extension = module_from_spec(spec)
spec.loader.exec_module(extension)
boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]])
scores = torch.tensor([0.9, 0.8, 0.7])
keep = extension.nms(boxes, scores, iou_threshold=0.5, offset=0)
assert keep.tolist() == [0, 2], keep
print("mmcv's compiled ops work")
PYTHON
}

check_ops() {
  "$python" - <<'PYTHON'
import sys

import torch
from mmcv.ops import nms

boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29]])
scores = torch.tensor([0.9, 0.8, 0.7])
assert nms(boxes, scores, 0.5)[1].tolist() == [0, 2]
print('mmcv.ops works')
PYTHON
}

# ------------------------------------------------------------ mmcv, two kinds

# Prints the kind of ops to compile and what their wheel depends on.
ops_facts() {
  "$python" - <<'PYTHON'
import os
import re
import subprocess
import sys
import sysconfig

import torch
from torch.utils.cpp_extension import CUDA_HOME

forced = os.environ.get('FORCE_CUDA') == '1'
kind, note = 'cpu', ''
if forced or torch.cuda.is_available():
    try:
        text = subprocess.run(
            [f'{CUDA_HOME}/bin/nvcc', '--version'],
            capture_output=True, text=True, check=True,
        ).stdout
        nvcc = re.search(r'release (\d+)', text).group(1)
    except (OSError, subprocess.CalledProcessError, AttributeError):
        nvcc = None
    wanted = (torch.version.cuda or 'none').split('.')[0]
    if nvcc == wanted:
        arch = os.environ.get('TORCH_CUDA_ARCH_LIST') or ','.join(sorted({
            '%d.%d' % torch.cuda.get_device_capability(i)
            for i in range(torch.cuda.device_count())
        }))
        kind = 'cuda-' + re.sub(r'[^0-9A-Za-z.+]+', '_', arch or 'all')
    else:
        note = (
            f'nvcc of CUDA {wanted} not found (found: {nvcc}); compiling '
            'for CPU only. Pre-training uses the GPU all the same; '
            'detectors of mmdet need the CUDA toolkit here.'
        )
        if forced:
            sys.exit('FORCE_CUDA=1, but ' + note)
tag = 'cp%d%d' % sys.version_info[:2]
platform = re.sub(r'[^0-9a-z]+', '_', sysconfig.get_platform().lower())
print(f'ops-{kind}_torch-{torch.__version__}_{tag}_{platform}')
print(note)
PYTHON
}

# The one wheel in a cache folder, if it is there.
cached_wheel() { # DIRECTORY
  local wheel
  for wheel in "$1"/onedl_mmcv-*.whl; do
    [[ -f $wheel ]] && say "$wheel" && return
  done
  return 1
}

# Builds a wheel next to its place and moves it there when it is whole.
# A lock keeps a second checkout from compiling the same at the same time.
build_wheel() { # ops|noops DIRECTORY
  (
    mkdir -p "$2" || exit 1
    exec 9>"$2/.lock" || exit 1
    if command -v flock >/dev/null; then
      flock -n 9 || { say 'waiting for another set-up' && flock 9; } || exit 1
    fi
    cached_wheel "$2" && exit 0
    work=$(mktemp -d "$cache/wheels/.build-XXXXXX") || exit 1
    trap 'rm -rf "$work"' EXIT
    arguments=(--no-deps --no-cache-dir -w "$work" "onedl-mmcv==$mmcv")
    if [[ $1 == noops ]]; then
      # In pip's isolated build there is no torch, so nothing is compiled.
      "$python" -m pip wheel "${arguments[@]}" || exit 1
      marker=0
    else
      [[ $2 == */*_ops-cuda-* ]] || export CUDA_VISIBLE_DEVICES='' FORCE_CUDA=0
      # Python's own flags ask for debugging symbols: more than half of the
      # time, and nothing of the code. CFLAGS would replace those flags.
      export CPPFLAGS="-g0 ${CPPFLAGS:-}"
      "$python" -m pip wheel -v --no-build-isolation "${arguments[@]}" ||
        exit 1
      marker=1
    fi
    wheel=$(cached_wheel "$work") || exit 1
    "$python" - "$wheel" $marker <<'PYTHON' || exit 1
import sys
import zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
found = any(name.startswith('mmcv/_ext') for name in names)
if found != bool(int(sys.argv[2])):
    sys.exit(f'{sys.argv[1]}: compiled ops {"" if found else "not "}inside')
PYTHON
    mv "$wheel" "$2/"
  )
}

install_wheel() { # DIRECTORY
  local wheel
  wheel=$(cached_wheel "$1") || return 1
  "$python" -m pip install --no-deps --force-reinstall "$wheel" || return 1
  basename "$1" >"$prefix/.mmmoco-mmcv"
}

mmcv_is() { # KEY
  [[ -f $prefix/.mmmoco-mmcv && $(<"$prefix/.mmmoco-mmcv") == "$1" ]] &&
    "$python" -c "
import sys
from importlib.metadata import version
sys.exit(version('onedl-mmcv') != '$mmcv')" 2>/dev/null
}

default_jobs() {
  # A compiler process takes up to 2 GB.
  local cores memory
  cores=$(nproc 2>/dev/null || echo 1)
  memory=$(awk '/^MemAvailable/ { print int($2 / 2097152) }' \
    /proc/meminfo 2>/dev/null || echo "$cores")
  if ((memory < 1)); then memory=1; fi
  say $((cores < memory ? cores : memory))
}

setup_mmcv_without_ops() {
  local key="mmcv-${mmcv}_noops" dir="$cache/wheels/mmcv-${mmcv}_noops"
  # Compiled ops that came with an earlier full set-up serve as well.
  if mmcv_is "$key" || { [[ -f $prefix/.mmmoco-mmcv ]] &&
    mmcv_is "mmcv-${mmcv}_$(ops_facts 2>>"$log" | head -n 1)"; }; then
    return
  fi
  if ! cached_wheel "$dir" >/dev/null; then
    step "Build mmcv $mmcv without compiled ops" 'half a minute' \
      "$network_advice" build_wheel noops "$dir"
  fi
  step "Install mmcv $mmcv without compiled ops" 'a few seconds' \
    "remove $dir and run this again." install_wheel "$dir"
}

need_compiler() {
  local missing=()
  command -v "${CXX:-c++}" >/dev/null || missing+=(build-essential)
  "$python" - <<'PYTHON' || missing+=("python$("$python" -c \
    'import sys; print("%d.%d" % sys.version_info[:2])')-dev")
import sys
import sysconfig
from pathlib import Path

sys.exit(not (Path(sysconfig.get_path('include')) / 'Python.h').is_file())
PYTHON
  if ((${#missing[@]})); then apt_install "${missing[@]}"; fi
}

compile_mmcv() { # DIRECTORY
  need_compiler
  MAX_JOBS="${MAX_JOBS:-$(default_jobs)}"
  export MAX_JOBS
  need_disk "${TMPDIR:-/tmp}" 2 'compiling mmcv'
  step "Compile mmcv's ops with $MAX_JOBS processes, once per machine" \
    '10 minutes on two cores, longer for CUDA' \
    "read $log from the first 'error'; with too little memory: MAX_JOBS=1" \
    build_wheel ops "$1"
}

setup_mmcv_with_ops() {
  local facts key dir note
  facts=$(ops_facts 2>>"$log") || fail "$(tail -n 1 "$log")"
  key="mmcv-${mmcv}_$(head -n 1 <<<"$facts")"
  note=$(sed -n 2p <<<"$facts")
  dir="$cache/wheels/$key"
  if mmcv_is "$key" && check_extension >>"$log" 2>&1; then
    return
  fi
  [[ -z $note ]] || say "   note: $note"
  if cached_wheel "$dir" >/dev/null; then
    step "Install mmcv $mmcv with ops from $dir" 'a few seconds' \
      "remove $dir and run this again." install_wheel "$dir"
    if check_extension >>"$log" 2>&1; then
      return
    fi
    say '   the cached wheel does not work here; compiling a new one.'
    rm -f "$dir"/onedl_mmcv-*.whl
  fi
  compile_mmcv "$dir"
  step "Install mmcv $mmcv with ops" 'a few seconds' \
    "remove $dir and run this again." install_wheel "$dir"
  step "Check mmcv's ops" 'a few seconds' \
    "remove $dir and run this again; if it stays, report the log." check_extension
}

# ------------------------------------------------------------------- the rest

pip_install() { "$python" -m pip install -c "$constraints" "$@"; }

# Dependencies ask for both OpenCV packages, which overwrite each other's
# files; only the headless one stays, installed last so that it is whole.
single_opencv() {
  "$python" -c "import importlib.metadata as m; m.version('opencv-python')" \
    2>/dev/null || return 0
  "$python" -m pip uninstall -y opencv-python opencv-python-headless &&
    pip_install --no-deps opencv-python-headless &&
    "$python" -c 'import cv2; print(cv2.__version__)'
}

# The tests open the report in the system's own Chromium: playwright would
# download another one.
need_browser() {
  [[ -x $browser ]] || apt_install chromium
}

# Beside the maintained packages, for tests/stack alone. Their Python runs with
# the compiled ops of the maintained mmcv.
install_originals() {
  local place="$prefix/originals" ops
  rm -rf "$place"
  ops=$("$python" -c "
from importlib.metadata import distribution
found = distribution('onedl-mmcv')
print(*(found.locate_file(f) for f in found.files
        if str(f).startswith('mmcv/_ext')))") || return 1
  # What some of them install as 'tests' would hide ours.
  MMCV_WITH_OPS=0 "$python" -m pip install --no-deps --no-build-isolation \
    --target "$place" $(sed -n '/^mm/p' "$original_pins") \
    mmdet==3.3.0 mmsegmentation==1.2.2 &&
    rm -rf "$place/tests" && ln -s "$ops" "$place/mmcv/"
}

install_all() { # MODE EXTRAS
  local duration='1 to 3 minutes'
  rm -f "$prefix"/.mmmoco-setup-*
  step 'Install the build tools' 'a few seconds' "$network_advice" \
    pip_install setuptools wheel ninja psutil packaging
  step "Install torch $(pin torch) and torchvision $(pin torchvision)" \
    '2 to 10 minutes, 2 GB to download, unless they are there' \
    "$network_advice" pip_install torch torchvision
  # mmcv comes before what depends on it, or pip builds one without ops.
  if [[ $1 == full ]]; then
    setup_mmcv_with_ops
  else
    setup_mmcv_without_ops
  fi
  step 'Link this checkout as mmmoco' 'a few seconds' \
    "read $log." \
    "$python" -m pip install --no-deps --no-build-isolation -e "$root"
  [[ $1 == core ]] || duration='2 to 5 minutes'
  step "Install what mmmoco[$2] needs" "$duration" "$network_advice" \
    pip_install --no-build-isolation "mmmoco[$2]"
  step 'Keep one OpenCV' 'a few seconds' "$network_advice" single_opencv
  step 'Check the installation' 'half a minute' \
    "remove $prefix and run this again." \
    check_imports
  if [[ $1 == full ]]; then
    step "Check mmcv's ops" 'a few seconds' "read $log." check_ops
    step 'Put the original packages beside them, for tests' 'half a minute' \
      "$network_advice" install_originals
    need_browser
  fi
  step 'Check the versions' 'a second' \
    "remove $prefix and run this again." check_metadata "$1" "$2"
  fingerprint "$1" >"$prefix/.mmmoco-setup-$1"
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

main() {
  local mode="${1:-}" extras
  if (($# != 1)); then
    say 'usage: bash tools/setup.sh core|full|python (--help explains)' >&2
    exit 2
  fi
  case $mode in
    core) extras='onedl,test' ;;
    full) extras="$full_extras" ;;
    python) locate_environment && say "$python" && return ;;
    -h | --help) usage && return ;;
    *)
      say "setup.sh: unknown set-up '$mode', expected core or full" >&2
      exit 2
      ;;
  esac
  locate_environment
  if complete "$mode" "$extras"; then return; fi
  if ! "$python" -c 'import torch' >/dev/null 2>&1; then
    need_disk "$root" 9 'the set-up (6 GB stay)'
    need_disk "${TMPDIR:-/tmp}" 2 'downloading torch'
  fi
  mkdir -p "$prefix" "$cache"
  log="$cache/setup-$(sha256sum <<<"$prefix" | cut -c 1-12).log"
  exec 8>"${log%.log}.lock"
  if command -v flock >/dev/null && ! flock -n 8; then
    say "waiting for another set-up of $prefix to end"
    flock 8
    if complete "$mode" "$extras"; then return; fi
  fi
  mmcv=$(pin onedl-mmcv)
  network_advice="it needs the package index: check the network and pip's \
settings (pip config list), then run this again; what is done is kept."
  say "Setting up mmmoco ($mode) in $prefix; details: $log"
  : >"$log"
  make_environment
  install_all "$mode" "$extras"
  say "setup: $mode is complete in $prefix ($SECONDS s)"
}

main "$@"
