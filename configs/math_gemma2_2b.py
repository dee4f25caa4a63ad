r"""SCoRe on MATH with Gemma 2 2B: the paper's open-model experiment (Table 8, App. A.1).

Command   python -m score_jax train --config=configs/math_gemma2_2b.py --workdir=DIR \
              --config.model.checkpoint=gemma2-2b-it --config.model.tokenizer=tokenizer_gemma2.model \
              --config.files.train=train.jsonl --config.files.test=test.jsonl
Hardware  accelerators with 160 GB or more in all; parameters and batches are spread over them. Chips of
          16 GB did not suffice: on 16 of them an update of earlier code needed 18.6 GiB of each, by `plan`
Memory    in all, by arithmetic: 42 GB for 2.61 billion parameters (float32 with Adam's two moments,
          12 bytes each, and two bfloat16 copies to compute and to compare with), 21 GB for the gradient and
          its sum; the sampler's cache for 64 episodes, 25 GB, and the layers' inputs of a micro-batch of
          32, at most 14 GB; on each device one layer's parameters and activations come on top
Paper     Table 5, of three attempts (here two): Acc@t1 / Acc@t2 from 16.8 / 16.8 (base) to 23.0 / 24.0
Result    not run: no weights were at hand
"""

import ml_collections

from configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    del config.tokenizer, config.pretrain  # of a small model that is trained from nothing

    config.task = "score_jax.datasets.hendrycks_math:HendrycksMath"
    config.files = ml_collections.ConfigDict({"train": "", "validation": "", "test": ""})
    config.evaluate.files = ml_collections.ConfigDict({"test": ""})  # of another set, with evaluate.task
    config.model = quickstart.released("Gemma2_2B")
    config.mesh.data, config.mesh.fsdp = 1, -1
    config.slots.prompt = 2048
    config.slots.attempt = 768

    config.train_problems = 0  # all 12,000
    config.problems_per_step = 128
    config.samples_per_problem = 4  # 512 episodes in all, Table 8; how they are shared out is ours
    config.rollout_parts = 8
    config.micro_batches = 16  # of 8 problems each
    config.remat = True
    config.score_chunk = 64
    config.kl_estimator = "k1"
    config.decisive_only = False
    config.checkpoint_every = 500  # each is 31 GB, and all are kept; see keep_newest

    # Table 8 but for the share of the 3,000 updates that Stage I has, which the paper does not say.
    common = {"learning_rate": 5e-6, "hold": 1.0, "beta_1": 0.01}
    config.stage1 = quickstart.stage("stage_one", "stage_one", steps=1000, beta_2=0.1, **common)
    config.stage2 = quickstart.stage("stage_two", "stage_two", steps=2000, beta_2=0.0, alpha=10.0, **common)

    config.evaluate.batch = 64
    return config
