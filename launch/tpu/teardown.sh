#!/usr/bin/env bash
# Deletes a slice. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/teardown.sh [--help] [SETTING ...]

Deletes a slice with all that is on its disks, and the queued resource it came
from. What is not there is no error. Buckets are left alone.

Examples:
  launch/tpu/teardown.sh
  launch/tpu/teardown.sh --name score --zone us-east5-b \
    --project my-project
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
need_slice
delete_slice || fail "the slice $TPU_NAME may still be there, and cost: see above, then run this again."
if [ -z "$TPU_DRY_RUN" ]; then say "The slice $TPU_NAME is gone."; fi
