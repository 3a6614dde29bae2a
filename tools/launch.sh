# Sourced by dist_train.sh, dist_test.sh and slurm_train.sh.
# shellcheck shell=bash

# The folder of the tools, in a checkout and in an installed package.
tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"

# Ends with one line that says what is wrong.
usage_error() {
  printf '%s\n' "${0##*/}: $1 (--help explains)" >&2
  exit 2
}

# Prints the comment at the head of the calling script.
show_help() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; }

need_count() { # NAME VALUE
  [[ $2 =~ ^[1-9][0-9]*$ ]] ||
    usage_error "$1 must be a whole number from 1 on, not '$2'"
}

# The active environment's Python, else the checkout's, else any.
choose_python() {
  if [[ -n ${VIRTUAL_ENV:-} && -x $VIRTUAL_ENV/bin/python ]]; then
    python="$VIRTUAL_ENV/bin/python"
  elif [[ -n ${CONDA_PREFIX:-} && ${CONDA_DEFAULT_ENV:-base} != base ]]; then
    python="$CONDA_PREFIX/bin/python"
  elif [[ -x $tools/../.venv/bin/python ]]; then
    python="$(cd "$tools/.." && pwd -P)/.venv/bin/python"
  else
    python=$(command -v python3 || command -v python) ||
      usage_error 'found no Python; bash tools/setup.sh core makes one'
  fi
}

# torchrun SCRIPT PROCESSES ARGUMENTS...: starts the processes of this node.
torchrun() {
  local script=$1 processes=$2 nodes="${NNODES:-1}" port="${PORT:-}"
  shift 2
  need_count NNODES "$nodes"
  choose_python
  if [[ -z $port ]]; then
    # All nodes must agree on a port; on one node any free one will do.
    port=29500
    if ((nodes == 1)); then
      port=$("$python" -c "import socket
with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    print(s.getsockname()[1])")
    fi
  fi
  if ! nvidia-smi -L >/dev/null 2>&1; then
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
  fi
  exec "$python" -m torch.distributed.run \
    --nnodes="$nodes" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port" \
    --nproc_per_node="$processes" \
    "$tools/$script" "$@"
}
