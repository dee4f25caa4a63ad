#!/usr/bin/env bash
# Fetches the TPU's compiler for machines without TPUs. See usage() below.
set -euo pipefail

# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
usage: launch/libtpu.sh [--help]

Puts libtpu, with which `python -m score_jax plan` compiles for TPUs that are
not there, into the folder .uv/libtpu: 640 MB, Linux, checked against its hash.
It stays outside of .venv, where JAX would look for TPUs at every start. When
it is in place already nothing is done.

Examples:
  launch/libtpu.sh
  .venv/bin/python -m score_jax plan --topology=v5e:2x2 \
    --config=configs/quickstart.py
END
}

case ${1:-} in
  '') ;;
  -h | --help)
    usage
    exit 0
    ;;
  *) fail "unknown argument '$1': see launch/libtpu.sh --help." ;;
esac

[ "$(uname -s)" = Linux ] || fail 'libtpu is there for Linux alone.'
lock=$root/launch/requirements-tpu.txt
folder=$state/libtpu
stamp=$folder/.score_jax_stamp # the lock that the folder was made from
if cmp -s "$lock" "$stamp"; then exit 0; fi

"$root/launch/setup.sh"
open_log
find_uv
say 'Fetching libtpu (640 MB) ...'
rm -rf "$folder"
logged "$uv" pip install --no-deps --require-hashes --target "$folder" \
  --python "$root/.venv/bin/python" -r "$lock" || give_up 'fetching libtpu'
cp "$lock" "$stamp"
say "libtpu is in $folder."
