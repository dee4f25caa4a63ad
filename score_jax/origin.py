"""What a checkpoint is made by, config and vocabulary: another run's is not to be taken for one's own."""

from __future__ import annotations

import hashlib
from typing import Any

import ml_collections
from etils import epath

from score_jax.config import deciding, trains_critiques
from score_jax.gemma import gm


def origin_of(config: ml_collections.ConfigDict, tokenizer: gm.text.Tokenizer) -> dict[str, Any]:
    """The fields that decide about a run's numbers, flat, and a digest of its vocabulary's file.

    Left out is what another command on the same work directory may change.
    """
    fields = {name: value for name, value in deciding(config).items() if not name.startswith("evaluate.")}
    if not trains_critiques(config):
        fields.pop("slots.critique")  # a matter of the evaluation alone
    vocabulary = hashlib.sha256(epath.Path(tokenizer.path).read_bytes()).hexdigest()
    return {f"config.{name}": value for name, value in fields.items()} | {"vocabulary": vocabulary}
