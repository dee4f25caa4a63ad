"""One self-contained page about a run: report.html, made from the files of its work directory.

Needs neither JAX nor the model nor a network: copy the files to a laptop and write the page there.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import numpy as np
from etils import epath
from markupsafe import Markup

from score_jax import alarms, charts, markdown, metrics
from score_jax.charts import ARROW
from score_jax.duration import hours_and_minutes
from score_jax.percent import DASH, DELTA, direction, from_to, percent
from score_jax.records import write_text
from score_jax.run import Run, evaluated_as, last_attempt, read_run

TRANSCRIPT_BYTES = 8_000_000  # of JSON in the page; whole problems beyond it are counted, not shown

# Config fields that the page's head shows, of the run and of each stage; all are listed below it.
RUN_FIELDS = (
    *("task", "seed", "train_problems"),
    *("problems_per_step", "samples_per_problem", "temperature", "kl_estimator"),
)
STAGE_FIELDS = ("steps", "alpha", "beta_1", "beta_2", "learning_rate")

# (stem of the keys in metrics.jsonl, title); stem_t1, stem_t2, ... are drawn together.
MAIN_CURVES = (
    ("reward", "Reward of each attempt"),
    ("delta", f"{DELTA}: last attempt minus first"),
    ("kl", "KL to the reference policy"),
    ("changed", "How often the answer changes"),
)
MORE_CURVES = (
    ("entropy", "Entropy"),
    ("length", "Length, tokens"),
    ("unparsed", "Attempts without a readable answer"),
    ("unfinished", "Attempts cut off"),
    ("loss", "Loss"),
    ("grad_norm", "Gradient norm"),
    ("sampler_gap", "Largest gap between sampler and scorer, nats"),
    ("learning_rate", "Learning rate"),
    ("seconds", "Seconds per step"),
)


def write_report(
    workdir: epath.PathLike, *, transcript_bytes: int = TRANSCRIPT_BYTES, refresh: int = 0
) -> epath.Path:
    """Writes workdir/report.html from whichever of the run's files exist; returns its path.

    Reads results.json, attempts.jsonl, metrics.jsonl, config.json, base/metrics.jsonl.

    Args:
      workdir: of the run, which may still be going on; a local folder or a bucket.
      transcript_bytes: of JSON that the page may hold; how many transcripts are left out is said there.
      refresh: seconds after which an open page loads itself anew; 0: it does not.
    """
    run = read_run(workdir)
    shown, total, transcripts = transcripts_of(run.attempts, transcript_bytes)
    page = template("report.html.j2").render(
        refresh=refresh,
        run=run,
        title=run.title,
        final=next(reversed(run.results), ""),
        most_attempts=max(map(last_attempt, run.results.values()), default=2),
        head=_head(run.config),
        facts=_facts(run),
        alarms=_alarms(run.steps),
        tiles=_tiles(run.results),
        heads=heads(run.results),
        table=result_table(run.results),
        smoothing={"curves": charts.smoothing(run.steps), "pre": charts.smoothing(run.pretraining)},
        curves=curves(run.steps, MAIN_CURVES),
        more_curves=[*_flow_curve(run.steps), *curves(run.steps, MORE_CURVES)],
        edits=edit_charts(run.attempts),
        levels=_level_charts(run.results),
        pretraining=curves(run.pretraining, (("loss", "Loss"),), "pretraining"),
        transcripts=transcripts,
        shown=shown,
        total=total,
        megabytes=f"{transcript_bytes / 1e6:g}",
    )
    path = run.workdir / "report.html"
    write_text(path, page.encode(errors="replace").decode())  # lone surrogates have no place in UTF-8
    return path


def template(name: str) -> jinja2.Template:
    """A page's template; what it is given is text, and never read as HTML."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def heads(results: Mapping[str, Mapping]) -> list[str]:
    """The name of each checkpoint, and of its split where not all have the same one."""
    splits = {name: str(result.get("split", "")) for name, result in results.items()}
    if len(set(splits.values())) < 2:
        return list(results)
    return [f"{name}, {split or 'unknown'} split" for name, split in splits.items()]


def result_table(results: Mapping[str, Mapping]) -> list[dict]:
    """The rows of the page's table: label, kind, and per checkpoint (value, interval) as text."""
    if not results:
        return []
    ends = sorted({last_attempt(result) for result in results.values()}, reverse=True)
    last = ends[0]
    rows = [("n", "problems", "count")]
    rows += [(f"acc_t{t}", f"Accuracy@t{t}", "share") for t in range(1, last + 1)]
    whole = [(1, end) for end in ends if end > 1]
    for a, b in dict.fromkeys([*whole, *((t, t + 1) for t in range(1, last))]):
        suffix, where = f"_t{a}_t{b}", f"(t{a},\N{NO-BREAK SPACE}t{b})"
        rows.append((f"delta{suffix}", f"{DELTA} {where}", "delta"))
        rows.append((f"i_to_c{suffix}", f"corrected, i{ARROW}c {where}", "share"))
        rows.append((f"c_to_i{suffix}", f"spoiled, c{ARROW}i {where}", "share"))
    for a, b in whole:
        where = f" (t{a},\N{NO-BREAK SPACE}t{b})" if len(whole) > 1 else ""
        rows.append((f"changed_t{a}_t{b}", f"answer changed{where}", "share"))
    for stem, label in (("unparsed", "no readable answer"), ("unfinished", "cut off")):
        rows += [(f"{stem}_t{t}", f"{label} @t{t}", "share") for t in range(1, last + 1)]
    named = [_by_pair(result) for result in results.values()]
    return [
        {"label": label, "kind": kind, "cells": [_cell(r, key, kind) for r in named]}
        for key, label, kind in rows
        if any(r.get(key) is not None for r in named)
    ]


def _by_pair(result: Mapping) -> dict:
    """A result in which what is of the first attempt and the last has the names of both: delta_t1_t2."""
    suffix = f"_t1_t{last_attempt(result)}"
    named = lambda key: key + suffix * (key in ("delta", "i_to_c", "c_to_i", "changed"))
    intervals = {named(key): interval for key, interval in result.get("ci95", {}).items()}
    return {named(key): value for key, value in result.items()} | {"ci95": intervals}


def as_markdown(results: Mapping[str, Mapping]) -> str:
    """The table in Markdown, a column per checkpoint: per cent [95% interval]; "" without results."""
    if not results:
        return ""
    text = lambda cell: cell["text"] + f" [{cell['interval']}]" * bool(cell["interval"])
    rows = [[row["label"], *map(text, row["cells"])] for row in result_table(results)]
    return markdown.table(["", *heads(results)], rows)


def curves(
    rows: Sequence[Mapping], wanted: Iterable[tuple[str, str]] = MAIN_CURVES, prefix: str = "curve"
) -> list[charts.Chart]:
    """A drawing for each of the wanted (stem, title) of which the rows of metrics.jsonl have any number.

    `prefix` keeps the drawings of one page apart.
    """
    drawn = []
    for stem, title in wanted:
        lines = charts.attempt_lines(rows, stem)
        if not lines and any(stem in row for row in rows):
            lines = [charts.Line(stem, "", charts.INK)]
        if lines:
            drawn.append(charts.curve(f"{prefix}-{stem}", title, rows, lines))
    return drawn


def edit_charts(attempts: Mapping[str, Sequence[Mapping]]) -> list[charts.Chart]:
    """Fig. 3 of each evaluation in `Run.attempts`, all with the same axes; none of a single attempt."""
    ratios = {}
    for label, rows in attempts.items():
        pairs = range(2, len(rows[0]["attempts"]) + 1)
        if pairs:
            ratios[label] = {
                t: np.array([metrics.edit_distance_ratio(*r["attempts"][t - 2 : t]) for r in rows])
                for t in pairs
            }
    every = [values for pairs in ratios.values() for values in pairs.values()]
    if not every:
        return []
    right = max(values.max() for values in every)
    top = max(charts.bin_shares(values, charts.edit_bins(right)).max() for values in every)
    return [
        charts.edit_histogram(f"edit-{i}", label, pairs, right, top)
        for i, (label, pairs) in enumerate(ratios.items())
    ]


def transcripts_of(attempts: Mapping[str, Sequence[Mapping]], limit: int) -> tuple[int, int, Markup]:
    """(transcripts shown, transcripts there are, the JSON that the page pages through).

    Problems are taken in the order of the file, each with all its checkpoints, until the JSON
    would exceed limit bytes.
    """
    by_problem: dict[tuple, list] = {}
    for number, rows in enumerate(attempts.values()):
        for row in rows:
            problem = tuple(row[k] for k in ("split", "id", "level", "prompt", "gold"))
            right = [bool(reward == 1.0) for reward in row["rewards"]]
            entry = [number, row["attempts"], row["answers"], right, row["finished"]]
            if critiques := row.get("critiques"):  # the first attempt may have none
                entry.append([""] * (len(right) - len(critiques)) + critiques)
            by_problem.setdefault((*problem, row.get("first", "")), []).append(entry)
    chosen, size, shown = [], 0, 0
    for (_, name, level, prompt, gold, first), runs in by_problem.items():
        said = {"id": name, "level": level, "prompt": prompt, "gold": gold, "first": first}
        text = _script_json({**said, "runs": runs})
        if size + len(text) > limit:
            break
        chosen.append(text)
        size, shown = size + len(text), shown + len(runs)
    total = sum(map(len, by_problem.values()))
    labels = _script_json(list(attempts))
    return shown, total, Markup(f'{{"checkpoints":{labels},"problems":[{",".join(chosen)}]}}')


def _cell(result: Mapping, key: str, kind: str) -> dict:
    value, interval = result.get(key), result.get("ci95", {}).get(key)
    if value is None:
        return {"text": DASH, "interval": "", "sign": ""}
    if kind == "count":
        return {"text": f"{value:,}", "interval": "", "sign": ""}
    signed = kind == "delta"
    return {
        "text": percent(value, signed),
        "interval": from_to(*interval, signed=signed) if interval else "",
        "sign": direction(*interval) if interval and signed else "",
    }


def _tiles(results: Mapping[str, Mapping]) -> list[dict]:
    """The headline: the last checkpoint's first and last accuracy and delta, beside the first's of the same
    split and number of attempts."""
    if not results:
        return []
    first, *_, final = [*results, *results]
    last = last_attempt(results[final])
    first = first if evaluated_as(results[first]) == evaluated_as(results[final]) else final
    wanted = [("acc_t1", "Accuracy, attempt 1", "share")]
    if last > 1:
        wanted += [(f"acc_t{last}", f"Accuracy, attempt {last}", "share")]
        wanted += [("delta", f"{DELTA}, gained by correcting itself", "delta")]
    tiles = []
    for key, label, kind in wanted:
        before = _cell(results[first], key, kind)["text"] if first != final else ""
        tile = {"label": label, "kind": kind, "before": before, "before_name": first}
        tiles.append(tile | _cell(results[final], key, kind))
    return tiles


def _flow_curve(rows: Sequence[Mapping]) -> list[charts.Chart]:
    pair = (("i_to_c", f"i{ARROW}c", charts.UP), ("c_to_i", f"c{ARROW}i", charts.DOWN))
    lines = [charts.Line(*line) for line in pair if any(line[0] in row for row in rows)]
    return [charts.curve("flow", "Corrected and spoiled", rows, lines)] if lines else []


def _level_charts(results: Mapping[str, Mapping]) -> dict[str, list[charts.Chart]]:
    tables = {k: r["by_level"] for k, r in results.items() if len(r.get("by_level", {})) > 1}
    flows = {k: table for k, table in tables.items() if "i_to_c" in next(iter(table.values()))}
    cells = [row[key] for t in flows.values() for row in t.values() for key in ("i_to_c", "c_to_i")]
    top = max([0.01, *cells])
    return {
        "accuracy": [charts.level_accuracy(f"level-{i}", k, t) for i, (k, t) in enumerate(tables.items())],
        "flows": [charts.level_flows(f"flow-{i}", k, t, top) for i, (k, t) in enumerate(flows.items())],
    }


def _head(config: Mapping[str, str]) -> list[tuple[str, Markup]]:
    """The telling fields, a stage's under its name; long values may break at a colon."""
    fields = {name: config[name] for name in RUN_FIELDS if name in config}
    for key in config:
        section, _, leaf = key.rpartition(".")
        if leaf in STAGE_FIELDS and f"{section}.objective" in config:
            fields[f"{config.get(f'{section}.name', section)} {leaf}"] = config[key]
    return [
        (name.replace("_", " "), Markup(":<wbr>").join(value.split(":"))) for name, value in fields.items()
    ]


def _alarms(rows: Sequence[Mapping]) -> list[str]:
    """What the page says of each alarm; those that are still on come first."""
    found = sorted(alarms.spans(rows), key=lambda span: span.over)
    lines = []
    for span in found:
        first, last = f"{span.first:,}", f"{span.last:,}"
        place = f"update {first}" if first == last else f"updates {first} to {last}"
        lines.append(
            f"{span.name}, {span.stage.replace('_', ' ')}: {place}{'' if span.over else ', not over'}"
        )
    return lines


def _facts(run: Run) -> list[str]:
    facts = []
    if run.results:
        sizes = sorted({r["n"] for r in run.results.values() if "n" in r})
        splits = sorted({str(r["split"]) for r in run.results.values() if "split" in r})
        facts.append(f"{' / '.join(map(str, sizes))} problems, {', '.join(splits)} split")
    if run.steps:
        facts.append(f"{run.steps[-1]['step']:,} updates")
        if skipped := sum(row.get("skipped") or 0 for row in run.steps):
            facts.append(f"{skipped:,} skipped, their loss or gradient not finite")
        if seconds := sum(row.get("seconds") or 0 for row in run.steps):
            facts.append(hours_and_minutes(seconds))
    return facts


def _script_json(value: object) -> str:
    """JSON that may stand in a script element: no character of it can end the element."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII: lone surrogates and U+2028 are escaped
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
