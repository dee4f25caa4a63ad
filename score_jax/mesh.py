"""The device mesh, the rules by which arrays lie on it, and `pmapped`: a pure function over a mesh's shards.

    axis     rows of a batch    parameters, their moments
    data     spread             copies
    fsdp     spread             each is cut along its width, and gathered where it is used
    tensor   copies             each is cut along heads, hidden units or vocabulary, and stays so

One mesh serves the sampler, the reference and the update. What the compiler makes of the rules it decides by
itself (GSPMD): they change where numbers lie, and no number but for the rounding of sums.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from score_jax.config_check import AXES

ROWS = ("data", "fsdp")  # the axes over which the rows of a batch are spread

# By the end of a parameter's name, the mesh axis of each of its own axes. D width, H heads, K of keys and
# values, d per head, F hidden units, V vocabulary. An axis that a mesh axis does not divide stays whole.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"input_embedding", ("tensor", "fsdp")),  # V D
    (r"q_einsum/w", ("tensor", "fsdp", None)),  # H D d
    (r"kv_einsum/w", (None, "tensor", "fsdp", None)),  # 2 K D d
    (r"qkv_einsum/w", (None, "tensor", "fsdp", None)),  # 3 H D d
    (r"attn_vec_einsum/w", ("tensor", None, "fsdp")),  # H d D
    (r"mlp/gating_einsum", (None, "tensor", "fsdp")),  # 2 F D; Gemma 2: 2 D F
    (r"mlp/linear", ("tensor", "fsdp")),  # F D
)
BATCH = PartitionSpec(ROWS)
PARTS = PartitionSpec(None, ROWS)  # a batch in several parts
_CACHED = PartitionSpec(ROWS, None, "tensor", None)  # keys and values: E L K d


def mesh_of(config: Mapping[str, Any] | ml_collections.ConfigDict) -> Mesh:
    """The mesh of config.mesh over all devices, those of other hosts too.

    Raises:
      ValueError: its sizes do not fit the devices; says which would.
    """
    return make_mesh(tuple(config["mesh"][axis] for axis in AXES), tuple(jax.devices()))


@functools.cache
def make_mesh(sizes: tuple[int, ...], devices: tuple[jax.Device, ...]) -> Mesh:
    """A mesh of `devices`, with one size for each of AXES; a size of -1 takes all that the others leave.

    Raises:
      ValueError: see `mesh_of`.
    """
    known = math.prod(size for size in sizes if size > 0)
    filled = tuple(len(devices) // known if size == -1 else size for size in sizes)
    if any(size < 1 for size in filled) or math.prod(filled) != len(devices):
        asked = ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
        raise ValueError(
            f"config.mesh has {asked}, and there are {len(devices)} devices; give sizes whose product is "
            f"{len(devices)}, one of them may be -1: it takes all that the others leave"
        )
    # Auto: the compiler chooses where intermediate results lie.
    return jax.make_mesh(filled, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def by_row(mesh: Mesh) -> NamedSharding:
    """Rows spread over the data and fsdp axes."""
    return NamedSharding(mesh, BATCH)


def spread(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays that every host has whole, put by row; those that lie on the mesh already are moved there.
    Without a mesh they stay as they are."""
    if mesh is None:
        return tree
    return jax.tree.map(lambda x: _put(x, by_row(mesh)), tree)


def layout(tree: Any, mesh: Mesh) -> list[NamedSharding]:
    """Where parameters, or anything that mirrors them as Adam's moments do, lie: a sharding for each leaf.

    Args:
      tree: of arrays or of their shapes; a leaf's path ends with the parameter's name.
      mesh: the devices.
    """

    return _lay(tree, mesh, lambda axis: axis)


def _lay(tree: Any, mesh: Mesh, choose: Callable[[str | None], str | None]) -> list[NamedSharding]:
    def lay(path: tuple, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = PartitionSpec(*map(choose, _rule(name, leaf.ndim)))
        return NamedSharding(mesh, _fitting(spec, leaf.shape, mesh))

    return [lay(path, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def place(tree: Any, mesh: Mesh) -> Any:
    """Parameters, or what mirrors them, put where `layout` says."""
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, list(map(_put, leaves, layout(tree, mesh))))


def _put(x: Any, where: NamedSharding) -> Array:
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(x), where), impl=jax.random.key_impl(x))
    if jax.process_count() > 1 and not (isinstance(x, jax.Array) and not x.is_fully_addressable):
        x = np.asarray(x)  # other hosts' devices are reached from the host's own memory alone
    return jax.device_put(x, where)


def placed(shapes: Any, mesh: Mesh) -> Any:
    """Shapes and dtypes that say where their arrays are to lie, for reading them there from disk."""
    leaves, structure = jax.tree.flatten(shapes)
    where = zip(leaves, layout(shapes, mesh), strict=True)
    return jax.tree.unflatten(
        structure, [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for x, sharding in where]
    )


def keep_layout(tree: Any, mesh: Mesh | None) -> Any:
    """Inside jit: holds parameters, gradients or a state to `layout`; without a mesh nothing is held."""
    if mesh is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    held = jax.lax.with_sharding_constraint(leaves, layout(tree, mesh))
    return jax.tree.unflatten(structure, held)


def gathered(tree: Any, mesh: Mesh | None) -> Any:
    """Inside jit: parameters as they are used, no longer cut over fsdp; without a mesh nothing is held.

    Left to itself the compiler gathers rows and leaves parameters cut, which moves far more.
    """
    if mesh is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    whole = _lay(tree, mesh, lambda axis: None if axis == "fsdp" else axis)
    return jax.tree.unflatten(structure, jax.lax.with_sharding_constraint(leaves, whole))


def keep_rows(tree: Any, mesh: Mesh | None, spec: PartitionSpec = BATCH) -> Any:
    """Inside jit: holds arrays to `spec`, which spreads their rows; without a mesh nothing is held."""
    if mesh is None:
        return tree
    hold = lambda x: jax.lax.with_sharding_constraint(x, NamedSharding(mesh, _fitting(spec, x.shape, mesh)))
    return jax.tree.map(hold, tree)


def keep_whole(tree: Any, mesh: Mesh | None) -> Any:
    """Inside jit: holds arrays to a full copy on each device, so that each host can read them."""
    return keep_rows(tree, mesh, PartitionSpec())


def keep_cache(cache: dict, mesh: Mesh | None) -> dict:
    """Inside jit: holds a KV cache's rows and heads to the mesh; without a mesh nothing is held."""
    return {
        name: keep_rows({key: layer[key] for key in ("end_index", "positions")}, mesh)
        | keep_rows({key: layer[key] for key in ("k", "v")}, mesh, _CACHED)
        for name, layer in cache.items()
    }


def _rule(name: str, axes: int) -> PartitionSpec:
    """The rule for a parameter's name; those that have none are small, and copied."""
    for end, spec in RULES:
        if re.search(rf"(^|/){end}$", name) and len(spec) == axes:
            return PartitionSpec(*spec)
    return PartitionSpec()


def _fitting(spec: PartitionSpec, shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """The spec without the mesh axes that cut nothing: those of size 1, and those that do not divide it.

    jit leaves such axes out of its results' shardings. Were they kept here, the state after the first update
    would lie otherwise than the one before it, and the update would be compiled twice.
    """
    fitted: list[tuple[str, ...] | str | None] = []
    for axis, length in zip(spec, shape, strict=False):
        names = (axis,) if isinstance(axis, str) else axis or ()
        cutting = tuple(name for name in names if mesh.shape[name] > 1)
        if not cutting or length % math.prod(mesh.shape[name] for name in cutting):
            fitted.append(None)
        else:
            fitted.append(cutting if len(cutting) > 1 else cutting[0])
    while fitted and fitted[-1] is None:
        fitted.pop()
    return PartitionSpec(*fitted)


def check_rows(rows: int, mesh: Mesh, field: str) -> None:
    """Refuses a batch that the mesh cannot share out evenly.

    Raises:
      ValueError: names the config field.
    """
    if rows % (count := shares(mesh)):
        raise ValueError(
            f"{field} gives {rows} rows, which {count} shares of the mesh cannot divide evenly; "
            f"make it a multiple of {count}"
        )


def shares(mesh: Mesh | None) -> int:
    """Into how many parts rows are cut; 1 without a mesh."""
    return math.prod(mesh.shape[axis] for axis in ROWS) if mesh else 1


def prompt_rows(rows: int, samples: int, count: int) -> int:
    """How many of `rows` that are worked on at once share a prompt, which is then computed once: all samples
    of a problem, or so many that `count` shares of a mesh can divide the prompts evenly, down to 1."""
    fits = lambda together: not samples % together and not rows % (together * count)
    return next(filter(fits, range(samples, 1, -1)), 1)


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


def over_rows(module: Callable[..., Array], mesh: Mesh | None) -> Callable[..., Array]:
    """A pure module of per-row arrays, `pmapped` over the rows; without a mesh the module itself.

    Args:
      module: a pytree with coefficients, which every device has whole; called with arrays [E, ...].
      mesh: the devices.
    """
    if mesh is None:
        return module

    def call(*arrays: Array) -> Array:
        specs = (PartitionSpec(), *(BATCH for _ in arrays))
        run = pmapped(lambda module, *x: module(*x), mesh=mesh, in_specs=specs, out_specs=BATCH)
        return run(module, *arrays)

    return call
