#!/usr/bin/env bash
# How a slice and the run on it are. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/status.sh [--help] [SETTING ...] [--run NAME]

Prints the state of the slice and, where it is ready, that of the run on each
worker: absent, running, finished, failed N (its exit code) or died (killed, or
the machine was started anew).

  --run NAME   which run (train)

Examples:
  launch/tpu/status.sh
  watch -n 60 launch/tpu/status.sh --run train
END
  settings_help
}

# shellcheck source=launch/tpu/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

while [ $# -gt 0 ]; do
  taken=1
  case $1 in
    --run | --run=*) take_value "$@" && run=$value ;;
    *)
      take_setting "$@"
      if [ "$taken" = 0 ]; then unknown "$1"; fi
      ;;
  esac
  shift "$taken"
done
need_slice
need_run

state=$(slice_state) || fail 'the cloud could not be asked: see above.'
if [ -z "$TPU_DRY_RUN" ]; then say "slice $TPU_NAME: ${state#* }"; fi
if [[ $state = ready* ]]; then
  report=$(on_all status "$run") || fail "the workers could not be asked: see above. Has launch/tpu/setup.sh been run?"
  if [ -n "$report" ]; then sort <<<"$report"; fi
fi
