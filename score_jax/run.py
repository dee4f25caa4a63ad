"""The files of a work directory, read back: whichever of them exist, written to the end or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from etils import epath

from score_jax import metrics
from score_jax.records import read_json, read_jsonl

OUTCOMES = ("corrected", "spoiled", "unchanged")
COMMAND = "python -m score_jax evaluate --config=... --workdir="


class NothingYet(FileNotFoundError):
    """A work directory has nothing to show; a run that goes on, or is begun there, changes that."""


@dataclass(frozen=True)
class Run:
    """What the files of a work directory say.

    config: flat, dotted names. results: results.json, in order of training, completed from
    attempts. attempts: label of an evaluation -> its rows. steps, pretraining: rows of the run's
    and of its base model's metrics.jsonl. notes: what was left out or worked out, for the reader.
    """

    workdir: epath.Path
    config: dict[str, str]
    results: dict[str, dict]
    attempts: dict[str, list[dict]]
    steps: list[dict]
    pretraining: list[dict]
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What the folder is called, METHOD/SEED where its own name is a number alone."""
        path = self.workdir.resolve()
        return f"{path.parent.name}/{path.name}" if path.name.isdigit() else path.name


def read_run(workdir: epath.PathLike) -> Run:
    """Reads what exists, of a local folder or a bucket ("gs://...").

    Raises:
      NothingYet: there is nothing to show yet; says why.
      FileNotFoundError: it is no work directory, but holds some; names the commands for those.
    """
    notes: list[str] = []
    workdir = epath.Path(workdir)
    config = _flat(read_json(workdir / "config.json"))
    base = epath.Path(config.get("base_dir") or workdir / "base")
    paths = (workdir / "attempts.jsonl", workdir / "metrics.jsonl", base / "metrics.jsonl")
    rows, steps, pretraining = (read_jsonl(path, notes) for path in paths)
    results = read_json(workdir / "results.json")
    if not (rows or steps or pretraining or results):
        raise _nothing(workdir)
    attempts = _evaluations(rows, notes)
    for label, group in attempts.items():
        if group[0]["checkpoint"] not in results:
            results[label] = metrics.result_of(group)
            notes.append(f"{label}: not in results.json, worked out from attempts.jsonl.")
    steps = _last_of_each(steps, ("stage", "step"), "metrics.jsonl", notes)
    pretraining = _last_of_each(pretraining, ("step",), "base/metrics.jsonl", notes)
    return Run(workdir, config, results, attempts, steps, pretraining, notes)


def _nothing(workdir: epath.Path) -> FileNotFoundError:
    """Why there is nothing to show, and what to do."""
    if not workdir.exists():
        return NothingYet(f"--workdir={workdir}: there is no such folder; name a run's, as it is spelled")
    if (workdir / "config.json").exists() or (workdir / "train.lock").exists():
        return NothingYet(
            f"{workdir}: no results here yet: a training was begun, and has no row of metrics.jsonl; wait "
            "for its first update, or where it ended before, give its `train` command again"
        )
    for name in ("study", "sweep"):
        if (workdir / f"{name}.json").exists():
            return FileNotFoundError(
                f"{workdir} holds a {name}; `report` shows it, or name a run's folder in it"
            )
    if seeds := sorted(workdir.glob("*/*/config.json")):
        return FileNotFoundError(
            f"{workdir} is no run; `compare` shows those in it if they lie as METHOD/SEED, or name one: "
            f"--workdir={seeds[0].parent}"
        )
    if runs := sorted(workdir.glob("*/config.json")):
        return FileNotFoundError(f"{workdir} is no run, but holds some; name one: --workdir={runs[0].parent}")
    return NothingYet(f"{workdir}: no results here yet; make them: {COMMAND}{workdir}")


def last_attempt(result: Mapping) -> int:
    """The number of attempts of an entry of results.json."""
    return max((int(key[5:]) for key in result if key.startswith("acc_t")), default=1)


def evaluated_as(result: Mapping) -> tuple:
    """Split, number of attempts, of problems, and temperature: what has to be alike in two entries of
    results.json for their numbers to stand side by side."""
    return result.get("split"), last_attempt(result), result["n"], result.get("temperature", 0.0)


def of_outcome(rows: Sequence[Mapping], outcome: str) -> list[Mapping]:
    """Those of an evaluation's rows whose last attempt did one thing to the first.

    Args:
      rows: of attempts.jsonl, such as `Run.attempts` has.
      outcome: "corrected" (wrong, then right), "spoiled" (right, then wrong), "unchanged" (the same answer).

    Raises:
      ValueError: there is no such outcome.
    """
    right = lambda row, attempt: row["rewards"][attempt] == 1
    match outcome:
        case "corrected":
            return [row for row in rows if not right(row, 0) and right(row, -1)]
        case "spoiled":
            return [row for row in rows if right(row, 0) and not right(row, -1)]
        case "unchanged":
            return [row for row in rows if row["answers"][0] == row["answers"][-1]]
    raise ValueError(f"outcome = {outcome!r}: choose one of {', '.join(OUTCOMES)}")


def _evaluations(rows: Sequence[dict], notes: list[str]) -> dict[str, list[dict]]:
    """Rows of attempts.jsonl by evaluation: the checkpoint's name, with step and split where one
    name was evaluated more than once."""
    rows = _last_of_each(rows, ("checkpoint", "step", "split", "id"), "attempts.jsonl", notes)
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["checkpoint"], row["step"], row["split"]), []).append(row)
    for group in groups.values():
        metrics.check_rows(group)
    names = [name for name, *_ in groups]
    return {
        name if names.count(name) == 1 else f"{name} (step {step}, {split})": group
        for (name, step, split), group in groups.items()
    }


def _last_of_each[Row: Mapping](
    rows: Sequence[Row], keys: Sequence[str], source: str, notes: list[str]
) -> list[Row]:
    """A row written again (a resumed run) replaces the one before; how many did is noted."""
    for number, row in enumerate(rows, 1):
        if absent := [key for key in keys if key not in row and key != "stage"]:
            raise ValueError(f"{source}, row {number}: has no {absent[0]!r}; write this row again")
    latest = {tuple(row.get(key) for key in keys): row for row in rows}
    if again := len(rows) - len(latest):
        notes.append(f"{source}: {again} rows were written again later; the last of each counts.")
    return list(latest.values())


def _flat(value: object, name: str = "") -> dict[str, str]:
    """{'a': {'b': 1}, 'c': [2, 3]} -> {'a.b': '1', 'c': '2, 3'}."""
    if isinstance(value, dict):
        inner = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
        return {k: text for key, item in inner for k, text in _flat(item, key).items()}
    return {name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)}
