"""What a device can do, measured on it: matrix products and memory traffic; and the memory that was used."""

from __future__ import annotations

import dataclasses
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from score_jax.timing import timed

_ENOUGH = 0.05  # seconds; what takes so long is not made larger
_SIDES = (512, 16_384)  # of the matrices, smallest and largest
_BYTES = (2**28, 2**32)  # of the arrays; the smallest is larger than what caches hold
_REPEATS = 5
_CPUINFO = Path("/proc/cpuinfo")


@dataclasses.dataclass(frozen=True)
class Rates:
    """What a device can do at most.

    Attributes:
      flops: operations per second of matrix products, a multiplication and an addition counted as two.
      bandwidth: bytes per second read from and written to memory.
    """

    flops: float
    bandwidth: float


def measured_rates(dtype: str) -> Rates:
    """The default device's best over some sizes, each the median of five calls.

    Matrix products are of square normal matrices in `dtype`, at JAX's default precision, as a model has it;
    memory traffic is an array that is negated in place: read once and written once. Both grow until a call
    takes 50 ms, so that what a call costs by itself does not count.
    """
    return Rates(_best(_matmul_rate(dtype), *_SIDES), _best(_negation_rate, *_BYTES))


def _best(rate: Callable[[int], tuple[float, float]], size: int, largest: int) -> float:
    """The highest rate that is found while the size doubles."""
    best, seconds = 0.0, 0.0
    while size <= largest and seconds < _ENOUGH:
        found, seconds = rate(size)
        best, size = max(best, found), 2 * size
    return best


def _matmul_rate(dtype: str) -> Callable[[int], tuple[float, float]]:
    product = jax.jit(jnp.matmul)

    def rate(side: int) -> tuple[float, float]:
        left, right = (jax.random.normal(jax.random.key(seed), (side, side), dtype) for seed in (0, 1))
        seconds = timed(lambda: product(left, right), _REPEATS).median
        return 2.0 * side**3 / seconds, seconds

    return rate


def _negation_rate(size: int) -> tuple[float, float]:
    negated = jax.jit(jnp.negative, donate_argnums=0)
    array = jnp.ones(size // 4, jnp.float32)

    def call() -> jax.Array:
        nonlocal array
        array = negated(array)
        return array

    seconds = timed(call, _REPEATS).median
    return 2.0 * array.nbytes / seconds, seconds


def device_name() -> str:
    """The default device's kind; of a CPU its model, where Linux tells it."""
    device = jax.devices()[0]
    if device.platform == "cpu" and _CPUINFO.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", _CPUINFO.read_text(), flags=re.MULTILINE)
        return found[1] if found else device.device_kind
    return device.device_kind


def peak_memory() -> tuple[float, str]:
    """The most bytes that were held at once so far, and whose: the `device`'s, or all of the `process`."""
    held = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if held is not None:
        return float(held), "device"
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit), "process"
