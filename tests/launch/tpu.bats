#!/usr/bin/env bats
# launch/tpu against a stand-in for gcloud (tests/launch/gcloud), which runs what
# is meant for the workers in folders here, and a stand-in for their Python.
#
# Hostile words stand in single quotes as they are, and each test is a subshell:
# shellcheck disable=SC2016,SC2030,SC2031

bats_require_minimum_version 1.5.0

SCRIPTS='create setup train sweep status logs fetch teardown'

# Arguments that a shell would love to read otherwise.
HOSTILE=('plain' 'two words' '' ' ' $'a\ttab' $'new\nline\n' "it's" '"double"' '$HOME $(touch pwned) `touch pwned`'
  '\back\\slash\\end' '*' '~' ';touch pwned' '&& exit 1' '|cat' '#no comment' '!!' '-n' '--' '--help' '--dry-run'
  'ünïcödé ✓ 日本' $'\xff\xfe' '{a,b}' '%s%n' '--config.x=[1, "2"]' '$(exit 7)' $'trailing \\' '--worker=0')

setup_file() {
  local checkout=$BATS_FILE_TMPDIR/checkout here
  here=$BATS_TEST_DIRNAME
  mkdir -p "$checkout/launch"
  cp -R "$here/../../launch/." "$checkout/launch"
  cp "$here/../../.python-version" "$here/../../.gitignore" "$checkout"
  cp "$here/python" "$checkout/python"
  # Setting up a worker, in no time.
  cat >"$checkout/launch/setup.sh" <<'END'
#!/usr/bin/env bash
set -euo pipefail
mkdir -p .venv/bin
cp python .venv/bin/python
echo "$SCORE_JAX_ACCELERATOR" >>.venv/accelerators
END
  git -C "$checkout" init -q
  git -C "$checkout" add .
  git -C "$checkout" -c user.name=me -c user.email=me@here commit -q -m all
  # The Python of the caller, which lists the points of a sweep.
  mkdir -p "$checkout/.venv/bin"
  cat >"$checkout/.venv/bin/python" <<'END'
#!/usr/bin/env bash
if [ "$1" = -c ]; then exec python3 "$@"; fi
printf '%s\n' "$*" >>"$FAKE/lists"
cat "$FAKE/points"
END
  chmod +x "$checkout/.venv/bin/python"
}

setup() {
  checkout=$BATS_TEST_TMPDIR/'a checkout'
  cp -R "$BATS_FILE_TMPDIR/checkout" "$checkout"
  export FAKE=$BATS_TEST_TMPDIR/cloud
  mkdir "$FAKE" "$BATS_TEST_TMPDIR/bin" "$BATS_TEST_TMPDIR/elsewhere"
  echo 2 >"$FAKE/workers"
  ln -s "$BATS_TEST_DIRNAME/gcloud" "$BATS_TEST_TMPDIR/bin/gcloud"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
  export TPU_NAME=my-tpu TPU_ZONE=us-east5-b PROJECT=my-project TPU_TYPE=v6e-8
  export TPU_POLL_SECONDS=0.1 TPU_BACKOFF_SECONDS=0
  unset TPU_VERSION TPU_SPOT TPU_DIRECT TPU_COMMIT TPU_DRY_RUN
  cd "$BATS_TEST_TMPDIR/elsewhere" || return
}

teardown() {
  local file
  for file in "$FAKE"/home/*/score_jax_runs/*/pid; do
    if [ -e "$file" ]; then kill -KILL -- "-$(cat "$file")" 2>/dev/null || true; fi
  done
}

tpu() {
  local script=$1
  shift
  "$checkout/launch/tpu/$script.sh" "$@"
}

# Fails, saying what was printed.
complain() {
  printf '%s\n' "$1" "exit code $status; printed:" "$output" >&2
  return 1
}

# Did the last `run` end with this code, and print all of these?
ended() {
  local wanted=$1 part
  shift
  [ "$status" -eq "$wanted" ] || complain "the exit code is not $wanted"
  for part in "$@"; do
    [[ $output = *"$part"* ]] || complain "not printed: $part"
  done
}

calls() { cat "$FAKE/calls" 2>/dev/null || true; }

called() { calls | grep -qF -- "$1" || { calls >&2; complain "not called: $1"; }; }

count() { calls | grep -cF -- "$1" || true; }

slice() { tpu create >/dev/null && tpu setup >/dev/null && : >"$FAKE/calls"; }

runs_of() { echo "$FAKE/home/my-tpu-$1/score_jax_runs/${2:-train}"; }

# Waits until this holds, but not for ever.
until_it_holds() {
  local _
  for _ in {1..600}; do
    if "$@"; then return; fi
    sleep 0.1
  done
  echo "never true: $*" >&2
  return 1
}

has_ended() { [ -e "$(runs_of 0 "$@")/exit" ] && [ -e "$(runs_of 1 "$@")/exit" ]; }

ends() { until_it_holds has_ended "$@"; }

# Have so many slices been asked how the run on them is?
are_watched() { [ "$(calls | grep -F 'worker.sh\ status' | grep -o 'ssh my-tpu[-a-z0-9]*' | sort -u | wc -l)" -eq "$1" ]; }

# Lets the runs end whose plan is to wait.
go() { touch "$FAKE/go"; }

no_slice() { [ -z "$(find "$FAKE/qr" "$FAKE/node" "$FAKE/home" -mindepth 1)" ]; }

# ------------------------------------------------------------------- settings

@test "help works from anywhere, without settings, and calls nothing" {
  unset TPU_NAME TPU_ZONE PROJECT TPU_TYPE
  for script in $SCRIPTS; do
    run --separate-stderr tpu "$script" --help
    ended 0 "usage: launch/tpu/$script.sh" '--dry-run' TPU_NAME
    [ -z "$stderr" ]
  done
  run tpu worker --help
  ended 0 'usage: launch/tpu/worker.sh'
  [ -z "$(calls)" ]
}

@test "a missing setting is named with its flag and its variable" {
  for setting in TPU_NAME TPU_ZONE PROJECT TPU_TYPE; do
    for script in create setup status logs teardown train; do
      case $setting-$script in TPU_TYPE-create) ;; TPU_TYPE-*) continue ;; esac
      words=()
      if [ "$script" = train ]; then words=(-- --workdir=x); fi
      run env -u "$setting" "$checkout/launch/tpu/$script.sh" ${words[@]+"${words[@]}"}
      ended 2 "$setting is not set: give --"
      [ "${#lines[@]}" -eq 1 ]
    done
  done
  [ -z "$(calls)" ]
}

@test "a setting that cannot be right is refused before the cloud is asked" {
  for words in '--name=-rf' '--name=My_TPU' '--zone=us-east5' '--zone=x;y' '--project=a b' '--name='; do
    run tpu teardown "$words"
    ended 2 'launch/tpu/teardown.sh --help'
  done
  for words in '--type=v6e' '--type=8' '--version=--force'; do
    run tpu create "$words"
    ended 2 'launch/tpu/create.sh --help'
  done
  [ -z "$(calls)" ]
}

@test "an unknown argument, and an option without its value, are refused" {
  for script in create setup status logs teardown train sweep fetch; do
    run tpu "$script" --nonsense
    ended 2 "unknown argument '--nonsense'" "launch/tpu/$script.sh --help"
    run tpu "$script" --name
    ended 2 '--name needs a value'
  done
}

@test "without gcloud one line names the mend" {
  rm "$BATS_TEST_TMPDIR/bin/gcloud"
  mkdir "$BATS_TEST_TMPDIR/tools"
  for tool in bash cat dirname basename mktemp rm tr grep date; do
    ln -s "$(command -v "$tool")" "$BATS_TEST_TMPDIR/tools/$tool"
  done
  PATH=$BATS_TEST_TMPDIR/tools run tpu status
  ended 1 'install the Google Cloud CLI'
}

@test "no script but provision.sh runs gcloud" {
  run grep -lE '^ *([^#]*([;&|({!] *|then |do ))?gcloud ' "$checkout"/launch/tpu/*.sh
  [ "$output" = "$checkout/launch/tpu/provision.sh" ]
}

# -------------------------------------------------------- create and teardown

@test "create asks the queue and waits until the slice is ready" {
  printf '%s\n' WAITING_FOR_RESOURCES WAITING_FOR_RESOURCES PROVISIONING >"$FAKE/queue"
  sed -i 1i'ACCEPTED' "$FAKE/queue"
  run tpu create --spot
  ended 0 'Waiting for my-tpu (WAITING_FOR_RESOURCES)' '(PROVISIONING)' 'The slice my-tpu is ready.'
  [ "$(grep -c 'WAITING_FOR_RESOURCES' <<<"$output")" -eq 1 ]
  called 'queued-resources create my-tpu --node-id=my-tpu --accelerator-type=v6e-8 --runtime-version=v2-alpha-tpuv6e --async --spot --zone=us-east5-b --project=my-project --quiet'
}

@test "create --direct makes the node itself, without --spot unless asked" {
  run tpu create --direct --type=v5litepod-16 --version my-version
  ended 0 'is ready'
  called 'tpu-vm create my-tpu --accelerator-type=v5litepod-16 --version=my-version --zone=us-east5-b'
  [ "$(count spot)" -eq 0 ]
  [ "$(count 'queued-resources create')" -eq 0 ]
}

@test "each type has its usual runtime, and an unknown one asks for it" {
  while read -r type version; do
    run tpu create --dry-run --type="$type"
    ended 0 "version=$version "
  done <<'END'
v6e-8 v2-alpha-tpuv6e
v5p-8 v2-alpha-tpuv5
v5litepod-4 v2-alpha-tpuv5-lite
v4-8 tpu-ubuntu2204-base
v3-32 tpu-ubuntu2204-base
END
  run tpu create --type=v9-4
  ended 2 'TPU_VERSION is not set'
}

@test "create leaves a slice that is ready alone" {
  tpu create
  : >"$FAKE/calls"
  run tpu create
  ended 0 'is ready'
  [ "$(count create)" -eq 0 ]
}

@test "create names teardown where a slice was lost or refused" {
  tpu create
  for state in SUSPENDED SUSPENDING FAILED DELETING; do
    echo "$state" >"$FAKE/qr/my-tpu"
    run tpu create
    ended 1 "is $state" 'launch/tpu/teardown.sh'
  done
  # The queue may say ACTIVE of a node that is gone, or was taken away.
  echo ACTIVE >"$FAKE/qr/my-tpu"
  echo PREEMPTED >"$FAKE/node/my-tpu"
  run tpu create
  ended 1 'is PREEMPTED'
  rm "$FAKE/node/my-tpu"
  run tpu create
  ended 1 'is GONE'
}

@test "create does not take a refused question for an absent slice" {
  echo describe >"$FAKE/refuse"
  run tpu create
  ended 1 'PERMISSION_DENIED' 'the cloud could not be asked'
  [ "$(count create)" -eq 0 ]
}

@test "teardown deletes the queued resource and the node, and can be run again" {
  tpu create
  run tpu teardown
  ended 0 'The slice my-tpu is gone.'
  no_slice
  called 'queued-resources delete my-tpu --force'
  : >"$FAKE/calls"
  run tpu teardown
  ended 0 'The slice my-tpu is gone.'
  [ "$(count delete)" -eq 0 ]
}

@test "teardown deletes a node without a queued resource, and the reverse" {
  tpu create --direct
  run tpu teardown
  ended 0 'is gone'
  no_slice
  tpu create
  echo SUSPENDED >"$FAKE/qr/my-tpu"
  rm "$FAKE/node/my-tpu"
  run tpu teardown
  ended 0 'is gone'
  [ ! -e "$FAKE/qr/my-tpu" ]
}

@test "teardown says so where the slice may still be there" {
  tpu create
  echo delete >"$FAKE/refuse"
  run tpu teardown
  ended 1 'PERMISSION_DENIED' 'may still be there, and cost'
}

# ---------------------------------------------------------------------- setup

@test "setup puts the commit on all workers and sets each up for TPUs" {
  tpu create
  run tpu setup
  ended 0 "Sending commit $(git -C "$checkout" rev-parse HEAD)" 'All workers of my-tpu are set up.'
  for n in 0 1; do
    diff -r "$checkout/launch" "$FAKE/home/my-tpu-$n/score_jax/launch"
    [ "$(cat "$FAKE/home/my-tpu-$n/score_jax/.venv/accelerators")" = tpu ]
  done
}

@test "setup refuses uncommitted changes, unless told which commit" {
  tpu create
  echo new >"$checkout/new"
  run tpu setup
  ended 2 'uncommitted changes' '--commit HEAD'
  [ "$(count ssh)" -eq 0 ]
  run tpu setup --commit HEAD
  ended 0
  [ -e "$FAKE/home/my-tpu-1/score_jax/python" ]
  [ ! -e "$FAKE/home/my-tpu-1/score_jax/new" ]
  for commit in nonsense --all; do
    run tpu setup "--commit=$commit"
    ended 2 '--commit names no commit'
  done
}

@test "setup again removes what the commit has not, and keeps runs and environment" {
  slice
  home=$FAKE/home/my-tpu-1/score_jax
  mkdir -p "$home/runs/mine" "$home/old"
  run tpu setup
  ended 0
  [ -d "$home/runs/mine" ]
  [ ! -e "$home/old" ]
  [ "$(wc -l <"$home/.venv/accelerators")" -eq 2 ]
}

@test "setup is refused while a run goes on, with exit code 3" {
  slice
  echo 'sleep 60' >"$FAKE/plan"
  tpu train -- --workdir=x
  run tpu setup
  ended 3 'a run goes on on my-tpu'
  [ "$(count scp)" -eq 1 ] # that of train
}

@test "setup that fails on one worker fails" {
  tpu create
  mkdir -p "$FAKE/home/my-tpu-1/score_jax"
  chmod 500 "$FAKE/home/my-tpu-1"
  touch "$FAKE/home/my-tpu-1/probe" 2>/dev/null && {
    chmod 700 "$FAKE/home/my-tpu-1"
    # Root may write anywhere: a file in the way does it as well.
    touch "$FAKE/home/my-tpu-1/score_jax_runs"
  }
  run tpu setup
  ended 1 'the workers of my-tpu could not be prepared'
  chmod 700 "$FAKE/home/my-tpu-1"
}

# ---------------------------------------------------------------------- train

@test "hostile arguments arrive on all workers byte for byte" {
  slice
  run tpu train -- "${HOSTILE[@]}"
  ended 0 'is going on'
  ends
  printf '%s\0' -m score_jax train --hosts=auto "${HOSTILE[@]}" >"$BATS_TEST_TMPDIR/wanted"
  for n in 0 1; do
    cmp "$FAKE/home/my-tpu-$n/argv" "$BATS_TEST_TMPDIR/wanted"
    [ "$(cat "$(runs_of "$n")/exit")" = 0 ]
  done
  [ -z "$(find "$BATS_TEST_TMPDIR" -name pwned)" ]
  # One call starts all of them.
  [ "$(count 'worker.sh\ start')" -eq 1 ]
  called '--worker=all --command=bash\ score_jax/launch/tpu/worker.sh\ start\ train'
}

@test "a run goes on after train has returned, and status and logs tell of it" {
  slice
  echo 'sleep 60' >"$FAKE/plan"
  tpu train -- --workdir=x
  run tpu status
  ended 0 'slice my-tpu: READY' 'worker my-tpu-w-0 running' 'worker my-tpu-w-1 running'
  # It is no child of what started it, and holds no terminal.
  pid=$(cat "$(runs_of 1)/pid")
  [ "$(ps -o sid= -p "$pid" | tr -d ' ')" = "$pid" ]
  kill -KILL -- "-$pid"
  sleep 0.2
  run tpu status
  ended 0 'worker my-tpu-w-0 running' 'worker my-tpu-w-1 died'
}

@test "status gives the exit code of each worker" {
  slice
  run tpu status
  ended 0 'worker my-tpu-w-0 absent'
  echo 'exit 7' >"$FAKE/plan"
  tpu train --run other -- --workdir=x
  ends other
  run tpu status --run=other
  ended 0 'worker my-tpu-w-0 failed 7' 'worker my-tpu-w-1 failed 7'
  echo PREEMPTED >"$FAKE/node/my-tpu"
  run tpu status
  ended 0 'slice my-tpu: PREEMPTED'
}

@test "steps run one after another, until one fails" {
  slice
  tpu train --steps=train,evaluate -- --workdir=x
  ends
  sort "$FAKE/starts" | diff - <(printf '%s\n' 'evaluate 0' 'evaluate 1' 'train 0' 'train 1')
  rm "$FAKE/starts"
  echo 'exit 3' >"$FAKE/plan"
  tpu train --steps=train,evaluate -- --workdir=x
  ends
  sort "$FAKE/starts" | diff - <(printf '%s\n' 'train 0' 'train 1')
  run tpu train --steps 'train;x' -- --workdir=x
  ended 2 "--steps is 'train;x'"
}

@test "a second run is refused while one goes on" {
  slice
  echo 'sleep 60' >"$FAKE/plan"
  tpu train -- --workdir=x
  for name in train other; do
    run tpu train --run "$name" -- --workdir=y
    ended 1 'a run goes on on my-tpu already'
  done
  [ "$(wc -l <"$FAKE/starts")" -eq 2 ]
  [ -z "$(find "$FAKE/home" -name 'incoming-*')" ]
  run tr '\0' ' ' <"$(runs_of 0)/arguments"
  [ "$output" = '--workdir=x ' ]
}

@test "a start that ssh tries again happens once" {
  slice
  echo 'sleep 60' >"$FAKE/plan"
  echo 1 >"$FAKE/cut"
  run tpu train -- --workdir=x
  ended 0 'is going on'
  [ "$(count 'worker.sh\ start')" -eq 2 ]
  [ "$(wc -l <"$FAKE/starts")" -eq 2 ]
}

@test "secrets arrive, and are neither shown nor on a command line nor left behind" {
  slice
  printf '%s\n' '# mine' '' 'WANDB_API_KEY=s3cret $(x) "quoted" =' 'EMPTY=' >keys
  run tpu train --env-file keys -- --workdir=x
  ended 0
  [[ $output != *s3cret* ]]
  ends
  for n in 0 1; do
    tr '\0' '\n' <"$FAKE/home/my-tpu-$n/environ" | grep -qxF 'WANDB_API_KEY=s3cret $(x) "quoted" ='
    tr '\0' '\n' <"$FAKE/home/my-tpu-$n/environ" | grep -qxF 'EMPTY='
    [ "$(stat -c %a "$(runs_of "$n")")" = 700 ]
  done
  rm -f "$FAKE"/home/*/environ keys
  run grep -rl s3cret "$BATS_TEST_TMPDIR"
  [ -z "$output" ]
}

@test "secrets lie in files that only their owner may read" {
  slice
  echo 'KEY=s3cret' >keys
  cat >"$BATS_TEST_TMPDIR/bin/spy" <<'END'
#!/usr/bin/env bash
case " $* " in *' scp '*) find "$5" -printf '%m\n' >>"$FAKE/modes" ;; esac
exec "$REAL_GCLOUD" "$@"
END
  chmod +x "$BATS_TEST_TMPDIR/bin/spy"
  ln -sf spy "$BATS_TEST_TMPDIR/bin/gcloud"
  export REAL_GCLOUD=$BATS_TEST_DIRNAME/gcloud
  run tpu train --env-file=keys -- --workdir=x
  ended 0
  [ "$(sort -u "$FAKE/modes" | tr '\n' ' ')" = '600 700 ' ]
}

@test "a mistake in the file of secrets is told by its line, not by what it says" {
  printf '%s\n' 'GOOD=1' 's3cret without a name' >keys
  run tpu train --env-file keys -- --workdir=x
  ended 2 'line 2 of keys'
  [[ $output != *s3cret* ]]
  run tpu train --env-file absent -- --workdir=x
  ended 2 '--env-file absent cannot be read'
  [ -z "$(calls)" ]
}

@test "train wants arguments after --, and a name that is safe in paths" {
  run tpu train --run mine
  ended 2 'after -- come the arguments'
  for name in '' ../x 'a b' -x '$(x)'; do
    run tpu train "--run=$name" -- --workdir=x
    ended 2 "--run is '$name'"
  done
}

@test "train says what is missing on a slice that was not set up" {
  tpu create
  run tpu train -- --workdir=x
  ended 1 'launch/tpu/setup.sh'
}

# ---------------------------------------------------------------------- watch

@test "watch makes a slice, sets it up, and sees a run through" {
  run tpu train --watch --spot -- --workdir=gs://b/run
  ended 0 "The run 'train' has finished on all workers."
  [ "$(count 'queued-resources create')" -eq 1 ]
  [ "$(wc -l <"$FAKE/starts")" -eq 2 ]
}

@test "after a preemption watch deletes the slice, makes a new one, and goes on" {
  printf 'preempt\n' >"$FAKE/plan"
  run tpu train --watch --spot -- --workdir=gs://b/run 'two words'
  ended 0 'Retry 1 of 10' 'the slice is SUSPENDED' 'has finished'
  [[ $output != *'Retry 2'* ]]
  [ "$(count 'queued-resources create')" -eq 2 ]
  [ "$(count '--spot')" -eq 2 ]
  [ "$(count 'queued-resources delete my-tpu --force')" -eq 1 ]
  [ "$(wc -l <"$FAKE/starts")" -eq 4 ]
  printf '%s\0' -m score_jax train --hosts=auto --workdir=gs://b/run 'two words' | cmp - "$FAKE/home/my-tpu-1/argv"
}

@test "watch notices the preemption of a node made with --direct" {
  printf 'preempt\n' >"$FAKE/plan"
  run tpu train --watch --direct --spot -- --workdir=gs://b/run
  ended 0 'the slice is PREEMPTED' 'has finished'
  [ "$(count 'tpu-vm create my-tpu')" -eq 2 ]
  [ "$(count 'tpu-vm delete my-tpu')" -eq 1 ]
}

@test "after a preemption the same commit goes to the new slice" {
  printf 'preempt\n' >"$FAKE/plan"
  first=$(git -C "$checkout" rev-parse HEAD)
  tpu create
  (sleep 0.1; until grep -q setup.sh "$FAKE/calls"; do sleep 0.05; done; echo more >"$checkout/more") &
  run tpu train --watch -- --workdir=gs://b/run
  wait
  ended 0 'has finished'
  [ "$(grep -c "Sending commit $first" <<<"$output")" -eq 2 ]
}

@test "watch gives up after its retries, with the reason and a code that is not 0" {
  printf 'exit 1\nexit 1\nexit 1\nexit 1\n' >"$FAKE/plan"
  run tpu train --watch --retries 2 -- --workdir=gs://b/run
  ended 1 'Retry 1 of 2' 'Retry 2 of 2' 'gave up after 2 retries' 'failed 1' 'launch/tpu/teardown.sh'
  [ "$(wc -l <"$FAKE/starts")" -eq 6 ]
  # The slice was good, and stays.
  [ "$(count 'queued-resources create')" -eq 1 ]
  [ "$(cat "$FAKE/node/my-tpu")" = READY ]
}

@test "watch gives up on a slice that is never granted" {
  echo create >"$FAKE/refuse"
  run tpu train --watch --retries=3 -- --workdir=gs://b/run
  ended 1 'gave up after 3 retries: the slice could not be made or set up'
  [ "$(count 'queued-resources create')" -eq 4 ]
}

@test "the pause before a retry doubles" {
  printf 'exit 1\nexit 1\n' >"$FAKE/plan"
  printf '#!/bin/sh\ncase $1 in 0.1) exec /bin/sleep 0.1 ;; *) echo "$1" >>"$FAKE/pauses" ;; esac\n' >"$BATS_TEST_TMPDIR/bin/sleep"
  chmod +x "$BATS_TEST_TMPDIR/bin/sleep"
  TPU_BACKOFF_SECONDS=500 run tpu train --watch --retries 2 -- --workdir=gs://b/run
  ended 0 'has finished'
  [ "$(tr '\n' ' ' <"$FAKE/pauses")" = '500 900 ' ]
}

@test "a mistake in the config, exit code 2, is never tried again" {
  printf 'exit 2\n' >"$FAKE/plan"
  run tpu train --watch -- --workdir=gs://b/run
  ended 2 'is not tried again' 'exit code 2' 'launch/tpu/logs.sh'
  [ "$(wc -l <"$FAKE/starts")" -eq 2 ]
}

@test "where one worker fails the others are stopped, and all start again" {
  printf 'alone 1\n' >"$FAKE/plan"
  run tpu train --watch -- --workdir=gs://b/run
  ended 0 'my-tpu-w-1 failed 1' 'has finished'
  called 'worker.sh\ stop\ train'
  [ "$(wc -l <"$FAKE/starts")" -eq 4 ]
  [ "$(count 'queued-resources create')" -eq 1 ]
}

@test "watch takes up a run that goes on already" {
  slice
  echo wait >"$FAKE/plan"
  tpu train -- --workdir=gs://b/run
  (until_it_holds are_watched 1 && go) 3>&- &
  run tpu train --watch -- --workdir=gs://b/run
  ended 0 "goes on already; watching it" 'has finished'
  [ "$(wc -l <"$FAKE/starts")" -eq 2 ]
}

@test "watch wants its work directory in a bucket" {
  for words in '--workdir=runs/x' '--workdir runs/x' '--config=x'; do
    # shellcheck disable=SC2086 # two words
    run tpu train --watch -- $words
    ended 2 'gs://' 'is lost with it'
  done
  run tpu train --watch -- --workdir gs://b/run
  ended 0
}

# ------------------------------------------------------------- logs and fetch

@test "logs shows a worker's log, and follows it until the run ends" {
  slice
  echo 'sleep 1' >"$FAKE/plan"
  tpu train -- --workdir=x
  run tpu logs --worker 1
  ended 0 'a line of the log of worker 1' 'train on my-tpu-w-1' 'exit code 0'
  run tpu logs
  ended 0 'a line of the log of worker 0'
  run tpu logs --run absent
  ended 1 "there is no run 'absent'"
}

@test "logs gathers those of all workers" {
  slice
  tpu train -- --workdir=x
  ends
  run tpu logs --all 'my logs'
  ended 0 'The logs of 2 workers'
  for n in 0 1; do grep -q "a line of the log of worker $n" "my logs/worker-$n.log"; done
}

@test "a run started again keeps the log of before" {
  slice
  for _ in 1 2; do
    tpu train -- --workdir=x
    ends
  done
  [ "$(grep -c 'a line of the log' "$(runs_of 0)/log")" -eq 2 ]
}

@test "fetch copies a bucket without any slice or setting, again and again" {
  mkdir -p "$FAKE/bucket/b/my-run"
  echo 1 >"$FAKE/bucket/b/my-run/results.json"
  unset TPU_NAME TPU_ZONE PROJECT
  for _ in 1 2; do
    run tpu fetch gs://b/my-run/
    ended 0 "The work directory lies in $checkout/runs/my-run."
    [ "$(cat "$checkout/runs/my-run/results.json")" = 1 ]
  done
  run tpu fetch gs://b/my-run here
  ended 0
  [ -e here/results.json ]
}

@test "fetch copies a folder of worker 0" {
  slice
  mkdir -p "$FAKE/home/my-tpu-0/score_jax/runs/a=1,b=2"
  echo 1 >"$FAKE/home/my-tpu-0/score_jax/runs/a=1,b=2/results.json"
  run tpu fetch 'runs/a=1,b=2' mine
  ended 0
  [ -e mine/results.json ]
  run tpu fetch 'runs/a=1,b=2' mine
  ended 2 'is there already'
  run tpu fetch 'runs/*'
  ended 2 'characters that scp may misread'
  run tpu fetch
  ended 2 'name a work directory'
}

# -------------------------------------------------------------------- dry run

@test "a dry run calls nothing, and says what would be called" {
  echo 'KEY=s3cret' >keys
  printf 'p=1\t["--config=a b"]\n' >"$FAKE/points"
  run tpu create --dry-run
  ended 0 'would run: gcloud compute tpus queued-resources create my-tpu'
  run tpu setup --dry-run
  ended 0 'would run: gcloud compute tpus tpu-vm scp' '--worker=all' './launch/setup.sh'
  run tpu train --dry-run --env-file keys -- "${HOSTILE[@]}"
  ended 0 'would run: gcloud compute tpus tpu-vm ssh my-tpu --worker=all' "two\\ words" 'the environment of keys'
  [[ $output != *s3cret* ]]
  run tpu train --dry-run --watch -- --workdir=gs://b/run
  ended 0 'queued-resources create' './launch/setup.sh' 'worker.sh\ start' 'would watch'
  run tpu status --dry-run
  ended 0 'would run: gcloud' 'worker.sh\ status\ train'
  run tpu logs --dry-run
  ended 0 'worker.sh\ follow\ train'
  run tpu logs --dry-run --all logs
  ended 0 'tpu-vm scp my-tpu:score_jax_runs/train/log'
  run tpu fetch --dry-run gs://b/run there
  ended 0 'would run: gcloud storage rsync gs://b/run'
  run tpu fetch --dry-run runs/x there
  ended 0 'tpu-vm scp my-tpu:score_jax/runs/x'
  run tpu teardown --dry-run
  ended 0 'queued-resources'
  run tpu sweep --dry-run --config=c --workdir=gs://b/s
  ended 0 'p=1: would run: gcloud compute tpus queued-resources create my-tpu-p' 'a\ b' 'would watch'
  run tpu sweep --dry-run --config=c --workdir=gs://b/s --teardown
  ended 0 'p=1: would run'
  [ -z "$(calls)" ]
  [ -z "$(ls -d logs there "$checkout/runs" 2>/dev/null)" ]
}

# ---------------------------------------------------------------------- sweep

points() {
  printf 'alpha=1\t["--config=c.py", "--config.x=it'"'"'s \\u2713\\n $(x)"]\nalpha=2\t["--config=c.py"]\n' >"$FAKE/points"
}

@test "a sweep trains and evaluates each point on a slice of its own" {
  points
  run tpu sweep --config=configs/sweeps/c.py --workdir=gs://b/sweep/ --spot
  ended 0 "alpha=1: The run 'point' has finished" 'alpha=2: The slice' 'All 2 points are done.'
  [ "$(cat "$FAKE/lists")" = '-m score_jax sweep --config=configs/sweeps/c.py --workdir=gs://b/sweep --list' ]
  for name in alpha=1 alpha=2; do
    [ -e "$FAKE/bucket/b/sweep/$name/results.json" ]
    grep -q 'evaluate on' "$checkout/runs/sweep_logs/$name/worker-1.log"
  done
  [ "$(calls | grep -o 'queued-resources create my-tpu-p[0-9]*' | sort -u | wc -l)" -eq 2 ]
  no_slice
}

@test "the arguments of a point arrive byte for byte" {
  points
  cat >"$BATS_TEST_TMPDIR/bin/spy" <<'END'
#!/usr/bin/env bash
case " $* " in *' scp '*/incoming-*) cat "$5/arguments" >>"$FAKE/sent" ;; esac
exec "$REAL_GCLOUD" "$@"
END
  chmod +x "$BATS_TEST_TMPDIR/bin/spy"
  ln -sf spy "$BATS_TEST_TMPDIR/bin/gcloud"
  export REAL_GCLOUD=$BATS_TEST_DIRNAME/gcloud
  run tpu sweep --config=c --workdir=gs://b/sweep --only alpha=1
  ended 0 'All 1 points are done.'
  printf '%s\0' --config=c.py $'--config.x=it\'s ✓\n $(x)' --workdir=gs://b/sweep/alpha=1 | cmp - "$FAKE/sent"
}

@test "a sweep goes on where it was, and says which points failed" {
  points
  printf 'exit 2\n' >"$FAKE/plan"
  run tpu sweep --config=c --workdir=gs://b/sweep
  ended 1 '1 of 2 points have failed: alpha=1.' 'Run the same command again'
  no_slice
  : >"$FAKE/calls"
  run tpu sweep --config=c --workdir=gs://b/sweep
  ended 0 'alpha=2: done already.' 'All 2 points are done.'
  [ "$(count 'queued-resources create')" -eq 1 ]
}

@test "a sweep runs as many slices at a time as asked for" {
  points
  printf 'wait\nwait\n' >"$FAKE/plan"
  (until_it_holds are_watched 2 && touch "$FAKE/both"; go) 3>&- &
  run tpu sweep --config=c --workdir=gs://b/sweep --jobs 2
  ended 0 'All 2 points are done.'
  [ -e "$FAKE/both" ]
  no_slice
}

@test "a sweep that is stopped watches no more, and goes on when it is run again" {
  points
  printf 'wait\nwait\n' >"$FAKE/plan"
  "$checkout/launch/tpu/sweep.sh" --config=c --workdir=gs://b/sweep --jobs 2 >"$BATS_TEST_TMPDIR/printed" 2>&1 3>&- &
  pid=$!
  until_it_holds are_watched 2
  kill -TERM "$pid"
  wait "$pid" || true
  grep -q 'The runs go on by themselves' "$BATS_TEST_TMPDIR/printed"
  sleep 0.5
  run pgrep -f "$checkout/launch/tpu/train.sh"
  [ "$status" -eq 1 ]
  : >"$FAKE/calls"
  (until_it_holds are_watched 2 && go) 3>&- &
  run tpu sweep --config=c --workdir=gs://b/sweep --jobs 2
  ended 0 "alpha=1: The run 'point' goes on already" 'All 2 points are done.'
  no_slice
}

@test "a sweep's slices can all be torn down" {
  points
  for name in alpha=1 alpha=2; do
    tpu create --name "my-tpu-p$(printf '%s' "$name" | cksum | cut -d ' ' -f 1)"
  done
  run tpu sweep --config=c --workdir=gs://b/sweep --teardown
  ended 0
  no_slice
}

@test "a sweep is checked before any slice is made" {
  points
  run tpu sweep --workdir=gs://b/sweep
  ended 2 '--config is missing'
  run tpu sweep --config=c --workdir=runs/sweep
  ended 2 'gs://'
  run tpu sweep --config=c --workdir=gs://b/s --jobs=0
  ended 2 "--jobs is '0'"
  run tpu sweep --config=c --workdir=gs://b/s --only nonsense
  ended 2 "there is no point 'nonsense'"
  printf '../x\t[]\n' >"$FAKE/points"
  run tpu sweep --config=c --workdir=gs://b/s
  ended 1 "'../x'"
  rm "$checkout/.venv/bin/python"
  run tpu sweep --config=c --workdir=gs://b/s
  ended 2 'launch/setup.sh'
  [ -z "$(calls)" ]
}

@test "a bucket that cannot be looked into is not taken for an empty one" {
  points
  echo ls >"$FAKE/refuse"
  run tpu sweep --config=c --workdir=gs://b/sweep
  ended 1 'cannot look into gs://b/sweep/alpha=1/results.json' '2 of 2 points have failed'
  [ "$(count create)" -eq 0 ]
}
