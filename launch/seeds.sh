#!/usr/bin/env bash
# SCoRe and its two baselines over several seeds, then the comparison. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/seeds.sh [--help] [FOLDER [SEED ...]]

Trains and evaluates SCoRe, naive multi-turn RL and single-turn RL for each
seed (0 1 2) into FOLDER/METHOD/SEED (runs/seeds), and prints the comparison.
A seed's three methods start from the same base model. Run it again to go on
after an interruption.

Examples:
  launch/seeds.sh
  launch/seeds.sh runs/more_seeds 3 4 5
END
}

caller=$PWD
CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=$PWD/runs/seeds
case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
  -*)
    echo "score_jax: unknown argument '$1': see launch/seeds.sh --help." >&2
    exit 2
    ;;
  '') ;;
  # What the caller names is relative to where the caller is.
  /* | *://*) folder=$1 ;;
  *) folder=$caller/$1 ;;
esac
shift || true
[ $# -gt 0 ] || set -- 0 1 2

./launch/setup.sh
for seed in "$@"; do
  for method in score multi_turn single_turn; do
    case $method in
      score) config=configs/quickstart.py ;;
      *) config=configs/quickstart_$method.py ;;
    esac
    for command in train evaluate; do
      printf '\n== %s, seed %s: %s\n' "$method" "$seed" "$command"
      .venv/bin/python -m score_jax "$command" --config="$config" --workdir="$folder/$method/$seed" \
        --config.seed="$seed" --config.base_dir="$folder/base-$seed"
    done
  done
done
.venv/bin/python -m score_jax compare --workdir="$folder"
