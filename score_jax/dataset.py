"""`dataset`: a run's attempts and results as a folder that Hugging Face's `datasets` reads, with a card.

DIR/README.md               the card: what the rows are, the numbers, the settings
DIR/attempts/NAME.jsonl     an evaluation's rows of attempts.jsonl
DIR/results.jsonl           a row of numbers for each evaluation
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from score_jax import markdown
from score_jax.records import write_jsonl, write_text
from score_jax.run import Run, last_attempt, read_run

FIELDS = {
    "checkpoint": "which policy answered: base, a stage's best by training reward, best or latest of the "
    "last stage trained by then, or step_N",
    "step": "its update; 0 is the base",
    "split": "of the task",
    "temperature": "at which it was sampled; 0 takes the likeliest token",
    "id": "of the problem",
    "prompt": "what the first attempt follows",
    "gold": "the right answer",
    "level": "of difficulty",
    "subject": "of the problem",
    "first": "the first attempt that was given, where the task gives one",
    "attempts": "the texts, in their order; the instruction before a later one says nothing of the first",
    "critiques": "the text before each later attempt, and before the first of a given one",
    "answers": "what was read out of each attempt; null where nothing could be",
    "rewards": "of each attempt; 1 is right",
    "finished": "whether each attempt ended before its slot did",
    "notes": "what else the checker said of each attempt",
}
NUMBERS = ("delta", "i_to_c", "c_to_i")


def dataset(workdir: epath.PathLike, output: epath.PathLike) -> epath.Path:
    """Writes the folder and returns its path.

    Raises:
      FileNotFoundError: nothing was evaluated in `workdir`.
      FileExistsError: `output` is there already.
    """
    run, folder = read_run(workdir), epath.Path(output)
    if not run.attempts:
        raise FileNotFoundError(f"{workdir}: nothing was evaluated there yet; run evaluate first")
    if folder.exists():
        raise FileExistsError(f"--output={output}: is there already; name a new folder")
    names = {label: re.sub(r"\W+", "_", label).strip("_") for label in run.attempts}
    try:
        (folder / "attempts").mkdir(parents=True)
        for label, rows in run.attempts.items():
            columns = [field for field in FIELDS if any(field in row for row in rows)]
            alike = [{field: row.get(field) for field in columns} for row in rows]
            write_jsonl(folder / "attempts" / f"{names[label]}.jsonl", alike)
        write_jsonl(folder / "results.jsonl", [plain(label, result) for label, result in run.results.items()])
        write_text(folder / "README.md", card(run, names))
    except OSError:
        folder.rmtree(missing_ok=True)  # what is there already would be refused by the next try
        raise
    return folder


def plain(label: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's numbers with the ends of their intervals, all in one row."""
    row = {"checkpoint": label} | {
        key: value for key, value in result.items() if isinstance(value, int | float | str)
    }
    for key, (low, high) in result.get("ci95", {}).items():
        row |= {f"{key}_low": low, f"{key}_high": high}
    return row


def card(run: Run, names: Mapping[str, str]) -> str:
    """The text of README.md, which opens with what `datasets` has to know."""
    head = "\n".join(_section(names[label], rows[0]["split"]) for label, rows in run.attempts.items())
    used = [field for field in FIELDS if any(field in row for rows in run.attempts.values() for row in rows)]
    return f"""---
pretty_name: {json.dumps(run.title)}
tags: [self-correction, reinforcement-learning, score-jax]
configs:
{head}
- config_name: results
  data_files: results.jsonl
---

# {run.title}: attempts and corrections

A model answers a problem, is told that there might be an error, and answers again. These are its answers,
before and after training by score_jax (SCoRe, Kumar et al. 2025, arXiv 2409.12917).

{_table(run.results)}

Per cent of the problems; acc_tN: right at attempt N; delta, i_to_c and c_to_i: from the first attempt to the
last. `results` has the ends of the 95% bootstrap intervals over problems, too. `load_dataset(..., "results",
split="train")` reads it: without a split of its own it has that name.

| field | what |
|---|---|
{chr(10).join(f"| `{field}` | {FIELDS[field]} |" for field in used)}

<details><summary>Settings</summary>

{chr(10).join(f"- `{name}`: {value or '–'}" for name, value in run.config.items())}

</details>
"""


def _section(name: str, split: str) -> str:
    word = re.sub(r"\W+", "_", split)  # of another task `split` has several words, and `datasets` takes one
    return f"- config_name: {name}\n  data_files:\n  - split: {word}\n    path: attempts/{name}.jsonl"


def _table(results: Mapping[str, Mapping[str, Any]]) -> str:
    last = max(map(last_attempt, results.values()), default=1)
    keys = [*(f"acc_t{attempt}" for attempt in range(1, last + 1)), *NUMBERS]
    shown = [key for key in keys if any(key in result for result in results.values())]
    rows = []
    for label, result in results.items():
        cells = [f"{100 * result[key]:.1f}" if key in result else "" for key in shown]
        rows.append([label, result.get("split", ""), str(result["n"]), *cells])
    return markdown.table(["checkpoint", "split", "problems", *shown], rows)
