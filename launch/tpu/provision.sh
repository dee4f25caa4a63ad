# shellcheck shell=bash
# The one file that knows the cloud: each call of gcloud stands here, and no
# other script names it. For another backend, replace the functions below that
# have a comment; the scripts call nothing else of this file.
#
# Written from the reference and the source of gcloud 528, which takes all these
# flags, and tested against a stand-in (tests/launch): nobody has run it against
# the real cloud yet.
#
# The Cloud TPU API takes fixes only since 2026, and knows no TPU newer than
# v6e; for those there is launch/gke, a template.
#
# From gcloud's source:
#  - With --worker=all the workers' ssh processes share one stdin, so nothing is
#    ever piped to workers: files go by scp, and stdin is /dev/null.
#  - gcloud connects again, up to ten times, where ssh ends with 255: what is
#    run on the workers must bear being run twice.
#  - scp to several workers wants the key in the ssh agent; fetching is from one
#    worker at a time.
#  - --batch-size and --tunnel-through-iap exist in `gcloud alpha` only.

# What a value of each setting looks like; $setting_TPU_NAME and so on.
setting_TPU_NAME='^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$'
setting_TPU_ZONE='^[a-z]+-[a-z]+[0-9]+-[a-z]$'
setting_TPU_TYPE='^v[0-9][a-z0-9]*-[0-9]+$'
setting_TPU_VERSION='^[a-z0-9][-a-z0-9.]*$'
setting_PROJECT='^[a-z][-a-z0-9.:]*[a-z0-9]$'
# shellcheck disable=SC2034 # read by need() in common.sh, by way of its name
declare -r setting_TPU_NAME setting_TPU_ZONE setting_TPU_TYPE setting_TPU_VERSION setting_PROJECT

# Prints the runtime that suits JAX on $TPU_TYPE; nothing where none is known.
usual_version() {
  case $TPU_TYPE in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
  esac
}

# Ends the script where the cloud's own tool is missing.
need_cloud() {
  if [ -z "$TPU_DRY_RUN" ] && ! command -v gcloud >/dev/null; then
    fail 'gcloud was not found: install the Google Cloud CLI, then run this again.'
  fi
}

# Runs gcloud, or says what it would run.
cloud() {
  local words
  if [ -n "$TPU_DRY_RUN" ]; then
    printf -v words ' %q' gcloud "$@"
    say "would run:$words" >&3
    return
  fi
  gcloud "$@" </dev/null
}

# cloud_tpu KIND VERB ARGUMENT...: KIND is queued-resources or tpu-vm.
cloud_tpu() {
  local kind=$1 verb=$2
  shift 2
  cloud compute tpus "$kind" "$verb" "$@" "--zone=$TPU_ZONE" "--project=$PROJECT" --quiet
}

# described KIND FORMAT: prints what the cloud says of it, or absent.
described() {
  # shellcheck disable=SC2154 # $scratch is a folder that common.sh makes
  if cloud_tpu "$1" describe "$TPU_NAME" "--format=value($2)" 2>"$scratch/errors"; then return; fi
  if grep -q 'NOT_FOUND' "$scratch/errors"; then
    echo absent
  else
    cat "$scratch/errors" >&2
    return 1
  fi
}

# Prints how the slice is: one of absent, waiting, ready, lost (preempted or
# stopped; only a new one helps) or refused, a space, and the cloud's own word.
# Returns 1 where the cloud cannot be asked.
slice_state() {
  local state node
  state=$(described queued-resources state.state) || return 1
  # A queued resource that is ACTIVE may have lost its node; and there is none
  # where the node was made with --direct.
  if [ -z "$TPU_DRY_RUN" ] && [[ $state = ACTIVE || $state = absent ]]; then
    node=$(described tpu-vm state) || return 1
    if [ "$state $node" = 'ACTIVE absent' ]; then node=GONE; fi
    state=$node
  fi
  case ${state:-DRY_RUN} in
    absent) echo 'absent absent' ;;
    READY | DRY_RUN) echo "ready ${state:-unknown}" ;;
    FAILED) echo 'refused FAILED' ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING | STARTING | RESTARTING | REIMAGING | REPAIRING | UNHIDING)
      echo "waiting $state"
      ;;
    *) echo "lost $state" ;;
  esac
}

# Asks for a slice; it may be long before slice_state says ready.
request_slice() {
  local spot=()
  if [ -n "$TPU_SPOT" ]; then spot=(--spot); fi
  if [ -n "$TPU_DIRECT" ]; then
    cloud_tpu tpu-vm create "$TPU_NAME" "--accelerator-type=$TPU_TYPE" \
      "--version=$TPU_VERSION" ${spot[@]+"${spot[@]}"}
  else
    cloud_tpu queued-resources create "$TPU_NAME" "--node-id=$TPU_NAME" \
      "--accelerator-type=$TPU_TYPE" "--runtime-version=$TPU_VERSION" --async ${spot[@]+"${spot[@]}"}
  fi
}

# Deletes the queued resource and the node, whichever there are, and returns
# when they are gone.
delete_slice() {
  delete_kind queued-resources state.state --force && delete_kind tpu-vm state
}

delete_kind() {
  local kind=$1 format=$2 state
  shift 2
  state=$(described "$kind" "$format") || return 1
  while [ "$state" = DELETING ]; do
    sleep "$TPU_POLL_SECONDS"
    state=$(described "$kind" "$format") || return 1
  done
  if [ "$state" = absent ]; then return; fi
  if cloud_tpu "$kind" delete "$TPU_NAME" "$@" 2>"$scratch/errors"; then return; fi
  if grep -q 'NOT_FOUND' "$scratch/errors"; then return; fi # somebody was faster
  cat "$scratch/errors" >&2
  return 1
}

# Prints how many workers the slice has.
count_workers() {
  if [ -n "$TPU_DRY_RUN" ]; then echo 1; fi
  cloud_tpu tpu-vm describe "$TPU_NAME" '--format=value(networkEndpoints.len())'
}

# on_workers WORKER COMMAND: runs a line of bash in the home folder of a worker,
# or of `all` at once; returns the exit status of the first that failed.
on_workers() {
  cloud_tpu tpu-vm ssh "$TPU_NAME" "--worker=$1" "--command=$2" \
    --ssh-flag=-oConnectTimeout=20 --ssh-flag=-oServerAliveInterval=20
}

# send_to_workers PATH FOLDER: copies a file or folder into a folder that all
# workers have in their home. Keeps the mode.
send_to_workers() { cloud_tpu tpu-vm scp "$1" "$TPU_NAME:$2/" --recurse --worker=all; }

# receive_from_worker WORKER PATH HERE: copies a file or folder from one worker.
receive_from_worker() { cloud_tpu tpu-vm scp "$TPU_NAME:$2" "$3" --recurse "--worker=$1"; }

is_bucket() { [[ $1 = gs://* ]]; }

# Is there this object in a bucket? Ends the script where that cannot be told.
bucket_has() {
  local found
  found=$(cloud storage ls "$1" 2>"$scratch/errors") && [ -n "$found" ] && return
  if [ -n "$TPU_DRY_RUN" ] || grep -qi 'matched no objects' "$scratch/errors"; then return 1; fi
  cat "$scratch/errors" >&2
  fail "cannot look into $1: check the bucket's name and your rights, then run this again."
}

# receive_from_bucket FOLDER HERE: only what has changed is fetched.
receive_from_bucket() { cloud storage rsync "$1" "$2" --recursive; }
