"""Pair-SFT (D of Table 1) beside configs/quickstart.py: same samples and updates.

Command   python -m score_jax train --config=configs/quickstart_pair_sft.py --workdir=runs/pair_sft
          --config.stage1.keep_right=True adds the examples that are right twice, D+
Hardware  2 CPU cores
Result    not measured by itself; at other settings in notebooks/README.md
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.stages = ("stage1",)
    del config.stage2
    config.stage1 = quickstart.supervised("pair_sft", "pair_sft", steps=220)
    return config
