"""Sums over the tokens of each attempt, and back."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def per_attempt(
    values: Float[Array, "E L"], attempt: Int[Array, "E L"], attempts: int
) -> Float[Array, "E N"]:
    """Sums of `values` over the tokens of attempt 1, 2, ..., N."""
    belongs = attempt[..., None] == 1 + jnp.arange(attempts)
    return jnp.einsum("el,eln->en", values, belongs.astype(values.dtype))


def per_token(values: Float[Array, "E N"], attempt: Int[Array, "E L"]) -> Float[Array, "E L"]:
    """Each token's attempt's value; 0 on context and padding."""
    belongs = attempt[..., None] == 1 + jnp.arange(values.shape[1])
    return jnp.einsum("en,eln->el", values, belongs.astype(values.dtype))
