"""What the files of a study say: the numbers of its tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float

from score_jax import figures
from score_jax.claims import claims_of
from score_jax.config_check import SUPERVISED, flatten
from score_jax.estimates import differences_of, estimate, statistics_of
from score_jax.study_cells import Cells, rewards
from score_jax.study_file import SCORE

VOTES = (1, 2, 4, 8, 16)  # K of Fig. 1, right
# Fields of the setting that a reader of the numbers asks for.
_SETTING = ("train_problems", "problems_per_step", "samples_per_problem", "temperature", "kl_estimator")
_STAGE = (
    *("name", "objective", "steps", "learning_rate", "alpha", "beta_1", "beta_2", "scale_kl", "adapt_beta_2"),
    *("discount", "offline", "attempts", "critique", "keep_right"),
)


def findings_of(
    config: ml_collections.ConfigDict,
    workdir: Path,
    done: Sequence[tuple[str, int]],
    *,
    missing: Sequence[str],
) -> dict[str, Any]:
    """study.json (its format stands in `study_file`), from the files of the finished cells.

    Args:
      config: the study's.
      workdir: where it lies.
      done: (row, seed) of the finished cells.
      missing: ROW/SEED of those that are still to be made.
    """
    cells = Cells(config, Path(workdir), tuple(done))
    rows = list(dict.fromkeys(row for row, _ in done))
    tables = {name: list(members) for name, members in config.study.tables.items()}
    names = dict.fromkeys([*rows, *(name for members in tables.values() for name in members)])
    entries = {name: entry(cells, name) for name in names if name.partition(".")[0] in rows}
    drawn = drawings(cells, rows)
    sizes = {e["statistics"]["acc_t1"]["n"] for e in entries.values()}
    return {
        "task": config.task.rpartition(".")[2],
        "split": config.evaluate.split,
        "problems": max(sizes, default=0),
        "seeds": sorted({seed for _, seed in done}),
        "setting": {name: value for name, value in flatten(config).items() if name in _SETTING},
        "rows": entries,
        "tables": tables,
        "figures": drawn,
        "claims": claims_of(cells, rows, drawn.get("figure1", {})),
        "missing": list(missing),
    }


def entry(cells: Cells, name: str) -> dict[str, Any]:
    """One row: what it spent, what it reached, and what SCoRe reached more on the same problems and seeds."""
    row, _, checkpoint = name.partition(".")
    method, _, pool = row.partition("@")
    seeds = cells.seeds(row)
    label = cells.config.methods[method].label
    label += f": {checkpoint.replace('_', ' ')}" * bool(checkpoint)
    updates: Sequence[Sequence[Mapping]] = [cells.training(row, seed) for seed in seeds]
    if checkpoint:  # of the row's stages those up to this one
        updates = [upto(rows, checkpoint) for rows in updates]
    found = {
        "label": label,
        "method": method,
        "checkpoint": checkpoint or cells.last(row),
        "seeds": seeds,
        "updates": len(updates[0]),
        "sampled": round(np.mean([sum(update["sampled"] for update in rows) for rows in updates])),
        "stages": [] if checkpoint else stages_of(cells.config_of(row)),
        "seconds": [sum(update["seconds"] for update in rows) for rows in updates],
        "statistics": statistics_of(
            [rewards(cells.attempts(name, seed)) for seed in seeds],
            [[r["answers"] for r in cells.attempts(name, seed)] for seed in seeds],
        ),
    }
    kl = [last_tenth(rows, "kl_t1") for rows in updates]
    if known := [nats for nats in kl if nats is not None]:
        found["kl_t1"] = known
    validation = [r for seed in seeds for r in cells.measured("validation", row, seed).values()]
    if validation and not checkpoint:
        found["validation"] = statistics_of([rewards(r) for r in validation])
    repaired = [r for seed in seeds for r in cells.measured("repair", row, seed).values()]
    if repaired and not checkpoint:  # MBPP-R: the one attempt is the repair of a given program
        found["statistics"]["mbpp_r"] = estimate([rewards(r)[:, 0] for r in repaired])
    if pool:
        found["pool"] = int(pool)
    score = f"{SCORE}@{pool}" if pool else SCORE
    both = cells.seeds(row, score)
    if both and name != score:
        runs = ([rewards(cells.attempts(one, seed)) for seed in both] for one in (score, name))
        found["minus_score"] = differences_of(*runs)
    return found


def stages_of(config: ml_collections.ConfigDict) -> list[dict[str, Any]]:
    """What the stages of a run were trained with: the fields of each that study.json keeps; of one that goes
    from a section's numbers to another's also "between", those of both."""
    fields = lambda section: {name: section[name] for name in _STAGE if name in section}
    found = []
    for section in (config[key] for key in config.stages):
        ends = [fields(config[name]) for name in section.get("between", ())]
        run = {"temperature": config.temperature}
        run |= {} if section.objective in SUPERVISED else {"decisive_only": config.decisive_only}
        found.append(fields(section) | run | ({"between": ends} if ends else {}))
    return found


def last_tenth(updates: Sequence[Mapping], key: str) -> float | None:
    """Mean of a quantity over the last tenth of the updates, as far as they have it; None if none does."""
    values = [update.get(key) for update in updates[-max(1, len(updates) // 10) :]]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def upto(updates: Sequence[Mapping], stage: str) -> list[Mapping]:
    """The updates of a run until the end of a stage; none for the base."""
    last = max((number for number, row in enumerate(updates, 1) if row["stage"] == stage), default=0)
    return list(updates[:last])


def drawings(cells: Cells, rows: Sequence[str]) -> dict[str, Any]:
    """The numbers of the figures for which there are files."""
    tests = {row: [cells.attempts(row, seed) for seed in cells.seeds(row)] for row in rows if "@" not in row}
    found = {
        "figure1": votes(cells),
        "figure3": edits(cells, tests),
        "figure4": corrections(cells, rows),
        "figure5": {row: curves(cells, row) for row in ("multi_turn", SCORE) if row in rows},
        "figure7": {
            row: figures.flows_by_level([rewards(r) for r in runs], [r["level"] for r in runs[0]])
            for row, runs in tests.items()
            if row in ("base", "multi_turn", SCORE)
        },
        "figure8": accuracies(cells, rows),
        "figure10": {row: curves(cells, row) for row in ("discount", SCORE) if row in rows},
        "pool": pools(cells, rows),
    }
    return {name: numbers for name, numbers in found.items() if numbers}


def votes(cells: Cells) -> dict[str, Any]:
    """Figure 1, right: 2K parallel samples against K corrected ones."""
    found = []
    for seed in cells.seeds(SCORE):
        for rows in cells.measured("votes", SCORE, seed).values():
            problems: dict[str, list[dict]] = {}
            for row in rows:
                problems.setdefault(row["id"], []).append(row)
            table = [problems[name] for name in sorted(problems)]
            said = [[[r["answers"][t] for r in samples] for samples in table] for t in (0, 1)]
            right = [np.array([[r["rewards"][t] for r in samples] for samples in table]) for t in (0, 1)]
            found.append(figures.vote_curve(said[0], said[1], right[0], right[1], ks=VOTES))
    if not found:
        return {}
    temperature = cells.config.study.measures.votes.evaluate.get(
        "temperature", cells.config.evaluate.temperature
    )
    return figures.votes_over_seeds(found) | {"temperature": temperature}


def edits(cells: Cells, tests: Mapping[str, Sequence[Sequence[Mapping]]]) -> dict[str, Any]:
    """Figure 3: edit-distance ratios on training and test problems of the rows measured on both."""
    train = {
        row: [rows for seed in cells.seeds(row) for rows in cells.measured("edits", row, seed).values()]
        for row in tests
    }
    wanted = {row: runs for row, runs in train.items() if runs}
    if not wanted:
        return {}
    ratios = lambda table: {row: [figures.edit_ratios(rows) for rows in table[row]] for row in wanted}
    return figures.edit_shares({"train": ratios(train), "test": ratios(tests)})


def corrections(cells: Cells, rows: Sequence[str]) -> dict[str, Any]:
    """Figure 4: what is corrected of the base model's first attempts, and of a checkpoint's own."""
    found = {}
    for row in rows:
        seeds = cells.seeds(row)
        if not all(cells.measured("fixed", row, seed) and cells.measured("own", row, seed) for seed in seeds):
            continue
        own: dict[int, list[Float[np.ndarray, "n N"]]] = {}
        fixed: dict[int, list[Float[np.ndarray, "n N"]]] = {}
        for seed in seeds:
            first = {r["id"]: r["rewards"][0] for r in cells.attempts(f"{row}.base", seed)}
            for label, measured in cells.measured("own", row, seed).items():
                own.setdefault(int(label), []).append(rewards(measured))
            for label, measured in cells.measured("fixed", row, seed).items():
                both = [[first[r["id"]], *r["rewards"]] for r in measured]
                fixed.setdefault(int(label), []).append(np.array(both, float))
        # Seeds may have kept other checkpoints: a point of fewer would differ by its base models, too.
        whole = [step for step in own if len(own[step]) == len(fixed.get(step, ())) == len(seeds)]
        if whole:
            at = lambda runs, steps=whole: {step: runs[step] for step in steps}
            found[row] = figures.correction_curves(at(fixed), at(own))
    return found


def curves(cells: Cells, row: str) -> dict[str, list]:
    """Figures 5 and 10: both accuracies and the share of changed answers, update by update."""
    return figures.training_curves([cells.training(row, seed) for seed in cells.seeds(row)])


def accuracies(cells: Cells, rows: Sequence[str]) -> dict[str, Any]:
    """Figure 8: accuracy at ten attempts of a model trained on two."""
    found = {}
    for row in rows:
        runs = [
            rewards(r) for seed in cells.seeds(row) for r in cells.measured("attempts", row, seed).values()
        ]
        if runs:
            found[row] = figures.accuracy_by_attempt(runs)
    return found


def pools(cells: Cells, rows: Sequence[str]) -> dict[str, Any]:
    """Accuracies against the number of training problems, of the methods that have several.

    A point is drawn where it has all seeds of SCoRe's points: else points would differ by their base models,
    too.
    """
    named: dict[str, dict[int, str]] = {}
    for row in rows:
        method, _, pool = row.partition("@")
        named.setdefault(method, {})[int(pool or cells.config.train_problems)] = row
    several = {method: sizes for method, sizes in named.items() if len(sizes) > 1}
    if several and "base" in named:  # trained on none of them: a level to hold the others against
        several["base"] = {size: "base" for sizes in several.values() for size in sizes}
    compared = several.get(SCORE) or next(iter(several.values()), {})
    seeds = cells.seeds(*compared.values())
    of = lambda row: [rewards(cells.attempts(row, seed)) for seed in seeds]
    found = {}
    for method, sizes in several.items():
        points = {size: of(row) for size, row in sizes.items() if {*seeds} <= {*cells.seeds(row)}}
        if seeds and len(points) > 1:
            found[method] = figures.pool_curve(points)
    return found
