# shellcheck shell=bash
# What the scripts in this folder share. Sourced by them, never run.

here=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=launch/common.sh
. "$here/../common.sh"
# shellcheck source=launch/tpu/provision.sh
. "$here/provision.sh"

me=launch/tpu/$(basename "$0")
# Exported: the scripts call one another.
export TPU_NAME=${TPU_NAME:-} TPU_ZONE=${TPU_ZONE:-} TPU_TYPE=${TPU_TYPE:-} TPU_VERSION=${TPU_VERSION:-}
export PROJECT=${PROJECT:-} TPU_SPOT=${TPU_SPOT:-} TPU_DIRECT=${TPU_DIRECT:-}
export TPU_COMMIT=${TPU_COMMIT:-} TPU_DRY_RUN=${TPU_DRY_RUN:-}
export TPU_POLL_SECONDS=${TPU_POLL_SECONDS:-30} TPU_BACKOFF_SECONDS=${TPU_BACKOFF_SECONDS:-30}
run=train # the name of a run; its files on the workers lie in score_jax_runs/$run

umask 077 # the scratch folder may hold what is secret
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
exec 3>&1 # where a dry run speaks, also from within $(...)

# Ends the script over what no second try would mend.
misuse() {
  printf 'score_jax: %s\n' "$*" >&2
  exit 2
}

settings_help() {
  cat <<'END'

  --name NAME        TPU_NAME     what the slice is called
  --zone ZONE        TPU_ZONE     like us-east5-b
  --project PROJECT  PROJECT      the Google Cloud project that pays
  --type TYPE        TPU_TYPE     like v5litepod-16 or v6e-8; to create a slice
  --version VERSION  TPU_VERSION  its runtime, if not the usual one of the type
  --spot             TPU_SPOT     cheaper, and may be taken away at any time
  --direct           TPU_DIRECT   without a queue: now, or not at all
  --commit COMMIT    TPU_COMMIT   what of this checkout goes to the workers
                                  (HEAD, where nothing is left uncommitted)
  --dry-run          TPU_DRY_RUN  say what would be done, and call nothing

A setting is a flag, or the variable beside it in the environment.
END
}

# Sets $value to that of the option in front, --option VALUE or --option=VALUE,
# and $taken to how many words that took.
take_value() {
  case $1 in
    *=*)
      value=${1#*=}
      taken=1
      ;;
    *)
      if [ $# -lt 2 ]; then misuse "$1 needs a value: see $me --help."; fi
      value=$2
      taken=2
      ;;
  esac
}

# Reads a setting from the front of the arguments. Sets $taken to how many words
# that took: 0 where something else stands there.
# shellcheck disable=SC2034 # the callers read it
take_setting() {
  taken=1
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --dry-run) TPU_DRY_RUN=yes ;;
    --spot) TPU_SPOT=yes ;;
    --direct) TPU_DIRECT=yes ;;
    --name | --name=*) take_value "$@" && TPU_NAME=$value ;;
    --zone | --zone=*) take_value "$@" && TPU_ZONE=$value ;;
    --project | --project=*) take_value "$@" && PROJECT=$value ;;
    --type | --type=*) take_value "$@" && TPU_TYPE=$value ;;
    --version | --version=*) take_value "$@" && TPU_VERSION=$value ;;
    --commit | --commit=*) take_value "$@" && TPU_COMMIT=$value ;;
    *) taken=0 ;;
  esac
}

unknown() { misuse "unknown argument '$1': see $me --help."; }

# need SETTING...: ends the script unless each is set, and to something likely.
need() {
  local name flag pattern
  for name in "$@"; do
    flag=$(printf '%s' "${name#TPU_}" | tr '[:upper:]' '[:lower:]')
    pattern=setting_$name
    if [ -z "${!name}" ]; then
      misuse "$name is not set: give --$flag, or set $name in the environment (see $me --help)."
    elif ! [[ ${!name} =~ ${!pattern} ]]; then
      misuse "$name is '${!name}', which cannot be right: see $me --help."
    fi
  done
}

need_slice() {
  need TPU_NAME TPU_ZONE PROJECT
  need_cloud
}

# Also what a new slice is made from.
need_type() {
  need_slice
  need TPU_TYPE
  TPU_VERSION=${TPU_VERSION:-$(usual_version)}
  need TPU_VERSION
}

# The name of a run becomes part of paths and of remote command lines.
need_run() {
  if ! [[ $run =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]]; then
    misuse "--run is '$run': use letters, digits and . _ - only, beginning with a letter or digit."
  fi
}

# Sets TPU_COMMIT to the commit that goes to the workers, once and for all: a
# slice made anew in the night gets the same code.
pin_commit() {
  local changed
  if ! git -C "$root" rev-parse --verify --quiet HEAD >/dev/null; then
    misuse "$root is no git checkout: clone the project with git, as what goes to the workers is a commit."
  fi
  if [ -z "$TPU_COMMIT" ]; then
    changed=$(git -C "$root" status --porcelain | head -n 1)
    if [ -n "$changed" ]; then
      misuse "there are uncommitted changes ('$changed'): commit them, or give --commit HEAD to send what is committed."
    fi
    TPU_COMMIT=HEAD
  fi
  # A ref never begins with a dash, but an option of git does.
  if [[ $TPU_COMMIT = -* ]] || ! TPU_COMMIT=$(git -C "$root" rev-parse --verify --quiet "$TPU_COMMIT^{commit}"); then
    misuse "--commit names no commit of $root: see git log."
  fi
}

# on_all WORD...: launch/tpu/worker.sh WORD... on all workers. The words are
# this project's own, without anything that a shell would read otherwise.
on_all() { on_workers all "bash score_jax/launch/tpu/worker.sh $*"; }
