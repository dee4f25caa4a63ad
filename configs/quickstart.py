"""SCoRe on the embedded task, from nothing to a report.

Command   ./launch/quickstart.sh
          python -m score_jax train --config=configs/quickstart.py --workdir=runs/quickstart
Hardware  2 CPU cores
Time      9 min 17 s on 2 cores of an AMD EPYC, 3 min 25 s of them reinforcement learning; 2.4 GiB
          (12 min 32 s at a slow hour of the machine, 2026-11-28)
Result    test split, greedy, seed 0, 2026-11-28: Acc@t1 / Acc@t2 from 75.9 / 75.9 (base) to 75.0 / 82.4
          (Stage II); by earlier code 70.6 / 70.6 to 70.7 / 89.9, the mean of 3 seeds (configs/README.md)
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.seed = 0  # of the base model's training, the episodes and the batches
    config.task = "score_jax.datasets.number_riddles:NumberRiddles"
    config.files = ml_collections.ConfigDict()  # paths of the published files that the task reads; none here
    config.data_dir = ""  # where TensorFlow Datasets prepares its files; "" is its own default
    config.base_dir = ""  # where the base model lies; "" is WORKDIR/base

    config.tokenizer = ml_collections.ConfigDict()
    config.tokenizer.vocab_size = 320
    config.tokenizer.texts = 2000  # problems whose texts the tokenizer is trained on

    config.model = ml_collections.ConfigDict()  # a Gemma 3 of 460,608 parameters, pre-trained here
    config.model.name = "small"
    config.model.layers = 3
    config.model.width = 128
    config.model.hidden_width = 256
    config.model.heads = 4
    config.model.kv_heads = 1
    config.model.head_width = 32
    config.model.sliding_window = 32  # tokens
    config.model.dtype = "float32"

    config.slots = ml_collections.ConfigDict()  # tokens
    config.slots.prompt = 13
    config.slots.attempt = 13
    config.slots.critique = 0  # for a critique before each later attempt

    config.mesh = (
        ml_collections.ConfigDict()
    )  # devices of each axis, see score_jax.mesh; -1 takes all that the others leave
    config.mesh.data = -1  # copies of the model, each with its share of the rows
    config.mesh.fsdp = 1  # over which parameters are cut, and rows spread, too
    config.mesh.tensor = 1  # over which the work on each row is cut

    # The base model: supervised, on imperfect two-attempt demonstrations of all training problems.
    config.pretrain = ml_collections.ConfigDict()
    config.pretrain.batch = 64
    config.pretrain.warmup = 0.05  # of a phase, before the learning rate falls by a cosine
    config.pretrain.clip_norm = 1.0
    config.pretrain.b2 = 0.98
    config.pretrain.weight_decay = 0.01
    config.pretrain.phases = ("guess", "correct")
    config.pretrain.guess = phase(steps=1800, attempts=1, learning_rate=2e-3, unlearned=0.85)
    config.pretrain.correct = phase(steps=1000, attempts=2, learning_rate=1.5e-3, unlearned=0.85)

    # Reinforcement learning.
    config.train_problems = 384  # a fixed pool: with few problems the methods come apart; 0 is all
    config.problems_per_step = 64
    config.samples_per_problem = 4
    config.offline_attempts = 4  # the base's first attempts per problem that stages with offline > 0 give
    config.rollout_parts = 1  # in which episodes are sampled one after the other; one is graded meanwhile
    config.micro_batches = 8  # over which the gradient of a step is accumulated: small ones stay in the cache
    config.remat = False  # compute each layer anew in the backward pass: less memory, more time
    config.score_chunk = 64  # positions whose vocabulary-wide scores are held at a time; here all of them
    config.temperature = 1.0  # Table 8
    config.kl_estimator = "full"  # of score_jax.kl; over so small a vocabulary the exact KL costs little
    config.decisive_only = True  # no policy gradient on the check that follows the answer
    config.lora_rank = 0  # of the adapters that are trained; 0 trains all parameters
    config.train_dtype = "float32"  # of the trained parameters and of Adam's moments
    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.clip_norm = 1.0
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.0
    config.checkpoint_every = 20  # updates
    config.max_skipped = 5  # updates in a row whose loss or gradient is NaN or infinite, then the run stops
    # Figures of what happens through training evaluate all checkpoints, after it: none goes unless asked.
    config.keep_newest = 0  # checkpoints that are kept; 0 is all; the last of every stage always is
    config.keep_best = 1  # of every stage, by training reward, that are kept besides

    config.stages = ("stage1", "stage2")
    config.stage1 = stage("stage_one", "stage_one", steps=60, beta_1=0.01, beta_2=0.54)
    config.stage2 = stage(
        "stage_two", "stage_two", steps=160, alpha=5.0, beta_1=0.02, beta_2=0.53, scale_kl=True
    )

    config.evaluate = ml_collections.ConfigDict()
    config.evaluate.task = ""  # another task to evaluate on; "" is config.task
    config.evaluate.files = ml_collections.ConfigDict()  # its files; of the same task those that differ
    config.evaluate.split = "test"
    config.evaluate.problems = 0  # how many; 0 is all
    config.evaluate.attempts = 2
    config.evaluate.critique = False  # ask for a critique before each later attempt
    config.evaluate.batch = 352
    config.evaluate.temperature = 0.0  # greedy, as in the paper

    # Alarms, see score_jax.alarms: in the console, in metrics.jsonl and on the page. They stop nothing.
    config.alarms = ml_collections.ConfigDict()
    config.alarms.window = 10  # updates of a stage over whose mean they are judged
    config.alarms.kl_max = 50.0  # of an attempt to the reference, nats
    config.alarms.entropy_min = 0.001  # nats per token
    config.alarms.entropy_max = 4.0  # nats per token
    config.alarms.length_growth = 3.0  # times an attempt's mean length in the stage's first updates
    config.alarms.cut_off_max = 0.5  # share of attempts that end with their slot
    config.alarms.unparsed_max = 0.5  # share of attempts without a readable answer
    config.alarms.changed_min = 0.01  # share of last answers that differ from the first

    config.log = ml_collections.ConfigDict()
    config.log.every = 10  # updates between two lines of progress
    config.log.transcript_every = 50  # updates between two printed episodes
    config.log.wandb = ""  # a Weights & Biases project that gets the numbers, too; needs the wandb package
    return config


def released(name: str, *, dtype: str = "bfloat16", chat: bool = True) -> ml_collections.ConfigDict:
    """A model of the gemma package, in place of a small one that is pre-trained here."""
    return ml_collections.ConfigDict(
        {
            "name": name,  # the class in gm.nn, or 'package.module:Class'
            "checkpoint": "",  # folder of an official checkpoint, a bucket's address or a local path
            "tokenizer": "",  # the SentencePiece file of its version
            "chat": chat,  # prompts are turns of a chat; False: text to be continued
            "dtype": dtype,  # of computation and of parameters that are not trained
        }
    )


def phase(
    *, steps: int, attempts: int, learning_rate: float, unlearned: float, critiques: float = 0.0
) -> ml_collections.ConfigDict:
    """One phase of pre-training."""
    return ml_collections.ConfigDict(
        {
            "steps": steps,
            "attempts": attempts,  # of each demonstration that are shown
            "learning_rate": learning_rate,
            "unlearned": unlearned,  # share of wrong first answers whose own tokens carry no loss
            "critiques": critiques,  # share of demonstrations with a critique before each later attempt
        }
    )


def stage(
    name: str,
    objective: str,
    *,
    steps: int,
    beta_1: float,
    beta_2: float,
    alpha: float = 0.0,
    scale_kl: bool = False,
    adapt_beta_2: float = 0.0,
    attempts: int = 2,
    samples_factor: int = 1,
    critique: bool = False,
    offline: float = 0.0,
    discount: float = 0.0,
    reference: str = "base",
    learning_rate: float = 3e-4,
    hold: float = 0.5,
    start: str = "previous",
) -> ml_collections.ConfigDict:
    """One stage of reinforcement learning."""
    return ml_collections.ConfigDict(
        {
            "name": name,  # in checkpoints and results
            "objective": objective,  # stage_one (Eq. 3) | stage_two (Eq. 4) | multi_turn (Eq. 1, 2) | unified
            "steps": steps,  # updates
            "attempts": attempts,
            "samples_factor": samples_factor,  # times samples_per_problem
            "critique": critique,  # critiques before later attempts are sampled and trained
            "offline": offline,  # share of a step's problems whose first attempt is one of the base's, given
            "alpha": alpha,  # bonus on progress, stage_two alone; Table 8: 10
            "beta_1": beta_1,  # KL on every attempt, nats; Table 8: 0.01
            "beta_2": beta_2,  # more KL on all attempts but the last; Table 8: 0.1, in Stage I alone
            "adapt_beta_2": adapt_beta_2,  # size of that KL term, by the last attempt's policy term; 0: fixed
            "scale_kl": scale_kl,  # scale beta_1 by (1 + alpha) along with the bonus
            "discount": discount,  # gamma, App. A.4
            "learning_rate": learning_rate,
            "warmup_steps": 10,
            "hold": hold,  # of the stage's steps before the learning rate falls linearly to 0
            "reference": reference,  # of the KL: base, or the name of an earlier stage
            "start": start,  # where its updates begin: previous (the stage before, or the base) | base
        }
    )


def supervised(
    name: str,
    objective: str,
    *,
    steps: int,
    keep_right: bool = False,
    start: str = "previous",
    samples_factor: int = 1,
    learning_rate: float = 3e-4,
    hold: float = 0.5,
) -> ml_collections.ConfigDict:
    """One stage of supervised fine-tuning on the run's own samples, score_jax.traces."""
    return ml_collections.ConfigDict(
        {
            "name": name,  # in checkpoints and results
            "objective": objective,  # star | pair_sft
            "steps": steps,  # updates, and batches of samples before them
            "attempts": 2,  # of the samples
            "samples_factor": samples_factor,  # times samples_per_problem
            "keep_right": keep_right,  # right -> right examples, too: D+ of Table 1
            "learning_rate": learning_rate,
            "warmup_steps": 10,
            "hold": hold,  # of the stage's steps before the learning rate falls linearly to 0
            "start": start,  # where its updates begin: previous | base; the stage before always samples
        }
    )


def unified(
    name: str, between: tuple[str, str], *, steps: int, ramp: tuple[float, float], **fields
) -> ml_collections.ConfigDict:
    """Stages I and II in one run: an objective that goes from one section's numbers to another's."""
    config = stage(name, "unified", steps=steps, beta_1=0.0, beta_2=0.0, **fields)
    config.between = between  # sections of this config; they need not stand in config.stages
    config.ramp = ramp  # shares of the steps between which the numbers change, linearly
    return config
