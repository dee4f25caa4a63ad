# shellcheck shell=bash
# What the scripts in this folder share. Sourced by them, never run.

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
state=$root/.uv # git-ignored: the private uv, the lock file and the log
log=$state/setup.log
wanted_python=$(cat "$root/.python-version") # like 3.12

say() { printf '%s\n' "$*"; }

# Ends the script with one line on stderr.
fail() {
  printf 'score_jax: %s\n' "$*" >&2
  exit 1
}

# Makes $state and an empty log. A file system that takes no more data may
# still let an empty file be made, so this writes some.
open_log() {
  if ! { mkdir -p "$state" && printf '%s\n' "$(date)" >"$log"; } 2>/dev/null; then
    fail "cannot write in $root: free some disk space or make the folder writable, then run this again."
  fi
}

# Runs a command with all that it prints going to the log.
logged() { "$@" >>"$log" 2>&1 </dev/null; }

log_says() { grep -Eiq "$1" "$log"; }

# Says in one line why the step named $1 failed and what mends it, from what
# the tools wrote to the log, and ends the script.
give_up() {
  local why
  # On a full disk the log itself may have stayed short: try a write as well.
  if log_says 'no space left|quota exceeded' ||
    ! { head -c 1000000 /dev/zero >"$state/probe"; } 2>/dev/null; then
    why='the disk is full: free about 8 GB here and in the cache folder of uv'
  elif [ -n "${UV_OFFLINE:-}" ]; then
    why='UV_OFFLINE is set and the cache of uv lacks what is needed: unset UV_OFFLINE'
  elif log_says 'hash mismatch|do not match the hashes'; then
    why='a package is not the one that the lock names: run "uv cache clean"; if that does not help, distrust the package index'
  elif log_says 'dns error|error sending request|failed to fetch|connect error|connection (refused|reset|broken)|newconnectionerror|network is unreachable|no route to host|timed out|name resolution|resolve host|from versions: none'; then
    why='the network cannot be reached: check the connection (and the proxy or index settings of uv and pip)'
  elif log_says 'permission denied|read-only file system'; then
    why="a folder is not writable: give yourself write access to $root and to the cache folder of uv"
  else
    why=$(grep -Ei '^error' "$log" | tail -n 1 | cut -c 1-200) || true
    why="${why:-an error of a kind not foreseen}: mend what the log tells of"
  fi
  rm -f "$state/probe" 2>/dev/null
  fail "$1 failed: $why, then run this again (log: $log)."
}

# Prints the folder of each Python that pyenv has made: they are on PATH only
# by way of shims, which refuse to run versions that are not switched on.
pyenv_pythons() {
  ls -d "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.*/bin/python3 2>/dev/null
}

# Sets $uv to the uv on PATH if it is new enough, else to a private one, which
# is installed first where there is none.
find_uv() {
  for uv in uv "$state/venv/bin/uv" "$state/pip/bin/uv"; do
    if new_enough_uv "$uv"; then return; fi
  done
  install_uv
}

new_enough_uv() {
  local version
  version=$("$1" --version 2>/dev/null) || return 1
  [[ $version =~ ^uv\ ([0-9]+)\.([0-9]+) ]] || return 1
  ((BASH_REMATCH[1] > 0 || BASH_REMATCH[2] >= 6))
}

install_uv() {
  local python found='' lock=$root/launch/requirements-uv.txt
  local IFS=$'\n' # the paths may contain spaces
  for python in "python$wanted_python" python3 python $(pyenv_pythons); do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null; then
      found=$python
      break
    fi
  done
  if [ -z "$found" ]; then
    fail "neither uv nor Python 3.8 or newer was found: install uv, or Python $wanted_python, then run this again."
  fi
  rm -rf "$state/venv" "$state/pip"
  if logged "$found" -m venv "$state/venv" &&
    logged "$state/venv/bin/python" -m pip install --require-hashes -r "$lock" &&
    new_enough_uv "$state/venv/bin/uv"; then
    uv=$state/venv/bin/uv
  # Some systems ship Python's venv module without the pip that it installs.
  elif logged "$found" -m pip install --target "$state/pip" --require-hashes -r "$lock" &&
    new_enough_uv "$state/pip/bin/uv"; then
    uv=$state/pip/bin/uv
  else
    give_up 'installing uv'
  fi
}
