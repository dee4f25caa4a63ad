#!/usr/bin/env bash
# Brings a work directory here. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/fetch.sh [--help] [SETTING ...] WORKDIR [FOLDER]

Copies a work directory to FOLDER (runs/, and the last part of WORKDIR). From a
bucket (gs://...) that needs no slice, and fetches only what has changed; any
other WORKDIR is taken from worker 0, relative to the project there.

Examples:
  launch/tpu/fetch.sh gs://BUCKET/gsm8k
  launch/tpu/fetch.sh runs/gsm8k /tmp/gsm8k    # from worker 0's project
END
  settings_help
}

# shellcheck source=launch/tpu/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

places=()
while [ $# -gt 0 ]; do
  take_setting "$@"
  if [ "$taken" = 0 ]; then
    case $1 in
      -*) unknown "$1" ;;
      *) places+=("$1") ;;
    esac
    taken=1
  fi
  shift "$taken"
done
case ${#places[@]} in
  1 | 2) ;;
  *) misuse "name a work directory, and perhaps a folder to copy it to: see $me --help." ;;
esac
workdir=${places[0]%/}
folder=${places[1]:-$root/runs/$(basename "$workdir")}
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac

if is_bucket "$workdir"; then
  need_cloud
  if [ -z "$TPU_DRY_RUN" ]; then mkdir -p "$folder"; fi
  receive_from_bucket "$workdir" "$folder" || fail "$workdir could not be fetched: see above, then run this again."
else
  need_slice
  # scp may take other characters for a pattern.
  if ! [[ $workdir =~ ^[A-Za-z0-9._/=,+-]+$ ]]; then
    misuse "the work directory '$workdir' has characters that scp may misread: rename it on worker 0."
  fi
  case $workdir in /*) ;; *) workdir=score_jax/$workdir ;; esac
  # Into a folder that is there scp would put a second one of that name.
  if [ -e "$folder" ]; then misuse "$folder is there already: name another folder."; fi
  if [ -z "$TPU_DRY_RUN" ]; then mkdir -p "$(dirname "$folder")"; fi
  receive_from_worker 0 "$workdir" "$folder" || fail "$workdir could not be fetched: see above, then run this again."
fi
if [ -z "$TPU_DRY_RUN" ]; then say "The work directory lies in $folder."; fi
