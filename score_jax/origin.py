"""What a run is made by, config, vocabulary and problems: another's is not to be taken for one's own."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from etils import epath

from score_jax.config import deciding, trains_critiques
from score_jax.gemma import gm
from score_jax.records import read_json, write_json
from score_jax.types import Problem


def origin_of(config: ml_collections.ConfigDict, tokenizer: gm.text.Tokenizer) -> dict[str, Any]:
    """The fields that decide about a run's numbers, flat, and a digest of its vocabulary's file.

    Left out is what another command on the same work directory may change.
    """
    fields = {name: value for name, value in deciding(config).items() if not name.startswith("evaluate.")}
    if not trains_critiques(config):
        fields.pop("slots.critique")  # a matter of the evaluation alone
    vocabulary = hashlib.sha256(epath.Path(tokenizer.path).read_bytes()).hexdigest()
    return {f"config.{name}": value for name, value in fields.items()} | {"vocabulary": vocabulary}


def claim_problems(workdir: epath.Path, pool: Sequence[Problem]) -> None:
    """Notes in a new work directory on which problems its run trains.

    A batch is a function of (seed, step) and of the pool: on another one a run would go on as a third run.

    Raises:
      ValueError: the run was started on others.
    """
    note = workdir / "problems.json"
    told = repr([(problem.id, problem.prompt, problem.gold) for problem in pool])
    ours, theirs = {"count": len(pool), "crc32": zlib.crc32(told.encode())}, read_json(note)
    if theirs and theirs != ours:
        raise ValueError(
            f"config.task: its {ours['count']} training problems are not the {theirs['count']} that the run "
            f"in {workdir} was started on; give those (config.files, config.data_dir), or another --workdir"
        )
    if not theirs:
        write_json(note, ours)
