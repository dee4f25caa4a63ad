"""Single-turn RL (Eq. 2) beside configs/quickstart.py: same number of attempts, updates and KL weight.

Command   python -m score_jax train --config=configs/quickstart_single_turn.py --workdir=runs/single_turn
Hardware  2 CPU cores
Result    test split, greedy, mean of 3 seeds, by earlier code: Acc@t1 / Acc@t2 70.8 / 70.7
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.stages = ("stage1",)
    del config.stage2
    config.stage1 = quickstart.stage(
        "single_turn", "multi_turn", steps=220, attempts=1, samples_factor=2, beta_1=0.55, beta_2=0.0
    )
    return config
