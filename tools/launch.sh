# Sourced by dist_train.sh, dist_test.sh, slurm_train.sh and chains.
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
  # A signal of the scheduler is for the training processes, which save and
  # end; torchrun itself would kill them, so it does not listen.
  local meeting=(
    --node_rank="${NODE_RANK:-0}"
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="$port"
  )
  if [[ -n ${MAX_RESTARTS:-} ]]; then
    # Else the meeting place keeps the addresses of the processes that died,
    # and the new ones wait for those.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    meeting=(
      --max-restarts="$MAX_RESTARTS" --rdzv-backend=c10d --rdzv-id=mmmoco
      --rdzv-endpoint="${MASTER_ADDR:-127.0.0.1}:$port"
    )
  fi
  export PET_SIGNALS_TO_HANDLE=SIGINT,SIGHUP,SIGQUIT
  run_interruptible signal_children_of deaf "$python" -m torch.distributed.run \
    --nnodes="$nodes" "${meeting[@]}" --nproc_per_node="$processes" \
    "$tools/$script" "$@"
}

# run_interruptible FORWARD COMMAND...: runs a command; SIGTERM and SIGUSR1 go
# on through FORWARD SIGNAL PROCESS. Returns its status.
run_interruptible() {
  local forward=$1 process status interrupted name
  shift
  "$@" <&0 &
  process=$!
  for name in TERM USR1; do
    # shellcheck disable=SC2064
    trap "interrupted=1; $forward $name $process" "$name"
  done
  while true; do
    interrupted='' status=0
    wait "$process" || status=$?
    # A signal ends the waiting too.
    [[ -n $interrupted ]] || break
  done
  trap - TERM USR1
  return "$status"
}

deaf() { # COMMAND...
  trap '' TERM USR1
  exec "$@"
}

signal_children_of() { # SIGNAL PROCESS
  local file
  for file in /proc/"$2"/task/*/children; do
    # shellcheck disable=SC2046
    kill -s "$1" $(<"$file") 2>/dev/null || true
  done
}

# What train.py takes for its work dir.
work_dir_of() { # CONFIG ARGUMENTS...
  local config=$1 place
  place="work_dirs/$(basename "${config%.py}")"
  shift
  while (($#)); do
    case $1 in
      --work-dir) place=${2:-} ;;
      --work-dir=*) place=${1#*=} ;;
    esac
    shift
  done
  printf '%s\n' "$place"
}

# Ends a chain whose training was stopped: the next start goes on with it.
stop_if_preempted() { # WORK_DIR
  [[ -e $1/PREEMPTED ]] || return 0
  printf '%s\n' "${0##*/}: $1 was pre-empted; the same command goes on." >&2
  exit 0
}
