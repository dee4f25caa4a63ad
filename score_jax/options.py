"""The commands' options, and what --help says of them."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from typing import NoReturn

EXAMPLES = {
    "train": """
  python -m score_jax train --config=configs/quickstart.py --workdir=runs/quickstart
  python -m score_jax train --config=configs/quickstart.py --workdir=runs/alpha10 --config.stage2.alpha=10
  python -m score_jax train --config=configs/gsm8k_gemma3_1b.py --workdir=gs://BUCKET/gsm8k --hosts=auto ...
""",
    "evaluate": """
  python -m score_jax evaluate --config=configs/quickstart.py --workdir=runs/quickstart
  python -m score_jax evaluate --config=configs/quickstart.py --workdir=runs/quickstart --checkpoint=best \\
      --config.evaluate.split=validation --config.evaluate.attempts=5
""",
    "solve": """
  python -m score_jax solve --workdir=runs/quickstart \\
      'I think of a number, multiply it by $7$ and add $3$. I get $94$. What is my number?'
  python -m score_jax solve --workdir=runs/quickstart                  # asks you for problems
  python -m score_jax solve --workdir=runs/quickstart < problems.txt   # one on each line
""",
    "export": """
  python -m score_jax export --workdir=runs/gsm8k --output=exported
""",
    "report": """
  python -m score_jax report --workdir=runs/quickstart
  python -m score_jax report --workdir=runs/study      # or a sweep's folder
  python -m score_jax report --workdir=runs/quickstart --watch   # while it trains
""",
    "dataset": """
  python -m score_jax dataset --workdir=runs/quickstart --output=attempts
  # then, in Python: datasets.load_dataset("attempts", "stage_two", split="test")
""",
    "summary": """
  python -m score_jax summary --workdir=runs/quickstart
""",
    "compare": """
  python -m score_jax compare --workdir=runs/seeds   # runs/seeds/score/0, ... as launch/seeds.sh makes them
  python -m score_jax compare --workdir=runs/alphas --method=alpha10   # runs/alphas/alpha10/0, alpha5/0, ...
""",
    "study": """
  python -m score_jax study --config=configs/study_quickstart.py --workdir=runs/study --fast
""",
    "sweep": """
  python -m score_jax sweep --config=configs/sweeps/alpha_beta_2.py --workdir=runs/sweep --list
  python -m score_jax sweep --config=configs/sweeps/alpha_beta_2.py --workdir=runs/sweep
""",
    "plan": """
  python -m score_jax plan --config=configs/gsm8k_gemma3_1b.py --topology=v5e:2x4
""",
    "benchmark": """
  taskset -c 1 python -m score_jax benchmark --config=configs/benchmark.py:tiny
  python -m score_jax benchmark --config=configs/benchmark.py:mid --attempts=1,2,4,8,16 --profile=trace
  python -m score_jax benchmark --config=configs/benchmark.py:tiny --peer=tests/peers/google_tunix.py
  python -m score_jax benchmark --config=configs/benchmark.py:tiny --mean-length=0.25
""",
    "sandbox-check": """
  python -m score_jax sandbox-check
""",
}
EPILOG = """examples:
  python -m score_jax train   --config=configs/quickstart.py --workdir=runs/quickstart
  python -m score_jax summary --workdir=runs/quickstart
  python -m score_jax COMMAND --help    # the options of a command, and more examples

SCORE_JAX_TRACEBACK=1 in the environment shows where an error came from.
"""
_NO_CONFIG = "--config options change nothing."
_Commands = argparse._SubParsersAction  # what add_subparsers gives; it has no public name


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the options on one line."""

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"invalid choice: '(.*?)' .choose from (.*)\)$", message):
            close = difflib.get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), n=1)
            message += f"; did you mean {close[0]}?" if close else ""
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: {message}; see --help\n")


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command and its options, and the --config.FIELD=VALUE overrides.

    ~ is the user's home in both; the shell leaves it alone after `--workdir=`.
    """
    args, rest = parser().parse_known_args(argv)
    return args, [re.sub(r"(?<==)~(?=/|$)", os.path.expanduser("~"), word, count=1) for word in rest]


def parser() -> Parser:
    """Of all commands; shtab makes tab completion from it."""
    every = Parser(
        prog="python -m score_jax",
        description="Training language models to correct themselves, as in SCoRe (Kumar et al. 2025).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = every.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_of_runs, _of_checkpoints, _of_results, _of_many_runs, _of_machines):
        add(commands)
    return every


def _of_runs(commands: _Commands) -> None:
    """train, evaluate."""
    sub = _command_on_workdir(commands, "train", "Train; the same command again resumes.")
    _add_work(sub)
    _add_hosts(sub)
    text = "Attempt a split and write attempts.jsonl and results.json."
    sub = _command_on_workdir(commands, "evaluate", text)
    _add_work(sub)
    text = "base | latest | best | a step | stages: the base and the best of every stage (default)"
    sub.add_argument("--checkpoint", default="stages", help=text)
    _add_hosts(sub)


def _of_checkpoints(commands: _Commands) -> None:
    """solve, export."""
    moved = "--config.FIELD=VALUE says where files lie now, if they were moved."
    chosen = "base | latest | best (default) | a step"
    sub = _command_on_workdir(commands, "solve", f"Show the attempts at a problem of yours. {moved}")
    sub.add_argument("--checkpoint", default="best", help=chosen)
    sub.add_argument("problem", nargs="?", help="its text; without one you are asked for some")
    sub = _command_on_workdir(commands, "export", f"Write a checkpoint that the gemma package reads. {moved}")
    sub.add_argument("--checkpoint", default="best", help=chosen)
    sub.add_argument("--output", required=True, type=os.path.expanduser, help="the new folder")


def _of_results(commands: _Commands) -> None:
    """report, dataset, summary, compare."""
    text = "Write report.html from what lies in the work directory, or in a study's or a sweep's folder. "
    text += "--config options are let pass, and change nothing."
    sub = _command_on_workdir(commands, "report", text)
    text = "write it again every SECONDS (30) until Ctrl-C, and have an open page follow"
    sub.add_argument("--watch", nargs="?", type=int, const=30, default=0, metavar="SECONDS", help=text)
    text = "Write attempts and results as a folder that Hugging Face's datasets reads, with a card."
    sub = _command_on_workdir(commands, "dataset", f"{text} {_NO_CONFIG}")
    sub.add_argument("--output", required=True, type=os.path.expanduser, help="the new folder")
    text = "Print what a run came to: three numbers and two transcripts."
    _command_on_workdir(commands, "summary", f"{text} {_NO_CONFIG}")
    text = "Compare methods over seeds: work directories WORKDIR/METHOD/SEED, attempted on the same problems."
    sub = _command_on_workdir(commands, "compare", f"{text} {_NO_CONFIG}")
    text = "the METHOD that the others are compared with (score); its runs give the base, too"
    sub.add_argument("--method", default="score", help=text)


def _of_many_runs(commands: _Commands) -> None:
    """study, sweep."""
    text = "Train and measure all methods of a study; the same command goes on."
    sub = _command_on_workdir(commands, "study", text)
    _add_work(sub)
    sub.add_argument("--fast", action="store_true", help="the rows and seeds of config.study.fast alone")
    text = "Train and evaluate all points of a sweep; the same command goes on."
    sub = _command_on_workdir(commands, "sweep", text)
    _add_work(sub)
    sub.add_argument("--only", default="", metavar="NAME[,NAME]", help="these points alone")
    text = "print each point's name and, as JSON, the arguments of train and evaluate that make it"
    sub.add_argument("--list", action="store_true", help=text)


def _of_machines(commands: _Commands) -> None:
    """plan, benchmark, sandbox-check."""
    text = "Say whether a run fits a TPU slice and how fast it can be at most, without the slice."
    sub = _command(commands, "plan", text)
    _add_config(sub)
    sub.add_argument("--topology", required=True, help="the slice, as v5e:4x4 or v5p:2x2x1")
    text = "mean length of attempts that end, as a share of their slot (0.25)"
    sub.add_argument("--mean-length", type=float, default=0.25, metavar="SHARE", help=text)
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print all numbers as JSON")
    form.add_argument("--markdown", action="store_true", help="print a table of one row")
    text = "Time a config's RL step here, with random parameters, beside the least time that its work takes."
    sub = _command(commands, "benchmark", text)
    _add_config(sub)
    sub.add_argument("--repeats", type=_count, default=5, help="calls that are timed of each phase (5)")
    text = "numbers of attempts at which rollout and update are timed, too"
    sub.add_argument("--attempts", type=_counts, default=(), metavar="N[,N]", help=text)
    text = (
        "time a step whose attempts end, too, beside one of as many tokens without padding: their mean "
        "length as a share of their slot"
    )
    sub.add_argument("--mean-length", type=float, default=0.0, metavar="SHARE", help=text)
    text = "tokens of the instruction before each later attempt (16)"
    sub.add_argument("--instruction", type=int, default=16, metavar="TOKENS", help=text)
    text = "a script of tests/peers: that library does the same work in turn with ours; repeatable"
    sub.add_argument("--peer", action="append", default=[], metavar="SCRIPT", dest="peers", help=text)
    sub.add_argument("--profile", default="", metavar="DIR", help="write a trace of one step there")
    sub.add_argument("--json", action="store_true", help="print all numbers as JSON")
    text = "Say which layers of the sandbox for model-written programs hold here, and attack it."
    _command(commands, "sandbox-check", text)


def _command(commands: _Commands, name: str, text: str) -> argparse.ArgumentParser:
    """A command with its help and examples, and no options yet."""
    return commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"examples:{EXAMPLES[name]}".rstrip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _command_on_workdir(commands: _Commands, name: str, text: str) -> argparse.ArgumentParser:
    sub = _command(commands, name, text)
    text = "the folder that holds everything of the run"
    sub.add_argument("--workdir", required=True, type=os.path.expanduser, help=text)
    return sub


def _add_config(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--config", required=True, help="a config file; --config.FIELD=VALUE changes a field")


def _add_work(sub: argparse.ArgumentParser) -> None:
    """A config, and what else trains or evaluates."""
    _add_config(sub)
    text = "unsafe: run model-written programs also where the sandbox does not hold"
    sub.add_argument("--sandbox", default="strict", choices=("strict", "unsafe"), help=text)


def _add_hosts(sub: argparse.ArgumentParser) -> None:
    text = (
        "where the same command runs on several hosts: auto on Cloud TPU, GKE, Slurm, MPI; else "
        "where the first one listens, how many there are, and which of them this is"
    )
    sub.add_argument("--hosts", default="", metavar="auto|ADDRESS:PORT,COUNT,NUMBER", help=text)
    text = "a host that is silent for so long is taken for dead, and all end (30)"
    sub.add_argument("--heartbeat", type=int, default=30, metavar="SECONDS", help=text)


def _count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of 1 or more")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(_count, text.split(",")))
