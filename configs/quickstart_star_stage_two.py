"""STaR in place of Stage II (Table 4) beside configs/quickstart.py: same Stage I, samples and updates.

Command   python -m score_jax train --config=configs/quickstart_star_stage_two.py --workdir=runs/star_stage2
Hardware  2 CPU cores
Result    not measured by itself; at other settings in notebooks/README.md
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.stages = ("stage1", "stage2", "stage3", "stage4")
    for number, (key, steps) in enumerate(zip(config.stages[1:], (54, 53, 53), strict=True), start=1):
        # The paper says neither how many iterations nor which examples: as configs/quickstart_star.py.
        config[key] = quickstart.supervised(f"star_{number}", "star", steps=steps, keep_right=True)
    return config
