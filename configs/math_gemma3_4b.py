r"""SCoRe on MATH with Gemma 3 4B, low-rank adapters.

Command   python -m score_jax train --config=configs/math_gemma3_4b.py --workdir=DIR \
              --config.model.checkpoint=gemma3-4b-it --config.model.tokenizer=tokenizer_gemma3.model \
              --config.files.train=train.jsonl --config.files.test=test.jsonl
Hardware  accelerators with 80 GB or more in all; parameters and batches are spread over them. Chips of
          16 GB did not suffice: on 16 of them an update of earlier code needed 22.3 GiB of each, by `plan`
Memory    in all, by arithmetic: 8 GB for 3.88 billion frozen parameters (bfloat16), 2 GB for 108
          million adapters (float32, with Adam's two moments, the gradient and its sum); the sampler's cache
          for 64 episodes, 33 GB, and the layers' inputs of a micro-batch of 32, at most 20 GB; on each device
          one layer's parameters and activations come on top
Paper     nothing of this model; Table 2 has Gemini 1.5 Flash: Acc@t1 / Acc@t2 from 52.6 / 41.4 to 60.0 / 64.4
Result    not run: no weights were at hand
"""

import ml_collections

from configs import math_gemma2_2b, quickstart


def get_config() -> ml_collections.ConfigDict:
    config = math_gemma2_2b.get_config()
    config.model = quickstart.released("Gemma3_4B")
    config.lora_rank = 64
    for stage in (config.stage1, config.stage2):
        stage.learning_rate = 5e-5  # adapters take ten times Table 8's 5e-6; ours, not tuned
    config.checkpoint_every = 100  # each is 1.3 GB
    return config
