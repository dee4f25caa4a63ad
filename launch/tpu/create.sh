#!/usr/bin/env bash
# Makes a TPU slice and waits until it is there. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/create.sh [--help] [SETTING ...]

Asks for a TPU slice, through the queue or (--direct) at once, and waits until
it is ready; that may take minutes, or as long as there is no capacity. Stopped,
the same command goes on waiting. Does nothing where the slice is ready.

Examples:
  launch/tpu/create.sh --name score --zone us-east5-b --type v6e-8 \
    --project my-project
  launch/tpu/create.sh --spot --dry-run    # the rest from the environment
END
  settings_help
}

# shellcheck source=launch/tpu/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

while [ $# -gt 0 ]; do
  take_setting "$@"
  if [ "$taken" = 0 ]; then unknown "$1"; fi
  shift "$taken"
done
need_type

if [ -n "$TPU_DRY_RUN" ]; then
  request_slice
  exit 0
fi
told=''
while :; do
  state=$(slice_state) || fail 'the cloud could not be asked: see above.'
  case $state in
    ready*) break ;;
    absent*) request_slice || fail "the slice $TPU_NAME was not granted: see above." ;;
    waiting*)
      if [ "$state" != "$told" ]; then say "Waiting for $TPU_NAME (${state#* }) ..."; fi
      told=$state
      sleep "$TPU_POLL_SECONDS"
      ;;
    *) fail "the slice $TPU_NAME is ${state#* }, which does not mend itself: run launch/tpu/teardown.sh, then this again." ;;
  esac
done
say "The slice $TPU_NAME is ready."
