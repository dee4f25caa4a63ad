r"""Table 3 of the paper with Gemma 3 4B: trained on MBPP, tested on HumanEval, and on MBPP-R's repairs.

Command   python -m score_jax study --config=configs/study_code.py --workdir=DIR \
              --config.model.checkpoint=gemma3-4b-it --config.model.tokenizer=tokenizer_gemma3.model \
              --config.files.mbpp=mbpp.jsonl --config.evaluate.files.human_eval=HumanEval.jsonl.gz \
              --config.study.measures.repair.evaluate.files.mbpp=mbpp.jsonl \
              --config.study.measures.repair.evaluate.files.programs=wrong_programs.jsonl
Hardware  as configs/code_gemma3_4b.py
Seeds     one, for its cost; --config.study.seeds=0,1,2 repeats the reinforcement learning, of one base model
Result    not run: no weights were at hand
"""

import ml_collections

from configs import code_gemma3_4b, study_quickstart
from configs.study_quickstart import measure


def get_config() -> ml_collections.ConfigDict:
    config = code_gemma3_4b.get_config()
    config.slots.critique = 256
    config.methods = study_quickstart.methods(  # Table 8 but for the learning rate and the updates of Stage I
        updates=1500,
        stage_one=500,
        alpha=10.0,
        beta_1=0.01,
        beta_2=0.25,
        beta_2_later=0.0,
        scale_kl=False,
        imitation_rate=1e-4,
        learning_rate=1e-4,
        hold=1.0,
    )
    config.study = study_quickstart.plan()
    config.study.seeds = config.study.fast.seeds = (0,)
    config.study.pools, config.study.pool_rows = (), ()
    config.study.rows = ("base", "self_refine", "pair_sft", "score")
    config.study.fast.rows = ("base", "score")
    config.study.tables = ml_collections.ConfigDict({"table3": ("base", "self_refine", "pair_sft", "score")})
    config.study.measures = ml_collections.ConfigDict()
    config.study.measures.repair = measure(  # the given attempt is the first, so that one is sampled
        *config.study.rows,
        evaluate={
            "task": "score_jax.datasets.mbpp_r:MBPPR",
            "files": {"mbpp": "", "programs": ""},
            "attempts": 1,
        },
    )
    return config
