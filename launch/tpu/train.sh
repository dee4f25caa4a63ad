#!/usr/bin/env bash
# Starts a run on all workers of a slice. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/train.sh [--help] [SETTING ...] [OPTION ...] -- ARGUMENT ...

Runs python -m score_jax train ARGUMENT ... on every worker of a slice that
launch/tpu/setup.sh has set up, detached from ssh, with a log on each worker.
The arguments arrive as they are given, whatever characters they hold.

  --run NAME       what the run is called (train)
  --steps A,B      the commands to run with these arguments (train), like
                   train,evaluate; the next only where the last succeeded
  --env-file FILE  lines NAME=VALUE for the environment of the run, like an API
                   token: copied to the workers, never shown or put on a
                   command line; the value is all that follows the first =
  --watch          stay, and see the run through: make the slice and set it up
                   where that has not been done, start again what ends with an
                   error, and after a preemption delete the slice, make a new
                   one, set it up and go on. Wants a --workdir in a bucket
                   (gs://...), as a new slice begins with empty disks.
                   Stopped, the run goes on by itself; the same command watches
                   it again.
  --retries N      how often --watch starts again (10) before it gives up.
                   Exit code 2, a mistake in the config, is never tried again.

  TPU_POLL_SECONDS     between two looks at the run (30)
  TPU_BACKOFF_SECONDS  before the first retry (30); doubles up to 15 minutes

Examples:
  launch/tpu/train.sh --steps train,evaluate --watch --spot -- \
    --config=configs/quickstart.py --workdir=gs://BUCKET/quickstart
  launch/tpu/train.sh --run second -- --config=configs/quickstart.py \
    --workdir=runs/second
END
  settings_help
}

# shellcheck source=launch/tpu/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

steps=train
env_file=''
watch=''
retries=10
while [ $# -gt 0 ]; do
  taken=1
  case $1 in
    --run | --run=*) take_value "$@" && run=$value ;;
    --steps | --steps=*) take_value "$@" && steps=$value ;;
    --env-file | --env-file=*) take_value "$@" && env_file=$value ;;
    --watch) watch=yes ;;
    --retries | --retries=*) take_value "$@" && retries=$value ;;
    --) break ;;
    *)
      take_setting "$@"
      if [ "$taken" = 0 ]; then unknown "$1"; fi
      ;;
  esac
  shift "$taken"
done
if [ $# -lt 2 ]; then misuse "after -- come the arguments of python -m score_jax train: see $me --help."; fi
shift
arguments=("$@")

need_slice
need_run
if ! [[ $steps =~ ^[a-z-]+(,[a-z-]+)*$ ]]; then misuse "--steps is '$steps': name commands, like train,evaluate."; fi
if ! [[ $retries =~ ^[0-9]+$ ]]; then misuse "--retries is '$retries': give a whole number."; fi
if [ -n "$env_file" ] && ! [ -r "$env_file" ]; then misuse "--env-file $env_file cannot be read."; fi
if [ -n "$watch" ]; then
  # All that a preemption may need is asked for now.
  need_type
  workdir=''
  for ((i = 0; i < ${#arguments[@]}; i++)); do
    case ${arguments[i]} in
      --workdir) workdir=${arguments[i + 1]:-} ;;
      --workdir=*) workdir=${arguments[i]#*=} ;;
    esac
  done
  if ! is_bucket "$workdir"; then
    misuse "--watch wants a --workdir=gs://BUCKET/FOLDER: what is on the disks of a slice is lost with it."
  fi
  pin_commit
fi

# Prints the lines of --env-file that set something, each ended by a NUL byte.
environment() {
  local line number=0
  [ -n "$env_file" ] || return 0
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    case $line in '' | '#'*) continue ;; esac
    # The line itself may be secret, and is not shown.
    if ! [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; then
      misuse "line $number of $env_file is not NAME=VALUE: mend it, or begin it with #."
    fi
    printf '%s\0' "$line"
  done <"$env_file"
}

environment >/dev/null # so that a mistake in it shows before there is a slice

# Copies the run to all workers and starts it. Returns 3 where it goes on there
# already, 4 where another does.
start_run() {
  local token code=0
  token=$(date +%Y%m%d%H%M%S)-$$-$RANDOM
  local folder=$scratch/incoming-$token
  mkdir "$folder"
  printf '%s\0' "${arguments[@]}" >"$folder/arguments"
  printf '%s\n' "$token" >"$folder/token"
  tr , '\n' <<<"$steps" >"$folder/steps"
  environment >"$folder/environment"
  if [ -n "$TPU_DRY_RUN" ]; then
    say "would send the run '$run', of the steps $steps, with the arguments:"
    printf '  %q\n' "${arguments[@]}"
    if [ -n "$env_file" ]; then say "and the environment of $env_file."; fi
  fi
  send_to_workers "$folder" score_jax_runs || return 1
  on_all start "$run" "$token" || code=$?
  rm -rf "$folder"
  case $code in 0 | 3 | 4) return "$code" ;; *) return 1 ;; esac
}

# For the watch: what went wrong, and whether only a new slice helps.
why=''
lost=''

# Sees to it that there is a slice, set up. Returns 3 where a run goes on on it.
prepare() {
  local state
  if [ -n "$lost" ]; then "$here/teardown.sh" || return 1; fi
  state=$(slice_state) || return 1
  case $state in
    ready*) if [ -n "$TPU_DRY_RUN" ]; then "$here/create.sh"; fi ;;
    absent* | waiting*) "$here/create.sh" || return ;;
    *) { "$here/teardown.sh" && "$here/create.sh"; } || return ;;
  esac
  "$here/setup.sh"
}

begin() {
  local code=0
  why='the slice could not be made or set up'
  prepare || code=$?
  case $code in 0 | 3) code=0 ;; *) return "$code" ;; esac
  why='the run could not be started'
  start_run || code=$?
  case $code in
    3) say "The run '$run' goes on already; watching it." ;;
    4) misuse "another run goes on on $TPU_NAME: see launch/tpu/status.sh." ;;
    *) return "$code" ;;
  esac
}

# Where one worker has failed, the others may be waiting for it for ever.
restart() {
  why='the run could not be started again'
  on_all stop "$run" && start_run
}

# Returns when the run has ended: 0 well, 2 by a mistake in the config, else 1.
see_through() {
  local report state misses=0
  while :; do
    if report=$(on_all status "$run" 2>"$scratch/errors"); then
      misses=0
      case $report in
        *failed\ 2 | *failed\ 2$'\n'*)
          why='it ended with exit code 2: a mistake in the config, or a loss that is not finite'
          return 2
          ;;
        *failed* | *died* | *absent*)
          why=$(grep -E 'failed|died|absent' <<<"$report" | head -n 1)
          return 1
          ;;
        *running*) ;;
        *) return 0 ;;
      esac
    else
      misses=$((misses + 1))
      state=$(slice_state) || state='unknown unknown'
      case $state in
        lost* | refused* | absent*)
          why="the slice is ${state#* }"
          lost=yes
          return 1
          ;;
      esac
      if [ "$misses" -ge 10 ]; then
        cat "$scratch/errors" >&2
        why="its workers could not be reached $misses times in a row"
        lost=yes
        return 1
      fi
    fi
    sleep "$TPU_POLL_SECONDS"
  done
}

watch_run() {
  local code used=0 pause=$TPU_BACKOFF_SECONDS next=begin
  while :; do
    code=0
    "$next" || code=$?
    if [ "$code" -eq 0 ]; then
      lost=''
      next=restart
      see_through || code=$?
    elif [ "$next" = restart ]; then
      lost=yes
    fi
    if [ -n "$lost" ]; then next=begin; fi
    case $code in
      0)
        say "The run '$run' has finished on all workers."
        return
        ;;
      2) misuse "the run '$run' is not tried again: $why (launch/tpu/logs.sh shows what it said)." ;;
    esac
    if [ "$used" -ge "$retries" ]; then
      fail "gave up after $used retries: $why. The slice $TPU_NAME may still be there, and cost: see launch/tpu/logs.sh, then launch/tpu/teardown.sh."
    fi
    used=$((used + 1))
    say "Retry $used of $retries in $pause s: $why."
    sleep "$pause"
    pause=$((pause * 2 < 900 ? pause * 2 : 900))
  done
}

if [ -n "$TPU_DRY_RUN" ]; then
  if [ -n "$watch" ]; then prepare; fi
  start_run
  if [ -n "$watch" ]; then say "would watch the run '$run', with up to $retries retries."; fi
elif [ -n "$watch" ]; then
  watch_run
else
  code=0
  start_run || code=$?
  case $code in
    0) say "The run '$run' is going on: launch/tpu/status.sh and launch/tpu/logs.sh tell how." ;;
    3 | 4) fail "a run goes on on $TPU_NAME already: wait for it (launch/tpu/status.sh), or tear the slice down." ;;
    *) fail "the run could not be started: see above. Has launch/tpu/setup.sh been run since the slice was made?" ;;
  esac
fi
