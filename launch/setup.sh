#!/usr/bin/env bash
# Makes the project's private Python environment, .venv. See usage() below.
set -euo pipefail

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: launch/setup.sh [--help]

Makes the private environment .venv in the project's root: Python 3.12 and the
packages that requirements.txt names, each checked against its hash. Needs no
root rights. The first time takes some minutes, most of them for downloads
(about 1 GB); when all is in place already it takes less than a second. A
set-up that was cut short is mended by the next one.

Uses uv and Python 3.12 if you have them, and fetches what is missing.

  SCORE_JAX_ACCELERATOR=cpu|tpu|gpu   what JAX runs on; the choice is kept
                                      until another is made (at first: cpu).
                                      tpu and gpu (CUDA 13) need Linux.

Examples:
  launch/setup.sh && . .venv/bin/activate
  SCORE_JAX_ACCELERATOR=tpu launch/setup.sh
END
}

case ${1:-} in
  '') ;;
  -h | --help)
    usage
    exit 0
    ;;
  *) fail "unknown argument '$1': see launch/setup.sh --help." ;;
esac

venv=$root/.venv
python=$venv/bin/python
stamp=$venv/.score_jax_stamp     # there if, and only if, .venv is complete
unfinished=$state/unfinished     # there while packages are being put in place
chosen=$state/accelerator        # the choice of the last set-up

accelerator=${SCORE_JAX_ACCELERATOR:-$(cat "$chosen" 2>/dev/null || echo cpu)}
requirements=("$root/requirements.txt")
case $accelerator in
  cpu) ;;
  tpu | gpu)
    [ "$(uname -s)" = Linux ] || fail "SCORE_JAX_ACCELERATOR=$accelerator needs Linux: use cpu here."
    requirements+=("$root/launch/requirements-$accelerator.txt")
    ;;
  *) fail "SCORE_JAX_ACCELERATOR is '$accelerator': set it to cpu, tpu or gpu." ;;
esac

# What the stamp of a finished set-up says: the interpreter and the locks.
state_of_things() {
  "$python" -c 'import sys; print(sys.version, sys.prefix != sys.base_prefix)' 2>/dev/null &&
    cat "${requirements[@]}" | { sha256sum || shasum -a 256 || cksum; } 2>/dev/null
}

is_done() { [ -f "$stamp" ] && [ "$(state_of_things)" = "$(cat "$stamp")" ]; }

# Does .venv hold an environment of the wanted Python that can be updated in
# place? One whose last update was cut short cannot: a package half in place
# looks the same as a whole one.
is_usable() {
  [ ! -e "$unfinished" ] &&
    "$python" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix or "%d.%d" % sys.version_info[:2] != sys.argv[1])' \
      "$wanted_python" 2>/dev/null
}

# Prints the path of an interpreter of the wanted version, or else the version
# alone, for uv to fetch one. Trying them beats asking uv, which stops at the
# first that does not start (as pyenv's shims may not).
pick_python() {
  local candidate IFS=$'\n'
  for candidate in "python$wanted_python" python3 python $(pyenv_pythons); do
    if "$candidate" -c 'import sys; print(sys._base_executable) if "%d.%d" % sys.version_info[:2] == sys.argv[1] else sys.exit(1)' \
      "$wanted_python" 2>/dev/null; then
      return
    fi
  done
  "$uv" python find --no-python-downloads "$wanted_python" 2>/dev/null || echo "$wanted_python"
}

if is_done; then exit 0; fi

open_log
if command -v flock >/dev/null; then
  exec 9>"$state/lock"
  locked=0
  flock -n 9 || locked=$?
  case $locked in
    0) ;;
    1)
      say 'Another set-up is at work in this folder; waiting for it ...'
      flock 9
      if is_done; then exit 0; fi
      open_log
      ;;
    *) say 'This folder cannot be locked; see that no other set-up is at work in it.' ;;
  esac
fi

say "Setting up the Python environment in .venv ($accelerator); the first time takes some minutes ..."
started=$SECONDS
# These settings of uv would send the packages elsewhere.
unset UV_SYSTEM_PYTHON UV_BREAK_SYSTEM_PACKAGES UV_TARGET UV_PREFIX
cd "$root"
find_uv

usable=yes
is_usable || usable=no
: >"$unfinished"
rm -f "$stamp"
if [ "$usable" = no ]; then
  logged rm -rf "$venv" || give_up 'clearing the old environment away'
  base=$(pick_python)
  logged "$uv" venv --no-project --python "$base" "$venv" ||
    if [ "$base" = "$wanted_python" ]; then
      give_up "no Python $wanted_python was found here (installing one mends this too), and fetching it"
    else
      give_up "making an environment from $base"
    fi
fi

# Packages that have to be built are built with what requirements.txt names, so
# that the hashes cover this as well.
logged "$uv" pip sync --require-hashes --build-constraints requirements.txt \
  --python "$python" "${requirements[@]}" || give_up 'installing the packages'

{
  printf '%s\n' "$accelerator" >"$chosen" &&
    state_of_things >"$stamp.new" &&
    rm "$unfinished" &&
    mv "$stamp.new" "$stamp"
} 2>>"$log" || give_up 'finishing'
say "The environment is ready ($((SECONDS - started)) s)."
