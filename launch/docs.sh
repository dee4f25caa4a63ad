#!/usr/bin/env bash
# The package's docstrings as web pages. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/docs.sh [--help] [FOLDER]

Sets the environment up (launch/setup.sh), then writes the package's docstrings
as web pages to FOLDER (build/docs). Open FOLDER/index.html.

Examples:
  launch/docs.sh
  launch/docs.sh /tmp/pages && python3 -m http.server --directory /tmp/pages
END
}

caller=$PWD
CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$PWD/build/docs
case ${1:-} in
  '') ;;
  -h | --help)
    usage
    exit 0
    ;;
  -*)
    echo "score_jax: unknown argument '$1': see launch/docs.sh --help." >&2
    exit 2
    ;;
  # What the caller names is relative to where the caller is.
  /*) folder=$1 ;;
  *) folder=$caller/$1 ;;
esac

./launch/setup.sh
TF_CPP_MIN_LOG_LEVEL=3 .venv/bin/python -m pdoc --docformat google --output-directory "$folder" score_jax
echo "The pages: $folder/index.html"
