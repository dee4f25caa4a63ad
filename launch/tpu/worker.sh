#!/usr/bin/env bash
# What runs on each worker of a slice. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/worker.sh start RUN TOKEN | status RUN | stop RUN | follow RUN | idle

The half of launch/tpu that runs on the workers; the other scripts call it by
ssh. A run is a folder, score_jax_runs/RUN in the home folder:

  arguments  those of python -m score_jax, each ended by a NUL byte
  steps      the commands to run with them, like train and evaluate
  log        all that they printed
  pid, exit  of the process that runs them; exit is there when it has ended

  start   begins what launch/tpu/train.sh has copied to incoming-TOKEN, and
          returns; 3 where that run goes on already, 4 where another one does
  status  prints a line: the worker's name, and absent, running, finished,
          failed N (the exit code) or died
  stop    ends the run and all that it has started
  follow  prints the log as it grows, until the run ends
  idle    returns 3 while any run goes on
END
}

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

runs=$HOME/score_jax_runs
run=${2:-}
folder=$runs/$run
umask 077

# Is the run named $1 going on? After a restart of the machine its number may
# be that of another process.
is_running() {
  local pid
  pid=$(cat "$runs/$1/pid" 2>/dev/null) && [ ! -e "$runs/$1/exit" ] &&
    ps -p "$pid" -o args= 2>/dev/null | grep -qF "worker.sh run $1"
}

# Prints the name of a run that goes on; returns 1 where none does.
running_one() {
  local file name
  for file in "$runs"/*/pid; do
    name=$(basename "$(dirname "$file")")
    if is_running "$name"; then
      echo "$name"
      return
    fi
  done
  return 1
}

state() {
  local code
  if is_running "$run"; then
    echo running
  elif code=$(cat "$folder/exit" 2>/dev/null); then
    if [ "$code" = 0 ]; then echo finished; else echo "failed $code"; fi
  elif [ -e "$folder/pid" ]; then
    echo died
  else
    echo absent
  fi
}

start() {
  local token=$1 incoming=$runs/incoming-$1 other
  # The ssh that brought this may have been cut, and tried again.
  if [ "$(cat "$folder/token" 2>/dev/null)" = "$token" ] && [ -e "$folder/pid" ]; then return; fi
  if other=$(running_one); then
    rm -rf "$incoming"
    echo "score_jax: the run '$other' goes on on this worker." >&2
    if [ "$other" = "$run" ]; then exit 3; else exit 4; fi
  fi
  mkdir -p "$folder"
  rm -f "$folder/pid" "$folder/exit"
  if [ -d "$incoming" ]; then
    mv "$incoming"/* "$folder/"
    rmdir "$incoming"
  fi
  # In a session of its own, with nothing of ssh's left open, it outlives the
  # connection. tmux need not be installed, and systemd --user would have to be
  # told to let its services linger.
  setsid bash "$root/launch/tpu/worker.sh" run "$run" </dev/null >/dev/null 2>&1 &
  for _ in {1..100}; do
    if [ -e "$folder/pid" ]; then return; fi
    sleep 0.1
  done
  fail "the run '$run' did not start within 10 s."
}

# Runs the steps, one after another, until one fails.
run_steps() {
  local arguments=() hosts=() word step code=0
  exec >>"$folder/log" 2>&1
  printf '%s\n' "$$" >"$folder/pid.new"
  mv "$folder/pid.new" "$folder/pid"
  while IFS= read -r -d '' word; do export "${word?}"; done <"$folder/environment"
  rm "$folder/environment" # secrets need not lie about
  while IFS= read -r -d '' word; do arguments+=("$word"); done <"$folder/arguments"
  cd "$root"
  while IFS= read -r step; do
    printf '== %s: %s on %s\n' "$(date)" "$step" "$(hostname)"
    # The hosts of a slice work as one; a slice of one host finds itself.
    hosts=()
    case $step in train | evaluate) hosts=(--hosts=auto) ;; esac
    PYTHONUNBUFFERED=1 .venv/bin/python -m score_jax "$step" ${hosts[@]+"${hosts[@]}"} "${arguments[@]}" \
      </dev/null || code=$?
    if [ "$code" -ne 0 ]; then break; fi
  done <"$folder/steps"
  printf '== %s: exit code %s\n' "$(date)" "$code"
  printf '%s\n' "$code" >"$folder/exit.new"
  mv "$folder/exit.new" "$folder/exit"
}

stop() {
  local pid
  if ! is_running "$run"; then return; fi
  pid=$(cat "$folder/pid")
  kill -TERM -- "-$pid" 2>/dev/null || true
  # Time to save a checkpoint: told to stop, a run does so after its update.
  for _ in {1..600}; do
    if ! kill -0 -- "-$pid" 2>/dev/null; then break; fi
    sleep 0.1
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
  printf '143\n' >"$folder/exit"
}

follow() {
  if ! [ -e "$folder/log" ]; then fail "there is no run '$run' on this worker: see launch/tpu/status.sh."; fi
  if is_running "$run"; then
    tail -n +1 --pid="$(cat "$folder/pid")" -F "$folder/log" 2>/dev/null
  else
    cat "$folder/log"
  fi
}

case ${1:-} in
  start) start "$3" ;;
  run) run_steps ;;
  # One write, as the workers' lines share a pipe.
  status) printf 'worker %s %s\n' "$(hostname)" "$(state)" ;;
  stop) stop ;;
  follow) follow ;;
  idle) if running_one; then exit 3; fi ;;
  -h | --help) usage ;;
  *) fail "unknown argument '${1:-}': see launch/tpu/worker.sh --help." ;;
esac
