"""A study with made-up rewards: methods that correct themselves more or less, over three seeds."""

import numpy as np

from score_jax import estimates, figures

SEEDS, PROBLEMS = 3, 60
# Method -> (what it is called, chance to be right at attempt 1, to correct, to spoil).
METHODS = {
    "base": ("Base model", 0.55, 0.05, 0.08),
    "self_refine": ("Self-Refine", 0.55, 0.06, 0.05),
    "star": ("STaR, D_STaR", 0.55, 0.15, 0.20),
    "star_plus": ("STaR, D+_STaR", 0.56, 0.10, 0.02),
    "pair_sft": ("Pair-SFT, D_SFT", 0.55, 0.25, 0.12),
    "pair_sft_plus": ("Pair-SFT, D+_SFT", 0.57, 0.04, 0.01),
    "score": ("SCoRe", 0.62, 0.60, 0.03),
    "multi_turn": ("Multi-turn RL", 0.62, 0.35, 0.04),
    "single_turn": ("w/o multi-turn training", 0.66, 0.05, 0.07),
    "no_stage_one": ("w/o Stage I", 0.60, 0.40, 0.03),
    "no_shaping": ("w/o reward shaping", 0.62, 0.30, 0.03),
}
TABLES = {
    "table1": ["base", "star", "star_plus", "pair_sft", "pair_sft_plus"],
    "table2": ["base", "self_refine", "star_plus", "pair_sft", "score"],
    "table4": ["score", "single_turn", "no_stage_one", "no_shaping", "star_stage_two", "offline_first"],
}
_ONE = {"temperature": 0.5, "steps": 60, "learning_rate": 1.5e-4, "alpha": 0.0, "beta_1": 0.02, "beta_2": 0.5}
_TWO = {"steps": 160, "learning_rate": 1.5e-4, "alpha": 5.0, "beta_1": 0.02, "beta_2": 0.28, "scale_kl": True}
STAGES = {
    "score": [{"name": "stage_one", **_ONE}, {"name": "stage_two", **_TWO}],
    "no_stage_one": [
        {
            "name": "both",
            **_ONE,
            "steps": 220,
            "between": [_ONE, _TWO | {"discount": 0.8}],
            "decisive_only": False,
        }
    ],
    "star_plus": [
        {
            "name": "star_1",
            "steps": 74,
            "learning_rate": 1e-5,
            "keep_right": True,
            "attempts": 2,
            "temperature": 1.0,
        }
    ],
    "multi_turn": [
        {
            "name": "rl",
            **_TWO,
            "scale_kl": False,
            "alpha": 0.0,
            "offline": 0.5,
            "attempts": 3,
            "critique": True,
        }
    ],
    "single_turn": [{"name": "rl", **_ONE, "attempts": 1, "adapt_beta_2": 1.0}],
}
DRAWN = ("score", "multi_turn", "no_stage_one")


def rewards_of(method: str, attempts: int = 2, problems: int = PROBLEMS, offset: int = 0) -> list[np.ndarray]:
    """[n, N] of each seed."""
    _, first, correct, spoil = METHODS[method]
    runs = []
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, list(METHODS).index(method), offset])
        right = rng.random((problems, attempts)) < first - 0.03 * seed
        for t in range(1, attempts):
            chance = rng.random(problems)
            right[:, t] = np.where(right[:, t - 1], chance >= spoil, chance < correct)
        runs.append(right.astype(float))
    return runs


def study() -> dict:
    """A study.json in which some runs are still missing: all of Table 5, two rows of Table 4, one seed."""
    rewards = {name: rewards_of(name) for name in METHODS}
    rewards["pair_sft_plus"] = rewards["pair_sft_plus"][:2]
    rows = {}
    for name, (label, *_) in METHODS.items():
        trained = name not in ("base", "self_refine")
        rows[name] = {
            "label": label,
            "checkpoint": "stage_two" if trained else "base",
            "updates": 220 if trained else 0,
            "sampled": (56_320 if name == "single_turn" else 112_640) if trained else 0,
            "seconds": [200.0, 220.0, 240.0] if trained else [],
            "stages": STAGES.get(name, []),
            "kl_t1": [0.2, 0.24, 0.34] if trained else [],
            "statistics": estimates.statistics_of(rewards[name]),
        }
        if name in DRAWN:
            rows[name]["validation"] = estimates.statistics_of(rewards_of(name, problems=40, offset=1))
        if name not in ("score", "pair_sft_plus"):
            rows[name]["minus_score"] = estimates.differences_of(rewards["score"], rewards[name])
    for pool in (96, 192):
        rows[f"multi_turn@{pool}"] = rows["multi_turn"] | {"pool": pool, "method": "multi_turn"}
    gain = lambda name: rows[name]["minus_score"]["acc_t2"]
    return {
        "task": "number_riddles:NumberRiddles",
        "split": "test",
        "problems": PROBLEMS,
        "seeds": list(range(SEEDS)),
        "setting": {"train_problems": 384, "temperature": 1.0},
        "rows": rows,
        "tables": TABLES,
        "figures": drawings(),
        "claims": [
            estimates.claim("SCoRe corrects better than single-turn RL.", gain("single_turn"), "above"),
            estimates.claim("SCoRe is worse than single-turn RL.", gain("single_turn"), "below"),
            estimates.claim("One seed says otherwise.", gain("multi_turn"), "above"),
        ],
        "missing": ["star_stage_two/0", "offline_first/0", "pair_sft_plus/2"],
    }


def drawings() -> dict:
    """Every figure but the tenth."""
    levels = [i % 3 + 1 for i in range(PROBLEMS)]
    ratios = lambda name, offset: [run.mean(axis=1) * 0.4 for run in rewards_of(name, offset=offset)]
    logs = {name: [training_log(name, seed) for seed in range(SEEDS)] for name in DRAWN}
    through = lambda name, offset: {step: rewards_of(name, offset=offset + step) for step in (20, 40, 60)}
    return {
        "figure1": figures.votes_over_seeds([figures.vote_curve(*votes(seed)) for seed in range(SEEDS)])
        | {"temperature": 0.7},
        "figure3": figures.edit_shares(
            {split: {name: ratios(name, i) for name in DRAWN} for i, split in enumerate(("train", "test"))}
        ),
        "figure4": {
            name: figures.correction_curves(through(name, 9), through(name, 99)) for name in DRAWN[:2]
        },
        "figure5": {name: figures.training_curves(logs[name]) for name in DRAWN},
        "figure7": {name: figures.flows_by_level(rewards_of(name), levels) for name in DRAWN},
        "figure8": {name: figures.accuracy_by_attempt(rewards_of(name, attempts=10)) for name in DRAWN},
        "pool": {
            name: figures.pool_curve({n: rewards_of(name, offset=n) for n in (96, 192, 384)})
            for name in DRAWN
        },
    }


def votes(seed: int):
    """What vote_curve takes: answers and rewards of 32 samples, corrected ones right more often."""
    rng = np.random.default_rng(seed)
    skill = rng.random((PROBLEMS, 1))
    right = [rng.random((PROBLEMS, 32)) < skill**power for power in (1.2, 0.7)]
    said = [
        [
            [str(0 if ok else wrong) for ok, wrong in zip(*row, strict=True)]
            for row in zip(r, rng.integers(1, 4, r.shape), strict=True)
        ]
        for r in right
    ]
    return (*said, *(r.astype(float) for r in right))


def training_log(method: str, seed: int) -> list[dict]:
    """Rows of metrics.jsonl."""
    _, first, correct, _ = METHODS[method]
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, 121):
        gained = correct * (1 - first) * min(1.0, step / 80)
        noise = 0.02 * rng.normal(size=3)
        rows.append(
            {
                "step": step,
                "stage": "stage_one" if step <= 40 else "stage_two",
                "reward_t1": first - 0.05 + noise[0],
                "reward_t2": first - 0.05 + gained + noise[1],
                "changed": 0.1 + gained + abs(noise[2]),
            }
        )
    return rows
