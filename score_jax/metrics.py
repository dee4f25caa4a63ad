"""The measures of self-correction: section 3 of the SCoRe paper (arXiv 2409.12917), in numpy.

Letters: n = problems, N = attempts at each problem, S = statistics, R = resamples.
Fractions lie in [0, 1] and are always of *all* n problems. Every statistic is the mean over the
problems of a per-problem value, and so one bootstrap serves them all.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from rapidfuzz.distance import Levenshtein

RESAMPLES = 10_000
PER_ATTEMPT = ("attempts", "answers", "rewards", "finished")  # lists of N in attempts.jsonl

Notes = Sequence[Sequence[Mapping[str, float]]]  # [n][N], numbers that a checker added to a reward
Answers = Sequence[Sequence[str | None]]  # [n][N], None where no answer could be read


def is_right(rewards: Float[np.ndarray, "n N"]) -> Bool[np.ndarray, "n N"]:
    """Whether each attempt is right: its reward is exactly 1."""
    rewards = np.asarray(rewards, dtype=float)
    if rewards.ndim != 2 or 0 in rewards.shape:
        raise ValueError(
            f"rewards: got shape {rewards.shape}; give one row per problem and one column per "
            "attempt, at least one of each"
        )
    if not np.isfinite(rewards).all():
        row, column = np.argwhere(~np.isfinite(rewards))[0]
        raise ValueError(
            f"rewards[{row}, {column}]: got {rewards[row, column]}; give finite numbers, 1 = right"
        )
    return rewards == 1.0


def per_problem(
    rewards: Float[np.ndarray, "n N"], answers: Answers | None = None
) -> dict[str, Float[np.ndarray, "n"]]:
    """Every statistic's value at each problem; its mean over problems is the statistic.

    Keys: acc_t1 ... acc_tN; for N > 1 delta, i_to_c, c_to_i (and, with answers, changed) from the
    first attempt to the last; for N > 2 also each neighbouring pair, such as delta_t1_t2.
    """
    right = is_right(rewards)
    attempts = right.shape[1]
    values = {f"acc_t{t + 1}": right[:, t] for t in range(attempts)}
    pairs = {"": (0, attempts - 1)} if attempts > 1 else {}
    if attempts > 2:
        pairs |= {f"_t{t + 1}_t{t + 2}": (t, t + 1) for t in range(attempts - 1)}
    for suffix, (first, last) in pairs.items():
        before, after = right[:, first], right[:, last]
        values[f"delta{suffix}"] = after.astype(float) - before
        values[f"i_to_c{suffix}"] = ~before & after
        values[f"c_to_i{suffix}"] = before & ~after
        if answers is not None:
            values[f"changed{suffix}"] = np.array([a[first] != a[last] for a in answers])
    return {name: value.astype(float) for name, value in values.items()}


def bootstrap_interval(
    values: Float[np.ndarray, "n S"], *, resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "S 2"]:
    """95% percentile bootstrap interval (low, high) of the mean of each column, over problems.

    This is exactly the ordinary bootstrap. Drawing n rows with replacement makes the counts of
    the distinct rows multinomial(n, their shares), and a mean depends on the draw through these
    counts alone; binary rewards leave at most 2^N distinct rows (with answers a few times as many),
    so R resamples are one draw of so many counts each. Whole rows are drawn, so attempts of one
    problem stay together: paired.
    """
    rows, counts = np.unique(values, axis=0, return_counts=True)
    n = len(values)
    draws_RxK = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    return np.quantile(draws_RxK @ rows / n, [0.025, 0.975], axis=0).T


def summarize(
    rewards: Float[np.ndarray, "n N"],
    *,
    answers: Answers | None = None,
    finished: Bool[np.ndarray, "n N"] | None = None,
    levels: Sequence[int] | None = None,
    notes: Notes | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict:
    """Section 3's metrics of one model on one set of problems, as plain JSON-ready numbers.

    Accuracy@t (Table 2), delta = i_to_c - c_to_i (section 3), with answers also how often the
    answer changes (Fig. 5b) and is unreadable, with finished how often an attempt ran out of
    room, with levels the same by difficulty (Fig. 7), with notes the means of what else the
    checker said. ci95 holds the bootstrap intervals; resamples=0 leaves it out.
    """
    for name, column in (("answers", answers), ("finished", finished), ("levels", levels), ("notes", notes)):
        if column is not None and len(column) != len(rewards):
            raise ValueError(f"{name}: got {len(column)} entries for {len(rewards)} problems; give one each")
    values = per_problem(rewards, answers)
    summary: dict[str, Any] = {"n": len(rewards), **_means(values)}
    for t in range(np.shape(rewards)[1]):
        if answers is not None:
            summary[f"unparsed_t{t + 1}"] = float(np.mean([a[t] is None for a in answers]))
        if finished is not None:
            summary[f"unfinished_t{t + 1}"] = float(np.mean([not f[t] for f in finished]))
        if notes is not None:
            summary |= _note_means([row[t] for row in notes], f"_t{t + 1}", taken=summary)
    if resamples:
        columns = np.stack(list(values.values()), axis=1)
        intervals = bootstrap_interval(columns, resamples=resamples, seed=seed)
        summary["ci95"] = dict(zip(values, intervals.tolist(), strict=True))
    if levels is not None:
        summary["by_level"] = _by_level(per_problem(rewards), np.asarray(levels))
    return summary


def result_of(rows: Sequence[Mapping], *, resamples: int = RESAMPLES, seed: int = 0) -> dict:
    """The entry of results.json made from one checkpoint's rows of attempts.jsonl."""
    check_rows(rows)
    summary = summarize(
        np.array([row["rewards"] for row in rows], dtype=float),
        answers=[row["answers"] for row in rows],
        finished=np.array([row["finished"] for row in rows], dtype=bool),
        levels=[row["level"] for row in rows],
        notes=[row.get("notes") or [{}] * len(row["attempts"]) for row in rows],
        resamples=resamples,
        seed=seed,
    )
    how = {field: rows[0][field] for field in ("step", "split", "temperature") if field in rows[0]}
    return how | summary


def check_rows(rows: Sequence[Mapping]) -> None:
    """ValueError unless rows are the rows of one evaluation, each problem once, N attempts each."""
    if not rows:
        raise ValueError("rows: got 0 rows; evaluate at least one problem")
    for field in ("checkpoint", "step", "split", "id", "level", *PER_ATTEMPT):
        if absent := [i for i, row in enumerate(rows) if field not in row]:
            raise ValueError(f"rows[{absent[0]}]: has no {field!r}; evaluate this checkpoint again")
    for field in ("checkpoint", "step", "split", "temperature"):
        if len(found := {row.get(field) for row in rows}) > 1:
            raise ValueError(f"{field}: got {sorted(found, key=str)}; give the rows of one evaluation only")
    _check_distinct("id", [row["id"] for row in rows])
    attempts = len(rows[0]["attempts"])
    for row in rows:
        for field in PER_ATTEMPT:
            if len(row[field]) != attempts:
                raise ValueError(
                    f"{field} of problem {row['id']!r}: got {len(row[field])} entries, expected "
                    f"{attempts}; evaluate every problem with the same number of attempts"
                )


def aligned(
    rewards: Float[np.ndarray, "n N"], ids: Sequence[str], order: Sequence[str]
) -> Float[np.ndarray, "n N"]:
    """The rows of rewards, whose problems are ids, put into the order of the problems in order."""
    rewards = np.asarray(rewards, dtype=float)
    if len(ids) != len(rewards):
        raise ValueError(f"ids: got {len(ids)} ids for {len(rewards)} rows; give one per row")
    for name, names in (("ids", ids), ("order", order)):
        _check_distinct(name, names)
    if odd := sorted(set(ids) ^ set(order)):
        raise ValueError(
            f"ids: {odd[0]!r} and {len(odd) - 1} more are in only one of ids and order; "
            "evaluate both methods on the same problems"
        )
    row_of = {name: row for row, name in enumerate(ids)}
    return rewards[[row_of[name] for name in order]]


def edit_distance_ratio(first: str, second: str) -> float:
    """Characters to insert, delete or replace / (len first + len second): Fig. 3's measure.

    0 for equal texts (two empty ones too); texts of one length reach 1/2 at most.

    >>> edit_distance_ratio("it is 9", "it is 8")  # one of 14
    0.07142857142857142
    """
    total = len(first) + len(second)
    return Levenshtein.distance(first, second) / total if total else 0.0


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer of the parallel samples (Fig. 1, right: self-consistency).

    Ties go to the answer that came first. None (unreadable) wins only if there is nothing else.

    >>> majority_vote(["9", None, "10", None, "10"])
    '10'
    """
    if not len(answers):
        raise ValueError("answers: got 0 answers; give at least one sample to vote over")
    votes = Counter(answer for answer in answers if answer is not None)
    return votes.most_common(1)[0][0] if votes else None  # a Counter keeps the order of arrival


def _means(values: Mapping[str, Float[np.ndarray, "n"]]) -> dict[str, float]:
    means = {name: float(value.mean()) for name, value in values.items()}
    for name in means:
        if name.startswith("delta"):  # so that the identity holds to the last bit
            suffix = name.removeprefix("delta")
            means[name] = means[f"i_to_c{suffix}"] - means[f"c_to_i{suffix}"]
    return means


def _note_means(notes: Sequence[Mapping[str, float]], suffix: str, taken: Mapping) -> dict[str, float]:
    """Means of one attempt's notes over the problems; a note that a problem has not counts as 0."""
    names = sorted({name + suffix for note in notes for name in note})
    if clash := [name for name in names if name in taken]:
        raise ValueError(f"notes: {clash[0]!r} is the name of another metric; call the note something else")
    return {
        name: float(np.mean([note.get(name.removesuffix(suffix), 0.0) for note in notes])) for name in names
    }


def _by_level(values: Mapping[str, Float[np.ndarray, "n"]], levels: np.ndarray) -> dict[str, dict]:
    table = {}
    for level in np.unique(levels):
        here = levels == level
        means = _means({name: value[here] for name, value in values.items()})
        table[str(level)] = {"n": int(here.sum()), **means}
    return table


def _check_distinct(field: str, names: Sequence[str]) -> None:
    name, times = Counter(names).most_common(1)[0] if len(names) else ("", 1)
    if times > 1:
        raise ValueError(f"{field}: {name!r} occurs {times} times; keep one row per problem")
