"""Sums over the tokens of each attempt, and back."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def per_attempt(
    values: Float[Array, "E L"], attempt: Int[Array | np.ndarray, "E L"], attempts: int
) -> Float[Array, "E N"]:
    """Sums of `values` over the tokens of attempt 1, 2, ..., N.

    >>> per_attempt(jnp.array([[9.0, 1.0, 2.0, 9.0, 4.0]]), jnp.array([[0, 1, 1, 0, 2]]), attempts=2).tolist()
    [[3.0, 4.0]]
    """
    belongs = attempt[..., None] == 1 + jnp.arange(attempts)
    return jnp.einsum("el,eln->en", values, belongs.astype(values.dtype))


def per_token(values: Float[Array, "E N"], attempt: Int[Array, "E L"]) -> Float[Array, "E L"]:
    """Each token's attempt's value; 0 on context and padding.

    >>> per_token(jnp.array([[5.0, 7.0]]), jnp.array([[0, 1, 1, 0, 2]])).tolist()
    [[0.0, 5.0, 5.0, 0.0, 7.0]]
    """
    belongs = attempt[..., None] == 1 + jnp.arange(values.shape[1])
    return jnp.einsum("en,eln->el", values, belongs.astype(values.dtype))
