#!/usr/bin/env bash
# Checks the style, then runs the tests. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/test.sh [--help] [PYTEST ARGUMENT ...]

Sets the environment up (launch/setup.sh), checks the style with ruff, then
runs the tests. Paths among the arguments are relative to the project's root.

  SCORE_JAX_TEST_PROCESSES=N   how many processes the tests run in (2)

Examples:
  launch/test.sh                # everything
  launch/test.sh -k sampling    # those with this in their name
  launch/test.sh -n 0 -x tests/test_launch.py
END
}

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.."
./launch/setup.sh
.venv/bin/python -m ruff check
.venv/bin/python -m ruff format --check
# The tests start some hundred Pythons, each of which would compile what it imports anew.
unset PYTHONDONTWRITEBYTECODE
# A file's tests stay in one process, which shares what it has compiled.
exec .venv/bin/python -m pytest \
  --numprocesses="${SCORE_JAX_TEST_PROCESSES:-2}" --dist=loadfile --no-loadscope-reorder "$@"
