#!/usr/bin/env bash
# A sweep, one slice per point. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/tpu/sweep.sh [--help] [SETTING ...] [OPTION ...] --config FILE --workdir gs://...

Trains and evaluates each point of a sweep (configs/sweeps/) on a slice of its
own, by launch/tpu/train.sh --watch, into WORKDIR/POINT; then deletes the slice.
The slices are called NAME-pNUMBER, by a checksum of the point's name. Stopped,
the same command goes on; points that have results.json there are done.

  --jobs N         how many slices at a time (1)
  --only POINT     this point alone
  --retries N      for each point, see launch/tpu/train.sh (10)
  --env-file FILE  see launch/tpu/train.sh
  --teardown       delete the slices of all points, and do nothing else; after
                   an interruption they are still there, and cost

The logs of points lie in runs/sweep_logs/POINT. Afterwards, in the project:
  launch/tpu/fetch.sh WORKDIR runs/sweep
  python -m score_jax report --workdir=runs/sweep

Examples:
  launch/tpu/sweep.sh --jobs 2 --spot --config configs/sweeps/alpha_beta_2.py \
    --workdir gs://BUCKET/sweep
  launch/tpu/sweep.sh --teardown --config configs/sweeps/alpha_beta_2.py \
    --workdir gs://BUCKET/sweep
END
  settings_help
}

# shellcheck source=launch/tpu/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

config=''
workdir=''
jobs=1
only=''
tearing=''
options=()
while [ $# -gt 0 ]; do
  taken=1
  case $1 in
    --config | --config=*) take_value "$@" && config=$value ;;
    --workdir | --workdir=*) take_value "$@" && workdir=${value%/} ;;
    --jobs | --jobs=*) take_value "$@" && jobs=$value ;;
    --only | --only=*) take_value "$@" && only=$value ;;
    --retries | --retries=*) take_value "$@" && options+=("--retries=$value") ;;
    --env-file | --env-file=*) take_value "$@" && options+=("--env-file=$value") ;;
    --teardown) tearing=yes ;;
    *)
      take_setting "$@"
      if [ "$taken" = 0 ]; then unknown "$1"; fi
      ;;
  esac
  shift "$taken"
done
if [ -z "$config" ]; then misuse "--config is missing: name a sweep, like configs/sweeps/alpha_beta_2.py."; fi
if ! is_bucket "$workdir"; then misuse '--workdir wants a folder in a bucket, gs://...: the slices do not stay.'; fi
if ! [[ $jobs =~ ^[1-9][0-9]*$ ]]; then misuse "--jobs is '$jobs': give a whole number, from 1."; fi
need_type
base=$TPU_NAME
if [ "${#base}" -gt 50 ]; then misuse "the name '$base' is too long for a sweep: take 50 letters at most."; fi
if [ -z "$tearing" ]; then pin_commit; fi

python=$root/.venv/bin/python
if ! [ -x "$python" ]; then misuse 'the points are worked out here, and there is no environment: run launch/setup.sh.'; fi
# Each line: the point's name, a tab, and a JSON list of its arguments.
points=$(cd "$root" && "$python" -m score_jax sweep "--config=$config" "--workdir=$workdir" --list) || exit

while IFS=$'\t' read -r name list; do
  if ! [[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._=,+-]*$ && -n $list ]]; then
    fail "the sweep lists the point '$name' $list, which is no name and arguments."
  fi
done <<<"$points"

# Reads a JSON list from stdin, and prints its items, each ended by a NUL byte.
items() {
  "$python" -c 'import json, sys; [sys.stdout.buffer.write(item.encode() + b"\0") for item in json.load(sys.stdin)]'
}

# do_point NAME JSON: 0 where the point is done.
do_point() {
  local name=$1 arguments=() word code=0
  if bucket_has "$workdir/$name/results.json"; then
    say 'done already.'
    return
  fi
  while IFS= read -r -d '' word; do arguments+=("$word"); done < <(items <<<"$2")
  "$here/train.sh" --watch --run=point --steps=train,evaluate ${options[@]+"${options[@]}"} \
    -- ${arguments[@]+"${arguments[@]}"} "--workdir=$workdir/$name" || code=$?
  if [ -z "$TPU_DRY_RUN" ]; then mkdir -p "$root/runs"; fi
  "$here/logs.sh" --run=point --all "$root/runs/sweep_logs/$name" || say 'its logs could not be fetched.'
  "$here/teardown.sh" || code=1
  return "$code"
}

one_of_them() {
  scratch=$scratch/$1 # as others run at the same time
  mkdir "$scratch"
  TPU_NAME=$base-p$(printf '%s' "$1" | cksum | cut -d ' ' -f 1)
  if [ -n "$tearing" ]; then "$here/teardown.sh"; else do_point "$1" "$2"; fi
}

# The points' processes, each with a process group of its own, and their names.
set -m
pids=()
names=()
interrupted() {
  local pid
  trap '' INT TERM
  for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM -- "-$pid" 2>/dev/null || true; done
  printf 'score_jax: stopped. The runs go on by themselves; the same command watches them again, --teardown deletes the slices.\n' >&2
  exit 130
}
trap interrupted INT TERM
while IFS=$'\t' read -r name list; do
  if [ -n "$only" ] && [ "$only" != "$name" ]; then continue; fi
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do sleep 1; done
  (
    set -o pipefail
    { one_of_them "$name" "$list" 3>&1; } 2>&1 | while IFS= read -r line; do printf '%s: %s\n' "$name" "$line"; done
  ) </dev/null &
  pids+=("$!")
  names+=("$name")
done <<<"$points"
if [ "${#pids[@]}" -eq 0 ]; then misuse "there is no point '$only': see python -m score_jax sweep --list."; fi

failed=()
for i in "${!pids[@]}"; do
  wait "${pids[i]}" || failed+=("${names[i]}")
done
if [ "${#failed[@]}" -gt 0 ]; then
  fail "${#failed[@]} of ${#pids[@]} points have failed: ${failed[*]}. Run the same command again to go on."
fi
say "All ${#pids[@]} points are done."
