#!/usr/bin/env bash
# The logs of a run, one on each worker. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/logs.sh [--help] [SETTING ...] [--run NAME] [--worker N | --all FOLDER]

Shows the log of a run on one worker as it grows, until the run ends.

  --run NAME     which run (train)
  --worker N     which worker (0)
  --all FOLDER   copy those of all workers to FOLDER/worker-N.log instead

Examples:
  launch/tpu/logs.sh
  launch/tpu/logs.sh --worker 3
  launch/tpu/logs.sh --all runs/logs
END
  settings_help
}

# shellcheck source=launch/tpu/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

worker=0
folder=''
while [ $# -gt 0 ]; do
  taken=1
  case $1 in
    --run | --run=*) take_value "$@" && run=$value ;;
    --worker | --worker=*) take_value "$@" && worker=$value ;;
    --all | --all=*) take_value "$@" && folder=$value ;;
    *)
      take_setting "$@"
      if [ "$taken" = 0 ]; then unknown "$1"; fi
      ;;
  esac
  shift "$taken"
done
need_slice
need_run
if ! [[ $worker =~ ^[0-9]+$ ]]; then misuse "--worker is '$worker': give a number, from 0."; fi

if [ -z "$folder" ]; then
  on_workers "$worker" "bash score_jax/launch/tpu/worker.sh follow $run"
  exit
fi
workers=$(count_workers) || fail 'the cloud could not be asked: see above.'
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
if [ -z "$TPU_DRY_RUN" ]; then mkdir -p "$folder"; fi
for ((worker = 0; worker < workers; worker++)); do
  receive_from_worker "$worker" "score_jax_runs/$run/log" "$folder/worker-$worker.log" ||
    fail "the log of worker $worker could not be fetched: see above."
done
if [ -z "$TPU_DRY_RUN" ]; then say "The logs of $workers workers lie in $folder."; fi
