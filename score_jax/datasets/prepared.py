"""A data set of TensorFlow Datasets, prepared where it is not yet."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow_datasets as tfds

from score_jax.records import Unwritable


def prepared[Builder: tfds.core.DatasetBuilder](make: Callable[[], Builder]) -> Builder:
    """A builder whose data set lies ready.

    Several processes may prepare the same one at once. Each does so in a folder of its own and renames it at
    the end, where all but the first find the name taken: what lies there is as good as theirs.

    Args:
      make: gives a new builder.

    Raises:
      Unwritable: the data set cannot be.
    """
    tfds.disable_progress_bar()
    builder = make()
    try:
        builder.download_and_prepare()
    except OSError as error:
        if not make().is_prepared():
            raise Unwritable(f"{builder.data_path}, in config.data_dir", error) from error
    # A builder knows what is prepared when it is made, or has prepared it: not what another did meanwhile.
    return builder if builder.info.splits else make()
