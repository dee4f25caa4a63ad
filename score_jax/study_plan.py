"""Which cells a study has, and whether they can work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from score_jax import paper_tables
from score_jax.cell import Cell
from score_jax.config_check import SPLITS, check_config
from score_jax.config_fields import meant
from score_jax.findings import VOTES
from score_jax.task import check_critique, evaluation_task, first_of, training_task

SHOWN = "configs/study_quickstart.py"
_FAST = ("seeds", "rows", "pools", "pool_rows")
_STUDY = (*_FAST, "fast", "tables", "measures")


def plan(config: ml_collections.ConfigDict, workdir: epath.Path, *, fast: bool = False) -> list[Cell]:
    """All cells of a study in the order in which they are made: seed by seed; other pools after all rows.

    Raises:
      ValueError: names the row, and the field that cannot work.
    """
    for section in ("methods", "study"):
        if section not in config:
            raise ValueError(f"config.{section} is missing; {SHOWN} shows what belongs there")
    check_sections(config)
    wanted = config.study.fast if fast else config.study
    pools = [f"{row}@{pool}" for pool in wanted.pools for row in wanted.pool_rows]
    cells = [
        cell_of(config, workdir, row, seed)
        for rows in (wanted.rows, pools)
        for seed in wanted.seeds
        for row in rows
    ]
    for cell in cells:
        check_cell(cell)
    return cells


def check_cell(cell: Cell) -> None:
    """Refuses a cell whose run or measures cannot work.

    Raises:
      ValueError: names the row, the measure if it is one, and the field.
    """
    where = f"row {cell.row}"
    try:
        check_config(cell.config)
        for name, section in cell.measures.items():
            where = f"row {cell.row}, config.study.measures.{name}"
            measured = measured_with(cell.config, section)
            check_config(measured)
            if section.given:
                check_given(cell.config.evaluate.to_dict(), measured.evaluate.to_dict())
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def check_given(evaluated: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Refuses a measure that gives first attempts, the base's, which a row's evaluation does not have.

    Args:
      evaluated: the `evaluate` section of the row.
      measured: that of the measure.

    Raises:
      ValueError: names the field.
    """
    for field in ("task", "split", "files"):
        if measured[field] != evaluated[field]:
            raise ValueError(
                f"evaluate.{field} = {measured[field]!r}: given=True gives first attempts from the row's own "
                f"evaluation, of {evaluated[field]!r}; leave the field out"
            )
    asked, there = measured["problems"], evaluated["problems"]
    if there and not 0 < asked <= there:
        raise ValueError(
            f"evaluate.problems = {asked}: given=True gives first attempts from the row's own evaluation, of "
            f"{there} problems; choose at most that"
        )


def check_study_fields(config: ml_collections.ConfigDict) -> None:
    """Refuses a `study` section that lacks a field, or has one that nothing reads.

    Raises:
      ValueError: names it.
    """
    for key, wanted in (("study", _STUDY), ("study.fast", _FAST)):
        section = config.study if key == "study" else config.study.fast
        for name in wanted:
            if name not in section:
                raise ValueError(f"config.{key}.{name} is missing; {SHOWN} shows what belongs there")
        for name in section:
            if name not in wanted:
                raise ValueError(f"config.{key}.{name}: no such field; {meant(name, wanted)}")


def check_tables(config: ml_collections.ConfigDict) -> None:
    """Refuses tables that are not the paper's, or whose rows nothing could fill.

    Raises:
      ValueError: names the field.
    """
    for name, members in config.study.tables.items():
        field = f"config.study.tables.{name}"
        if name not in paper_tables.TABLES:
            raise ValueError(f"{field}: no such table; choose among {', '.join(paper_tables.TABLES)}")
        if len(members) != (printed := len(paper_tables.TABLES[name].rows)):
            raise ValueError(f"{field} has {len(members)} rows, and the paper's {printed}: name one for each")
        for member in members:
            row, _, checkpoint = member.partition(".")
            if row not in config.methods:
                raise ValueError(f"{field}: {row!r} is not among config.methods")
            method = config.methods[row]
            stages = ["base", *(method[key].name for key in method.stages)]
            if checkpoint and checkpoint not in stages:
                raise ValueError(f"{field}: {member!r} names no stage of {row}; choose {' or '.join(stages)}")


def check_sections(config: ml_collections.ConfigDict) -> None:
    """Refuses a `study` section that cannot work.

    Raises:
      ValueError: names the field.
    """
    check_study_fields(config)
    check_tables(config)
    every = {*config.study.rows, *config.study.pool_rows}
    for name, section in config.study.measures.items():
        key = f"config.study.measures.{name}"
        if unknown := [row for row in section.rows if row not in config.methods]:
            raise ValueError(f"{key}.rows: {unknown[0]!r} is not among config.methods")
        allowed = ("every",) if name in ("own", "fixed") else ("last", "every")
        if section.checkpoints not in allowed:
            raise ValueError(f"{key}.checkpoints = {section.checkpoints!r}: choose {' or '.join(allowed)}")
        if name == "votes" and section.samples % (2 * max(VOTES)):
            raise ValueError(
                f"{key}.samples = {section.samples}: votes of up to {2 * max(VOTES)} samples are counted; "
                "sample a multiple of it"
            )
    if absent := {*config.study.fast.rows} - every:
        raise ValueError(f"config.study.fast.rows: {min(absent)!r} is not among config.study.rows")
    if absent := {*config.study.fast.seeds} - {*config.study.seeds}:
        raise ValueError(f"config.study.fast.seeds: {min(absent)} is not among config.study.seeds")
    trained_on = training_task(config)
    for name, section in config.study.measures.items():
        measured = measured_with(config, section)
        if (split := measured.evaluate.split) not in SPLITS:
            field = f"config.study.measures.{name}.evaluate.split"
            raise ValueError(f"{field} = {split!r}: choose one of {', '.join(SPLITS)}")
        problems = evaluation_task(measured, trained_on).problems(split)  # of files it may lack one
        section_name = f"config.study.measures.{name}.evaluate"
        first_of(problems, measured.evaluate.problems, f"{section_name}.problems")
        asked = [config.methods[row].get("evaluate", {}).get("critique", False) for row in section.rows]
        if any(asked) and not section.given:
            check_critique(problems, measured.evaluate.attempts, section_name)
    size = len(trained_on.problems("train"))
    if too_large := [pool for pool in config.study.pools if pool > size]:
        raise ValueError(f"config.study.pools: {too_large[0]} of the {size} training problems; choose less")


def cell_of(config: ml_collections.ConfigDict, workdir: epath.Path, row: str, seed: int) -> Cell:
    """One cell: the study's config with the fields of its method in place.

    Raises:
      ValueError: there is no such method.
    """
    name, _, pool = row.partition("@")
    if name not in config.methods:
        known = ", ".join(config.methods)
        raise ValueError(f"config.study: {name!r} is not a method; config.methods has {known}")
    run = config.copy_and_resolve_references()
    with run.unlocked():
        del run.methods, run.study
        for key, value in config.methods[name].items():
            if is_stage(run.get(key)):
                del run[key]  # replaced as a whole, not field by field
            if key != "label":
                run.update({key: value})
        read = {*run.stages} | {key for stage in run.stages for key in run[stage].get("between", ())}
        for key in [key for key in run if is_stage(run[key]) and key not in read]:
            del run[key]  # a stage of another method
    run.seed, run.base_dir = seed, str(workdir / "bases" / str(seed))
    run.train_problems = int(pool or run.train_problems)
    sections = {key: part for key, part in config.study.measures.items() if row in part.rows}
    return Cell(row, seed, run, sections, workdir / row / str(seed))


def is_stage(section: Any) -> bool:
    """Whether a section of a config is a stage's."""
    return isinstance(section, ml_collections.ConfigDict) and "objective" in section


def measured_with(
    config: ml_collections.ConfigDict, section: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
    """A run's config with `evaluate` as one of config.study.measures has it."""
    config = config.copy_and_resolve_references()
    with config.evaluate.unlocked():
        if "files" in section.evaluate:
            del config.evaluate.files  # those of another task, not of both
        config.evaluate.update(section.evaluate)
    return config
