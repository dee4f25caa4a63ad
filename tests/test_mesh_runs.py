"""Whole runs on meshes of several shapes: the same tokens, and the same parameters but for rounding."""

import contextlib
import functools

import jax
import numpy as np
import pytest
from test_quickstart import options, params_at, rows_of

from score_jax import rl, sampling, step
from score_jax.__main__ import main

# data x fsdp x tensor
MESHES = {"1": (1, 1, 1), "8": (8, 1, 1), "2x4": (2, 4, 1), "2x2x2": (2, 2, 2)}
CHANGES = {"task": "tiny:EvenRiddles", "stage2.steps": 8, "checkpoint_every": 10, "model.kv_heads": 2}


@contextlib.contextmanager
def on_mesh(name):
    """A patch under which there are just the devices of a mesh, and the config's fields for it."""
    sizes, devices = MESHES[name], jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: devices[: np.prod(sizes)])
        yield patch, dict(zip(("mesh.data", "mesh.fsdp", "mesh.tensor"), sizes, strict=True))


@pytest.fixture(scope="module")
def run_on(tmp_path_factory):
    """Trains on a mesh: the folder of the run, the tokens that were sampled, and how often jit compiled."""
    folder = tmp_path_factory.mktemp("meshes")

    @functools.cache
    def train_on(name):
        sampled, gather = [], rl.gather

        def noting(*args, **kwargs):
            experience, graded = gather(*args, **kwargs)
            sampled.append(np.asarray(experience.episodes.tokens))
            return experience, graded

        with on_mesh(name) as (patch, fields):
            patch.setattr(rl, "gather", noting)
            before = step.train_step._cache_size(), sampling.sample._cache_size()
            run = folder / name
            assert main(["train", f"--workdir={run}", *options(folder, **CHANGES | fields)]) == 0
            after = step.train_step._cache_size(), sampling.sample._cache_size()
            params = params_at(run, folder, 10, **CHANGES | fields)
        return run, sampled, np.subtract(after, before), params

    return train_on


@pytest.mark.parametrize("name", [name for name in MESHES if name != "1"])
def test_a_run_does_not_depend_on_the_mesh(run_on, name):
    (_, wanted_tokens, _, wanted), (run, tokens, compiled, params) = run_on("1"), run_on(name)
    assert len(tokens) == len(rows_of(run / "metrics.jsonl")) == 10
    for one, other in zip(tokens, wanted_tokens, strict=True):
        np.testing.assert_array_equal(one, other)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6), params, wanted)
    assert compiled.tolist() == [1, 1], "one compilation of the update, and one of the sampler"


def test_a_checkpoint_goes_on_another_mesh(run_on):
    """8 devices, then 2 x 4, then one: what each of them finds is what the first one wrote."""
    run, _, _, wanted = run_on("8")
    for name in ("2x4", "1"):
        with on_mesh(name) as (_, fields):
            found = params_at(run, run.parent, 10, **CHANGES | fields)
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
