r"""SCoRe on code with Gemma 3 4B, low-rank adapters: trained on MBPP, evaluated on HumanEval.

Command   python -m score_jax train --config=configs/code_gemma3_4b.py --workdir=DIR \
              --config.model.checkpoint=gemma3-4b-it --config.model.tokenizer=tokenizer_gemma3.model \
              --config.files.mbpp=mbpp.jsonl --config.evaluate.files.human_eval=HumanEval.jsonl.gz
Hardware  accelerators with 64 GB or more in all; Linux, whose kernel the sandbox needs
Memory    as configs/math_gemma3_4b.py, but 28 GB of the sampler's cache and micro-batches of 8
Paper     nothing of this model; Table 3 has Gemini 1.0 Pro: Acc@t1 / Acc@t2 from 53.7 / 56.7 to 52.4 / 64.6
Result    not run: no weights were at hand
"""

import ml_collections

from configs import math_gemma3_4b, quickstart


def get_config() -> ml_collections.ConfigDict:
    config = math_gemma3_4b.get_config()
    config.task = "score_jax.datasets.mbpp:MBPP"
    config.files = ml_collections.ConfigDict({"mbpp": ""})
    config.evaluate.task = "score_jax.datasets.human_eval:HumanEval"
    config.evaluate.files = ml_collections.ConfigDict({"human_eval": "", "mbpp": "", "programs": ""})
    config.slots.prompt = 2048
    config.slots.attempt = 512
    config.problems_per_step = 32
    config.samples_per_problem = 4  # 128 episodes in all, Table 8; how they are shared out is ours
    config.rollout_parts = 2
    config.micro_batches = 16  # of 2 problems each

    # Table 8 but for the learning rate (ten times its 1e-5, for adapters; ours, not tuned) and for the share
    # of the 1,500 updates that Stage I has, which the paper does not say.
    common = {"learning_rate": 1e-4, "hold": 1.0, "beta_1": 0.01}
    config.stage1 = quickstart.stage("stage_one", "stage_one", steps=500, beta_2=0.25, **common)
    config.stage2 = quickstart.stage("stage_two", "stage_two", steps=1000, beta_2=0.0, alpha=10.0, **common)
    return config
