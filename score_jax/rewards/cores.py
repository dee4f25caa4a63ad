"""How many worker processes a grader starts where nobody says."""

import math
import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")  # Linux: the control group that a container has for its own


def cores() -> int:
    """How many cores this process may use: those it may run on, as far as its container's time reaches."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(there, math.ceil(_quota() or there)))


def _quota() -> float | None:
    """How many cores' time a container has (`docker --cpus`, limits of Kubernetes), None where all of it."""
    try:
        if (limit := _GROUP / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:  # of the first version of control groups
            quota, period = ((_GROUP / "cpu" / f"cpu.cfs_{of}_us").read_text() for of in ("quota", "period"))
    except (OSError, ValueError):
        return None
    return None if quota == "max" or float(quota) <= 0 else float(quota) / float(period)
