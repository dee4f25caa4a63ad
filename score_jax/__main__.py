"""The commands: train, evaluate, solve, export, report, compare, study, sweep, plan, benchmark and more."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import sys
import time
from typing import NoReturn

from score_jax.exit_codes import BAD_INPUT, DOES_NOT_FIT, FAILED, IO_ERROR, RESUME, STOPPED, Resume
from score_jax.options import parse
from score_jax.records import Unreadable, Unwritable

# Of the disk, the share or the network, and not of what was asked for.
_IO_ERRNOS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH),
)
_IO_ERRORS = (Unwritable, Unreadable, ConnectionError, TimeoutError)

_BEGAN = time.perf_counter()  # of the start-up that `benchmark` tells: as good as the process's own beginning


def main(argv: list[str], *, alone: bool = False) -> int:
    """Runs a command; what the user can mend ends in one line and an exit code of `score_jax.exit_codes`.

    Args:
      argv: the command and its options.
      alone: the process is there for it alone, and may end here.
    """
    args, rest = parse(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no Δ is no reason to end a run
    try:
        return run(args, rest)
    except KeyboardInterrupt:
        print(file=sys.stderr)  # ends the line in which the terminal shows ^C
        return STOPPED
    except Exception as error:
        code = code_of(error)
        if code == FAILED or os.environ.get("SCORE_JAX_TRACEBACK"):
            raise
        line = f"score_jax {args.command}: {' '.join((str(error) or repr(error)).split())}"
        if alone and code == IO_ERROR:
            _end_at_once(line, code)
        print(line, file=sys.stderr)
        return code


def _end_at_once(line: str, code: int) -> NoReturn:
    """Has `line` be the last one: as long as the process lives, orbax's writers tell of the same disk from
    threads of their own, file by file."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    words = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.write(words, f"{line}\n".encode())
    os._exit(code)


def code_of(error: Exception) -> int:
    """The exit code of an error."""
    if isinstance(error, _IO_ERRORS) or getattr(error, "errno", None) in _IO_ERRNOS:
        return IO_ERROR
    if isinstance(error, Resume):
        return RESUME
    return BAD_INPUT if isinstance(error, OSError | ValueError) else FAILED


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Imports what the command needs, and no more: some of it takes seconds. Returns the exit code."""
    if args.command == "sandbox-check":
        _refuse(rest)
        from score_jax.rewards.sandbox.check import sandbox_check

        return 0 if sandbox_check(print) else 1
    if args.command == "report":
        _overrides(rest)
        return report(args)
    if args.command == "compare":
        _overrides(rest)
        from score_jax.compare import as_markdown, compare

        print(as_markdown(compare(args.workdir, args.method)))
        return 0
    if args.command == "summary":
        _overrides(rest)
        from score_jax.summary import summary

        summary(args.workdir)
        return 0
    if args.command == "dataset":
        _overrides(rest)
        from score_jax.dataset import dataset

        print(f"Dataset: {dataset(args.workdir, args.output)}")
        return 0
    _quiet_backends()
    if args.command == "plan":
        return plan(args, rest)
    if args.command == "benchmark":
        return benchmark(args, rest)
    from etils import epath

    workdir = epath.Path(args.workdir)
    _cache_compilations()
    if args.command == "solve":
        from score_jax.solve import solve

        solve(workdir, args.problem, args.checkpoint, _overrides(rest))
        return 0
    if args.command == "export":
        from score_jax.export import export

        export(workdir, epath.Path(args.output), args.checkpoint, _overrides(rest))
        return 0
    from score_jax.hosts import start
    from score_jax.interruption import listening

    if args.command in ("train", "evaluate"):
        start(args.hosts, args.heartbeat)
    with listening():
        work(args, rest)
    return 0


def work(args: argparse.Namespace, rest: list[str]) -> None:
    """The commands that take long: train, evaluate, study, sweep."""
    from etils import epath

    from score_jax.config import load_config

    workdir = epath.Path(args.workdir)
    config = load_config(args.config, rest)
    if args.command == "train":
        from score_jax.train import train

        train(config, workdir, args.sandbox)
    elif args.command == "study":
        from score_jax.study import study

        study(config, workdir, fast=args.fast, sandbox=args.sandbox)
    elif args.command == "sweep":
        from score_jax.sweep import list_points, sweep

        if args.list:
            print(list_points(config, args.only))
        else:
            sweep(config, workdir, only=args.only, sandbox=args.sandbox)
    else:
        from score_jax.evaluate import evaluate

        evaluate(config, workdir, args.checkpoint, args.sandbox)


def report(args: argparse.Namespace) -> int:
    """The command `report`; with --watch it waits for something to show, follows it, and ends by Ctrl-C."""
    from score_jax.report import write_report
    from score_jax.run import NothingYet
    from score_jax.study_file import holds_study
    from score_jax.study_page import write_study_page
    from score_jax.sweep_file import holds_sweep
    from score_jax.sweep_page import write_sweep_page

    if args.watch < 0:
        raise ValueError(f"--watch={args.watch}: seconds are not negative")
    path, said = None, False
    while path is None:
        write = write_study_page if holds_study(args.workdir) else write_report
        write = write_sweep_page if holds_sweep(args.workdir) else write
        try:
            path = write(args.workdir, refresh=args.watch)
        except NothingYet as error:
            if not args.watch:
                raise
            if not said:
                print(f"{error}; --watch waits for the first results (Ctrl-C ends)", flush=True)
            said = True
            time.sleep(args.watch)
    print(f"Report: {path}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while args.watch:
            time.sleep(args.watch)
            write(args.workdir, refresh=args.watch)
    if args.watch:
        write(args.workdir)  # which stays as it is
    return 0


def plan(args: argparse.Namespace, rest: list[str]) -> int:
    """The command `plan`; its exit code says whether the run fits."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # nothing runs; libtpu is to look for no chips
    from score_jax.compiled import cache_folder
    from score_jax.config import load_config
    from score_jax.log import console
    from score_jax.plan import plan as planned
    from score_jax.plan_text import HEADER, as_row, as_text

    config = load_config(args.config, rest)
    name = os.path.splitext(os.path.basename(args.config))[0]
    say = lambda line: print(line, file=sys.stderr)
    found = planned(config, args.topology, mean=args.mean_length, cache=cache_folder(), say=say)
    if args.json:
        print(json.dumps(found.as_dict(), indent=1))
    elif args.markdown:
        print(HEADER, as_row(found, name), sep="\n")
    else:
        for part in as_text(found, name):
            console.print(part)
    return 0 if found.fits else DOES_NOT_FIT


def benchmark(args: argparse.Namespace, rest: list[str]) -> int:
    """The command `benchmark`. No compilations are kept: how long they take belongs to what it tells."""
    from score_jax.benchmark import benchmark as measured
    from score_jax.benchmark_text import as_text
    from score_jax.config import load_config
    from score_jax.log import console

    found = measured(
        load_config(args.config, rest),
        os.path.basename(args.config),
        began=_BEGAN,
        instruction=args.instruction,
        repeats=args.repeats,
        attempts=args.attempts,
        mean_length=args.mean_length,
        peers=args.peers,
        profile=args.profile,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if args.json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        for part in as_text(found):
            console.print(part)
    return 0


def _overrides(options: list[str]) -> list[str]:
    """The --config.FIELD=VALUE among `options`; one line of options is to serve every command."""
    _refuse([option for option in options if not option.startswith("--config")])
    return [option for option in options if option.startswith("--config.")]


def _refuse(options: list[str]) -> None:
    if options:
        raise ValueError(f"{options[0]!r} is not an option of this command; see --help")


def _quiet_backends() -> None:
    """TensorFlow comes along with the gemma package and talks at start-up; nothing here uses it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


def _cache_compilations() -> None:
    """Keeps compiled programs between commands, unless the user has chosen a place for them."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "score_jax", "xla"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], alone=True))
