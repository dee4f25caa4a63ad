"""Several hosts that run the same command: one process each, all with all problems, and one that writes.

Arrays span the hosts' devices. What is not an array does not: each host grades the episodes that lie with it,
and `exchange` gives all hosts what each has found, so that from there on they compute the same. Files are
written by the first host alone; the work directory is one that all of them see (a bucket, or NFS).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Shaped

from score_jax import records


def start(hosts: str, heartbeat_s: int) -> None:
    """Joins the other hosts, before anything else is asked of JAX.

    Args:
      hosts: '' for one host; 'auto' where the cluster says who is there (Cloud TPU, GKE, Slurm, MPI); or
        'ADDRESS:PORT,COUNT,NUMBER': where the first host listens, how many there are, and which this is.
      heartbeat_s: seconds after which a silent host is taken for dead.

    Raises:
      ValueError: `hosts` is not understood, or there is no cluster that says who is there.
    """
    if not hosts:
        return
    joined: dict[str, Any] = {"heartbeat_timeout_seconds": heartbeat_s}
    if hosts != "auto":
        address, *numbers = hosts.split(",")
        if len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            raise ValueError(f"--hosts={hosts}: write auto, or ADDRESS:PORT,COUNT,NUMBER")
        joined |= {"coordinator_address": address}
        joined |= dict(zip(("num_processes", "process_id"), map(int, numbers), strict=True))
    try:
        jax.distributed.initialize(**joined)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"--hosts={hosts}: the hosts did not find each other ({error}); start the same command on all of "
            "them, or name the first one with --hosts=ADDRESS:PORT,COUNT,NUMBER"
        ) from error
    records.write_files(jax.process_index() == 0)


def wait(what: str) -> None:
    """Until every host is here; then what the first one wrote can be read."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def fetch(x: Shaped[Array | np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """All of an array, on every host."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def here(x: Shaped[Array | np.ndarray, "E ..."]) -> Shaped[np.ndarray, "E ..."]:
    """The rows of a spread array that lie with this host, zeros in place of the others.

    Unlike `fetch` it does not wait for what the devices were asked for after `x`.
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    found = np.zeros(x.shape, x.dtype)
    for shard in x.addressable_shards:
        found[shard.index] = shard.data
    return found


def is_mine(rows: Shaped[Array | np.ndarray, "E ..."]) -> Bool[np.ndarray, "E"]:
    """Which rows of a spread array this host is to work on: each row is one host's alone."""
    owner = np.full(rows.shape[0], jax.process_count())
    if not isinstance(rows, jax.Array):
        owner[:] = 0
    else:
        for device, (part, *_) in rows.sharding.devices_indices_map(rows.shape).items():
            process = device.process_index  # type: ignore[attr-defined] # jaxlib gives it no type
            owner[part] = np.minimum(owner[part], process)
    return owner == jax.process_index()


def exchange(find: Callable[[], Mapping[int, Any]]) -> list[Any]:
    """What all hosts find, on every host; where one finds an error instead, all end.

    Args:
      find: looks for {row: its finding, of JSON's own types}; each of the rows 0, 1, ... is one host's.

    Returns:
      The findings in the order of the rows.

    Raises:
      RuntimeError: `find` raised an error on another host; on this one that error itself is raised.
    """
    mine: Mapping[int, Any] = {}
    failed, told = None, ""
    try:
        mine = find()
    except Exception as error:  # the others wait for an answer, whatever it is
        failed, told = error, str(error) or repr(error)
    every = _gathered([list(mine.items()), told])
    if failed is not None:
        raise failed
    for host, (_, fault) in enumerate(every):
        if fault:
            raise RuntimeError(f"host {host}: {fault}")
    found = dict(pair for pairs, _ in every for pair in pairs)
    return [found[row] for row in range(len(found))]


def _gathered(mine: Any) -> list[Any]:
    """Something of JSON's own types of each host, in their order."""
    if jax.process_count() == 1:
        return [mine]
    text = np.frombuffer(json.dumps(mine).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(text)]))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(text)] = text
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(row[:length].tobytes()) for length, row in zip(lengths.ravel(), rows, strict=True)]


def from_first(find: Callable[[], Any]) -> Any:
    """What the first host finds, on every host; `find` looks for it there alone. See `exchange`."""
    (found,) = exchange(lambda: {0: find()} if jax.process_index() == 0 else {})
    return found


def any_host(flag: bool) -> bool:
    """Whether something is so on any of the hosts; they are to ask at the same point of their work."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def assert_alike(values: Sequence[Any], what: str) -> None:
    """Ends a run whose hosts have come to disagree.

    Raises:
      RuntimeError: the hosts have different values; says of what.
    """
    texts = _gathered(json.dumps(values, sort_keys=True))
    if len(set(texts)) > 1:
        raise RuntimeError(
            f"the hosts have different {what}: start all of them with the same command and files"
        )
