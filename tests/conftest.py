"""Eight CPU devices, and the shapes that signatures promise checked at run time."""

import os

# Before JAX starts: the tests hold one device against eight. On a busy machine one of the eight may keep the
# others waiting for longer than the 40 s after which XLA would end the process.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_collective_call_terminate_timeout_seconds=120",
        "--xla_force_host_platform_device_count=8",
    )
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import jax
import jaxtyping
import pytest

# A busy machine is slow, not wrong.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

with jaxtyping.install_import_hook("score_jax", "beartype.beartype"):
    import score_jax.compare
    import score_jax.datasets.gsm8k
    import score_jax.datasets.hendrycks_math
    import score_jax.datasets.human_eval
    import score_jax.datasets.jsonl
    import score_jax.datasets.mbpp_r
    import score_jax.datasets.number_riddles
    import score_jax.evaluate
    import score_jax.export
    import score_jax.figures
    import score_jax.pretrain
    import score_jax.report
    import score_jax.solve
    import score_jax.study_page
    import score_jax.train  # noqa: F401


# Files of minutes, the longest first: begun last, one of them would keep one process at work alone.
LONG = (
    *("test_survival", "test_configs", "test_hosts", "test_notebooks", "test_mesh_runs", "test_offline"),
    *("test_config_property", "test_diagnosis", "test_study", "test_model"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of `LONG`, then all others; launch/test.sh has pytest-xdist keep it."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """Drops what a file's tests have compiled. Each program takes some memory maps, of which Linux gives a
    process 65,530; XLA does not survive the lack of one."""
    yield
    jax.clear_caches()
