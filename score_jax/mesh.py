"""The device mesh, where things live on it, and `pmapped`: a pure function over a mesh's shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA = "data"  # the axis over which the rows of a batch are spread


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, `data`, over all devices (or the given ones)."""
    return Mesh(np.asarray(jax.devices() if devices is None else devices), (DATA,))


def by_row(mesh: Mesh) -> NamedSharding:
    """Rows spread over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def everywhere(mesh: Mesh) -> NamedSharding:
    """A full copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def check_rows(rows: int, mesh: Mesh, field: str) -> None:
    """Refuses a batch that the mesh cannot share out evenly.

    Raises:
      ValueError: names the config field.
    """
    devices = mesh.shape[DATA]
    if rows % devices:
        raise ValueError(
            f"{field} gives {rows} rows, which {devices} devices cannot share evenly; "
            f"make it a multiple of {devices}"
        )


def pmapped(
    fn: Callable,
    *,
    mesh: Mesh,
    in_specs: Any,
    out_specs: Any,
    donate: tuple[int, ...] = (),
) -> Callable:
    """`jax.pmap` in today's words: `fn` runs on each device's shard, compiled once.

    Works on any named mesh, over several hosts too. Inside `fn` the mesh's axis names are bound, for
    `jax.lax.psum` and its like.

    Args:
      fn: a pure function of arrays.
      mesh: the devices.
      in_specs: a PartitionSpec for each argument (or for each leaf of it).
      out_specs: the same for what `fn` returns.
      donate: positions of arguments whose memory the result may take.
    """
    # subtle: under check_vma=True, JAX itself sums the gradient of a replicated argument over the mesh; a
    # psum written by hand would count it twice.
    mapped = jax.shard_map(fn, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=True)
    return jax.jit(mapped, donate_argnums=donate)
