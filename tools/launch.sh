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
  local script=$1 processes=$2 nodes="${NNODES:-1}" status=0 meeting
  shift 2
  need_count NNODES "$nodes"
  choose_python
  if ! nvidia-smi -L >/dev/null 2>&1; then
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
  fi
  if ((nodes == 1)); then meet_here; else meet_over_network "$nodes"; fi
  # As python -P -m, which came with 3.11: else a torch.py in the current
  # folder would be taken for the library.
  # The signals of a scheduler and Ctrl-C are for the training processes;
  # torchrun itself would kill them, or start them again.
  export PET_SIGNALS_TO_HANDLE=SIGHUP,SIGQUIT
  run_interruptible signal_children_of end_tree \
    deaf "$python" -c "import sys; sys.path = [p for p in sys.path if p]
import runpy; runpy.run_module('torch.distributed.run', {}, '__main__', True)" \
    --nnodes="$nodes" "${meeting[@]}" --nproc_per_node="$processes" \
    "$tools/$script" "$@" || status=$?
  [[ -z ${MMMOCO_MEETING:-} ]] || rm -rf "$MMMOCO_MEETING"
  return "$status"
}

# What is put into a meeting place is unpickled. On one machine it is a folder
# that only this user can read, and nothing listens but on loopback.
meet_here() {
  MMMOCO_MEETING=$(mktemp -d "${TMPDIR:-/tmp}/mmmoco_meeting_XXXXXXXX") ||
    usage_error "cannot make a folder in ${TMPDIR:-/tmp}: set TMPDIR"
  export MMMOCO_MEETING GLOO_SOCKET_IFNAME=lo NCCL_SOCKET_IFNAME=lo
  # Else torchrun opens a port for its processes.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  meeting=(
    --max-restarts="${MAX_RESTARTS:-0}" --rdzv-backend=c10d --rdzv-id=mmmoco
    --rdzv-endpoint="$MMMOCO_MEETING/torchrun" --local-addr=127.0.0.1
    # Each sign of life makes the file longer, and nobody waits for it.
    --rdzv-conf=store_type=file,keep_alive_interval=3600
  )
}

# Several machines meet at a port, open to whoever reaches it.
meet_over_network() { # NODES
  local address="${MASTER_ADDR:-}" port="${PORT:-29500}"
  unset MMMOCO_MEETING
  [[ -n $address ]] || usage_error \
    "NNODES=$1 needs MASTER_ADDR, the address of the first machine"
  [[ -n ${RDZV_ID:-} ]] || usage_error \
    "NNODES=$1 needs RDZV_ID, a name for this run that is the same on all \
machines and that nobody guesses: RDZV_ID=\$(openssl rand -hex 16)"
  if [[ -z ${MAX_RESTARTS:-} ]]; then
    meeting=(
      --rdzv-id="$RDZV_ID" --node_rank="${NODE_RANK:-0}"
      --master_addr="$address" --master_port="$port"
    )
    return
  fi
  # Else the meeting place keeps the addresses of the processes that died,
  # and the new ones wait for those.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  meeting=(
    --max-restarts="$MAX_RESTARTS" --rdzv-backend=c10d --rdzv-id="$RDZV_ID"
    --rdzv-endpoint="$address:$port"
  )
}

# run_interruptible FORWARD END COMMAND...: runs a command; SIGTERM and
# SIGUSR1 go on through FORWARD SIGNAL PROCESS, Ctrl-C through END PROCESS.
# Returns its status.
run_interruptible() {
  local forward=$1 end=$2 process status interrupted name ended=''
  shift 2
  "$@" <&0 &
  process=$!
  for name in TERM USR1; do
    # shellcheck disable=SC2064
    trap "interrupted=1; $forward $name $process" "$name"
  done
  # shellcheck disable=SC2064
  trap "interrupted=1 ended=1; trap '' INT; $end $process" INT
  while true; do
    interrupted='' status=0
    wait "$process" 2>/dev/null || status=$?
    # A signal ends the waiting too.
    [[ -n $interrupted ]] || break
  done
  trap - TERM USR1 INT
  [[ -z $ended ]] || status=130
  return "$status"
}

deaf() { # COMMAND...
  trap '' TERM USR1 INT
  exec "$@"
}

children_of() { # PROCESS
  cat /proc/"$1"/task/*/children 2>/dev/null || true
}

signal_children_of() { # SIGNAL PROCESS
  # shellcheck disable=SC2046
  kill -s "$1" $(children_of "$2") 2>/dev/null || true
}

# Ends a process and all below it: torchrun at once, its processes after five
# seconds in which they may end by themselves.
end_tree() { # PROCESS
  local found children=() tree=() next
  read -ra children <<<"$(children_of "$1" | tr '\n' ' ')"
  next=("${children[@]}")
  while ((${#next[@]})); do
    tree+=("${next[@]}")
    read -ra next <<<"$(for found in "${next[@]}"; do
      children_of "$found"
    done | tr '\n' ' ')"
  done
  kill -s KILL "$1" 2>/dev/null || true
  ((${#tree[@]})) || return 0
  kill -s INT "${children[@]}" 2>/dev/null || true
  for _ in {1..50}; do
    kill -0 "${tree[@]}" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -s KILL "${tree[@]}" 2>/dev/null || true
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
