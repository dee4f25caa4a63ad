"""STaR (D+ of Table 1) beside configs/quickstart.py: same samples and updates, in 3 iterations.

Command   python -m score_jax train --config=configs/quickstart_star.py --workdir=runs/star
Hardware  2 CPU cores
Result    not measured by itself; at other settings in notebooks/README.md
"""

from configs import quickstart


def get_config():
    config = quickstart.get_config()
    config.stages = ("stage1", "stage2", "stage3")
    for number, (key, steps) in enumerate(zip(config.stages, (74, 73, 73), strict=True), start=1):
        # Each iteration samples from the one before and fine-tunes the base (Zelikman et al. 2022).
        config[key] = quickstart.supervised(
            f"star_{number}", "star", steps=steps, keep_right=True, start="base"
        )
    return config
