r"""SCoRe on GSM8K with Gemma 3 1B: the smallest run on real words.

Command   python -m score_jax train --config=configs/gsm8k_gemma3_1b.py --workdir=DIR \
              --config.model.checkpoint=gemma3-1b-it --config.model.tokenizer=tokenizer_gemma3.model \
              --config.files.train=train.jsonl --config.files.test=test.jsonl
Hardware  accelerators with 40 GB or more in all; parameters and batches are spread over them
Memory    in all, by arithmetic: 16 GB for 1.00 billion parameters (float32 with Adam's two moments,
          12 bytes each, and two bfloat16 copies to compute and to compare with), 8 GB for the gradient and
          its sum; the sampler's cache for 256 episodes, 9 GB, and the layers' inputs of a micro-batch
          of 32, at most 3 GB; on each device one layer's parameters and activations come on top
Paper     nothing of this task or model
Result    not run: no weights were at hand
"""

import ml_collections

from configs import math_gemma2_2b, quickstart


def get_config() -> ml_collections.ConfigDict:
    config = math_gemma2_2b.get_config()
    config.task = "score_jax.datasets.gsm8k:GSM8K"
    config.model = quickstart.released("Gemma3_1B")
    config.slots.prompt = 512
    config.slots.attempt = 384
    config.problems_per_step = 64
    config.rollout_parts = 1
    config.micro_batches = 8  # of 8 problems each
    config.checkpoint_every = 200  # each is 12 GB, and all are kept; see keep_newest
    config.stage1.steps, config.stage2.steps = 200, 400
    return config
