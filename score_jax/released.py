"""Released Gemmas: the gemma package's model, tokenizer and parameters, read from the files a user has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import ml_collections
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from score_jax import chat
from score_jax.checkpoint import absolute
from score_jax.gemma import gm
from score_jax.mesh import layout, mesh_of
from score_jax.model import named_gemma, shapes_of
from score_jax.rollout import Actor, actor_of
from score_jax.task import Task

# Parts of a checkpoint that see and hear; a text model leaves them out.
_MEDIA = ("vision_encoder", "audio_encoder", "embedder.mm_", "embedder.audio_")


def load_released(config: ml_collections.ConfigDict, task: Task) -> tuple[Actor, dict]:
    """The model that config.model names, from the official files that it points to.

    Returns:
      The actor (with config.evaluate.attempts attempts), and the parameters in config.model.dtype.

    Raises:
      FileNotFoundError: there is no checkpoint or tokenizer where the config says.
      ValueError: the model, its checkpoint and its tokenizer do not belong together.
    """
    model = named_gemma(config.model.name, config.model.dtype)
    tokenizer = load_tokenizer(config.model.tokenizer, model)
    format = (chat.turns if config.model.chat else chat.plain)(tokenizer)
    params = load_params(config.model.checkpoint, model, mesh_of(config))
    return actor_of(config, model, format, task), params


def load_tokenizer(path: str, model: nn.Module) -> gm.text.Tokenizer:
    """The tokenizer of the model's own version, from a SentencePiece file."""
    version = model.INFO.tokenizer_version
    if not path or not epath.Path(path).exists():
        raise FileNotFoundError(
            f"config.model.tokenizer = {path!r}: no such file; give the SentencePiece file of Gemma "
            f"{version}'s tokenizer with --config.model.tokenizer=FILE"
        )
    tokenizer = getattr(gm.text, f"Gemma{version}Tokenizer")(path=absolute(path))
    try:
        size = tokenizer.vocab_size
    except RuntimeError as error:
        raise ValueError(f"config.model.tokenizer = {path!r}: not a SentencePiece file ({error})") from error
    special = tokenizer.special_tokens
    marks = [int(special.START_OF_TURN), int(special.END_OF_TURN)]
    if size > model.config.num_embed or any(
        mark >= size or "turn" not in tokenizer.tokens[mark] for mark in marks
    ):
        raise ValueError(
            f"config.model.tokenizer = {path!r} has {size} tokens, and is not the tokenizer of "
            f"{type(model).__name__} (Gemma {version}'s, {model.config.num_embed} embeddings); "
            "give that one's file"
        )
    return tokenizer


def load_params(path: str, model: nn.Module, mesh: Mesh) -> dict:
    """The text parameters of an official checkpoint, in any of the layouts in which they were released.

    They are read to where they belong on the mesh: no device ever holds all of them.
    """

    def sharding(tree: Any) -> Any:
        return jax.tree.unflatten(jax.tree.structure(tree), layout(tree, mesh))

    if not path or not epath.Path(path).exists():
        raise FileNotFoundError(
            f"config.model.checkpoint = {path!r}: no such folder; give an official checkpoint of "
            f"{type(model).__name__} with --config.model.checkpoint=DIR"
        )
    try:
        found = gm.ckpts.load_params(absolute(path), sharding=sharding)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"config.model.checkpoint = {path!r}: not a checkpoint that the gemma package reads ({error})"
        ) from error
    wanted = shapes_of(model)
    found = without_media(found)
    differ = mismatches(wanted, found)
    if differ:
        raise ValueError(
            f"config.model.checkpoint = {path!r} is not one of {type(model).__name__}: "
            f"{'; '.join(differ[:3])}{f'; and {len(differ) - 3} more' if len(differ) > 3 else ''}; "
            "name its own config.model.name, or another checkpoint"
        )
    return jax.tree.map(lambda x, like: x.astype(like.dtype), found, wanted)


def without_media(params: Mapping[str, Any]) -> dict:
    """The parameters that read and write text."""
    flat = flatten_dict(params, sep=".")
    return unflatten_dict({name: x for name, x in flat.items() if not name.startswith(_MEDIA)}, sep=".")


def mismatches(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Where two trees of parameters differ in names or shapes, in words."""
    ours, theirs = flatten_dict(wanted, sep="."), flatten_dict(found, sep=".")
    missing = [f"it has no {name}" for name in ours if name not in theirs]
    unknown = [f"the model has no {name}" for name in theirs if name not in ours]
    shapes = [
        f"{name} is {tuple(theirs[name].shape)} there and {tuple(ours[name].shape)} in the model"
        for name in ours
        if name in theirs and theirs[name].shape != ours[name].shape
    ]
    return shapes + missing + unknown
