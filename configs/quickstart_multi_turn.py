"""Naive multi-turn RL (Eq. 1) beside configs/quickstart.py: same samples, updates, KL weight on attempt 1.

Command   python -m score_jax train --config=configs/quickstart_multi_turn.py --workdir=runs/multi_turn
Hardware  2 CPU cores
Result    test split, greedy, mean of 3 seeds, by earlier code: Acc@t1 / Acc@t2 70.8 / 85.0
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.stages = ("stage1",)
    del config.stage2
    config.stage1 = quickstart.stage("multi_turn", "multi_turn", steps=220, beta_1=0.02, beta_2=0.53)
    return config
