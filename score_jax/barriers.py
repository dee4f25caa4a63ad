"""Writes into a KV cache that XLA leaves in place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Literal
from jax.extend.core.primitives import dynamic_update_slice_p, jit_p


def written_once(fun: Callable) -> Callable:
    """`fun`, with a barrier behind each `dynamic_update_slice` in it; it computes the same.

    XLA on CPUs fuses such a write into everything that reads its result. Then it is made several times, none
    of them can be in place, and in a loop over tokens each layer's cache is copied twice for every token.

    Args:
      fun: of positional pytrees of arrays, to one.
    """

    @functools.wraps(fun)
    def run(*args: Any) -> Any:
        leaves, inputs = jax.tree.flatten(args)
        outputs = []

        def flat(*leaves: Any) -> list[Any]:
            found, tree = jax.tree.flatten(fun(*jax.tree.unflatten(inputs, leaves)))
            outputs.append(tree)
            return found

        closed = jax.make_jaxpr(flat)(*leaves)
        return jax.tree.unflatten(outputs[-1], _evaluate(closed, leaves))

    return run


def _evaluate(closed: Any, inputs: Sequence[Any]) -> list[Any]:
    """What a traced function returns, equation by equation; `closed` is a ClosedJaxpr."""
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *inputs], strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]
    for equation in jaxpr.eqns:
        primitive, operands = equation.primitive, [read(atom) for atom in equation.invars]
        if primitive is jit_p:
            results = _evaluate(equation.params["jaxpr"], operands)
        else:
            results = primitive.bind(*operands, **primitive.get_bind_params(equation.params))
            results = results if primitive.multiple_results else [results]
        if primitive is dynamic_update_slice_p:
            results = jax.lax.optimization_barrier(results)
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]
