"""The bonus of Stage II by the KL weight of Stage I, on the embedded task: 16 points, chosen by validation.

Command   python -m score_jax sweep  --config=configs/sweeps/alpha_beta_2.py --workdir=runs/alpha_beta_2
          python -m score_jax report --workdir=runs/alpha_beta_2
Hardware  2 CPU cores
Result    not measured
"""

import ml_collections

from configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.evaluate.split = "validation"  # by which a sweep chooses; the test split is for the chosen point

    config.sweep = ml_collections.ConfigDict()
    config.sweep.base = "configs/quickstart.py"  # the config whose fields the points change
    config.sweep.grid = ml_collections.ConfigDict(  # each field's values, in tuples; {} is none
        {
            "stage1": {"beta_2": (0.1, 0.25, 0.54, 1.0)},
            "stage2": {"alpha": (0.0, 2.0, 5.0, 10.0)},
        }
    )
    # Fields that are drawn: (lowest, highest, "log" | "linear" | "integer"). Every draw is tried with every
    # combination of the grid.
    config.sweep.random = ml_collections.ConfigDict()
    config.sweep.points = 0  # how many draws; 0 if nothing is drawn
    config.sweep.seed = 0  # of the draws: draw i is the same however many there are
    return config
