"""TPU slices that are described and not there: what their chips can do, and devices to compile for."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import jax
from jax.experimental import topologies

_GIB = 2**30
_FETCHED = Path(__file__).parents[1] / ".uv" / "libtpu" / "libtpu" / "libtpu.so"  # by launch/libtpu.sh
# What libtpu would ask a TPU's machine for; and it opens no chip, so that several processes may load it.
_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a chip can do at most, by Google's pages on each version (cloud.google.com/tpu/docs/VERSION).

    Attributes:
      flops: bfloat16 operations per second.
      memory: bytes of HBM that a program may use, as libtpu 0.0.50.1 says when one does not fit.
      bandwidth: of HBM, bytes per second.
      network: bytes per second that it can send to its neighbours.
      cores: how libtpu is to name the chip's configuration, so that a chip is one device.
    """

    flops: float
    memory: float
    bandwidth: float
    network: float
    cores: str


CHIPS = {
    "v4": Chip(275e12, 30.75 * _GIB, 1228e9, 300e9, "megacore"),
    "v5e": Chip(197e12, 15.75 * _GIB, 819e9, 200e9, "default"),
    "v5p": Chip(459e12, 95.73 * _GIB, 2765e9, 600e9, "megachip_tccontrol"),
    "v6e": Chip(918e12, 31.24 * _GIB, 1640e9, 400e9, "default"),
}


def chip_of(topology: str) -> Chip:
    """The chip of a slice such as v5e:4x4.

    Raises:
      ValueError: it is not written so, or the chip is not known here.
    """
    found = re.fullmatch(r"(v\w+):\d+x\d+(?:x\d+)?", topology)
    if not found or found[1] not in CHIPS:
        raise ValueError(
            f"--topology={topology}: write VERSION:SHAPE as v5e:4x4 or v5p:2x2x1, with a version of "
            f"{', '.join(CHIPS)}"
        )
    return CHIPS[found[1]]


def described_devices(topology: str) -> tuple[jax.Device, ...]:
    """The devices of a slice, good for compiling and for nothing else.

    Raises:
      ValueError: libtpu is not installed, or knows no slice of that shape.
    """
    chip = chip_of(topology)
    library = {"TPU_LIBRARY_PATH": str(_FETCHED)} if _FETCHED.exists() else {}
    for name, value in (_ALONE | library).items():
        os.environ.setdefault(name, value)
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, chip_config_name=chip.cores
        )
    except (RuntimeError, NotImplementedError) as error:
        if "not installed" in str(error):
            raise ValueError(
                "compiling for a TPU needs libtpu (Linux, 640 MB), which ./launch/libtpu.sh fetches"
            ) from error
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--topology={topology}: libtpu refuses it ({reason})") from error
    return tuple(described.devices)
