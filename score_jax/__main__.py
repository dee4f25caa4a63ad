"""The commands: train, evaluate, solve, export, report, compare, study, sweep, plan, benchmark and more."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
from typing import NoReturn

from score_jax.exit_codes import BAD_INPUT, DOES_NOT_FIT, FAILED, RESUME, UNWRITABLE, Resume
from score_jax.records import Unwritable

_NO_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)

_BEGAN = time.perf_counter()  # of the start-up that `benchmark` tells: as good as the process's own beginning
EPILOG = """examples:
  python -m score_jax train    --config=configs/quickstart.py --workdir=runs/alpha10 --config.stage2.alpha=10
  python -m score_jax evaluate --config=configs/quickstart.py --workdir=runs/quickstart --checkpoint=best
  python -m score_jax solve    --workdir=runs/quickstart \\
      'I think of a number, multiply it by $7$ and add $3$. I get $94$. What is my number?'
  python -m score_jax report   --workdir=runs/quickstart
  python -m score_jax export   --workdir=runs/quickstart --output=exported
  python -m score_jax plan     --config=configs/gsm8k_gemma3_1b.py --topology=v5e:4x4
  python -m score_jax benchmark --config=configs/benchmark.py:mid --attempts=1,2,4,8,16

SCORE_JAX_TRACEBACK=1 in the environment shows where an error came from.
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the options on one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}; see --help\n")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command and its options, and the --config.FIELD=VALUE overrides."""
    parser = Parser(
        prog="python -m score_jax",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def configured(sub: argparse.ArgumentParser) -> None:
        text = "a config file; --config.FIELD=VALUE changes a field"
        sub.add_argument("--config", required=True, help=text)

    def command(name: str, text: str, *, config: bool) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.add_argument("--workdir", required=True, help="the folder that holds everything of the run")
        if config:
            configured(sub)
            sub.add_argument(
                "--sandbox",
                default="strict",
                choices=("strict", "unsafe"),
                help="unsafe: run model-written programs also where the sandbox does not hold",
            )
        return sub

    def on_hosts(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--hosts",
            default="",
            metavar="auto|ADDRESS:PORT,COUNT,NUMBER",
            help="where the same command runs on several hosts: auto on Cloud TPU, GKE, Slurm, MPI; else "
            "where the first one listens, how many there are, and which of them this is",
        )
        sub.add_argument(
            "--heartbeat",
            type=int,
            default=30,
            metavar="SECONDS",
            help="a host that is silent for so long is taken for dead, and all end (30)",
        )

    on_hosts(command("train", "Train; the same command again resumes.", config=True))
    sub = command("evaluate", "Attempt a split and write attempts.jsonl and results.json.", config=True)
    sub.add_argument(
        "--checkpoint",
        default="stages",
        help="base | latest | best | a step | stages: the base and the best of every stage (default)",
    )
    on_hosts(sub)
    sub = command("solve", "Show the attempts at a problem of yours.", config=False)
    sub.add_argument("--checkpoint", default="best", help="base | latest | best (default) | a step")
    sub.add_argument("problem", help="the problem's text")
    sub = command("export", "Write a checkpoint that the gemma package reads.", config=False)
    sub.add_argument("--checkpoint", default="best", help="base | latest | best (default) | a step")
    sub.add_argument("--output", required=True, help="the new folder")
    command(
        "report",
        "Write report.html from what lies in the work directory, or in a study's or a sweep's folder.",
        config=False,
    )
    command("compare", "Compare the methods in WORKDIR/METHOD/SEED (launch/seeds.sh).", config=False)
    sub = command("study", "Train and measure all methods of a study; the same command goes on.", config=True)
    sub.add_argument("--fast", action="store_true", help="the rows and seeds of config.study.fast alone")
    sub = command("sweep", "Train and evaluate all points of a sweep; the same command goes on.", config=True)
    sub.add_argument("--only", default="", metavar="NAME[,NAME]", help="these points alone")
    text = "print each point's name and, as JSON, the arguments of train and evaluate that make it"
    sub.add_argument("--list", action="store_true", help=text)
    text = "Say whether a run fits a TPU slice and how fast it can be at most, without the slice."
    sub = commands.add_parser("plan", help=text, description=text, allow_abbrev=False)
    configured(sub)
    sub.add_argument("--topology", required=True, help="the slice, as v5e:4x4 or v5p:2x2x1")
    sub.add_argument(
        "--mean-length",
        type=float,
        default=0.25,
        metavar="SHARE",
        help="mean length of attempts that end, as a share of their slot (0.25)",
    )
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all numbers as JSON")
    form.add_argument("--markdown", action="store_true", help="print a table of one row")
    text = "Time a config's RL step here, with random parameters, beside the least time that its work takes."
    sub = commands.add_parser("benchmark", help=text, description=text, allow_abbrev=False)
    configured(sub)
    sub.add_argument("--repeats", type=int, default=5, help="calls that are timed of each phase (5)")
    text = "numbers of attempts at which rollout and update are timed, too"
    sub.add_argument("--attempts", type=_numbers, default=(), metavar="N[,N]", help=text)
    text = "tokens of the instruction before each later attempt (16)"
    sub.add_argument("--instruction", type=int, default=16, metavar="TOKENS", help=text)
    sub.add_argument("--profile", default="", metavar="DIR", help="write a trace of one step there")
    sub.add_argument("--json", action="store_true", help="print all numbers as JSON")
    text = "Say which layers of the sandbox for model-written programs hold here, and attack it."
    commands.add_parser("sandbox-check", help=text, description=text, allow_abbrev=False)
    return parser.parse_known_args(argv)


def main(argv: list[str]) -> int:
    """Runs a command; what the user can mend ends in one line and an exit code of `score_jax.exit_codes`."""
    args, rest = parse(argv)
    try:
        return run(args, rest)
    except Exception as error:
        code = code_of(error)
        if code == FAILED or os.environ.get("SCORE_JAX_TRACEBACK"):
            raise
        print(f"score_jax {args.command}: {' '.join((str(error) or repr(error)).split())}", file=sys.stderr)
        return code


def code_of(error: Exception) -> int:
    """The exit code of an error."""
    if isinstance(error, Unwritable) or getattr(error, "errno", None) in _NO_DISK:
        return UNWRITABLE
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
        # `--config` and its overrides are allowed here so that one line of options serves every command.
        _refuse([option for option in rest if not option.startswith("--config")])
        from score_jax.report import write_report
        from score_jax.study_file import holds_study
        from score_jax.study_page import write_study_page
        from score_jax.sweep_file import holds_sweep
        from score_jax.sweep_page import write_sweep_page

        write = write_study_page if holds_study(args.workdir) else write_report
        write = write_sweep_page if holds_sweep(args.workdir) else write
        print(f"Report: {write(args.workdir)}")
        return 0
    if args.command == "compare":
        _refuse(rest)
        from score_jax.compare import as_markdown, compare

        print(as_markdown(compare(args.workdir)))
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
        profile=args.profile,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if args.json:
        print(json.dumps(found.as_dict(), indent=1))
    else:
        for part in as_text(found):
            console.print(part)
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


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
    sys.exit(main(sys.argv[1:]))
