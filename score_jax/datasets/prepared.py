"""A data set of TensorFlow Datasets, prepared where it is not yet."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow_datasets as tfds


def prepared[Builder: tfds.core.DatasetBuilder](make: Callable[[], Builder]) -> Builder:
    """A builder whose data set lies ready.

    Several processes may prepare the same one at once. Each does so in a folder of its own and renames it at
    the end, where all but the first find the name taken: what lies there is as good as theirs.

    Args:
      make: gives a new builder.

    Raises:
      OSError: the data set cannot be written.
    """
    tfds.disable_progress_bar()
    builder = make()
    try:
        builder.download_and_prepare()
    except OSError:
        builder = make()  # a builder looks for what is prepared when it is made
        if not builder.is_prepared():
            raise
    return builder
