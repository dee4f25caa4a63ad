#!/usr/bin/env bash
# Puts the project on all workers of a slice. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/setup.sh [--help] [SETTING ...]

Copies a commit of this checkout (git archive) to score_jax in the home folder
of every worker, and runs launch/setup.sh for TPUs there. Run again, it replaces
what is there, but for the environment and runs/. Refused (exit code 3) while a
run goes on there.

For slices of several workers gcloud wants its key in the ssh agent:
  ssh-add ~/.ssh/google_compute_engine

Examples:
  launch/tpu/setup.sh
  launch/tpu/setup.sh --commit HEAD~1
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
pin_commit

say "Sending commit $TPU_COMMIT to all workers of $TPU_NAME ..."
archive=$scratch/checkout.tar.gz
git -C "$root" archive --format=tar.gz --output="$archive" "$TPU_COMMIT"

code=0
on_workers all 'mkdir -p -m 700 score_jax score_jax_runs && if [ -e score_jax/launch/tpu/worker.sh ]; then bash score_jax/launch/tpu/worker.sh idle; fi' ||
  code=$?
if [ "$code" -eq 3 ]; then
  printf 'score_jax: a run goes on on %s: wait for it (launch/tpu/status.sh), or tear the slice down.\n' "$TPU_NAME" >&2
  exit 3
fi
[ "$code" -eq 0 ] || fail "the workers of $TPU_NAME could not be prepared: see above, then run this again."
send_to_workers "$archive" score_jax_runs || fail 'copying to the workers failed: see above, then run this again.'
# The three that stay are git-ignored; all else comes with the archive.
on_workers all 'cd score_jax && find . -mindepth 1 -maxdepth 1 ! -name .venv ! -name .uv ! -name runs -exec rm -rf {} + && tar -xzf ../score_jax_runs/checkout.tar.gz && SCORE_JAX_ACCELERATOR=tpu ./launch/setup.sh' ||
  fail 'setting the workers up failed: see above, then run this again.'
if [ -z "$TPU_DRY_RUN" ]; then say "All workers of $TPU_NAME are set up."; fi
