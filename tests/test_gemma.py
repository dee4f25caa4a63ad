"""The gemma package without TensorFlow, and with it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def printed(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_a_model_that_trains_needs_no_tensorflow():
    code = """if True:
        import sys
        import jax
        import score_jax.train, score_jax.evaluate
        from score_jax.config import load_config
        from score_jax.model import init_params
        from score_jax.programs import model_of
        config = load_config("configs/quickstart.py", [])
        init_params(model_of(config), jax.random.key(0))
        print({"tensorflow", "keras", "pandas", "sklearn"} & set(sys.modules) or "none")
    """
    assert printed(code)[-1] == "none"


def test_tensors_are_known_once_tensorflow_is_there():
    code = """if True:
        import numpy as np
        import score_jax.gemma
        from kauldron.typing import TfFloat
        print(isinstance(np.ones(3, np.float32), TfFloat["n"]))
        import tensorflow as tf
        print(isinstance(tf.ones(3), TfFloat["n"]), isinstance(np.ones(3, np.float32), TfFloat["n"]))
        print(tf.Tensor.__module__.split(".")[0])
    """
    assert printed(code)[-4:] == ["False", "True", "False", "tensorflow"]


def test_where_tensorflow_is_there_before_it_is_what_the_types_name():
    code = """if True:
        import tensorflow as tf
        import score_jax.gemma
        from kauldron.typing import TfFloat
        print(TfFloat.array_types == (tf.Tensor,))
    """
    assert printed(code)[-1] == "True"
