#!/usr/bin/env bash
# From a fresh checkout to a trained model and a report. See usage() below.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/quickstart.sh [--help] [--workdir DIR] [ARGUMENT ...]

Sets the environment up (launch/setup.sh), then trains a small model to correct
its own answers, evaluates it and writes a report, all on the CPU if need be.
Takes 9 to 13 minutes on 2 cores, besides the set-up. Run it again to go on
after an interruption: what is done already is kept, but for a pre-training
that was cut short.

  --workdir DIR   where the run is kept (runs/quickstart in the project)
  ARGUMENT        passed on to each of the four steps: python -m score_jax
                  train, evaluate, report and summary (like --config.seed=1)

Examples:
  launch/quickstart.sh
  launch/quickstart.sh --workdir runs/seed1 --config.seed=1
  SCORE_JAX_ACCELERATOR=gpu launch/quickstart.sh
END
}

caller=$PWD
CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.."
workdir=runs/quickstart
arguments=(--config=configs/quickstart.py)

while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit 0
      ;;
    --workdir)
      if [ $# -lt 2 ]; then
        echo 'score_jax: --workdir needs a folder: see launch/quickstart.sh --help.' >&2
        exit 2
      fi
      workdir=$2
      shift
      ;;
    --workdir=*) workdir=${1#*=} ;;
    *)
      arguments+=("$1")
      shift
      continue
      ;;
  esac
  # What the caller names is relative to where the caller is.
  case $workdir in
    \~/*) workdir=$HOME/${workdir#*/} ;;
    /* | *://*) ;;
    *) workdir=$caller/$workdir ;;
  esac
  shift
done

# step NAME WHAT-IT-DOES
step() {
  local status=0
  printf '\n== %s\n' "$2"
  .venv/bin/python -m score_jax "$1" "${arguments[@]}" || status=$?
  [ "$status" -ne 2 ] || exit 2 # what is wrong, and the mend, has been said
  if [ "$status" -ne 0 ]; then
    echo "score_jax: the step '$1' ended early (status $status); run the same command again to go on." >&2
    exit "$status"
  fi
}

arguments+=("--workdir=$workdir")
echo 'SCoRe quickstart: set-up (the first time some minutes), then training, evaluation and report: 9 to 13 minutes on 2 cores.'
./launch/setup.sh
step train 'Training. A small model first learns riddles, and to check its answers (5 minutes of 2 cores), then, in
   two stages of reinforcement learning, to correct itself at a second attempt (4 minutes).'
step evaluate 'Evaluating: two answers to 1,056 new riddles, before and after (half a minute).'
step report 'Writing the report: curves, intervals, and every pair of answers.'
step summary 'What came out.'

case $workdir in
  /* | *://*) report=$workdir/report.html ;;
  *) report=$PWD/$workdir/report.html ;;
esac
printf '\nDone. The report: %s\n' "$report"
