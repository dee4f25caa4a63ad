r"""Tables 1, 2, 4 and 5 and the figures of the paper on MATH, with Gemma 2 2B (App. A.1).

Command   python -m score_jax study --config=configs/study_math.py --workdir=DIR \
              --config.model.checkpoint=gemma2-2b-it --config.model.tokenizer=tokenizer_gemma2.model \
              --config.files.train=train.jsonl --config.files.test=test.jsonl
Hardware  as configs/math_gemma2_2b.py
Seeds     one, for its cost; --config.study.seeds=0,1,2 repeats the reinforcement learning, of one base model
Result    not run: no weights were at hand
"""

import ml_collections

from configs import math_gemma2_2b, study_quickstart
from configs.study_quickstart import measure


def get_config() -> ml_collections.ConfigDict:
    config = math_gemma2_2b.get_config()
    config.slots.critique = 256
    config.methods = study_quickstart.methods(  # Table 8 but for the updates of Stage I
        updates=3000,
        stage_one=1000,
        alpha=10.0,
        beta_1=0.01,
        beta_2=0.1,
        beta_2_later=0.0,
        scale_kl=False,
        imitation_rate=5e-6,
        learning_rate=5e-6,
        hold=1.0,
    )
    config.study = study_quickstart.plan()
    config.study.seeds = config.study.fast.seeds = (0,)
    config.study.pools, config.study.pool_rows = (), ()
    del config.study.measures.validation  # none of the published files is a validation split
    through = {"checkpoints": "every", "evaluate": {"problems": 256}}
    config.study.measures.edits.evaluate.problems = 500
    config.study.measures.own = measure("pair_sft", "score", **through)
    config.study.measures.fixed = measure("pair_sft", "score", given=True, **through)
    return config
