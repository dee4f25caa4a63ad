r"""An RL step's shapes for `benchmark`, with random parameters; no training.

Command   python -m score_jax benchmark --config=configs/benchmark.py:tiny   # or :mid, :gemma3_1b
Hardware  tiny and mid: one CPU core; gemma3_1b: one GPU of 80 GB
Result    the README's table, under Performance
"""

import ml_collections

from configs import gsm8k_gemma3_1b, quickstart


def get_config(shape: str = "tiny") -> ml_collections.ConfigDict:
    shapes = {"tiny": tiny, "mid": mid, "gemma3_1b": gemma3_1b}
    if shape not in shapes:
        raise ValueError(f"configs/benchmark.py:{shape}: there are {', '.join(shapes)}")
    return shapes[shape]()


def tiny() -> ml_collections.ConfigDict:
    """4 layers of width 256: 64 episodes of 32 + 64 + 16 + 64 tokens, the instruction's 16 among them."""
    config = quickstart.get_config()
    config.stages = ("stage2",)
    config.tokenizer.vocab_size = 512
    config.model.layers = 4
    config.model.width = 256
    config.model.hidden_width = 1024
    config.model.head_width = 64
    config.model.sliding_window = 512  # more than a transcript has
    config.slots.prompt = 32
    config.slots.attempt = 64
    config.problems_per_step = 16
    config.micro_batches = 16  # 8: an update of full slots takes 2% longer, of quarters 8%
    return config


def mid() -> ml_collections.ConfigDict:
    """8 layers of width 512."""
    config = tiny()
    config.tokenizer.vocab_size = 4096
    config.model.layers = 8
    config.model.width = 512
    config.model.hidden_width = 2048
    config.model.heads = 8
    return config


def gemma3_1b() -> ml_collections.ConfigDict:
    """Gemma 3 1B in bfloat16, trained as a whole: 64 episodes, slots of 512 tokens."""
    config = gsm8k_gemma3_1b.get_config()
    config.stages = ("stage2",)
    config.slots.prompt = 512
    config.slots.attempt = 512
    config.problems_per_step = 16
    config.micro_batches = 16  # of 4 episodes each: what the layers leave for the backward pass fits
    config.remat = False
    return config
