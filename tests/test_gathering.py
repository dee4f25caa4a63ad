"""What devices send each other where parameters are cut over fsdp: parameters, and never the rows' states."""

import math
import re

import jax
import jax.numpy as jnp
import pytest
import tiny

from configs import quickstart
from score_jax import policy
from score_jax.hlo import read
from score_jax.mesh import by_row, placed
from score_jax.model import shapes_of, small_gemma
from score_jax.places import Grid, as_it_stands
from score_jax.sampling import sample
from score_jax.slots import Slots

ROWS, LENGTH = 64, 24
MESH = tiny.mesh(1, 8)
MODEL = small_gemma(quickstart.get_config().model, 320)


def sent(compiled):
    """The number of elements of each array that a collective operation of a compiled program makes."""
    text = compiled.as_text()
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(rf"= (\(.*?\)|\S+) (?:{kinds})(?:-start)?\(", text)
    shapes = [dims for shape in found for dims in re.findall(r"\w+\[([\d,]*)\]", shape)]
    return [math.prod(int(size) for size in dims.split(",") if size) for dims in shapes]


def rows(shape, dtype):
    return jax.ShapeDtypeStruct((ROWS, *shape), dtype, sharding=by_row(MESH))


def largest(params):
    return max(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("shared", [False, True], ids=["rows", "groups after a prompt"])
def test_an_update_gathers_parameters_and_no_rows(shared, remat):
    params, places, length = placed(shapes_of(MODEL), MESH), None, LENGTH
    if shared:
        places = as_it_stands(2 * ROWS, LENGTH, Grid(2, prompt=LENGTH // 2, group=2)).places.part(0)
        length = places.tokens.shape[1]

    def loss(params, tokens, mesh):
        how = {"places": places, "remat": remat, "mesh": mesh}
        hidden = policy.hidden_states(MODEL, params, tokens, jnp.ones_like(tokens), **how)
        return policy.head_of(MODEL, params, mesh=mesh).log_softmax(hidden)[..., 0].sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=2)
    tokens = rows((length,), jnp.int32)
    held, free = (sent(gradient.lower(params, tokens, mesh).compile()) for mesh in (MESH, None))
    # A state of all rows has more elements than any parameter of so small a model.
    states = ROWS * LENGTH * MODEL.config.embed_dim
    assert held and max(held) <= largest(params) < states
    assert max(free) >= states, "the compiler by itself no longer gathers rows: is the rule still of use?"


def sampler(mesh, model=MODEL):
    """The sampler, compiled for a mesh."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    row = lambda shape, dtype: jax.ShapeDtypeStruct((ROWS, *shape), dtype, sharding=by_row(mesh))
    return sample.lower(
        model,
        placed(shapes_of(model), mesh),
        row((LENGTH,), jnp.int32),
        row((), key.dtype),
        slots=Slots(LENGTH, LENGTH, (5, 6), 2),
        temperature=1.0,
        pad=0,
        end=1,
        mesh=mesh,
    ).compile()


def test_the_sampler_gathers_parameters_before_the_first_token():
    compiled = sampler(MESH)
    assert max(sent(compiled)) <= largest(placed(shapes_of(MODEL), MESH))
    loops = re.findall(r"\bbody=%?([\w.-]+)", compiled.as_text())
    for body in re.split(r"\n\n", compiled.as_text()):
        if any(body.lstrip().startswith((f"%{name} ", f"{name} ")) for name in loops):
            assert "all-gather" not in body


@pytest.mark.parametrize(("devices", "heads"), [((8, 1, 1), 2), ((1, 8, 1), 2), ((2, 2, 2), 1)])
def test_each_device_keeps_its_own_part_of_the_cache(devices, heads):
    """Rows over data and fsdp, key heads over tensor, in the loop that draws the tokens."""
    config = quickstart.get_config().model
    config.kv_heads = 2
    mesh = tiny.mesh(*devices)
    share = ROWS // (devices[0] * devices[1])
    places = {2 * LENGTH, 3 * LENGTH + 2}  # of the first attempt, and of both
    held = {
        shape.dims
        for loop in loops_of(sampler(mesh, small_gemma(config, 320)))
        for shape in loop.shapes
        if len(shape.dims) == 4 and shape.dims[1] in places
    }
    assert held == {(share, place, heads, config.head_width) for place in places}


def loops_of(compiled):
    """The loops of a compiled program, as instructions."""
    computations = read(compiled.as_text()).computations.values()
    return [found for inside in computations for found in inside.values() if found.opcode == "while"]
