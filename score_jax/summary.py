"""`summary`: what a run came to, in three numbers and two transcripts, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rich.table
from etils import epath
from rich.text import Text

from score_jax.log import console, say
from score_jax.percent import DASH, DELTA, percent, with_interval
from score_jax.run import evaluated_as, read_run
from score_jax.transcript import explain_marks, print_attempts


def summary(workdir: epath.PathLike) -> None:
    """Prints it, from results.json and attempts.jsonl as `evaluate` left them.

    Raises:
      FileNotFoundError: nothing was evaluated there.
    """
    run = read_run(workdir)
    if not run.attempts:
        raise FileNotFoundError(f"{workdir}: nothing was evaluated there yet; run evaluate first")
    last = list(run.attempts)[-1]
    console.print(numbers(run.results, last))
    for title, row in examples(run.attempts[last]):
        say(f"\n{title}\n{row['prompt'].strip()}")
        print_attempts(row["attempts"])
    explain_marks()
    say("\nWhat to try next, in the project's environment (. .venv/bin/activate):")
    for text, options in (
        ("a problem of your own", f"solve --workdir={workdir}"),
        ("curves, intervals and all transcripts", f"report --workdir={workdir}"),
        ("the options of a command", "train --help"),
    ):
        say(f"  {text + ':':<39}python -m score_jax {options}")


def numbers(results: Mapping[str, Mapping], last: str) -> rich.table.Table:
    """The three numbers of the base and of `last`, in per cent with 95% intervals.

    The base's stand there if it was evaluated alike, see `run.evaluated_as`.
    """
    there = [name for name in dict.fromkeys(("base", last)) if name in results]
    split, end, n, _ = how = evaluated_as(results[there[-1]])
    shown = [name for name in there if evaluated_as(results[name]) == how]
    end = max(end, 2)
    second = "the second" if end == 2 else "the last"
    table = rich.table.Table("", *shown, "", box=None, padding=(0, 2))
    table.title = f"{n} problems of the {split} split, 95% intervals"
    if shown != there:
        table.caption = "The base was evaluated in another way: split, attempts, problems or temperature."
    for key, name, words in (
        ("acc_t1", "Acc@t1", "right at first"),
        (f"acc_t{end}", f"Acc@t{end}", f"right at {second}"),
        ("delta", DELTA, f"what {second} gained"),
    ):
        cells = [Text(_cell(results[label], key)) for label in shown]
        table.add_row(Text(name, style="bold"), *cells, words)
    return table


def examples(rows: Sequence[Mapping]) -> list[tuple[str, Mapping]]:
    """Two of an evaluation's rows with a heading each, of different outcomes if there are: first of all one
    that the last attempt corrected."""
    outcome = lambda row: (row["rewards"][0] == 1, row["rewards"][-1] == 1)
    headings = {
        (False, True): "Corrected:",
        (False, False): "Still wrong:",
        (True, True): "Right from the start:",
        (True, False): "Spoiled:",
    }
    first = {outcome(row): row for row in reversed(rows)}
    return [(heading, first[kind]) for kind, heading in headings.items() if kind in first][:2]


def _cell(result: Mapping, key: str) -> str:
    if key not in result:
        return DASH
    interval = result.get("ci95", {}).get(key)
    return with_interval(result[key], *interval) if interval else percent(result[key])
