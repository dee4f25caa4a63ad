#!/usr/bin/env bash
# Writes the locks that launch/setup.sh installs from. See usage() below.
set -euo pipefail

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The uv that launch/setup.sh installs where there is none.
uv_version=0.13.9

usage() {
  cat <<'END'
usage: launch/lock.sh [--help] [--upgrade | --upgrade-package NAME ...]

Resolves what pyproject.toml asks for and writes it, pinned and with hashes, to

  requirements.txt             the project and its tests
  launch/requirements-tpu.txt  what a TPU needs besides
  launch/requirements-gpu.txt  what a GPU needs besides
  launch/requirements-uv.txt   uv itself, for machines without it

Versions that are pinned already stay, unless the options say otherwise.

Examples:
  launch/lock.sh    # after pyproject.toml has changed
  launch/lock.sh --upgrade-package jax --upgrade-package jaxlib
END
}

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

open_log
cd "$root"
find_uv

# compile OUTPUT ARGUMENT...
compile() {
  local output=$1
  shift
  "$uv" pip compile --quiet --universal --python-version "$wanted_python" --generate-hashes \
    --custom-compile-command ./launch/lock.sh --output-file "$output" "$@"
}

compile requirements.txt --extra test pyproject.toml "$@"

# The accelerators' packages are locked on top of requirements.txt: that one
# holds every version that both need, so the two files are installed together.
known=()
while read -r name; do
  known+=(--no-emit-package "$name")
done < <(grep -oE '^[A-Za-z0-9._-]+' requirements.txt | sort -u)
for accelerator in tpu gpu; do
  output=launch/requirements-$accelerator.txt
  compile "$output" --extra test --extra "$accelerator" --constraint requirements.txt \
    "${known[@]}" pyproject.toml "$@"
  # uv ends with a list of what it left out.
  sed '/^# The following packages were excluded/,$d' "$output" >"$output.new"
  mv "$output.new" "$output"
done

echo "uv==$uv_version" | compile launch/requirements-uv.txt - "$@"
# The markers are about the project: whichever Python there is may install uv.
sed 's/^\(uv==[^ ]*\) ;.*/\1 \\/' launch/requirements-uv.txt >launch/requirements-uv.txt.new
mv launch/requirements-uv.txt.new launch/requirements-uv.txt
