"""The quickstart in two minutes, for notebooks: all of its parts, a third of the riddles, a rough model.

Command   python -m score_jax train --config=configs/minute.py --workdir=runs/minute
Hardware  2 CPU cores
Time      2 min 23 s, training and evaluation (2 cores of an AMD EPYC at a slow hour, 2026-11-28)
Result    the first 176 low test riddles, greedy, seed 0: Acc@t1 / Acc@t2 53.4 / 53.4 (base), 42.0 / 38.1
          (Stage I), 45.5 / 46.0 (Stage II): fifteen updates are too few to learn anything from
"""

import ml_collections

from configs import quickstart
from score_jax.datasets.number_riddles import NumberRiddles


class LowRiddles(NumberRiddles):
    """Those whose number is at most 8."""

    near_rate = 1.0

    def problems(self, split):
        return [problem for problem in super().problems(split) if problem.level == 1]


def get_config() -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.task = "configs.minute:LowRiddles"
    config.pretrain.batch = 16
    config.pretrain.guess.steps = 800
    config.pretrain.correct.steps = 600
    config.problems_per_step = 32
    config.micro_batches = 4
    config.stage1.steps = 5
    config.stage2.steps = 10
    for stage in (config.stage1, config.stage2):
        stage.warmup_steps = 2
        stage.learning_rate = 5e-4
    config.checkpoint_every = 5
    config.evaluate.problems = 176
    config.evaluate.batch = 176
    config.log.every = 50
    config.log.transcript_every = 1000
    return config
