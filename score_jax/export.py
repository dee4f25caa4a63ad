"""`export`: a trained policy as a checkpoint that the gemma package reads."""

from __future__ import annotations

from collections.abc import Sequence

from etils import epath

from score_jax import model as models
from score_jax.checkpoint import absolute
from score_jax.config import config_of, relocate
from score_jax.evaluate import load_one
from score_jax.gemma import gm
from score_jax.log import say


def export(
    workdir: epath.Path, output: epath.Path, checkpoint: str = "best", overrides: Sequence[str] = ()
) -> None:
    """Writes the policy's parameters, adapters merged, in the model's own dtype.

    `gm.ckpts.load_params(output)` reads them back.

    Raises:
      FileNotFoundError: there is no such run or checkpoint.
      ValueError: `output` exists.
    """
    config = config_of(workdir)
    relocate(config, overrides)
    if output.exists():
        raise ValueError(f"--output={output} exists; name a new folder, nothing is overwritten")
    name, actor, params = load_one(config, workdir, checkpoint, say)
    params = models.fuse(models.for_params(actor.model, params), params)
    gm.ckpts.save_params(params, absolute(output), wait_until_finished=True)
    say(f"Exported {name} to {output}; gm.ckpts.load_params({str(output)!r}) reads it.")
