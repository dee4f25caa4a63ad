"""The gemma package. Its layers alone need no TensorFlow, whose import takes seconds and 650 MB.

kauldron's array types name `tf.Tensor`, and import TensorFlow for nothing else. They get a stand-in here that
knows TensorFlow's tensors once somebody has imported it.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any


class _Tensors(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        real = sys.modules.get("tensorflow")
        return real is not None and isinstance(instance, real.Tensor)


class _Tensor(metaclass=_Tensors):
    """Stands for `tf.Tensor`."""


def _import_array_types() -> None:
    if "tensorflow" in sys.modules:
        return
    stand_in: Any = types.ModuleType("tensorflow")
    stand_in.Tensor = _Tensor
    sys.modules["tensorflow"] = stand_in
    try:
        importlib.import_module("kauldron.typing")
    finally:
        del sys.modules["tensorflow"]  # the next who asks gets the real one


_import_array_types()

from gemma import gm, peft  # noqa: E402

__all__ = ["gm", "peft"]
